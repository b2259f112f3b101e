"""What users say of a receiver, checked: the same for live runs and replays."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._codecs.payload_types import PayloadTypes
from .._engine.sources.pinning import SourcePins
from .._model.addresses import SourceFilter
from .._model.exceptions import ConfigurationError
from .._model.types import Codec

__all__ = ["engine_options", "leg_of", "parse_call_leg_id"]


def leg_of(value: uuid.UUID | str) -> uuid.UUID:
    leg = parse_call_leg_id(value)
    if leg is None:
        raise ConfigurationError("no call_leg_id: give a UUID")
    return leg


def parse_call_leg_id(value: uuid.UUID | str | None) -> uuid.UUID | None:
    if value is None or isinstance(value, uuid.UUID):
        return value
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ConfigurationError(
            f"call_leg_id {value!r} is not a UUID like 428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
        ) from None


def engine_options(
    *,
    latency_ms: float,
    payload_types: Mapping[int, str | Codec] | None,
    allow: Sequence[str],
    call_legs: Iterable[uuid.UUID | str] | None,
    max_streams: int,
    idle_timeout_s: float,
    pin: str,
) -> dict[str, Any]:
    """Checked arguments for :class:`EngineConfig`, the same for live runs and replays."""
    if not 0 <= latency_ms <= 800:
        raise ConfigurationError(f"latency {latency_ms:g} ms: choose 0 to 800 ms")
    if not 1 <= max_streams <= 1_000_000:
        raise ConfigurationError(f"max_streams {max_streams}: choose 1 to 1000000")
    if not idle_timeout_s >= 1:
        raise ConfigurationError(f"idle timeout {idle_timeout_s:g} s: choose 1 s or more")
    SourcePins(pin)  # raises for what is none
    legs = None
    if call_legs is not None:
        legs = frozenset(leg.int for leg in (parse_call_leg_id(leg) for leg in call_legs) if leg is not None)
    return {
        "latency_ns": round(latency_ms * 1e6),
        "payload_types": PayloadTypes(payload_types),
        "sources": SourceFilter(allow) if allow else None,
        "call_legs": legs,
        "max_streams": max_streams,
        "idle_ns": round(idle_timeout_s * 1e9),
        "pin": pin,
    }
