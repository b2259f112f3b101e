"""Which packets are as usual: whole in their frame, without options, extension headers, fragments and segmentation
offload, their checksums known to be right. What is asked of them stands at fixed places. Pure.

``head`` is uint8 (n, ...): what stands before the payloads of usual packets, of n frames, at least 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .layout import COPIED, IPV4, IPV6, NET, PARTIAL, VALID, IpVersion

__all__ = ["Common", "Heads", "field", "usual_rows"]

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_CHECKED: Final = PARTIAL | VALID
_STATUS, _WIRE, _CAPTURED, _MAC, _NET = 0, 4, 8, 12, 14  # of the frame's own header
_VERSION_BYTE: Final = {4: 0x45, 6: 0x60}  # without options
_UDP: Final = 17
_GSO_TYPE: Final = 9  # bytes before the link header, in that of virtio
_FRAGMENT_MASK: Final = 0x3FFF


def field(head: U8, at: int, kind: str) -> npt.NDArray[Any]:
    """A view of what stands at ``at`` in every row."""
    return np.ndarray((len(head),), kind, head, at, (head.strides[0],))


def usual_rows(head: U8, version: IpVersion) -> Mask:
    """Which packets are as usual, bool (n,)."""
    status = field(head, _STATUS, "<u4")
    usual: Mask = field(head, NET, "u1") == np.uint8(_VERSION_BYTE[version.number])
    usual &= (status & np.uint32(COPIED)) == 0
    checked = (status & np.uint32(_CHECKED)) != 0
    checksum = field(head, version.udp + 6, ">u2")
    if version is IPV4:
        usual &= (field(head, NET + 6, ">u2") & np.uint16(_FRAGMENT_MASK)) == 0
        usual &= field(head, NET + 9, "u1") == np.uint8(_UDP)
        if not checked.all():
            checked |= checksum == 0
    else:
        usual &= field(head, NET + 6, "u1") == np.uint8(_UDP)
        checked &= (checksum != 0) | ((status & np.uint32(PARTIAL)) != 0)
    usual &= checked
    mac = field(head, _MAC, "<u2")
    first = int(mac[0])
    usual &= (mac == np.uint16(first)) & (field(head, _NET, "<u2") == np.uint16(NET))
    if first >= _GSO_TYPE:
        usual &= field(head, first - _GSO_TYPE, "u1") == 0
    length = field(head, version.udp + 4, ">u2").astype(np.int32)
    length -= 8
    usual &= _fits(head, length, version, NET - first)
    return usual


def _fits(head: U8, length: I32, version: IpVersion, link: int) -> Mask:
    """Which packets are whole in their frames, and their payloads, of ``length``, in them. ``link``: bytes of the link
    header."""
    if version is IPV4:
        headers, inside = 28, field(head, NET + 2, ">u2").astype(np.int32)
    else:
        headers, inside = 8, field(head, NET + 4, ">u2").astype(np.int32)
        link += 40
    captured = field(head, _CAPTURED, "<u4")
    fits: Mask = captured == field(head, _WIRE, "<u4")
    fits &= captured >= (inside + np.int32(link)).view(np.uint32)
    inside -= length
    fits &= inside >= headers
    fits &= length >= 0
    return fits


@dataclass(frozen=True, slots=True)
class Common:
    """What usual packets have in common; None: they differ. ``length``: of their payloads; ``destination``: whether it
    is one address; ``port``: theirs."""

    length: int | None
    destination: bool
    port: int | None


class Heads:
    """What frames say of their packets, copied out of the ring in two pieces a frame and looked at together, ``most``
    frames at most.

    That all packets are as usual, and alike, is told from which bits are set in any of them and which in all: a dozen
    calls for a batch, where :func:`usual_rows` takes fifty."""

    def __init__(self, version: IpVersion, most: int) -> None:
        self._version = version
        # of the header that the kernel writes, and of what stands before the payload
        self._pieces = tuple((at, np.dtype((np.void, end - at))) for at, end in ((0, _OWN), (_FROM, _end(version))))
        self._words = (_OWN + _end(version) - _FROM) // 8
        self._head = np.zeros((-(-most // _TOGETHER) * _TOGETHER, self._words), np.uint64)
        at = 0
        self._into = []
        for _, kind in self._pieces:
            self._into.append(np.ndarray((len(self._head),), kind, self._head, at, self._head.strides[:1]))
            at += kind.itemsize
        self._pattern: list[int] = []  # the words of a packet that is as usual
        self._masks: dict[str, list[int]] = {}  # which bits of them say what
        self._link = 0  # bytes of its link header

    def take(self, frames: U8) -> None:
        """Copy what these frames say: uint8 (n, FRAME_BYTES), n at least 1."""
        n = len(frames)
        for to, (at, kind) in zip(self._into, self._pieces, strict=True):
            # rows as opaque items: numpy copies each with one memcpy
            to[:n] = np.ndarray((n,), kind, frames, at, frames.strides[:1])

    def column(self, at: int, kind: str, n: int) -> npt.NDArray[Any]:
        """A view of what stood at ``at`` in each frame."""
        return np.ndarray((n,), kind, self._head, at - (_FROM - _OWN), self._head.strides[:1])

    def common(self, frames: U8) -> Common | None:
        """What the packets of these frames, which were taken, have in common, if they all are as usual, and the kernel
        says of each that its checksum is right; None: it takes :func:`usual_rows`."""
        n, version = len(frames), self._version
        any_of, all_of = self._bits(n)
        differ = self._differ(any_of, all_of)
        if differ is None or self._in(differ, "fixed"):
            if not self._learn(frames[:1]):
                return None
            differ = self._differ(any_of, all_of)
            if differ is None or self._in(differ, "fixed"):
                return None
        if version is not IPV4 and not self.column(version.udp + 6, "<u2", n).all():
            return None  # there are no datagrams without a checksum
        one_length, one_host, one_port = (not self._in(differ, name) for name in ("length", "host", "port"))
        if not one_length:
            length = field(frames, version.udp + 4, ">u2").astype(np.int32)
            length -= 8
            if not _fits(frames, length, version, self._link).all():
                return None
        if not (one_length and one_host and one_port):
            self._learn(frames[:1])
        return Common(
            int(field(frames[:1], version.udp + 4, ">u2")[0]) - 8 if one_length else None,
            one_host,
            int(field(frames[:1], version.udp + 2, ">u2")[0]) if one_port else None,
        )

    def _bits(self, n: int) -> tuple[list[int], list[int]]:
        """By word, which bits are set in any packet, and which in all."""
        rows = -(-n // _TOGETHER)
        self._head[n : rows * _TOGETHER] = self._head[0]
        wide = self._head[: rows * _TOGETHER].reshape(rows, -1)  # so many words are a run that is worth a loop
        found = []
        for reduce in (np.bitwise_or.reduce, np.bitwise_and.reduce):
            words: list[int] = reduce(reduce(wide, axis=0).reshape(_TOGETHER, -1), axis=0).tolist()
            found.append(words)
        return found[0], found[1]

    def _differ(self, any_of: list[int], all_of: list[int]) -> list[int] | None:
        """By word, which bits differ from the pattern in any packet; None: there is no pattern."""
        if not self._pattern:
            return None
        return [
            (some & ~pattern) | (pattern & ~every)
            for some, every, pattern in zip(any_of, all_of, self._pattern, strict=True)
        ]

    def _in(self, differ: list[int], name: str) -> bool:
        return any(bits & mask for bits, mask in zip(differ, self._masks[name], strict=True))

    def _learn(self, frame: U8) -> bool:
        """Take this packet, uint8 (1, ...), for the pattern, if it is as usual."""
        status, mac = int(field(frame, _STATUS, "<u4")[0]), int(field(frame, _MAC, "<u2")[0])
        if not status & _CHECKED or mac < _FROM + _GSO_TYPE or not usual_rows(frame, self._version)[0]:
            return False
        self._link = NET - mac
        own, inside = frame[0, :_OWN].tobytes(), frame[0, _FROM : _end(self._version)].tobytes()
        self._pattern = np.frombuffer(own + inside, np.uint64).tolist()
        for name, ranges in _RANGES[self._version.number].items():
            bits = bytearray(8 * self._words)
            for at, mask in (*ranges, *(((mac - _GSO_TYPE, b"\xff"),) if name == "fixed" else ())):
                begin = at if at < _OWN else at - (_FROM - _OWN)
                bits[begin : begin + len(mask)] = mask
            self._masks[name] = np.frombuffer(bits, np.uint64).tolist()
        return True


_OWN: Final = 24  # bytes of a frame's own header that are looked at
_FROM: Final = 72  # where what is looked at of the packet begins: in or before virtio's header
_TOGETHER: Final = 64  # rows that are looked at side by side


def _end(version: IpVersion) -> int:
    """Where it ends."""
    return -(-version.payload // 8) * 8


def _ranges(version: IpVersion) -> dict[str, list[tuple[int, bytes]]]:
    """Which bits of a frame say what, as places and masks: what makes packets usual, their lengths, where they went."""
    status = (COPIED | _CHECKED).to_bytes(4, "little")
    places = [(_STATUS, status), (_MAC, b"\xff\xff"), (_NET, b"\xff\xff"), (NET, b"\xff")]
    if version is IPV4:
        fixed = [*places, (NET + 6, _FRAGMENT_MASK.to_bytes(2, "big")), (NET + 9, b"\xff")]
        inside = NET + 2
    else:
        fixed, inside = [*places, (NET + 6, b"\xff")], NET + 4
    lengths = [(_WIRE, b"\xff" * 4), (_CAPTURED, b"\xff" * 4), (inside, b"\xff\xff"), (version.udp + 4, b"\xff\xff")]
    return {
        "fixed": fixed,
        "length": lengths,
        "host": [(NET + version.destination, b"\xff" * version.address_bytes)],
        "port": [(version.udp + 2, b"\xff\xff")],
    }


_RANGES: Final = {version.number: _ranges(version) for version in (IPV4, IPV6)}
