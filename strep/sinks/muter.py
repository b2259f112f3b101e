"""What takes keys out of audio, for sinks that may do so: most do not, and need not import what it takes."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.types import StreamInfo
    from .analysis.keys import InbandDigit
    from .exclusion import StreamExclusion

__all__ = ["KeySource", "Muter", "key_muter"]


class KeySource(Protocol):
    """Who has looked for keys in the same audio already: :class:`strep.sinks.DtmfDetector`."""

    def take_keys(self) -> list[InbandDigit]:
        """The digits that were found since the last call; from the first call on."""

    def going(self, row: int) -> tuple[int, int] | None:
        """Begin and end so far, in samples at 8 kHz, of a digit that is sure and still goes on in a row."""

    @property
    def busy(self) -> Set[int]:
        """The rows in which a digit goes on, or may."""


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
