"""Options that several commands share, and what they become."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console

from .._codecs import PayloadTypes
from .._exceptions import ConfigurationError
from .._types import Codec
from ..sinks import WavSink

__all__ = [
    "EXIT_BIND",
    "EXIT_DOCTOR",
    "EXIT_FILE",
    "EXIT_SINK",
    "EXIT_USAGE",
    "EXIT_WRONG",
    "check_writable",
    "console",
    "output_options",
    "payload_types",
    "run_async",
    "sink_failed",
    "source_options",
    "wav_options",
    "wav_sink",
]

EXIT_USAGE: Final = 2
EXIT_FILE: Final = 3
EXIT_BIND: Final = 4
EXIT_SINK: Final = 6
EXIT_DOCTOR: Final = 7
EXIT_WRONG: Final = 8

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


def console(*, stderr: bool = True) -> Console:
    """Everything human goes to stderr, but results; rich heeds NO_COLOR and whether that is a terminal."""
    return Console(stderr=stderr, highlight=False)


def output_options(function: _F) -> _F:
    """How what was received is written."""
    for option in reversed(
        (
            click.option("--layout", type=click.Choice(["split", "stereo", "session"]), default="split",
                         show_default=True,
                         help="One file per direction; or one per call leg: inbound left, outbound right; or one "
                         "per --session, each leg's inbound and outbound."),
            click.option("--session", "sessions", multiple=True, metavar="NAME=UUID,UUID",
                         help="The call legs of a session, in the order of their channels (repeat)."),
            click.option("--no-drift-correction", is_flag=True,
                         help="Leave stereo and session files to the clocks of who sent them."),
            click.option("--encoding", type=click.Choice(["pcm16", "native"]), default="pcm16", show_default=True,
                         help="16-bit PCM, or the G.711 bytes as they came."),
            click.option("--rate", type=click.IntRange(4000, 192_000), metavar="R",
                         help="Resample to R Hz (default: the codec's own rate)."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def source_options(function: _F) -> _F:
    """What is taken for a stream."""
    for option in reversed(
        (
            click.option("--call-leg-id", metavar="UUID", help="Name of the call leg on the rx/tx ports."),
            click.option("--latency", type=click.FloatRange(0, 800), default=200.0, show_default=True, metavar="MS",
                         help="How long a missing packet is waited for."),
            click.option("--allow", multiple=True, metavar="CIDR", help="Network that may send (repeat; default all)."),
            click.option("--call-leg", multiple=True, metavar="UUID", help="Call leg to admit (repeat; default all)."),
            click.option("--pt", multiple=True, metavar="N=NAME/RATE",
                         help="A dynamic payload type, like 96=L16/16000 (repeat)."),
            click.option("--max-streams", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True,
                         metavar="N", help="Streams beyond this are refused, the newest first."),
            click.option("--idle-timeout", type=click.FloatRange(1), default=60.0, show_default=True, metavar="S",
                         help="A stream that is silent this long has ended."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def payload_types(pairs: tuple[str, ...]) -> dict[int, str | Codec]:
    return dict(PayloadTypes.parse_option(pair) for pair in pairs)


def wav_options(
    layout: str, encoding: str, rate: int | None, sessions: tuple[str, ...], no_drift_correction: bool
) -> dict[str, Any]:
    """What :func:`output_options` say, as WavSink's arguments. Raises ConfigurationError."""
    return {
        "layout": layout,
        "encoding": encoding,
        "rate": rate,
        "sessions": _sessions(sessions) if sessions or layout == "session" else None,
        "drift_correction": not no_drift_correction,
    }


def _sessions(texts: tuple[str, ...]) -> dict[uuid.UUID, str]:
    """NAME=UUID,UUID ..."""
    if not texts:
        raise ConfigurationError("--layout session: say which call legs are one session, with --session NAME=UUID,UUID")
    found: dict[uuid.UUID, str] = {}
    for text in texts:
        name, _, ids = text.partition("=")
        for each in filter(None, ids.split(",")) if name else ():
            try:
                leg = uuid.UUID(each.strip())
            except ValueError as error:
                raise ConfigurationError(f"--session {text}: {each!r} is no call_leg_id") from error
            if found.setdefault(leg, name) != name:
                raise ConfigurationError(f"--session {text}: {leg} is in session {found[leg]!r} already")
        if name not in found.values():
            raise ConfigurationError(f"--session {text}: give a name and call_leg_ids, like NAME=UUID,UUID")
    return found


def wav_sink(out: Path, options: dict[str, Any]) -> WavSink:
    """``options`` are of :func:`wav_options`. Raises ConfigurationError for a directory that cannot be written."""
    check_writable(out)
    return WavSink(out, **options)


def check_writable(out: Path) -> None:
    """Raises ConfigurationError for a directory that cannot be made or written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".strep-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(f"--out {out}: {error.strerror}; choose a directory that can be written") from error


def sink_failed(reports: list[dict[str, Any]]) -> bool:
    """Whether data was lost on the way into a sink."""
    lost = ("dropped_frames", "dropped_datagrams", "refused_streams")
    return any(r.get("failed") or any(r.get(key) for key in lost) for r in reports)


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
