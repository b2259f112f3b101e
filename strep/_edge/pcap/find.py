"""From captured frames to UDP payloads, for all frames at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import MAPPED_PREFIX
from . import links, network, tunnels
from .fragments import Fragments
from .hep import hep
from .layers import I64, U8, U64, Frames, Layer
from .links import ETHERNET, RAW, ROLE_MAC
from .records import Origin, Records

__all__ = ["Datagrams", "Finder"]

Mask = npt.NDArray[np.bool_]

_USUAL_HEADER_BYTES: Final = 14 + 20 + 8  # Ethernet, IPv4 without options, UDP
_USUAL_READ_BYTES: Final = 48  # of each frame: the headers, rounded up to words
_DEEPEST: Final = 32  # layers of a frame, tags and extension headers among them
_MOST_JOINED: Final = 4  # fragments of fragments
_Handlers = dict[int, Callable[[Frames, I64], None]]
_HANDLERS: Final[_Handlers] = {
    Layer.LINK: links.link, Layer.ETHERNET: links.ethernet, Layer.ETHERTYPE: links.ethertype, Layer.MPLS: links.mpls,
    Layer.PPPOE: links.pppoe, Layer.PPP: links.ppp, Layer.IP: network.ip, Layer.TRANSPORT: network.transport,
    Layer.GRE: network.gre, Layer.UDP: tunnels.udp, Layer.HEP: hep,
}  # fmt: skip
_WITHOUT_TUNNELS: Final[_Handlers] = {
    Layer.LINK: links.link, Layer.IP: network.ip_once, Layer.TRANSPORT: network.transport, Layer.UDP: tunnels.udp_alone,
}  # fmt: skip


@dataclass(slots=True)
class Datagrams:
    """UDP payloads in a file. Columns of shape (n,). What was put together of fragments lies behind the file: ``at``
    goes on there."""

    at: I64
    captured: I64
    wire: I64
    arrival_ns: I64
    source_hi: U64
    source_lo: U64
    source_port: npt.NDArray[np.uint16]
    local_port: npt.NDArray[np.uint16]
    role: I64  # of the local port, -1 when the frame does not say
    record: I64  # the place of the frame among those looked at together
    interface: I64
    destination_hi: U64  # of traffic between others; 0 where the frame says that it came to us
    destination_lo: U64

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows: npt.NDArray[np.intp] | Mask | slice) -> Datagrams:
        return Datagrams(*(getattr(self, one.name)[rows] for one in fields(self)))

    @classmethod
    def joined(cls, parts: list[Datagrams]) -> Datagrams:
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


class Finder:
    """Finds the UDP datagrams among frames, in order. Frames that are none, or cannot be used, are counted by cause in
    ``skipped``; ``encapsulated`` counts what datagrams were packed into, ``cut`` those that were not captured whole.
    Payloads that were put together of fragments are kept in ``extra``, the first of them at ``extra_at``.

    ``fragments`` are those of frames before these; ``tunnels``: look into what datagrams are packed into."""

    def __init__(
        self, data: U8, skipped: Counter[str], *, fragments: Fragments | None = None, tunnels: bool = True
    ) -> None:
        self._data = data
        self._skipped = skipped
        self._handlers = _HANDLERS if tunnels else _WITHOUT_TUNNELS
        self.encapsulated: Counter[str] = Counter()
        self.fragments = fragments or Fragments(skipped)
        self.cut = 0
        self.extra = np.zeros(0, np.uint8)
        self.extra_at = data.size

    def find(self, records: Records) -> Datagrams:
        data = self._data
        if records.origin is not None:
            bare = _payloads(records, records.origin)
            self.cut += int(np.count_nonzero(bare.captured < bare.wire))
            return bare
        found, others = _usual_datagrams(data, records)
        if found is None or others is not None:
            rows = np.arange(len(records.at)) if others is None else others
            at = records.at[rows]
            frames = Frames(
                data, at, at + records.captured[rows], records.link[rows], records.arrival_ns[rows], rows,
                self._skipped, self.encapsulated,
            )  # fmt: skip
            parts = [] if found is None else [found]
            parts += self._look_into(frames, records)
            found = Datagrams.joined(parts)
            found = found.take(np.argsort(found.record, kind="stable"))
        self.cut += int(np.count_nonzero(found.captured < found.wire))
        return found

    @property
    def end(self) -> int:
        """Behind all that was put together."""
        return self.extra_at + len(self.extra)

    def close(self) -> None:
        """Let go of the file; what was counted stays."""
        self._data = np.zeros(0, np.uint8)

    def forget(self, before: int) -> None:
        """Drop what was put together and lies before ``before``."""
        done = min(max(before - self.extra_at, 0), len(self.extra))
        if done:
            self.extra = self.extra[done:].copy()
            self.extra_at += done

    def _look_into(self, frames: Frames, records: Records) -> list[Datagrams]:
        peel(frames, self._handlers)
        parts = [_datagrams(frames, records, 0)]
        for _ in range(_MOST_JOINED):
            rows = np.flatnonzero(frames.layer == Layer.FRAGMENT)
            whole = self.fragments.take(frames, rows) if rows.size else None
            if whole is None:
                return parts
            kind = np.full(len(whole.at), RAW[0])
            frames = Frames(
                whole.data, whole.at, whole.end, kind, whole.arrival_ns, whole.record, self._skipped, self.encapsulated
            )
            peel(frames, self._handlers)
            parts.append(_datagrams(frames, records, self.end))
            self.extra = np.concatenate([self.extra, whole.data])
        self._skipped["fragment"] += int(np.count_nonzero(frames.layer == Layer.FRAGMENT))
        return parts


def _payloads(records: Records, origin: Origin) -> Datagrams:
    n = len(records.at)
    return Datagrams(
        records.at,
        records.captured,
        records.wire,
        records.arrival_ns,
        np.zeros(n, np.uint64),
        np.full(n, origin.source, np.uint64),
        np.full(n, origin.port, np.uint16),
        np.full(n, origin.local_port, np.uint16),
        np.full(n, -1, np.int64),
        np.arange(n),
        records.interface,
        np.zeros(n, np.uint64),
        np.zeros(n, np.uint64),
    )


def peel(frames: Frames, handlers: _Handlers) -> None:
    """Take layers off, until datagrams and fragments are left."""
    for _ in range(_DEEPEST):
        again = False
        for layer in np.flatnonzero(np.bincount(frames.layer)).tolist():
            handler = handlers.get(layer)
            if handler is not None:
                again = True
                handler(frames, np.flatnonzero(frames.layer == layer))
        if not again:
            return
    done = (frames.layer == Layer.LOST) | (frames.layer >= Layer.DATAGRAM)
    frames.drop(np.flatnonzero(~done), "too_deep")


def _datagrams(frames: Frames, records: Records, shift: int) -> Datagrams:
    rows = np.flatnonzero(frames.layer == Layer.DATAGRAM)
    record = frames.record[rows]
    return Datagrams(
        frames.at[rows] + shift,
        np.minimum(frames.wire[rows], frames.end[rows] - frames.at[rows]),
        frames.wire[rows],
        records.arrival_ns[record],
        frames.hi[rows],
        frames.lo[rows],
        frames.source_port[rows].astype(np.uint16),
        frames.local_port[rows].astype(np.uint16),
        frames.role[rows],
        record,
        records.interface[record],
        np.where(frames.role[rows] < 0, frames.to_hi[rows], 0),
        np.where(frames.role[rows] < 0, frames.to_lo[rows], 0),
    )


def _usual_datagrams(data: U8, records: Records) -> tuple[Datagrams | None, I64 | None]:
    """Of frames that are Ethernet, IPv4 without options, whole, UDP without a tunnel; and the rows of the others. None:
    there is no such frame; there are no others.

    Reads each frame's headers in one piece.
    """
    every = records.at
    n = len(every)
    if not n or not (records.link == ETHERNET).all() or not (every[1:] > every[:-1]).all():
        return None, None
    if int(every[-1]) + _USUAL_READ_BYTES > data.size:
        whole = every + _USUAL_READ_BYTES <= data.size
        if not whole.any():
            return None, None
        every = every[: int(np.count_nonzero(whole))]
    m = len(every)
    items = np.ndarray((data.size - _USUAL_READ_BYTES + 1,), np.dtype((np.void, _USUAL_READ_BYTES)), data, 0, (1,))
    headers = items[every].view(np.uint8).reshape(m, _USUAL_READ_BYTES)

    def field(offset: int, kind: str) -> npt.NDArray[Any]:
        return np.ndarray((m,), kind, headers, offset, (_USUAL_READ_BYTES,))

    usual = (field(12, ">u4") & np.uint32(0xFFFF_FF00)) == 0x0800_4500  # the type of service may be any
    usual &= (field(20, ">u2") & np.uint16(0x3FFF)) == 0  # no fragment
    usual &= field(23, "u1") == network.UDP
    total, length = field(16, ">u2").astype(np.int64), field(38, ">u2").astype(np.int64)
    usual &= (length >= 8) & (length + 20 <= total)
    if int(records.captured.min()) < _USUAL_HEADER_BYTES:
        usual &= records.captured[:m] >= _USUAL_HEADER_BYTES
    media = field(42, "u1") >= 0x80
    if not media.all():
        # what begins like a tunnel, or cannot be told because it is so short, is looked into
        told = field(42, ">u4") != tunnels.HEP_MAGIC
        told &= ~np.isin(field(34, ">u2"), tunnels.TUNNEL_PORTS) & ~np.isin(field(36, ">u2"), tunnels.TUNNEL_PORTS)
        usual &= media | told
    others = None
    at, captured, arrival_ns, interface = every, records.captured, records.arrival_ns, records.interface
    rows = _numbers(n)
    if m < n or not usual.all():
        others = np.append(np.flatnonzero(~usual), np.arange(m, n))
        rows = np.flatnonzero(usual)
        if not rows.size:
            return None, others
        headers, m = headers[rows], len(rows)
        at, captured, arrival_ns, interface = at[rows], captured[rows], arrival_ns[rows], interface[rows]
        length = length[rows]
    ours = (field(0, ">u4") == int.from_bytes(ROLE_MAC[:4], "big")) & (field(4, "u1") == ROLE_MAC[4])
    length -= 8
    found = Datagrams(
        at + _USUAL_HEADER_BYTES,
        np.minimum(length, captured - _USUAL_HEADER_BYTES),
        length,
        arrival_ns,
        np.zeros(m, np.uint64),
        field(26, ">u4").astype(np.uint64) | np.uint64(MAPPED_PREFIX),
        field(34, ">u2").astype(np.uint16),
        field(36, ">u2").astype(np.uint16),
        np.where(ours, field(5, "u1"), -1).astype(np.int64),
        rows,
        interface,
        np.zeros(m, np.uint64),
        np.where(ours, 0, field(30, ">u4").astype(np.uint64) | np.uint64(MAPPED_PREFIX)),
    )
    return found, others


_COUNT: Final = np.arange(1 << 16)
_COUNT.flags.writeable = False


def _numbers(n: int) -> I64:
    return _COUNT[:n] if n <= len(_COUNT) else np.arange(n)
