"""The decoders of packed codecs, which the rows of facts name."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.types import Codec
from . import amr, libav, libopus
from .annexb import SID_BYTES, SidNoise
from .decoder import Decoder
from .facts import codec_facts
from .libav import LibavDecoder

__all__ = ["AmrDecoder", "FrameDecoder", "G729Decoder", "IlbcDecoder", "OpusDecoder"]

I16 = npt.NDArray[np.int16]


class _LibavBacked(Decoder):
    """A decoder that needs libavcodec."""

    @classmethod
    def installed(cls, codec: Codec) -> bool:
        return libav.is_installed()

    @classmethod
    def available(cls, codec: Codec) -> bool:
        return libav.decoder_name(codec_facts(codec).av_decoders) is not None


def _joined(parts: list[I16 | None], frame: int) -> tuple[I16, bool]:
    """Frames end to end, those that were refused as ``frame`` zeros; and whether none was refused."""
    sound = all(part is not None for part in parts)
    if not parts:
        return np.empty(0, np.int16), True
    return np.concatenate([np.zeros(frame, np.int16) if part is None else part for part in parts]), sound


class FrameDecoder(_LibavBacked):
    """Payloads of frames of one size, decoded one by one. If a frame is a byte, or payloads say how long they are, a
    payload is decoded as a whole. No concealment.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._libav = LibavDecoder(codec)
        sizes = codec_facts(codec).frame_sizes
        self._frame_bytes = sizes[0].bytes if sizes and sizes[0].bytes > 1 else 0
        self._frame = sizes[0].samples if sizes else 0

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        size = self._frame_bytes or len(payload)
        parts = [self._libav.feed(payload[i : i + size]) for i in range(0, len(payload), size)] if payload else []
        return _joined(parts, self._frame)


class OpusDecoder(Decoder):
    """By libopus, which conceals; without it by libavcodec, which passes on neither PLC nor FEC."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        library = libopus.load()
        self._state = None if library is None else libopus.OpusState(library, codec.channels)
        self._libav = FrameDecoder(codec) if library is None else None

    @classmethod
    def installed(cls, codec: Codec) -> bool:
        return libav.is_installed() or libopus.load() is not None

    @classmethod
    def available(cls, codec: Codec) -> bool:
        return libopus.load() is not None or FrameDecoder.available(codec)

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        if self._libav is not None:
            return self._libav._decode(payload)
        audio = self._state.decode(payload) if payload and self._state is not None else None
        return (np.empty(0, np.int16), False) if audio is None else (audio, True)

    def _conceal(self, following: bytes, frames: int) -> I16 | None:
        return None if self._state is None else self._state.conceal(following, frames)


class AmrDecoder(_LibavBacked):
    """AMR and AMR-WB.

    A lost frame is given to AMR's decoder as NO_DATA, and to AMR-WB's as the last frame again, marked as damaged: both
    then substitute speech. libopencore's AMR-WB is silent at NO_DATA, and goes on for ever with damaged frames: so it
    gets some damaged ones, then NO_DATA. After a SID both make comfort noise at NO_DATA.
    """

    _SUBSTITUTED_FRAMES: Final = 4  # 80 ms, then it fades out
    _NOTHING: Final = amr.AmrFrame(amr.NO_DATA, True, b"").stored

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._libav = LibavDecoder(codec)
        self._wide = amr.is_wide(codec)
        self._frame = amr.frame_samples(codec)
        self._octet_aligned = amr.octet_aligned(codec)
        self._speech_modes = 9 if self._wide else 8
        self._lost = self._NOTHING  # what stands for a lost frame

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        frames = amr.unpack(payload, wide=self._wide, octet_aligned=self._octet_aligned)
        if frames is None:
            return np.empty(0, np.int16), False
        parts = []
        for frame in frames:
            damaged = not frame.sound and not self._wide  # libopencore's AMR does not look at Q
            lost = damaged or (self._wide and frame.type == amr.SPEECH_LOST)
            parts.append(self._libav.feed(self._lost if lost else frame.stored))
            if frame.type < self._speech_modes:
                self._lost = frame._replace(sound=False).stored if self._wide else self._NOTHING
            elif frame.type == self._speech_modes:
                self._lost = self._NOTHING
        return _joined(parts, self._frame)

    def _conceal(self, following: bytes, frames: int) -> I16:
        count = -(-frames // self._frame)
        stored = ([self._lost] * self._SUBSTITUTED_FRAMES + [self._NOTHING] * count)[:count]
        return _joined([self._libav.feed(frame) for frame in stored], self._frame)[0]


class G729Decoder(_LibavBacked):
    """libavcodec takes a frame of zeros for an erased one. It does not know silence descriptors (SID): their noise is
    made here.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._libav = LibavDecoder(codec)
        self._frame_bytes, self._frame = codec_facts(codec).frame_sizes[0]
        self._noise = SidNoise()
        self._silent = False  # the last frame that came was a SID

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        size = self._frame_bytes
        speech = len(payload) // size * size
        sid = payload[speech:]
        parts = [self._libav.feed(payload[i : i + size]) for i in range(0, speech, size)]
        whole = len(sid) in (0, SID_BYTES)
        if parts:
            self._silent = False
        if len(sid) == SID_BYTES:
            self._noise.begin(sid, fresh=not self._silent)
            self._silent = True
            parts.append(self._noise.make(self._frame))
        audio, sound = _joined(parts, self._frame)
        return audio, sound and whole

    def _conceal(self, following: bytes, frames: int) -> I16:
        if self._silent:
            return self._noise.make(frames)
        erased = bytes(self._frame_bytes)
        return _joined([self._libav.feed(erased) for _ in range(-(-frames // self._frame))], self._frame)[0]


class IlbcDecoder(_LibavBacked):
    """Two modes, told apart by the payload's length: 38 bytes for 20 ms, 50 for 30 ms (RFC 3952)."""

    _BIT_RATES: Final = {38: 15_200, 50: 13_333}  # bit/s by frame size: how libavcodec knows the mode

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._frames = dict(codec_facts(codec).frame_sizes)  # samples by bytes
        self._size = 0
        self._libav: LibavDecoder | None = None

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        size = next((size for size in self._frames if len(payload) % size == 0), 0)
        if not size or not payload:
            return np.empty(0, np.int16), False
        if size != self._size or self._libav is None:
            self._size, self._libav = size, LibavDecoder(self.codec, self._BIT_RATES[size])
        feed = self._libav.feed
        parts = [feed(payload[i : i + size]) for i in range(0, len(payload), size)]
        return _joined(parts, self._frames[self._size])

    def _conceal(self, following: bytes, frames: int) -> I16 | None:
        if self._libav is None:
            return None
        frame = self._frames[self._size]
        empty = bytes(self._size - 1) + b"\x01"  # RFC 3951 3.8: the last bit is the empty frame indicator
        feed = self._libav.feed
        return _joined([feed(empty) for _ in range(-(-frames // frame))], frame)[0]
