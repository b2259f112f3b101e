"""What stands in ``leg.json``, as rows of the catalogue. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

__all__ = ["LegRows", "leg_rows", "ns_of"]

_LONGEST: Final = 2000  # characters of a text that somebody else chose
_S: Final = 1_000_000_000

Row = dict[str, Any]


@dataclass(slots=True)
class LegRows:
    """Rows by table. ``recording`` is None where there is no file yet: the call is live."""

    call: Row
    leg: Row
    recording: Row | None = None
    streams: list[Row] = field(default_factory=list)
    files: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)


def leg_rows(document: Mapping[str, Any], file: str | None, machine: str) -> LegRows:
    """``file``: of the document, below the directory of recordings; None: the call is live. Raises ValueError where
    it is not a ``leg.json``: call_leg_id must be there."""
    leg_id = _text(document.get("call_leg_id"))
    if not leg_id:
        raise ValueError("it has no call_leg_id")
    session = _text(document.get("call_session_id"))
    call = session or f"leg:{leg_id}"
    entries = [entry for entry in _list(document.get("streams")) if isinstance(entry, Mapping)]
    streams = [_stream(entry) for entry in entries]
    initiated, answered = ns_of(document.get("initiated_at")), ns_of(document.get("answered_at"))
    began = _least(row["began_ns"] for row in streams)
    ended = ns_of(document.get("ended_at"))
    shared = {"from_number": _text(document.get("from")), "to_number": _text(document.get("to"))}
    outcome = "live" if file is None else _outcome(document, streams)
    rows = LegRows(
        call={
            "call": call,
            "connection_id": _text(document.get("connection_id")),
            **shared,
            "began_ns": _least((initiated, answered, began)),
            "ended_ns": _greatest((ended, *(row["ended_ns"] for row in streams))),
        },
        leg={
            "call_leg_id": leg_id,
            "call": call,
            "call_control_id": _text(document.get("call_control_id")),
            "leg": _text(document.get("leg")),
            **shared,
            "direction": _text(document.get("direction")),
            "client_state": _text(document.get("client_state")),
            "initiated_ns": initiated,
            "answered_ns": answered,
            "ended_ns": ended,
            "hangup_cause": _text(document.get("hangup_cause")),
            "outcome": outcome,
            "error": _text(document.get("error")),
            "began_ns": began,
            "duration_s": max((row["duration_s"] or 0.0 for row in streams), default=0.0),
            "packets_lost": sum(row["packets_lost"] or 0 for row in streams),
            "mos_min": _least(row["mos_min"] for row in streams),
            "machine": machine,
        },
    )
    if file is None:
        return rows
    recording = f"{machine}:{file}"
    own = {"recording": recording}
    rows.recording = {
        **own, "call_leg_id": leg_id, "file": file, "machine": machine, "document": json.dumps(document),
    }  # fmt: skip
    rows.streams = [{**own, "number": n, **row} for n, row in enumerate(streams)]
    by_path: dict[str, list[int]] = {}
    for n, entry in enumerate(entries):
        for path in _list(entry.get("files")):
            by_path.setdefault(str(path), []).append(n)
    rows.files = [{**own, "path": path, "streams": json.dumps(numbers)} for path, numbers in by_path.items()]
    found = [*_fork_events(document), *(event for entry in entries for event in _stream_events(entry))]
    rows.events = [{**own, "number": n, **event} for n, event in enumerate(found)]
    return rows


def _outcome(document: Mapping[str, Any], streams: list[Row]) -> str:
    error = _text(document.get("error"))
    if error and error.startswith("no file could be made"):
        return "no_file"
    if document.get("recovered"):
        return "recovered"
    if not streams:
        return "failed" if error else "no_media"
    return "recorded"


def _stream(entry: Mapping[str, Any]) -> Row:
    quality, level, speech = (_map(entry.get(name)) for name in ("quality", "level", "speech"))
    mos = _number(quality.get("mos_cq"))
    least = _number(quality.get("mos_min"))
    return {
        "leg": _text(entry.get("leg")),
        "direction": _text(entry.get("direction")),
        "codec": _text(entry.get("codec")),
        "began_ns": _whole(entry.get("first_arrival_ns")),
        "ended_ns": _whole(entry.get("last_arrival_ns")),
        "duration_s": _number(entry.get("duration_s")),
        "packets_received": _whole(entry.get("packets_received")),
        "packets_lost": _whole(entry.get("packets_lost")),
        "jitter_ms": _number(_map(entry.get("jitter_ms")).get("mean")),
        "mos": mos,
        "mos_min": mos if least is None else least,
        "rms_dbfs": _number(level.get("rms_dbfs")),
        "talk_s": _number(speech.get("talk_s")),
        "end": _text(entry.get("end")),
    }


def _fork_events(document: Mapping[str, Any]) -> list[Row]:
    out = []
    for event in _list(document.get("fork_events")):
        if isinstance(event, Mapping) and event.get("event"):
            data = {name: value for name, value in event.items() if name not in ("event", "time")}
            out.append(_event(str(event["event"]), None, ns_of(event.get("time")), None, 0.0, data))
    return out


def _stream_events(entry: Mapping[str, Any]) -> list[Row]:
    """Key presses and tones that were found in a stream."""
    out = []
    direction = _text(entry.get("direction"))
    for kind in ("dtmf", "tones"):
        for event in _list(_map(entry.get(kind)).get("events")):
            if isinstance(event, Mapping):
                data = {k: v for k, v in event.items() if k not in ("time_ns", "position_s", "duration_s")}
                time_ns, position_s = _whole(event.get("time_ns")), _number(event.get("position_s"))
                out.append(_event(kind, direction, time_ns, position_s, _number(event.get("duration_s")), data))
    return out


def _event(
    kind: str,
    direction: str | None,
    time_ns: int | None,
    position_s: float | None,
    duration_s: float | None,
    data: Mapping[str, Any],
) -> Row:
    return {
        "kind": _text(kind), "direction": direction, "time_ns": time_ns, "position_s": position_s,
        "duration_s": duration_s, "data": json.dumps(data),
    }  # fmt: skip


def ns_of(text: object) -> int | None:
    """UTC nanoseconds of an ISO time with up to nine places; None: it is none."""
    if not isinstance(text, str) or not text:
        return None
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(whole + "+00:00").timestamp()
        return round(seconds) * _S + int((rest + "0" * 9)[:9] or 0)
    except ValueError:
        return None


def _text(value: object) -> str | None:
    """A text that any database takes."""
    if value is None or value == "":
        return None
    text = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return text[:_LONGEST]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def _number(value: object) -> float | None:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return number if number is not None and number == number and abs(number) != float("inf") else None


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _least(values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)
