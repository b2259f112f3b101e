"""A batch's columns for whoever writes it block by block, and its blocks as the bytes of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..._codecs.g711 import encode

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.types import StreamInfo

__all__ = ["BlockColumns", "encoding_of"]

I16 = npt.NDArray[np.int16]


def encoding_of(stream: StreamInfo, native: bool) -> str:
    """The encoding of a stream's own file: "PCMU" or "PCMA" if such bytes are to be kept as they came, else "pcm16"."""
    codec = stream.codec.name if stream.codec else "L16"
    return codec if native and codec in ("PCMU", "PCMA") else "pcm16"


class BlockColumns:
    """Columns of a batch as lists, which Python reads fastest one by one. Decodes now, unless ``native``: then bytes
    are written as they came. Raises what decoding raises."""

    def __init__(self, batch: BlockBatch, native: bool) -> None:
        self._batch = batch
        self._native = native
        self.position: list[int] = batch.position.tolist()
        self.frames: list[int] = batch.frames.tolist()
        self.time_ns: list[int] = batch.time_ns.tolist()
        self.arrival_ns: list[int] = batch.arrival_ns.tolist()
        self._offset: list[int] = batch.offset.tolist()
        self._last_ns: list[int] | None = None
        self._bytes = memoryview(b"")
        if native:
            self._payload = batch.payload.data
            self._payload_offset: list[int] = batch.payload_offset.tolist()
        else:
            self._bytes = batch.samples.view(np.uint8).data

    def samples_of(self, i: int) -> I16:
        samples: I16 = self._batch.samples[self._offset[i] : self._offset[i + 1]]
        return samples

    def last_ns(self, i: int) -> int:
        """When the block's last packet came."""
        if self._last_ns is None:
            self._last_ns = self._batch.packet_arrival_ns[self._batch.packet_first[1:] - 1].tolist()
        return self._last_ns[i]

    def bytes_of(self, i: int, stream: StreamInfo, encoding: str) -> memoryview:
        """A block as a split file of that encoding holds it."""
        if not self._native:
            return self._bytes[2 * self._offset[i] : 2 * self._offset[i + 1]]
        if encoding != "pcm16":
            transcoded = self._batch.transcoded
            if transcoded is None or not transcoded[i]:
                return self._payload[self._payload_offset[i] : self._payload_offset[i + 1]]
            if stream.codec is not None:
                return encode(stream.codec, self.samples_of(i)).data
        return self.samples_of(i).view(np.uint8).data
