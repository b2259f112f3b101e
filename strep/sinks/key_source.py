"""Whose keys those may have who take them out of audio."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .analysis.keys import InbandDigit

__all__ = ["KeySource"]


class KeySource(Protocol):
    """Who has looked for keys in the same audio already: :class:`strep.sinks.DtmfDetector`."""

    def take_keys(self) -> list[InbandDigit]:
        """The digits that were found since the last call; from the first call on."""

    def going(self, row: int) -> tuple[int, int] | None:
        """Begin and end so far, in samples at 8 kHz, of a digit that is sure and still goes on in a row."""

    @property
    def busy(self) -> Set[int]:
        """The rows in which a digit goes on, or may."""
