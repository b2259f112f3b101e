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

__all__ = ["Common", "Likeness", "field", "usual_rows"]

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


class Likeness:
    """Tells at once that all packets are as usual, and alike: eight bytes of all of them are compared with those of one
    that is known to be usual, a few times."""

    def __init__(self, version: IpVersion) -> None:
        self._version = version
        self._words: tuple[_Word, ...] = ()  # that are looked at
        self._pattern: list[np.uint64] = []  # these words of a packet that is as usual
        self._link = 0  # bytes of its link header

    def common(self, head: U8) -> Common | None:
        """What they have in common, if they all are as usual, and the kernel says of each that its checksum is right;
        None: it takes :func:`usual_rows`."""
        differ = self._differ(head)
        if differ is None or any(bits & word.fixed for bits, word in zip(differ, self._words, strict=True)):
            if not self._learn(head[:1]) or (differ := self._differ(head)) is None:
                return None
            if any(bits & word.fixed for bits, word in zip(differ, self._words, strict=True)):
                return None
        udp = self._version.udp
        if self._version is not IPV4 and not field(head, udp + 6, "<u2").all():
            return None  # there are no datagrams without a checksum
        one_length, one_host, one_port = (
            not any(bits & getattr(word, name) for bits, word in zip(differ, self._words, strict=True))
            for name in ("length", "host", "port")
        )
        length = field(head if not one_length else head[:1], udp + 4, ">u2").astype(np.int32)
        length -= 8
        if not one_length and not _fits(head, length, self._version, self._link).all():
            return None
        if not (one_length and one_host and one_port):
            self._learn(head[:1])
        return Common(
            int(length[0]) if one_length else None, one_host, int(field(head, udp + 2, ">u2")[0]) if one_port else None
        )

    def _differ(self, head: U8) -> list[int] | None:
        """By word, which bits differ from the pattern in any packet."""
        if not self._words:
            return None
        return [
            int(np.bitwise_or.reduce(field(head, word.at, "<u8") ^ pattern))
            for word, pattern in zip(self._words, self._pattern, strict=True)
        ]

    def _learn(self, head: U8) -> bool:
        """Take this packet, uint8 (1, ...), for the pattern, if it is as usual."""
        status, mac = int(field(head, _STATUS, "<u4")[0]), int(field(head, _MAC, "<u2")[0])
        if not status & _CHECKED or mac < _GSO_TYPE or not usual_rows(head, self._version)[0]:
            return False
        self._link = NET - mac
        self._words = (_Word(mac - _GSO_TYPE, fixed=_mask("ff")), *_WORDS[self._version.number])
        self._pattern = [field(head, word.at, "<u8")[0] for word in self._words]
        return True


@dataclass(frozen=True, slots=True)
class _Word:
    """Eight bytes at ``at``, and which bits of them say what: what makes packets usual, lengths, where they went."""

    at: int
    fixed: int = 0
    length: int = 0
    host: int = 0
    port: int = 0


def _mask(text: str) -> int:
    """Up to eight bytes, as they lie in memory."""
    return int.from_bytes(bytes.fromhex(text), "little")


_WORDS: Final = {
    version.number: (
        _Word(_STATUS, fixed=COPIED | _CHECKED, length=_mask("00000000 ffffffff")),  # status, bytes on the wire
        _Word(_CAPTURED, fixed=_mask("00000000 ffff ffff"), length=_mask("ffffffff")),  # where the headers begin
        *words,
        _Word(version.udp, length=_mask("0000 0000 ffff"), port=_mask("0000 ffff")),
    )
    for version, words in (
        (
            IPV4,
            (
                _Word(NET, fixed=_mask("ff"), length=_mask("00 00 ffff")),  # version and header length
                _Word(NET + 4, fixed=_mask("0000 3fff 00 ff")),  # fragment, protocol
                _Word(NET + 12, host=_mask("00000000 ffffffff")),
            ),
        ),
        (
            IPV6,
            (
                _Word(NET, fixed=_mask("ff 000000 0000 ff"), length=_mask("00 000000 ffff")),  # next header
                _Word(NET + 24, host=_mask("ffffffff ffffffff")),
                _Word(NET + 32, host=_mask("ffffffff ffffffff")),
            ),
        ),
    )
}
