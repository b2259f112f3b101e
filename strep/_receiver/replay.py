"""Recorded datagrams through the same engine and sinks, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Final, Unpack

from .._delivery.dispatcher import Dispatcher
from .._delivery.ordered_work import OrderedWork
from .._edge.pcap import PcapReader
from .._engine.engine import Engine
from .._engine.release import Release
from .._engine.sources.port_keys import PortRole
from .._model.events import Event
from .._model.report import StreamReport, Totals, summary_of
from ..sinks.base import Sink, as_sink
from .bindings import bindings_of
from .settings import LATENCY_MS, ReplayOptions, Settings, shows_settings

__all__ = ["Replay", "replay", "replay_with"]

_CLOSING_S: Final = 60.0  # for all sinks to finish their files


class Replay:
    """What a replay found: the same figures in the same form as a live :class:`strep.Receiver`."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, capture: Mapping[str, Any]) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self.capture = capture
        """Of the file: ``frames`` and ``datagrams``; ``skipped`` frames by cause; ``encapsulated``, what the others
        were packed into; how many datagrams were ``joined`` of fragments, ``cut`` when they were captured, ``sorted``
        because they stood behind later ones, ``retimed`` because their times did not fit between those of their
        neighbours, or ``untimed``: the file tells no times."""

    def totals(self) -> Totals:
        """What became of every datagram of the file."""
        totals = self._engine.totals()
        totals.faults = self._dispatcher.incidents.faults()
        return totals

    def reports(self) -> list[StreamReport]:
        """Figures of all streams, in order of admission."""
        reports = sorted(self._dispatcher.ended, key=lambda r: r.stream.serial)
        if 0 < self.capture["datagrams"] == self.capture["untimed"]:
            for report in reports:
                report.timed = False
        return reports

    def sink_reports(self) -> list[dict[str, Any]]:
        """What each sink says of itself."""
        return self._dispatcher.reports()

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds; ``capture`` too where there is anything to say of the file."""
        found = self._dispatcher
        summary = summary_of(self.totals(), self.reports(), found.files, self.sink_reports(), [], found.figures)
        if any(count for name, count in self.capture.items() if name not in ("frames", "datagrams")):
            summary["capture"] = dict(self.capture)
        return summary


@shows_settings("replay")
def replay(
    path: str | PathLike[str],
    *,
    sinks: Sequence[Sink] = (),
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[ReplayOptions],
) -> Replay:
    """Run a capture file through engine and sinks, as fast as it goes.

    STREP is told by its header. Plain RTP makes a stream per address pair, port and SSRC, unless ``rx`` and ``tx`` say
    which direction a port is; files that ``Receiver(pcap=...)`` recorded say it themselves. A slow sink holds the
    replay up and loses nothing, but at the end sinks have 60 s: what a WAV sink has not written then counts as dropped.

    ``path``            the file: pcap, pcapng, rtpdump or mjr (Janus) is detected; gzip, zstd, lz4 or a pipe of one;
                        "-" is standard input.
    ``sinks``           as of :class:`strep.Receiver`.
    ``rx``, ``tx``      ports of plain RTP, inbound and outbound: 5004, "5004" or "ADDR:5004"; both may be the same.
    ``call_leg_id``     UUID: names the leg of those ports, whether they are given here or in the file.
    ``latency_ms``      how long a hole waits for its packet, in the recording's time: 0 to 800; default 200.
    ``payload_types``   dynamic types, {96: "L16/16000"}.
    ``allow``           networks that may send, as CIDR. Default: all.
    ``call_legs``       call_leg_ids that are admitted. Default: all.
    ``max_streams``     newer streams are refused beyond this: 1 to 1,000,000; default 20,000.
    ``idle_timeout_s``  ends streams that fell silent, in the recording's time: 1 s or more; default 60.
    ``pin``             "address", "network" or "off", as of :class:`strep.Receiver`.
    ``redact``          events do not tell which keys were pressed.
    ``progress``        is called after each batch with (bytes done, bytes in all).

    Raises CaptureFileError if the file is not a capture, MissingExtraError if what unpacks it is not installed,
    ConfigurationError if an argument is wrong.
    """
    return replay_with(Settings(**options), path, sinks=sinks, progress=progress)


def replay_with(
    settings: Settings,
    path: str | PathLike[str],
    *,
    sinks: Sequence[Sink] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """:func:`replay` for settings that exist already.

    Raises CaptureFileError, and ConfigurationError if something is set that is not for replays.
    """
    settings.refuse_for("replay")
    given = settings.replayed_bindings()
    consumers = [as_sink(sink) for sink in sinks]
    with PcapReader(path) as reader:
        release = Release(audio=any(sink.wants_audio for sink in consumers), payloads=False)
        engine = Engine(settings.engine_config(given, LATENCY_MS), OrderedWork().add, release=release)
        dispatcher = Dispatcher(consumers, lossless=True, redact=settings.redact)
        try:
            for batch in reader.batches():
                if reader.roles and not given:
                    recorded = ((port, PortRole(role)) for port, role in reader.roles.items())
                    engine.registry.bind(bindings_of(recorded, settings.leg))
                _hand_on(dispatcher, engine.receive(batch))
                if progress is not None:
                    progress(reader.position_bytes, reader.size_bytes)
            _hand_on(dispatcher, engine.flush())
        finally:
            dispatcher.close(_CLOSING_S)
        dispatcher.handle(engine.advance(engine.now_ns))  # collect faults raised while sinks decoded
        capture = reader.about()
    return Replay(engine, dispatcher, capture)


def _hand_on(dispatcher: Dispatcher, events: list[Event]) -> None:
    """Hand events to the sinks, each by itself: one that fails costs no other. Then wait for slow sinks."""
    for event in events:
        try:
            dispatcher.handle([event])
        except Exception as error:
            dispatcher.incidents.fault("replay", error)
    try:
        dispatcher.settle()
    except Exception as error:
        dispatcher.incidents.fault("replay", error)
