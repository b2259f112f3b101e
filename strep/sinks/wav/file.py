"""WAV files and their format: headers of one fixed size per format, rewritten in place; RF64 past 4 GiB.

    RIFF size WAVE │ JUNK 28 …   │ fmt  │ fact (G.711) │ data size │ samples
    RF64 -1   WAVE │ ds64 sizes  │ fmt  │ fact         │ data -1   │ samples      (EBU Tech 3306)

The JUNK chunk keeps the place of ds64, so a file becomes RF64 without moving a sample.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._codecs.facts import silence_byte

__all__ = ["HEADER_INTERVAL_S", "MAX_HEADER_BYTES", "PART", "WavFile", "WavFormat"]

PART: Final = ".part.wav"  # how the names of unfinished files end
HEADER_INTERVAL_S: Final = 0.5  # a header that is older than this is rewritten when there is more to say (``upkeep``)

_PCM: Final = 1  # format tags
_ALAW: Final = 6
_MULAW: Final = 7
_LARGEST_U32: Final = 0xFFFF_FFFF
_LOWEST_RATE: Final = 4000  # Hz; no file of ours has less
_FORMAT_BYTES: Final = 64  # of a header: they tell its format

_U32: Final = struct.Struct("<I")

MAX_HEADER_BYTES: Final = 94  # of the longest header


@dataclass(frozen=True)
class WavFormat:
    """Encoding of a file: "pcm16", "PCMU" or "PCMA". :meth:`of` gives the same object for the same format, which knows
    already what else there is to know."""

    encoding: str
    rate: int
    channels: int

    @staticmethod
    @lru_cache(maxsize=64)
    def of(encoding: str, rate: int, channels: int) -> WavFormat:
        return WavFormat(encoding, rate, channels)

    @cached_property
    def frame_bytes(self) -> int:
        return self.channels * (2 if self.encoding == "pcm16" else 1)

    @cached_property
    def silence(self) -> int:
        """The byte that is silence."""
        return silence_byte(self.encoding)

    @cached_property
    def header_bytes(self) -> int:
        return 80 if self.encoding == "pcm16" else 94

    def header(self, data_bytes: int) -> bytes:
        """The whole header for ``data_bytes`` of samples; always :attr:`header_bytes` long."""
        size = self.header_bytes
        if size + data_bytes > _LARGEST_U32:
            return self._whole_header(data_bytes)
        header = bytearray(self._empty_header)
        # a chunk of odd size is followed by a byte that its size does not count
        _U32.pack_into(header, 4, size - 8 + data_bytes + data_bytes % 2)
        _U32.pack_into(header, size - 4, data_bytes)
        if self.encoding != "pcm16":
            _U32.pack_into(header, size - 12, data_bytes // self.frame_bytes)  # the fact chunk stands before "data"
        return bytes(header)

    @cached_property
    def _empty_header(self) -> bytes:
        return self._whole_header(0)

    def _whole_header(self, data_bytes: int) -> bytes:
        tag = {"pcm16": _PCM, "PCMU": _MULAW, "PCMA": _ALAW}[self.encoding]
        bits = 16 if tag == _PCM else 8
        fmt = struct.pack(
            "<HHIIHH", tag, self.channels, self.rate, self.rate * self.frame_bytes, self.frame_bytes, bits
        )
        frames = data_bytes // self.frame_bytes
        if tag != _PCM:
            fmt += struct.pack("<H", 0)
        chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt
        if tag != _PCM:
            chunks += b"fact" + struct.pack("<II", 4, min(frames, _LARGEST_U32))
        riff = self.header_bytes - 8 + data_bytes + data_bytes % 2
        if riff <= _LARGEST_U32:
            start = b"RIFF" + struct.pack("<I", riff) + b"WAVE" + b"JUNK" + struct.pack("<I", 28) + bytes(28)
            return start + chunks + b"data" + struct.pack("<I", data_bytes)
        sizes = struct.pack("<QQQI", riff, data_bytes, frames, 0)
        start = b"RF64" + struct.pack("<I", _LARGEST_U32) + b"WAVE" + b"ds64" + struct.pack("<I", 28) + sizes
        return start + chunks + b"data" + struct.pack("<I", _LARGEST_U32)

    @classmethod
    def of_header(cls, header: bytes) -> WavFormat | None:
        """The format of a file that begins like this, even if its sizes are torn or what stands behind its rate was
        never written; None if it is none of ours."""
        if len(header) < _FORMAT_BYTES:
            return None
        tag, channels, rate = struct.unpack_from("<HHI", header, 56)
        encoding = {_PCM: "pcm16", _MULAW: "PCMU", _ALAW: "PCMA"}.get(tag)
        if encoding is None or not channels or rate < _LOWEST_RATE:
            return None
        found = cls(encoding, rate, channels)
        if rate * found.frame_bytes > _LARGEST_U32 or found.frame_bytes > 0xFFFF:
            return None
        return found if found.fits(header) else None

    def fits(self, header: bytes) -> bool:
        """Whether a header may be one of this format, or the beginning of one behind which there are zeros only."""
        # a write that was torn in the middle of a name has left a bit of either
        names = zip(header[:4] + header[12:16], b"RIFFJUNK", b"RF64ds64", strict=False)
        if any(byte not in either for byte, *either in names):
            return False
        wanted, size = self.header(0), self.header_bytes
        sizes = {*range(4, 8), *range(20, 48), *range(size - 4, size)}
        if self.encoding != "pcm16":
            sizes.update(range(size - 12, size - 8))
        fixed = [i for i in range(8, min(size, len(header))) if i not in sizes and not 12 <= i < 16]
        written = len(header[:size].rstrip(b"\0"))
        return all(header[i] == wanted[i] for i in fixed if i < max(written, _FORMAT_BYTES))

    def headers(self, data_bytes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Headers of many files at once, uint8 (n, header_bytes); for less than 4 GiB."""
        size = self.header_bytes
        out = np.tile(np.frombuffer(self.header(0), np.uint8), (len(data_bytes), 1))
        fields = {4: size - 8 + data_bytes + data_bytes % 2, size - 4: data_bytes}
        if self.encoding != "pcm16":
            fields[size - 12] = data_bytes // self.frame_bytes  # the fact chunk stands before "data"
        for at, values in fields.items():
            out[:, at : at + 4] = values.astype("<u4").view(np.uint8).reshape(-1, 4)
        return out


class WavFile:
    """A file that grows: what is known of it. What lies between writes is silence."""

    __slots__ = (
        "checked",
        "end",
        "fd",
        "folder",
        "format",
        "header_end",
        "header_written_at",
        "rest",
        "retry_at",
        "stem",
        "wanted",
    )

    def __init__(self, format_: WavFormat, folder: str, stem: str) -> None:
        self.format = format_
        self.folder = folder
        self.stem = stem  # its name without suffix; with a number, if need be
        self.wanted = stem  # without a number
        self.end = 0  # bytes of samples that were written
        self.rest = b""  # samples behind ``end`` that were not written yet
        self.checked = 0  # ``end`` when the file was last seen to be there
        self.header_end = -1  # bytes of samples that the header on disk speaks of; -1: there is none yet
        self.header_written_at = 0.0  # monotonic seconds
        self.fd = -1  # descriptor; -1: not open
        self.retry_at = 0.0  # monotonic seconds: after an error, nothing is tried before; 0: there was none

    @property
    def lags(self) -> bool:
        """Whether the file on disk lacks something, or its header does not speak of it."""
        return bool(self.rest) or self.header_end != self.end

    @property
    def part(self) -> str:
        return self.stem + PART
