"""The command line. Each command is a module, imported when it is asked for."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Final

import click

from .._model.exceptions import BindError, CaptureFileError, StrepError
from .._version import __version__
from .exit_codes import EXIT_BIND, EXIT_FILE, EXIT_USAGE

__all__ = ["cli", "main"]

_EPILOG: Final = """\b
Exit codes: 0 fine · 1 a bug of ours · 2 wrong usage · 3 an input file cannot be used · 4 a port cannot be bound
5 the API refused or could not be reached
6 a sink failed (audio is missing from the files; the summary says how much) · 7 doctor found something that fails
8 bench found an answer that is wrong
"""

_COMMANDS: Final = {
    "bench": ("bench", "Measure what this machine carries, and check every answer."),
    "calls": ("calls", "Find recorded calls, and those that live; the latest first."),
    "catalogue": ("calls", "Look after the catalogue of recordings."),
    "capture": ("capture", "Receive forked media until interrupted; write WAV files and summary.json to --out."),
    "demo": ("demo", "Fork a few simulated calls over loopback, with some loss and reordering, and record them."),
    "doctor": ("doctor", "Check port, buffers, system calls, clock and disk."),
    "fork": ("fork", "Start and stop forking a call's media."),
    "hush": ("audio", "End what is spoken or played to the party of a call."),
    "inspect": ("replay", "Show the streams in a capture FILE with loss and jitter."),
    "listen": (
        "listen",
        "Record streams that other machines publish to NATS; write WAV files and summary.json to --out.",
    ),
    "play": ("audio", "Play the WAV or MP3 file at URL to the party of a call."),
    "plot": (
        "plot",
        "Draw each call leg of a capture DIR: waveforms, spectrograms, losses, talk, keys, MOS.",
    ),
    "repair": ("repair", "Mend WAV files of strep below DIR that were left unfinished: their headers, their names."),
    "replay": (
        "replay",
        "Run a capture FILE through the receiver, as fast as it goes; write WAV files and summary.json to --out.",
    ),
    "report": (
        "report",
        "Write a capture DIR as one HTML file: players, waveforms, spectrograms, losses, talk, keys, MOS.",
    ),
    "serve": (
        "serve",
        "Take webhooks, fork each call to this machine, record it, and close its files when it is hung up.",
    ),
    "show": (
        "calls",
        "Show all that is known of CALL: its id, or the call_leg_id or call_control_id of one of its legs.",
    ),
    "simulate": (
        "simulate",
        "Fork simulated two-way calls to a receiver, in real time, with trouble on the way if asked for.",
    ),
    "speak": ("audio", "Say TEXT to the party of a call."),
    "unwrap": (
        "unwrap",
        "Take the STREP headers off the datagrams of capture IN, so that every tool for RTP reads OUT (pcapng).",
    ),
    "wireshark": ("wireshark", "Wireshark's and tshark's dissector for STREP: where it is, and where it goes."),
}
"""By command: its module, and the first sentence of its help, so that ``strep --help`` imports none of them."""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, context: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f".{_COMMANDS[cmd_name][0]}", __name__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - 6 - max(map(len, _COMMANDS))  # as click has it
        rows = [
            (name, click.Command(name, help=sentence).get_short_help_str(width))
            for name, (_, sentence) in sorted(_COMMANDS.items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STREP"},
)
@click.version_option(__version__, prog_name="strep")
def cli() -> None:
    """Receive forked call media (STREP and plain RTP) and record, replay, inspect, simulate or measure it."""


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
        from .words import in_options

        code, text = EXIT_USAGE, in_options(str(error))
    click.echo(f"strep: {text}", err=True)
    sys.exit(code)
