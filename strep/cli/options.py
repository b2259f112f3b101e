"""Options that several commands share, and what they become."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from .._codecs.payload_types import PayloadTypes
from .._engine.sources.pinning import PIN_MODES
from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from .._receiver.summary import write_summary
from ._decorate import decorated

__all__ = [
    "EXIT_API",
    "EXIT_BIND",
    "EXIT_DOCTOR",
    "EXIT_FILE",
    "EXIT_SINK",
    "EXIT_USAGE",
    "EXIT_WRONG",
    "check_writable",
    "console",
    "drain_option",
    "http_address",
    "keep_summary",
    "leg_options",
    "payload_types",
    "run_async",
    "sink_failed",
    "source_arguments",
    "source_options",
    "stop_on_signals",
]

EXIT_USAGE: Final = 2
EXIT_FILE: Final = 3
EXIT_BIND: Final = 4
EXIT_API: Final = 5
EXIT_SINK: Final = 6
EXIT_DOCTOR: Final = 7
EXIT_WRONG: Final = 8

_TWICE_S: Final = 0.1  # shells and those who wrap commands pass on a Ctrl-C that the terminal has sent too

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


def console(*, stderr: bool = True) -> Console:
    """Everything human goes to stderr, but results; rich heeds NO_COLOR and whether that is a terminal."""
    return Console(stderr=stderr, highlight=False)


@decorated
def leg_options() -> list[Any]:
    """Which call legs there are, for those whom no webhooks tell."""
    return [
        click.option("--call-leg-id", metavar="UUID", help="Name of the call leg on the rx/tx ports."),
        click.option("--call-leg", multiple=True, metavar="UUID", help="Call leg to admit (repeat; default all)."),
    ]


@decorated
def source_options() -> list[Any]:
    """What is taken for a stream."""
    return [
        click.option("--latency", type=click.FloatRange(0, 800), default=200.0, show_default=True, metavar="MS",
                     help="How long a missing packet is waited for."),
        click.option("--allow", multiple=True, metavar="CIDR", help="Network that may send (repeat; default all)."),
        click.option("--pt", multiple=True, metavar="N=NAME/RATE",
                     help="A dynamic payload type, like 96=opus/48000/2 or 97=telephone-event (repeat)."),
        click.option("--max-streams", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True,
                     metavar="N", help="Streams beyond this are refused, the newest first."),
        click.option("--idle-timeout", type=click.FloatRange(1), default=60.0, show_default=True, metavar="S",
                     help="A stream that is silent this long has ended."),
        click.option("--pin", type=click.Choice(PIN_MODES), default="address", show_default=True,
                     help="What a stream is pinned to: the address and port it first came from, or their network."),
    ]  # fmt: skip


def drain_option() -> Callable[[_F], _F]:
    """How long the end may take, for those who receive."""
    return click.option(
        "--drain",
        "drain_s",
        type=click.FloatRange(0, 3600),
        default=0.0,
        show_default=True,
        metavar="S",
        help="How much longer than 2 s the end may take, to finish what has come before it.",
    )


def source_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """What a command's :func:`source_options`, and :func:`leg_options` where it has them, are to Receiver and replay;
    takes them out."""
    arguments = {
        "latency_ms": options.pop("latency"),
        "payload_types": payload_types(options.pop("pt")),
        "allow": options.pop("allow"),
        "max_streams": options.pop("max_streams"),
        "idle_timeout_s": options.pop("idle_timeout"),
        "pin": options.pop("pin"),
    }
    if "call_leg" in options:
        arguments |= {"call_leg_id": options.pop("call_leg_id"), "call_legs": options.pop("call_leg") or None}
    return arguments


def payload_types(pairs: tuple[str, ...]) -> dict[int, str | Codec]:
    return dict(PayloadTypes.parse_option(pair) for pair in pairs)


def http_address(option: str, text: str) -> tuple[str, int]:
    """HOST and PORT of where HTTP is to be served. Raises ConfigurationError."""
    host, colon, port = text.removeprefix("http://").rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError(f"{option} {text!r}: write HOST:PORT, like 127.0.0.1:8080 (port 0: any free one)")
    return host.strip("[]") or "127.0.0.1", int(port)


def check_writable(out: Path) -> None:
    """Raises ConfigurationError for a directory that cannot be made or written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".strep-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}; choose a directory that can be written") from error


def keep_summary(err: Console, out: Path, summary: dict[str, Any]) -> Path | None:
    """Write summary.json; None: it cannot be, and that is said. The disk may be full, which is no reason to be silent
    about everything else."""
    try:
        return write_summary(out, summary)
    except OSError as error:
        err.print(f"[red]summary.json cannot be written: {error}[/]", soft_wrap=True)
        return None


def sink_failed(reports: list[dict[str, Any]]) -> bool:
    """Whether data was lost on the way into a sink."""
    lost = ("dropped_frames", "dropped_datagrams", "refused_streams")
    return any(r.get("failed") or any(r.get(key) for key in lost) for r in reports)


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set, for the running loop. A second one ends the process at once, whatever it
    does: files stay as they are (valid, as ….part), and there is no summary."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def hear() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
        first_s = time.monotonic()

        def end(number: int, frame: object) -> None:
            if time.monotonic() - first_s > _TWICE_S:
                os.write(2, b"ended at once: what is open stays as it is\n")
                os._exit(128 + number)

        for number in numbers:
            signal.signal(number, end)  # not the loop's: it may be busy

    for number in numbers:
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels the run instead
            loop.add_signal_handler(number, hear)
    return stop


def run_async(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run on uvloop where there is one."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            pass
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
