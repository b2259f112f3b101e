"""Streams, reports and events as JSON, and back. What comes from elsewhere is checked: it may be anything."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import numpy as np

from .._model.exceptions import WireError
from .._model.report import StreamReport
from .._model.types import Codec, Direction, Leg, StreamEvent, StreamInfo

__all__ = [
    "as_object", "event_as_json", "event_as_told", "event_of", "info_as_json", "info_of", "integer", "packed_json",
    "parsed_json", "report_as_json", "report_of", "update",
]  # fmt: skip

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # safe as the name of a file or directory
_KIND: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LIST: Final = 4096  # values of a list
_WHOLE: Final = 1 << 62  # beyond any position or time
_REPORT: Final = {one.name: str(one.type) for one in fields(StreamReport) if one.name != "stream"}


def packed_json(value: object) -> str:
    """As compact JSON; figures of numpy's types are plain ones. Raises what json raises for anything else."""
    return json.dumps(value, separators=(",", ":"), default=_plain, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")


def parsed_json(data: bytes, what: str) -> dict[str, Any]:
    """An object. Raises WireError."""
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"{what} is no JSON: {str(error)[:100]}") from None
    return as_object(value, what)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def as_object(value: object, what: str) -> dict[str, Any]:
    """The value, if it is an object. Raises WireError."""
    if not isinstance(value, dict):
        raise WireError(f"{what} is no JSON object")
    return value


def integer(value: object, what: str, least: int = 0, most: int = _WHOLE) -> int:
    """The value, if it is a whole number in that range. Raises WireError."""
    if type(value) is not int or not least <= value <= most:
        raise WireError(f"{what} is no whole number from {least} to {most}")
    return value


def _figure(value: object, what: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise WireError(f"{what} is no number")
    return float(value)  # type: ignore[arg-type]


def _text(value: object, what: str, pattern: re.Pattern[str] | None = None, most: int = 1000) -> str:
    if not isinstance(value, str) or len(value) > most or (pattern is not None and not pattern.fullmatch(value)):
        raise WireError(f"{what} is no text that may stand there")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _LIST:
        raise WireError(f"{what} is no list of at most {_LIST}")
    return value


def _flag(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise WireError(f"{what} is neither true nor false")
    return value


# --- streams ----------------------------------------------------------------------------------------------------------


def info_as_json(info: StreamInfo) -> dict[str, Any]:
    """Who a stream is: all of StreamInfo but its row."""
    codec = info.codec
    return {
        "serial": info.serial,
        "call_leg_id": None if info.call_leg_id is None else str(info.call_leg_id),
        "leg": info.leg.label,
        "direction": info.direction.label,
        "name": info.name,
        "leg_name": info.leg_name,
        "stem": info.stem,
        "local_port": info.local_port,
        "ssrc": info.ssrc,
        "source": list(info.source),
        "payload_type": info.payload_type,
        "first_arrival_ns": info.first_arrival_ns,
        "origin_ns": info.origin_ns,
        "codec": None
        if codec is None
        else {
            "name": codec.name,
            "clock_rate": codec.clock_rate,
            "sample_rate": codec.sample_rate,
            "channels": codec.channels,
            "frame_bytes": codec.frame_bytes,
            "parameters": codec.parameters,
        },
        "ssrcs": list(info.ssrcs),
        "codec_guessed": info.codec_guessed,
        "encrypted": info.encrypted,
        "clock_rate": info.clock_rate,
        "notes": list(info.notes),
    }


def info_of(value: object, index: int, serial: int) -> StreamInfo:
    """A stream of its JSON, with a row and a serial of this machine's. Raises WireError."""
    found = as_object(value, "a stream")
    try:
        leg_id = None if found["call_leg_id"] is None else uuid.UUID(_text(found["call_leg_id"], "call_leg_id"))
        host, port = _list(found["source"], "source")
        leg, direction = found["leg"], found["direction"]
        return StreamInfo(
            index=index,
            serial=serial,
            call_leg_id=leg_id,
            leg=Leg(["a", "b"].index(leg)),
            direction=Direction(["inbound", "outbound"].index(direction)),
            name=_text(found["name"], "name", _NAME),
            leg_name=_text(found["leg_name"], "leg_name", _NAME),
            stem=_text(found["stem"], "stem", _NAME),
            local_port=integer(found["local_port"], "local_port", 0, 65_535),
            ssrc=integer(found["ssrc"], "ssrc", 0, 0xFFFF_FFFF),
            source=(_text(host, "source"), integer(port, "source", 0, 65_535)),
            payload_type=integer(found["payload_type"], "payload_type", 0, 127),
            first_arrival_ns=integer(found["first_arrival_ns"], "first_arrival_ns"),
            origin_ns=integer(found["origin_ns"], "origin_ns", -_WHOLE),
            codec=None if found["codec"] is None else _codec_of(found["codec"]),
            ssrcs=[integer(one, "ssrcs", 0, 0xFFFF_FFFF) for one in _list(found["ssrcs"], "ssrcs")],
            codec_guessed=_flag(found["codec_guessed"], "codec_guessed"),
            encrypted=_flag(found["encrypted"], "encrypted"),
            clock_rate=integer(found["clock_rate"], "clock_rate", 0, 1_000_000_000),
            notes=[_text(one, "notes") for one in _list(found["notes"], "notes")],
        )
    except WireError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise WireError(f"a stream that is none: {type(error).__name__}: {str(error)[:100]}") from None


def _codec_of(value: object) -> Codec:
    found = as_object(value, "codec")
    return Codec(
        _text(found["name"], "codec", most=40),
        integer(found["clock_rate"], "clock_rate", 1, 1_000_000_000),
        integer(found["sample_rate"], "sample_rate", 1, 1_000_000),
        integer(found["channels"], "channels", 1, 255),
        integer(found["frame_bytes"], "frame_bytes", 0, 1024),
        _text(found["parameters"], "parameters"),
    )


def update(info: StreamInfo, newer: StreamInfo) -> None:
    """What may change of a stream: see StreamInfo."""
    if info.codec is None:
        info.codec, info.origin_ns = newer.codec, newer.origin_ns
    info.codec_guessed = newer.codec_guessed
    info.encrypted = newer.encrypted
    info.clock_rate = newer.clock_rate
    info.ssrcs[:], info.notes[:] = newer.ssrcs, newer.notes


# --- reports ----------------------------------------------------------------------------------------------------------


def report_as_json(report: StreamReport) -> dict[str, Any]:
    """The figures of a stream, without the stream."""
    return {name: getattr(report, name) for name in _REPORT}


def report_of(value: object, stream: StreamInfo) -> StreamReport:
    """Figures of their JSON; those that are not there are 0. Raises WireError."""
    found = as_object(value, "a report")
    report = StreamReport.empty(stream, "")
    for name, kind in _REPORT.items():
        if name in found:
            setattr(report, name, _read(found[name], name, kind))
    return report


def _read(value: object, name: str, kind: str) -> Any:
    if kind == "int":
        return integer(value, name, -_WHOLE)
    if kind == "str":
        return _text(value, name)
    if kind == "bool":
        return _flag(value, name)
    if kind == "list[int]":
        return [integer(one, name) for one in _list(value, name)]
    if kind == "dict[str, int]":
        counts = as_object(value, name)
        return {_text(key, name, _KIND): integer(count, name) for key, count in counts.items()}
    return None if value is None and kind == "float | None" else _figure(value, name)


# --- events -----------------------------------------------------------------------------------------------------------


def event_as_json(event: StreamEvent) -> dict[str, Any]:
    """An event as a record of a message has it."""
    return {
        "serial": event.stream.serial,
        "kind": event.kind,
        "position": event.position,
        "time_ns": event.time_ns,
        "duration_s": event.duration_s,
        "data": dict(event.data),
    }


def event_of(found: Mapping[str, Any], stream: StreamInfo) -> StreamEvent:
    """An event of its record. Raises WireError."""
    try:
        return StreamEvent(
            stream,
            _text(found["kind"], "kind", _KIND),
            integer(found["position"], "position", -_WHOLE),
            integer(found["time_ns"], "time_ns", -_WHOLE),
            _figure(found["duration_s"], "duration_s"),
            as_object(found["data"], "data"),
        )
    except KeyError as error:
        raise WireError(f"an event without {str(error)[:40]}") from None


def event_as_told(event: StreamEvent) -> dict[str, Any]:
    """What ``--json`` prints of an event, of plain types."""
    told: dict[str, Any] = json.loads(packed_json(event.as_dict()))
    return told
