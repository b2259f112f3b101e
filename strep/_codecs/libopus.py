"""libopus through ctypes: what libavcodec does not pass on, concealment (PLC) and forward error correction."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from .opus import PACKET_SAMPLES_LIMIT, RATE

__all__ = ["OpusState", "load"]

I16 = npt.NDArray[np.int16]

_STEP_SAMPLES: Final = 120  # 2.5 ms: lengths to conceal are multiples of it


@lru_cache(maxsize=1)
def load() -> ctypes.CDLL | None:
    """libopus of PyAV's wheel, or else the system's; None where there is neither."""
    for name in _candidates():
        try:
            library = ctypes.CDLL(name)
            size, begin, decode = library.opus_decoder_get_size, library.opus_decoder_init, library.opus_decode
        except (OSError, AttributeError):
            continue
        size.restype = ctypes.c_int
        size.argtypes = [ctypes.c_int]
        begin.restype = ctypes.c_int
        begin.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
        decode.restype = ctypes.c_int
        decode.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip
        return library
    return None


def _candidates() -> Iterator[str]:
    wheel = importlib.util.find_spec("av")
    if wheel is not None and wheel.origin is not None:
        package = Path(wheel.origin).parent
        for folder in (package.parent / "av.libs", package / ".dylibs"):
            yield from sorted(str(path) for path in folder.glob("libopus[-.]*"))
    yield "libopus.so.0"
    if by_name := ctypes.util.find_library("opus"):  # asks other programs: last
        yield by_name


class OpusState:
    """A decoder at 48 kHz, one or two channels whatever the packets have.

    Where one begins it asks the processor what it can do: 75 µs on a virtual machine. A copy of one that has begun is
    as good ("a shallow copy is sufficient", opus.h) and takes 15 µs.
    """

    def __init__(self, library: ctypes.CDLL, channels: int) -> None:
        self._library = library
        self._channels = channels
        self._state = _begun(library, channels).copy()
        self._address = self._state.ctypes.data

    def decode(self, payload: bytes) -> I16 | None:
        """Samples of a packet, channels interleaved; None if it is corrupt."""
        return self._call(payload, PACKET_SAMPLES_LIMIT, 0)

    def conceal(self, following: bytes, frames: int) -> I16:
        """``frames`` sample frames that are missing right before the packet ``following``, which is decoded next.

        The last of them come from the copy that packet carries of its predecessor, if it does (LBRR, RFC 6716 4.2.5);
        the rest is extrapolated. What the library cannot make up is zero.
        """
        parts = []
        missing = -(-frames // _STEP_SAMPLES) * _STEP_SAMPLES
        tail = min(missing, PACKET_SAMPLES_LIMIT)  # this much in one call, so that it ends with the copy
        while missing:
            size = tail if missing == tail else min(missing - tail, PACKET_SAMPLES_LIMIT)
            copy = following if missing == tail else b""
            audio = self._call(copy, size, 1 if copy else 0)
            parts.append(np.zeros(size * self._channels, np.int16) if audio is None else audio)
            missing -= size
        return np.concatenate(parts)[-frames * self._channels :]

    def _call(self, payload: bytes, frames: int, fec: int) -> I16 | None:
        out = np.empty(frames * self._channels, np.int16)
        data = payload or None
        done = self._library.opus_decode(self._address, data, len(payload), out.ctypes.data, frames, fec)
        return None if done < 0 else out[: done * self._channels]


@lru_cache(maxsize=2)
def _begun(library: ctypes.CDLL, channels: int) -> npt.NDArray[np.uint8]:
    """The state of a decoder that has decoded nothing."""
    state = np.zeros(library.opus_decoder_get_size(channels), np.uint8)
    error = library.opus_decoder_init(state.ctypes.data, RATE, channels)
    if error:
        raise RuntimeError(f"opus_decoder_init: error {error}")
    return state
