"""One encoder object a stream: samples of a packet to its payload. For simulations and tests.

G.722, opus and AMR are encoded by PyAV. What it cannot encode, a library of the system does if there is one: G.729 by
libbcg729, AMR-WB by libvo-amrwbenc, GSM by libgsm.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from abc import ABC, abstractmethod
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.types import Codec
from . import amr
from .facts import FORMATS, octet_aligned

__all__ = ["Encoder", "make_encoder", "system_library"]

I16 = npt.NDArray[np.int16]

_OPUS_FRAMES: Final = (120, 240, 480, 960, 1920, 2880, 3840, 4800, 5760)  # libopus packs up to 120 ms
_AMR_BIT_RATE: Final = 12_200
_AMR_WB_MODE: Final = 2  # 12.65 kbit/s, the usual one
_OPUS_BIT_RATE: Final = 24_000  # a channel
_LOSS_PERCENT: Final = 20  # that opus expects with FEC: it then spends on copies


class Encoder(ABC):
    """Encodes the packets of one stream in order."""

    def __init__(self, codec: Codec, frames: int) -> None:
        self.codec = codec
        self.frames = frames  # sample frames of a packet

    def encode(self, samples: I16) -> bytes:
        """The payload of a packet. ``samples``: int16 (frames * channels,), channels interleaved.

        Empty if the codec suppresses the packet (DTX). Raises ConfigurationError for another number of samples.
        """
        if samples.size != self.frames * self.codec.channels:
            raise ConfigurationError(
                f"{samples.size} samples: this encoder takes {self.frames} times {self.codec.channels}"
            )
        return self._encode(np.ascontiguousarray(samples, np.int16).reshape(-1))

    @abstractmethod
    def _encode(self, samples: I16) -> bytes: ...


def make_encoder(codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> Encoder:
    """An encoder for packets of ``frames`` sample frames at the codec's ``sample_rate``.

    ``fec``: opus packets carry copies of their predecessors (in-band FEC). ``dtx``: silence is suppressed (AMR, opus,
    and G.729 in packets of 10 ms). AMR is packed as the codec's octet-align says, bandwidth-efficient by default.
    Raises ConfigurationError for lengths that the codec does not have and codecs that nothing here encodes;
    MissingExtraError if PyAV or the library is missing.
    """
    known = FORMATS.get(codec.name.upper())
    if known is None:
        raise ConfigurationError(f"{codec} is not packed: strep._codecs encodes it")
    if frames < 1 or frames % known.frame or (codec.name == "opus" and frames not in _OPUS_FRAMES):
        choices = "2.5, 5, 10, 20, 40, 60, 80, 100 or 120 ms" if codec.name == "opus" else f"multiples of {known.frame}"
        raise ConfigurationError(f"{codec} in packets of {frames} samples: choose {choices}")
    if fec and codec.name != "opus":
        raise ConfigurationError(f"{codec} has no forward error correction: opus has")
    match codec.name:
        case "G722":
            return _G722Encoder(codec, frames)
        case "opus":
            return _OpusEncoder(codec, frames, fec, dtx)
        case "AMR":
            return _AmrEncoder(codec, frames, dtx)
        case "AMR-WB":
            return _AmrWbEncoder(codec, frames, dtx)
        case "G729":
            return _G729Encoder(codec, frames, dtx)
        case "GSM":
            return _GsmEncoder(codec, frames)
    raise ConfigurationError(f"nothing here encodes {codec}: choose G722, opus, AMR, AMR-WB, G729 or GSM")


# --- by PyAV ---------------------------------------------------------------------------------------------------------


class _Libav:
    def __init__(self, codec: Codec, name: str, bit_rate: int | None, options: dict[str, str]) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtraError(f"{codec} is encoded by PyAV: pip install 'strep-rtp[codecs]'") from error
        try:
            context: Any = av.CodecContext.create(name, "w")
        except ValueError as error:
            raise MissingExtraError(
                f"this PyAV lacks the encoder {name}: pip install -U 'strep-rtp[codecs]'"
            ) from error
        self._rate = codec.sample_rate
        self._layout = "mono" if codec.channels == 1 else "stereo"
        self._frame: Any = av.AudioFrame
        self._position = 0
        context.sample_rate = codec.sample_rate
        context.layout = self._layout
        context.format = "s16"
        context.time_base = Fraction(1, codec.sample_rate)
        context.options = options
        if bit_rate is not None:
            context.bit_rate = bit_rate
        context.open()
        self._context = context

    def encode(self, samples: I16) -> list[bytes]:
        frame = self._frame.from_ndarray(samples.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._position
        frame.time_base = self._context.time_base
        self._position += frame.samples
        return [bytes(packet) for packet in self._context.encode(frame)]


class _G722Encoder(Encoder):
    def __init__(self, codec: Codec, frames: int) -> None:
        super().__init__(codec, frames)
        self._libav = _Libav(codec, "g722", None, {"frame_size": str(frames)})

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._libav.encode(samples))


class _OpusEncoder(Encoder):
    def __init__(self, codec: Codec, frames: int, fec: bool, dtx: bool) -> None:
        super().__init__(codec, frames)
        options = {"application": "voip", "frame_duration": f"{frames / 48:g}"}
        if fec:
            options |= {"fec": "1", "packet_loss": str(_LOSS_PERCENT)}
        if dtx:
            options |= {"dtx": "1"}
        self._libav = _Libav(codec, "libopus", _OPUS_BIT_RATE * codec.channels, options)

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._libav.encode(samples))


class _AmrPacker(Encoder):
    """Frames of 20 ms as decoders store them, packed as RFC 4867 has it."""

    def __init__(self, codec: Codec, frames: int) -> None:
        super().__init__(codec, frames)
        self._wide = codec.name == "AMR-WB"
        self._step = FORMATS[codec.name].frame
        if frames > amr.MOST_FRAMES * self._step:
            raise ConfigurationError(f"{codec} in packets of {frames} samples: at most {amr.MOST_FRAMES * 20} ms")

    def _encode(self, samples: I16) -> bytes:
        stored = [self._frame(part) for part in samples.reshape(-1, self._step)]
        frames = [amr.AmrFrame(data[0] >> 3 & 15, bool(data[0] >> 2 & 1), data[1:]) for data in stored]
        if all(frame.type == amr.NO_DATA for frame in frames):
            return b""
        return amr.pack(frames, wide=self._wide, octet_aligned=bool(octet_aligned(self.codec)))

    @abstractmethod
    def _frame(self, samples: I16) -> bytes:
        """A frame of the storage format: its header byte, its bits."""


class _AmrEncoder(_AmrPacker):
    def __init__(self, codec: Codec, frames: int, dtx: bool) -> None:
        super().__init__(codec, frames)
        self._libav = _Libav(codec, "libopencore_amrnb", _AMR_BIT_RATE, {"dtx": "1"} if dtx else {})

    def _frame(self, samples: I16) -> bytes:
        return b"".join(self._libav.encode(samples))


# --- by libraries of the system --------------------------------------------------------------------------------------

_PACKAGES: Final = {
    "bcg729": ("libbcg729.so.0", "libbcg729-0"),
    "vo-amrwbenc": ("libvo-amrwbenc.so.0", "libvo-amrwbenc0"),
    "gsm": ("libgsm.so.1", "libgsm1"),
}


@lru_cache(maxsize=len(_PACKAGES))
def system_library(name: str) -> ctypes.CDLL | None:
    """A library of the system by its name without "lib"; None where it is not installed."""
    try:
        return ctypes.CDLL(_PACKAGES[name][0])
    except OSError:
        found = ctypes.util.find_library(name)
    try:
        return ctypes.CDLL(found) if found else None
    except OSError:
        return None


class _Native:
    """A C object and the function that frees it."""

    def __init__(self, codec: Codec, library: str, create: str, destroy: str, *arguments: int) -> None:
        found = system_library(library)
        if found is None:
            package = _PACKAGES[library][1]
            raise MissingExtraError(f"{codec} is encoded by lib{library}: apt-get install {package} (Debian, Ubuntu)")
        self.library = found
        make, self._destroy = found[create], found[destroy]
        make.restype = ctypes.c_void_p
        self._destroy.argtypes = [ctypes.c_void_p]
        self._destroy.restype = None
        self.handle = ctypes.c_void_p(make(*arguments))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._destroy(self.handle)


def _pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class _AmrWbEncoder(_AmrPacker):
    def __init__(self, codec: Codec, frames: int, dtx: bool) -> None:
        super().__init__(codec, frames)
        self._native = _Native(codec, "vo-amrwbenc", "E_IF_init", "E_IF_exit")
        self._dtx = int(dtx)

    def _frame(self, samples: I16) -> bytes:
        out = np.zeros(64, np.uint8)
        native = self._native
        size = native.library.E_IF_encode(native.handle, _AMR_WB_MODE, _pointer(samples), _pointer(out), self._dtx)
        return out[:size].tobytes()


class _G729Encoder(Encoder):
    _FRAME: Final = 80

    def __init__(self, codec: Codec, frames: int, dtx: bool) -> None:
        super().__init__(codec, frames)
        if dtx and frames != self._FRAME:  # a SID in the midst of a packet cannot be told
            raise ConfigurationError(f"{codec} in packets of {frames} samples: with DTX, choose {self._FRAME}")
        self._native = _Native(codec, "bcg729", "initBcg729EncoderChannel", "closeBcg729EncoderChannel", int(dtx))

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._frame(part) for part in samples.reshape(-1, self._FRAME))

    def _frame(self, samples: I16) -> bytes:
        out = np.zeros(10, np.uint8)
        size = ctypes.c_uint8()
        native = self._native
        native.library.bcg729Encoder(native.handle, _pointer(samples), _pointer(out), ctypes.byref(size))
        return out[: size.value].tobytes()


class _GsmEncoder(Encoder):
    _FRAME: Final = 160

    def __init__(self, codec: Codec, frames: int) -> None:
        super().__init__(codec, frames)
        self._native = _Native(codec, "gsm", "gsm_create", "gsm_destroy")

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._frame(part) for part in samples.reshape(-1, self._FRAME))

    def _frame(self, samples: I16) -> bytes:
        out = np.zeros(33, np.uint8)
        native = self._native
        native.library.gsm_encode(native.handle, _pointer(samples), _pointer(out))
        return out.tobytes()
