"""One decoder object a stream: payloads to samples, and what the codec itself makes up for lost ones.

Packet n's samples are those that the decoder returns for packet n: nothing is held back, so nothing shifts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import MissingExtraError
from .._model.types import Codec
from . import amr, libopus
from .annexb import SID_BYTES, SidNoise
from .facts import FORMATS, octet_aligned

__all__ = ["CONCEALED_S", "Decoder", "available", "installed", "make_decoder"]

I16 = npt.NDArray[np.int16]

CONCEALED_S: Final = 1.0  # gaps longer than this are no matter of concealment


class Decoder(ABC):
    """Decodes the packets of one stream in order. Make another one when the source restarts."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.corrupt = 0  # payloads, all or part of which could not be decoded

    def decode(self, payload: bytes, frames: int, lost_frames: int = 0) -> tuple[I16, I16 | None]:
        """Samples of a packet, int16 (frames * channels,), and of what is missing right before it.

        ``frames``: sample frames the payload stands for (:func:`.counts.frame_counts`); what the decoder finds is cut
        or filled up with zeros to that, and a corrupt payload is zeros, counted in ``corrupt``. ``lost_frames``: sample
        frames missing between the packet before and this one. The second is None if there are none, if they are more
        than a second, or if the codec conceals nothing itself; else int16 (lost_frames * channels,). Of silence that
        the sender suppressed (AMR and G.729 after a SID, opus after DTX) it is comfort noise. Any bytes will do.
        """
        concealed = None
        if 0 < lost_frames <= CONCEALED_S * self.codec.sample_rate:
            concealed = self._conceal(payload, lost_frames)
            if concealed is not None:
                concealed = _fit(concealed, lost_frames * self.codec.channels)
        audio, fine = self._decode(payload)
        wanted = frames * self.codec.channels
        self.corrupt += not fine or audio.size != wanted
        return _fit(audio, wanted), concealed

    @abstractmethod
    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        """Samples, and whether all of the payload was sound."""

    def _conceal(self, following: bytes, frames: int) -> I16 | None:
        return None


def make_decoder(codec: Codec) -> Decoder:
    """A decoder for one stream. Raises MissingExtraError without PyAV (opus: without PyAV and libopus)."""
    if codec.name.upper() not in FORMATS:
        raise ValueError(f"{codec} is not packed")
    if codec.name == "opus" and (library := libopus.load()) is not None:
        return _OpusDecoder(codec, library)
    if not available(codec):
        raise MissingExtraError(f"{codec} is decoded by PyAV: pip install 'strep-rtp[codecs]'")
    match codec.name:
        case "G729":
            return _G729Decoder(codec)
        case "AMR" | "AMR-WB":
            return _AmrDecoder(codec)
        case "iLBC":
            return _IlbcDecoder(codec)
        case _:
            return _FrameDecoder(codec, {"G722": 0, "GSM": 33}.get(codec.name, 0))


def installed(codec: Codec) -> bool:
    """Whether what decodes the codec seems to be there: looks, but loads nothing."""
    return find_spec("av") is not None or (codec.name == "opus" and libopus.load() is not None)


def available(codec: Codec) -> bool:
    """Whether payloads of the codec can be decoded with what is installed."""
    if codec.name == "opus" and libopus.load() is not None:
        return True
    return _libav_name(codec.name) is not None


_LIBAV: Final = {
    "G722": ("g722",),
    "G729": ("g729",),
    "opus": ("libopus", "opus"),
    "AMR": ("libopencore_amrnb", "amrnb"),
    "AMR-WB": ("libopencore_amrwb", "amrwb"),
    "GSM": ("gsm", "libgsm"),
    "iLBC": ("ilbc", "libilbc"),
}


@lru_cache(maxsize=len(_LIBAV))
def _libav_name(name: str) -> str | None:
    """The first of libavcodec's decoders for a codec that this build has."""
    try:
        import av
    except ImportError:
        return None
    for candidate in _LIBAV.get(name, ()):
        try:
            av.Codec(candidate, "r")
        except ValueError:
            continue
        return candidate
    return None


class _Libav:
    """A decoder of libavcodec that is fed frame by frame."""

    def __init__(self, codec: Codec, bit_rate: int | None = None) -> None:
        import av

        name = _libav_name(codec.name)
        if name is None:
            raise MissingExtraError(f"{codec} is decoded by PyAV: pip install 'strep-rtp[codecs]'")
        context: Any = av.CodecContext.create(name, "r")
        context.sample_rate = codec.sample_rate
        context.layout = "mono" if codec.channels == 1 else "stereo"
        context.thread_count = 1
        if bit_rate is not None:
            context.bit_rate = bit_rate
        self._context = context
        self._packet: Any = av.Packet
        self._error = av.FFmpegError

    def feed(self, data: bytes) -> I16 | None:
        """Samples of a frame, interleaved; None if the decoder refuses it."""
        if not data:
            return None  # for libavcodec the end of the stream
        try:
            frames = self._context.decode(self._packet(data))
        except self._error:
            return None
        parts = [_int16(frame.to_ndarray(), frame.format.is_planar) for frame in frames]
        return np.concatenate(parts) if parts else None


def _int16(samples: npt.NDArray[Any], planar: bool) -> I16:
    flat = samples.T.reshape(-1) if planar else samples.reshape(-1)
    if flat.dtype != np.int16:
        flat = np.clip(np.rint(np.nan_to_num(flat) * 32_768), -32_768, 32_767)
    out: I16 = flat.astype(np.int16)
    return out


def _fit(samples: I16, size: int) -> I16:
    if samples.size == size:
        return samples
    out = np.zeros(size, np.int16)
    out[: samples.size] = samples[:size]
    return out


class _FrameDecoder(Decoder):
    """Payloads of frames of one size, decoded one by one; size 0: a payload is one frame. No concealment."""

    def __init__(self, codec: Codec, frame_bytes: int) -> None:
        super().__init__(codec)
        self._libav = _Libav(codec)
        self._frame_bytes = frame_bytes

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        size = self._frame_bytes or len(payload)
        parts = [self._libav.feed(payload[i : i + size]) for i in range(0, len(payload), size)] if payload else []
        return _joined(parts, 160)


def _joined(parts: list[I16 | None], frame: int) -> tuple[I16, bool]:
    """Frames end to end, refused ones as zeros."""
    fine = all(part is not None for part in parts)
    if not parts:
        return np.empty(0, np.int16), True
    return np.concatenate([np.zeros(frame, np.int16) if part is None else part for part in parts]), fine


class _OpusDecoder(Decoder):
    def __init__(self, codec: Codec, library: Any) -> None:
        super().__init__(codec)
        self._state = libopus.OpusState(library, codec.channels)

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        audio = self._state.decode(payload) if payload else None
        return (np.empty(0, np.int16), False) if audio is None else (audio, True)

    def _conceal(self, following: bytes, frames: int) -> I16:
        return self._state.conceal(following, frames)


class _AmrDecoder(Decoder):
    """Lost frames are told to the decoder as AMR's NO_DATA, or as AMR-WB's last frame, damaged: it substitutes speech.

    libopencore's AMR-WB is silent at NO_DATA, and goes on for ever with damaged frames: so it gets some of these, then
    NO_DATA. After a SID both make comfort noise at NO_DATA.
    """

    _SUBSTITUTED: Final = 4  # 80 ms, then it fades out
    _NOTHING: Final = amr.AmrFrame(amr.NO_DATA, True, b"").stored

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._libav = _Libav(codec)
        self._wide = codec.name == "AMR-WB"
        self._frame = 320 if self._wide else 160
        self._octet_aligned = octet_aligned(codec)
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
        stored = ([self._lost] * self._SUBSTITUTED + [self._NOTHING] * count)[:count]
        return _joined([self._libav.feed(frame) for frame in stored], self._frame)[0]


class _G729Decoder(Decoder):
    """libavcodec takes a frame of zeros for an erased one, and knows no SID: those are made here."""

    _FRAME_BYTES: Final = 10
    _FRAME: Final = 80

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._libav = _Libav(codec)
        self._noise = SidNoise()
        self._silent = False  # a SID was the last that came

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        speech = len(payload) // self._FRAME_BYTES * self._FRAME_BYTES
        sid = payload[speech:]
        parts = [self._libav.feed(payload[i : i + self._FRAME_BYTES]) for i in range(0, speech, self._FRAME_BYTES)]
        fine = len(sid) in (0, SID_BYTES)
        if parts:
            self._silent = False
        if len(sid) == SID_BYTES:
            self._noise.begin(sid, fresh=not self._silent)
            self._silent = True
            parts.append(self._noise.make(self._FRAME))
        audio, sound = _joined(parts, self._FRAME)
        return audio, sound and fine

    def _conceal(self, following: bytes, frames: int) -> I16:
        if self._silent:
            return self._noise.make(frames)
        erased = bytes(self._FRAME_BYTES)
        return _joined([self._libav.feed(erased) for _ in range(-(-frames // self._FRAME))], self._FRAME)[0]


class _IlbcDecoder(Decoder):
    """Two modes, told apart by the payload's length: 38 bytes for 20 ms, 50 for 30 ms (RFC 3952)."""

    _FRAMES: Final = {38: 160, 50: 240}
    _BIT_RATES: Final = {38: 15_200, 50: 13_333}  # by which libavcodec knows the mode

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._size = 0
        self._libav: _Libav | None = None

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        size = next((size for size in self._FRAMES if len(payload) % size == 0), 0)
        if not size or not payload:
            return np.empty(0, np.int16), False
        if size != self._size or self._libav is None:
            self._size, self._libav = size, _Libav(self.codec, self._BIT_RATES[size])
        libav = self._libav
        return _joined(
            [libav.feed(payload[i : i + size]) for i in range(0, len(payload), size)], self._FRAMES[self._size]
        )

    def _conceal(self, following: bytes, frames: int) -> I16 | None:
        if self._libav is None:
            return None
        frame = self._FRAMES[self._size]
        empty = bytes(self._size - 1) + b"\x01"  # RFC 3951 3.8: the last bit is the empty frame indicator
        libav = self._libav
        return _joined([libav.feed(empty) for _ in range(-(-frames // frame))], frame)[0]
