"""The encoders of packed codecs, which the rows of facts name. For simulations and tests.

G.722, opus and AMR are encoded by PyAV. What it cannot encode, a library of the system does if there is one: G.729 by
libbcg729, AMR-WB by libvo-amrwbenc, GSM by libgsm.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from abc import abstractmethod
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.types import Codec
from . import amr
from .encoder import Encoder
from .libav import LibavEncoder

__all__ = [
    "AmrEncoder",
    "AmrWbEncoder",
    "G722Encoder",
    "G729Encoder",
    "GsmEncoder",
    "OpusEncoder",
    "system_library",
]

I16 = npt.NDArray[np.int16]

_AMR_BIT_RATE: Final = 12_200  # bit/s
_AMR_WB_MODE: Final = 2  # 12.65 kbit/s, the usual one
_OPUS_BIT_RATE: Final = 24_000  # bit/s, of a channel
_OPUS_LOSS_PERCENT: Final = 20  # that opus expects with FEC: it then spends bits on copies


# --- by PyAV ---------------------------------------------------------------------------------------------------------


class G722Encoder(Encoder):
    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        self._libav = LibavEncoder(codec, "g722", None, {"frame_size": str(frames)})

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._libav.encode(samples))


class OpusEncoder(Encoder):
    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        options = {"application": "voip", "frame_duration": f"{frames / 48:g}"}
        if fec:
            options |= {"fec": "1", "packet_loss": str(_OPUS_LOSS_PERCENT)}
        if dtx:
            options |= {"dtx": "1"}
        self._libav = LibavEncoder(codec, "libopus", _OPUS_BIT_RATE * codec.channels, options)

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._libav.encode(samples))


class _AmrPacker(Encoder):
    """Frames of 20 ms as decoders store them, packed as RFC 4867 has it."""

    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        self._wide = amr.is_wide(codec)
        self._step = amr.frame_samples(codec)
        if frames > amr.FRAMES_LIMIT * self._step:
            raise ConfigurationError(f"{codec} in packets of {frames} samples: at most {amr.FRAMES_LIMIT * 20} ms")

    def _encode(self, samples: I16) -> bytes:
        stored = [self._frame(part) for part in samples.reshape(-1, self._step)]
        frames = [amr.AmrFrame(data[0] >> 3 & 15, bool(data[0] >> 2 & 1), data[1:]) for data in stored]
        if all(frame.type == amr.NO_DATA for frame in frames):
            return b""
        return amr.pack(frames, wide=self._wide, octet_aligned=bool(amr.octet_aligned(self.codec)))

    @abstractmethod
    def _frame(self, samples: I16) -> bytes:
        """A frame of the storage format: its header byte, its bits."""


class AmrEncoder(_AmrPacker):
    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        self._libav = LibavEncoder(codec, "libopencore_amrnb", _AMR_BIT_RATE, {"dtx": "1"} if dtx else {})

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


class AmrWbEncoder(_AmrPacker):
    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        self._native = _Native(codec, "vo-amrwbenc", "E_IF_init", "E_IF_exit")
        self._dtx = int(dtx)

    def _frame(self, samples: I16) -> bytes:
        out = np.zeros(64, np.uint8)
        native = self._native
        size = native.library.E_IF_encode(native.handle, _AMR_WB_MODE, _pointer(samples), _pointer(out), self._dtx)
        return out[:size].tobytes()


class G729Encoder(Encoder):
    _FRAME: Final = 80

    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
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


class GsmEncoder(Encoder):
    _FRAME: Final = 160

    def __init__(self, codec: Codec, frames: int, *, fec: bool = False, dtx: bool = False) -> None:
        super().__init__(codec, frames, fec=fec, dtx=dtx)
        self._native = _Native(codec, "gsm", "gsm_create", "gsm_destroy")

    def _encode(self, samples: I16) -> bytes:
        return b"".join(self._frame(part) for part in samples.reshape(-1, self._FRAME))

    def _frame(self, samples: I16) -> bytes:
        out = np.zeros(33, np.uint8)
        native = self._native
        native.library.gsm_encode(native.handle, _pointer(samples), _pointer(out))
        return out.tobytes()
