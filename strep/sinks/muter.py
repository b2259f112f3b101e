"""What takes keys out of audio, for sinks that may do so: most do not, and need not import what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.types import StreamInfo
    from .exclusion import StreamExclusion
    from .key_source import KeySource

__all__ = ["Muter", "key_muter"]


class Muter(Protocol):
    """Lets audio through late, without keys: :class:`strep.sinks.muting.KeyMuter`."""

    @property
    def aside(self) -> StreamExclusion:
        """Streams that were set aside, and the frames that this has cost."""

    @property
    def streams(self) -> list[StreamInfo]:
        """Streams of which something is held back."""

    def process(self, batch: BlockBatch) -> BlockBatch | None:
        """What may go now, of the streams that ``batch`` is of."""

    def end(self, stream: StreamInfo) -> BlockBatch | None:
        """What is still held back of a stream that has ended."""


def key_muter(keys: KeySource | None = None) -> Muter:
    """A new one. ``keys``: who finds them, in each batch before this is given it; None: it does so itself."""
    from .muting import KeyMuter

    return KeyMuter(keys)
