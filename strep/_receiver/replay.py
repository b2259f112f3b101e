"""Recorded datagrams through the same engine and sinks, as fast as it goes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from .._delivery.dispatcher import Dispatcher
from .._delivery.ordered_work import OrderedWork
from .._edge.pcap import PcapReader
from .._engine.engine import Engine, EngineConfig
from .._engine.sources.admission import PortBinding, PortRole
from .._model.events import Event
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, Totals, summary_of
from .._model.types import Codec
from ..sinks.base import Sink, as_sink
from .settings import engine_options, parse_call_leg_id

__all__ = ["Replay", "replay"]


class Replay:
    """What a replay found: the same figures in the same form as a live :class:`strep.Receiver`."""

    def __init__(self, engine: Engine, dispatcher: Dispatcher, capture: Mapping[str, Any]) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self.capture = capture
        """Of the file: ``frames``, ``skipped`` frames by cause, and ``retimed``, datagrams whose times made no sense
        between the others'."""

    def totals(self) -> Totals:
        totals = self._engine.totals()
        totals.faults = self._dispatcher.incidents.faults()
        return totals

    def reports(self) -> list[StreamReport]:
        return sorted(self._dispatcher.ended, key=lambda r: r.stream.serial)

    def sink_reports(self) -> list[dict[str, Any]]:
        return self._dispatcher.reports()

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds; ``capture`` too where there is anything to say of the file."""
        found = self._dispatcher
        summary = summary_of(self.totals(), self.reports(), found.files, self.sink_reports(), [], found.figures)
        if self.capture["skipped"] or self.capture["retimed"]:
            summary["capture"] = dict(self.capture)
        return summary


def replay(
    path: str | PathLike[str],
    *,
    sinks: Sequence[Sink] = (),
    rx: str | int | None = None,
    tx: str | int | None = None,
    call_leg_id: uuid.UUID | str | None = None,
    latency_ms: float | None = None,
    payload_types: Mapping[int, str | Codec] | None = None,
    allow: Sequence[str] = (),
    call_legs: Iterable[uuid.UUID | str] | None = None,
    max_streams: int = 20_000,
    idle_timeout_s: float = 60.0,
    pin: str = "address",
    redact: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Run a pcap or pcapng file through engine and sinks.

    STREP is told by its header. Plain RTP makes a stream per port and SSRC, unless ``rx``/``tx`` (ports) say which
    direction a port is; files that ``Receiver(pcap=...)`` recorded say it themselves. Sinks hold the replay up when
    they are slow, nothing is dropped. ``pin`` as of :class:`strep.Receiver`. ``redact``: events do not tell which keys
    were pressed.
    ``progress`` is called with (bytes done, bytes in all).

    Raises CaptureFileError when the file is not a capture, ConfigurationError for wrong arguments.
    """
    options = engine_options(
        latency_ms=200.0 if latency_ms is None else latency_ms,
        payload_types=payload_types,
        allow=allow,
        call_legs=call_legs,
        max_streams=max_streams,
        idle_timeout_s=idle_timeout_s,
        pin=pin,
    )
    consumers = [as_sink(sink) for sink in sinks]
    leg = parse_call_leg_id(call_leg_id)
    given = _given_bindings(rx, tx, leg)
    with PcapReader(path) as reader:
        engine = Engine(EngineConfig(**options, bindings=given), OrderedWork().add)
        engine.audio = any(sink.wants_audio for sink in consumers)
        engine.forgo_payloads()
        dispatcher = Dispatcher(consumers, lossless=True, redact=redact)
        try:
            for batch in reader.batches():
                if reader.roles and not given:
                    engine.registry.bind(_recorded_bindings(reader.roles, leg))
                _hand_on(dispatcher, engine.receive(batch))
                if progress is not None:
                    progress(reader.position_bytes, reader.size_bytes)
            _hand_on(dispatcher, engine.flush())
        finally:
            dispatcher.close(60.0)
        dispatcher.handle(engine.advance(engine.now_ns))  # what went wrong in decoding for sinks
        capture = {
            "frames": reader.frames,
            "skipped": dict(sorted(reader.skipped.items())),
            "retimed": reader.retimed,
        }
    return Replay(engine, dispatcher, capture)


def _hand_on(dispatcher: Dispatcher, events: list[Event]) -> None:
    """One by one, so that what fails with one costs no other; then wait for sinks that write behind."""
    for event in events:
        try:
            dispatcher.handle([event])
        except Exception as error:
            dispatcher.incidents.fault("replay", error)
    try:
        dispatcher.settle()
    except Exception as error:
        dispatcher.incidents.fault("replay", error)


def _given_bindings(rx: str | int | None, tx: str | int | None, leg: uuid.UUID | None) -> dict[int, PortBinding]:
    ports = {role: _port(value) for role, value in ((PortRole.RX, rx), (PortRole.TX, tx)) if value is not None}
    if len(ports) == 2 and ports[PortRole.RX] == ports[PortRole.TX]:
        return {ports[PortRole.RX]: PortBinding(PortRole.BOTH, ports[PortRole.RX], leg)}
    return {port: PortBinding(role, min(ports.values()), leg) for role, port in ports.items()}


def _recorded_bindings(roles: Mapping[int, int], leg: uuid.UUID | None) -> dict[int, PortBinding]:
    pair = min((port for port, role in roles.items() if role), default=0)
    return {
        port: PortBinding(PortRole(role), pair if role else 0, leg if role else None) for port, role in roles.items()
    }


def _port(value: str | int) -> int:
    text = str(value).rpartition(":")[2]
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigurationError(f"{value!r} names no UDP port: give 5004, or ADDR:5004")
    return int(text)
