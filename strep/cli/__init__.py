"""The command line."""

from __future__ import annotations

import logging
import sys

import click

from .._model.exceptions import BindError, CaptureFileError, StrepError
from .._version import __version__
from .bench import bench
from .capture import capture
from .demo import demo
from .doctor import doctor
from .fork import fork
from .options import EXIT_BIND, EXIT_FILE, EXIT_USAGE
from .plot import plot
from .repair import repair
from .replay import inspect, replay
from .serve import serve
from .simulate import simulate
from .unwrap import unwrap
from .wireshark import wireshark

__all__ = ["cli", "main"]

_EPILOG = """\b
Exit codes: 0 fine · 1 a bug of ours · 2 wrong usage · 3 an input file cannot be used · 4 a port cannot be bound
5 the API refused or could not be reached
6 a sink failed (audio is missing from the files; the summary says how much) · 7 doctor found something that fails
8 bench found an answer that is wrong
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="strep")
def cli() -> None:
    """Receive forked call media (STREP and plain RTP) and record, replay, inspect, simulate or measure it."""


for _command in (capture, serve, replay, inspect, unwrap, wireshark, plot, repair, simulate, demo, doctor, fork, bench):
    cli.add_command(_command)


class _StderrHandler(logging.Handler):
    """Warnings, a line each, on what is stderr at the time: a live table moves out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def main() -> None:
    """Entry point: our own errors are one line and an exit code, not a traceback."""
    logging.basicConfig(format="strep: %(message)s", handlers=[_StderrHandler()])
    try:
        cli()
    except BindError as error:
        code = EXIT_BIND
        text = error.strerror or str(error)
    except CaptureFileError as error:
        code, text = EXIT_FILE, str(error)
    except StrepError as error:
        code, text = EXIT_USAGE, str(error)
    click.echo(f"strep: {text}", err=True)
    sys.exit(code)
