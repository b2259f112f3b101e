"""Options of files and analyzers, and the sinks that are made of them.

Each worker makes its own sinks, so options can be pickled, and this module imports nothing that draws tables.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from .._model.exceptions import ConfigurationError
from .._model.types import StreamInfo
from ..resample import prepare
from ..sinks import (
    DtmfDetector,
    LevelMeter,
    MutedSink,
    NatsSink,
    QualityMeter,
    Sink,
    Spectrum,
    SpeechMeter,
    ToneDetector,
    WavSink,
)
from .options import decorated, redact_option

__all__ = ["ANALYZERS", "Output", "nats_options", "output_options"]

ANALYZERS: Final = ("level", "speech", "dtmf", "tones", "quality", "spectrum")


@decorated
def output_options() -> list[Any]:
    """How audio is written, and what analyzers look for in it."""
    return [
        click.option("--layout", type=click.Choice(["split", "stereo", "session"]), default="split", show_default=True,
                     help="One file per direction; or one per call leg: inbound left, outbound right; or one per "
                     "--session, each leg's inbound and outbound."),
        click.option("--session", multiple=True, metavar="NAME=UUID,UUID",
                     help="The call legs of a session, in the order of their channels (repeat)."),
        click.option("--no-drift-correction", is_flag=True,
                     help="Leave stereo and session files to the clocks of who sent them."),
        click.option("--encoding", type=click.Choice(["pcm16", "native"]), default="pcm16", show_default=True,
                     help="16-bit PCM, or the G.711 bytes as they came."),
        click.option("--rate", type=click.IntRange(4000, 192_000), metavar="R",
                     help="Resample to R Hz (default: the codec's own rate)."),
        click.option("--conceal", is_flag=True, help="Fill short gaps for the ear (default: gaps are silent)."),
        click.option("--mute-keys", is_flag=True,
                     help="Silence instead of DTMF tones in files: no card numbers, no PINs."),
        click.option("--shortest", type=click.FloatRange(0, 60), default=0.5, show_default=True, metavar="S",
                     help="A stream that falls silent before it has lasted this long gets no file."),
        click.option("--analyze", metavar="LIST", default="",
                     help=f"What to look for: {', '.join(ANALYZERS)}, or all. Told by --json, kept in summary.json."),
        click.option("--vad", type=click.Choice(["energy", "silero"]), default="energy", show_default=True,
                     help="How speech is told from noise (silero: the extra vad, see `strep doctor`)."),
        redact_option(),
        click.option("--umask", metavar="OCTAL", callback=_set_umask,
                     help="Of all that is written, like 027 (default: the process's; WAV files are 0640 less it)."),
    ]  # fmt: skip


@decorated
def nats_options() -> list[Any]:
    """Whether streams are published for other machines."""
    return [
        click.option("--nats", metavar="URL",
                     help="Publish all streams to this NATS server (JetStream), like nats://127.0.0.1:4222, for `strep "
                     "listen` on other machines. Several with commas."),
        click.option("--nats-subject", metavar="NAME", default="strep", show_default=True,
                     help="Subject, and stream, that they are published to."),
        click.option("--nats-payload", type=click.Choice(["native", "pcm16"]), default="native", show_default=True,
                     help="Bytes as they came where that is enough (G.711, L16), or 16-bit PCM of all."),
    ]  # fmt: skip


def _set_umask(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Takes effect at once, for the whole process and its workers."""
    if text is None:
        return None
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise click.BadParameter(f"{text!r} is none: give one like 027", ctx=context, param=option)
    os.umask(mask)
    return mask


@dataclass(frozen=True)
class Output:
    """The values of :func:`output_options`. Raises ConfigurationError for unknown analyzers, and for wrong sessions."""

    layout: Any
    session: tuple[str, ...]
    no_drift_correction: bool
    encoding: Any
    rate: int | None
    conceal: bool
    mute_keys: bool
    shortest: float
    analyze: str
    vad: Any
    redact: bool
    umask: int | None = None
    nats: str | None = None
    nats_subject: str = "strep"
    nats_payload: Any = "native"
    # no options: commands give them that know sessions from elsewhere, and share out file descriptors
    session_of: Callable[[StreamInfo], str | None] | None = None
    max_open_files: int | None = None

    def __post_init__(self) -> None:
        _ = self.analyzers, self.sessions  # they raise now rather than in a worker

    @property
    def analyzers(self) -> list[str]:
        wanted = [name.strip() for name in self.analyze.split(",") if name.strip()]
        if wanted == ["all"]:
            return list(ANALYZERS)
        unknown = sorted(set(wanted) - set(ANALYZERS))
        if unknown:
            raise ConfigurationError(f"--analyze {', '.join(unknown)}: choose of {', '.join(ANALYZERS)}, or all")
        return wanted

    @property
    def sessions(self) -> Mapping[uuid.UUID, str] | Callable[[StreamInfo], str | None] | None:
        """Session names by call_leg_id, or a function that knows them; None: there are no sessions."""
        if self.session_of is not None:
            return self.session_of if self.layout == "session" else None
        return _sessions(self.session) if self.session or self.layout == "session" else None

    def warm_up(self) -> None:
        """Import what the first block would import."""
        if self.rate is not None or self.layout != "split" or self.analyze:
            prepare()

    def wav(self, directory: Path) -> WavSink:
        return WavSink(
            directory,
            layout=self.layout,
            encoding=self.encoding,
            rate=self.rate,
            sessions=self.sessions,
            drift_correction=not self.no_drift_correction,
            conceal=self.conceal,
            mute_keys=self.mute_keys,
            shortest_s=self.shortest,
            max_open_files=self.max_open_files,
            **({} if self.umask is None else {"file_mode": 0o666, "directory_mode": 0o777}),  # the umask alone decides
        )

    def sinks(self, directory: Path | None) -> list[Sink]:
        """The sink of files, if there is a directory for them, that of NATS if there is a server, and the analyzers."""
        made: list[Sink] = [] if directory is None else [self.wav(directory)]
        if self.nats is not None:
            made.append(NatsSink(self.nats, self.nats_subject, payload=self.nats_payload))
        makers: dict[str, Any] = {
            "level": LevelMeter,
            "dtmf": lambda: DtmfDetector(redact=self.redact),
            "speech": lambda: SpeechMeter(vad=self.vad),
            "tones": ToneDetector,
            "quality": QualityMeter,
            "spectrum": lambda: Spectrum(seconds=0),
        }
        analyzers: dict[str, Any] = {name: makers[name]() for name in self.analyzers}
        if "dtmf" in analyzers:
            # the statistics of speech are of audio without the keys
            of_speech = [analyzers.pop(name) for name in ("level", "speech", "spectrum") if name in analyzers]
            made += [MutedSink(of_speech, analyzers.pop("dtmf"))] if of_speech else []
        return made + list(analyzers.values())


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
