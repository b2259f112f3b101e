"""The catalogue's tables, their version, and how older ones become this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Float, ForeignKey, Index, Integer, MetaData, Table, Text

__all__ = [
    "MIGRATIONS", "VERSION", "calls", "events", "files", "legs", "metadata", "recordings", "streams", "tags", "version",
]  # fmt: skip

VERSION: Final = 1

metadata = MetaData()

version = Table("strep_catalogue", metadata, Column("version", Integer, nullable=False))

# times are UTC nanoseconds; a call is a session of the API, or a leg alone where the session is not known
calls = Table(
    "calls", metadata,
    Column("call", Text, primary_key=True),  # call_session_id, or "leg:<call_leg_id>"
    Column("connection_id", Text),
    Column("from_number", Text, index=True),
    Column("to_number", Text, index=True),
    Column("began_ns", BigInteger, index=True),  # the earliest thing that is known of it
    Column("ended_ns", BigInteger),
)  # fmt: skip

legs = Table(
    "legs", metadata,
    Column("call_leg_id", Text, primary_key=True),
    Column("call", Text, ForeignKey("calls.call"), nullable=False, index=True),
    Column("call_control_id", Text, index=True),
    Column("leg", Text),  # a or b
    Column("from_number", Text),
    Column("to_number", Text),
    Column("direction", Text),  # incoming or outgoing
    Column("client_state", Text),
    Column("initiated_ns", BigInteger),
    Column("answered_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("hangup_cause", Text),
    Column("outcome", Text, nullable=False, index=True),  # live, recorded, recovered, no_media, no_file, failed
    Column("error", Text),
    Column("began_ns", BigInteger, index=True),  # its first packet
    Column("duration_s", Float),
    Column("packets_lost", BigInteger),
    Column("mos_min", Float),  # of the worst ten seconds
    Column("machine", Text),  # that recorded it
)  # fmt: skip

recordings = Table(
    "recordings", metadata,
    Column("recording", Text, primary_key=True),  # "<machine>:<path of its leg.json below the recordings>"
    Column("call_leg_id", Text, ForeignKey("legs.call_leg_id"), nullable=False, index=True),
    Column("file", Text, nullable=False),
    Column("machine", Text),
    Column("document", Text, nullable=False),  # what stands in leg.json
)  # fmt: skip

streams = Table(
    "streams", metadata,
    Column("recording", Text, ForeignKey("recordings.recording"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("leg", Text),
    Column("direction", Text),
    Column("codec", Text),
    Column("began_ns", BigInteger),
    Column("ended_ns", BigInteger),
    Column("duration_s", Float),
    Column("packets_received", BigInteger),
    Column("packets_lost", BigInteger),
    Column("jitter_ms", Float),
    Column("mos", Float),
    Column("mos_min", Float),
    Column("rms_dbfs", Float),
    Column("talk_s", Float),
    Column("end", Text),
)  # fmt: skip

files = Table(
    "files", metadata,
    Column("recording", Text, ForeignKey("recordings.recording"), primary_key=True),
    Column("path", Text, primary_key=True),  # below the directory of recordings
    Column("streams", Text, nullable=False),  # their numbers, JSON
    Column("place", Text),  # where it is now; None: where it was recorded
)  # fmt: skip

events = Table(
    "events", metadata,
    Column("recording", Text, ForeignKey("recordings.recording"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", Text, nullable=False, index=True),
    Column("direction", Text),
    Column("time_ns", BigInteger),
    Column("position_s", Float),
    Column("duration_s", Float),
    Column("data", Text),  # JSON
)  # fmt: skip

tags = Table(
    "tags", metadata,
    Column("call", Text, ForeignKey("calls.call"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Index("tags_by_value", "key", "value"),
)  # fmt: skip

MIGRATIONS: Final[Mapping[int, Callable[[Connection], None]]] = {}
"""By the version that a step makes of the one before it."""
