"""One message: bytes to columns that are views of them, everything checked before anybody uses it; and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import WireError
from .._model.types import GapCause, Mask
from .layout import ALIGN, COLUMNS, MAGIC, MAJOR, MINOR, PRELUDE, padded
from .nouns import as_object, integer, packed_json, parsed_json

__all__ = ["Columns", "Message", "pack", "unpack"]

I64 = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]

_MOST: Final = 1 << 52  # beyond any position, so that no sum overflows
_ZEROS: Final = bytes(ALIGN)


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says.

    ``minor``    of the version that it was written in
    ``sender``   who wrote it, of all that ever did: 1 to 64 letters and digits
    ``shard``    of which part of the legs it tells
    ``number``   counts the sender's messages of this shard, from 1 on without a hole
    ``time_ns``  when it was written, UTC nanoseconds on the sender's clock
    ``records``  what happened, as JSON objects: streams that started or ended, events
    ``columns``  by name, read-only views of the message: see :data:`strep.wire.layout.COLUMNS`
    """

    minor: int
    sender: str
    shard: int
    number: int
    time_ns: int
    records: list[dict[str, Any]]
    columns: dict[str, npt.NDArray[Any]] = field(repr=False)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.columns["frames"]) if self.columns else 0


def pack(sender: str, shard: int, number: int, time_ns: int, records: str, columns: Columns) -> bytes:
    """A message. ``records``: JSON of a list. ``columns`` are of the types that the layout has."""
    listed = ",".join(f'["{name}","{COLUMNS[name].dtype}",{column.size}]' for name, column in columns.items())
    header = (
        f'{{"wire":"{MAJOR}.{MINOR}","sender":{packed_json(sender)},"shard":{shard},"number":{number},'
        f'"time_ns":{time_ns},"columns":[{listed}],"records":{records}}}'
    ).encode()
    header += b" " * (padded(len(header)) - len(header))
    body: list[Any] = []
    size = 0
    for column in columns.values():
        body.append(column)
        size += column.nbytes
        if odd := size % ALIGN:
            body.append(_ZEROS[odd:])
            size += ALIGN - odd
    return b"".join([PRELUDE.pack(MAGIC, MAJOR, MINOR, 0, len(header), 0, size), header, *body])


def unpack(data: bytes | memoryview) -> Message:
    """What a message says. Columns are views of ``data``, in which nothing else is kept.

    Raises WireError for anything that is no message of this version, whatever its bytes are. Memory beside ``data`` is
    that of its header."""
    whole = memoryview(data).cast("B")
    minor, header_bytes, body_bytes = _prelude(whole)
    header = parsed_json(bytes(whole[PRELUDE.size : PRELUDE.size + header_bytes]), "the header")
    body = whole[PRELUDE.size + header_bytes :]
    columns = _columns(header.get("columns"), body, body_bytes)
    sender = header.get("sender")
    if not isinstance(sender, str) or not sender.isalnum() or not sender.isascii() or len(sender) > 64:
        raise WireError("the sender is none: 1 to 64 letters and digits")
    records = header.get("records", [])
    if not isinstance(records, list):
        raise WireError("records are no list")
    if columns:
        _check(columns)
    return Message(
        minor,
        sender,
        integer(header.get("shard"), "shard", 0, 65_535),
        integer(header.get("number"), "number", 1),
        integer(header.get("time_ns"), "time_ns"),
        [as_object(record, "a record") for record in records],
        columns,
    )


def _prelude(whole: memoryview) -> tuple[int, int, int]:
    """Minor version, and bytes of header and body."""
    if len(whole) < PRELUDE.size:
        raise WireError(f"{len(whole)} bytes are no message: it begins with {PRELUDE.size}")
    magic, major, minor, _, header_bytes, _, body_bytes = PRELUDE.unpack_from(whole)
    if magic != MAGIC:
        raise WireError(f"no message of strep: it begins with {magic!r}, not with {MAGIC!r}")
    if major != MAJOR:
        newer = "install that version of strep here, or an older one" if major > MAJOR else "install a newer strep"
        raise WireError(
            f"a message of version {major}.{minor}, and this is a reader of {MAJOR}.x: {newer} where it was written"
        )
    if header_bytes % ALIGN or body_bytes % ALIGN or PRELUDE.size + header_bytes + body_bytes != len(whole):
        raise WireError(f"{len(whole)} bytes are no whole message: its header says {header_bytes} and {body_bytes}")
    return minor, header_bytes, body_bytes


def _columns(listed: object, body: memoryview, body_bytes: int) -> dict[str, npt.NDArray[Any]]:
    if not isinstance(listed, list):
        raise WireError("columns are no list")
    found: dict[str, npt.NDArray[Any]] = {}
    at = 0
    for one in listed:
        if not isinstance(one, list) or len(one) < 3 or not isinstance(one[0], str) or not isinstance(one[1], str):
            raise WireError("a column is none: [name, type, count]")
        name, dtype, count = one[0], one[1], integer(one[2], "a count", 0, body_bytes)
        known = COLUMNS.get(name)
        width = _width(dtype) if known is None or known.dtype != dtype else int(dtype[2:])
        if at + width * count > body_bytes:
            raise WireError(f"column {name[:40]!r} ends behind the message")
        if known is not None:
            if dtype != known.dtype or name in found:
                raise WireError(f"column {name!r} is of type {dtype[:10]!r}, or there twice")
            found[name] = np.frombuffer(body, dtype, count, at)
        at += padded(width * count)
    missing = [name for name, column in COLUMNS.items() if not column.optional and name not in found]
    if found and missing:
        raise WireError(f"columns are missing: {', '.join(missing)}")
    return found


def _width(dtype: str) -> int:
    """Bytes of a value: the digits behind two letters, as numpy writes types."""
    if len(dtype) not in (3, 4) or not dtype[2:].isdecimal() or not dtype.isascii() or not 1 <= int(dtype[2:]) <= 16:
        raise WireError(f"{dtype[:10]!r} is no type")
    return int(dtype[2:])


# --- checks, all of them over whole columns ---------------------------------------------------------------------------


def _check(columns: Columns) -> None:
    """Raises WireError unless each index is within what it is an index of, and all lengths agree."""
    m, p, n = (len(columns[name]) for name in ("frames", "packet_frames", "stream_serial"))
    counts = {"stream": n, "stream+": n + 1, "block": m, "block+": m + 1, "packet": p, "packet+": p + 1}
    for name, column in columns.items():
        if (expected := counts.get(COLUMNS[name].per)) is not None and len(column) != expected:
            raise WireError(f"column {name!r} has {len(column)} values, not {expected}")
    for name in ("position", "frames", "gap_frames", "packet_frames"):
        _within(columns, name, _MOST)
    for name in ("arrival_ns", "time_ns", "packet_arrival_ns"):
        if m and int(columns[name].min(initial=0)) < -(1 << 62):
            raise WireError(f"column {name!r} has times that are none")
    _within(columns, "stream", n - 1)
    _within(columns, "stream_serial", 1 << 62)
    _within(columns, "gap_cause", max(GapCause))
    payload, values = columns["payload"], _total(columns["frames"])
    _ends(columns, "stream_info_offset", len(columns["stream_info"]))
    _ends(columns, "payload_offset", len(payload))
    _ends(columns, "packet_first", p)
    if "packet_offset" in columns:
        _ends(columns, "packet_offset", len(payload))
    offset = columns["offset"]
    if int(offset[0]) or (m and int(np.diff(offset).min()) < 0) or int(offset[-1]) > _MOST:
        raise WireError("offsets of samples are none")
    if not np.array_equal(_sums(columns["packet_frames"], columns["packet_first"]), columns["frames"]):
        raise WireError("packets have other frames than their blocks")
    if "mask" in columns:
        if len(columns["mask"]) != values:
            raise WireError("the mask has another length than the blocks")
        _within(columns, "mask", max(Mask))
    for name in ("transcoded", "decoded"):
        if name in columns:
            _within(columns, name, 1)
    _backed(columns)
    for what in ("noise", "fill"):
        _ragged(columns, what, m)


def _backed(columns: Columns) -> None:
    """Samples that are said to be there are there: what is decoded is never larger than the message says."""
    decoded = columns.get("decoded")
    size = np.diff(columns["offset"])
    native = size if decoded is None else size[decoded == 0]
    payload = np.diff(columns["payload_offset"])
    if bool((native > (payload if decoded is None else payload[decoded == 0])).any()):
        raise WireError("blocks have more samples than bytes")
    here = 0 if decoded is None else _total(size[decoded == 1])
    if here != len(columns.get("samples", ())):
        raise WireError(f"there should be {here} samples")
    if bool((columns["frames"] > size).any()):
        raise WireError("blocks have more frames than samples")


def _total(lengths: npt.NDArray[Any]) -> int:
    """Their sum, which cannot overflow."""
    total = float(lengths.sum(dtype=np.float64))
    return int(lengths.sum()) if math.isfinite(total) and total < _MOST else _MOST


def _within(columns: Columns, name: str, most: int) -> None:
    column = columns[name]
    if len(column) and not (int(column.min()) >= 0 and int(column.max()) <= most):
        raise WireError(f"column {name!r} has values that are not from 0 to {most}")


def _ends(columns: Columns, name: str, size: int) -> None:
    ends = columns[name]
    if not len(ends) or int(ends[0]) or int(ends[-1]) != size or bool((ends[1:] < ends[:-1]).any()):
        raise WireError(f"column {name!r} does not rise from 0 to {size}")


def _ragged(columns: Columns, what: str, blocks: int) -> None:
    names = [f"{what}_block", f"{what}_offset", what]
    there = [name in columns for name in names]
    if not any(there):
        return
    if not all(there) or len(columns[names[1]]) != len(columns[names[0]]) + 1:
        raise WireError(f"columns of {what} do not go together")
    _within(columns, names[0], blocks - 1)
    _ends(columns, names[1], len(columns[what]))


def _sums(values: I64, first: I64) -> I64:
    """Of each run of values."""
    ends = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=ends[1:])
    sums: I64 = ends[first[1:]] - ends[first[:-1]]
    return sums
