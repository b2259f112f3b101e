"""How far a ring has been read, and what the kernel counted: in memory that several processes may share, so that
another one can go on where a reader was killed."""

from __future__ import annotations

import mmap
import os
from typing import Final

__all__ = ["RingState", "RingStates"]

_WORDS: Final = 8  # of 8 bytes: a cache line
_GIVEN: Final = 0
_TAKEN: Final = 1
_STORED: Final = 2
_DROPPED: Final = 3
_SHUT: Final = 4
_END: Final = 5
_DROPPED_AT_END: Final = 6
_RING_BYTES: Final = 7


class RingState:
    """Frames are counted from when the ring was made; ``words`` is a view of eight int64, all zero at first.

    The reader says what it is about to give back, gives it back, and says that it has. One process, the one that made
    the ring, asks the kernel for its figures, which are zero again when they are read.
    """

    def __init__(self, words: memoryview | None = None) -> None:
        self._words = memoryview(bytearray(8 * _WORDS)).cast("q") if words is None else words

    # --- the reader -----------------------------------------------------------------------------------------------

    @property
    def given(self) -> int:
        """Frames that have been given back for sure."""
        return self._words[_GIVEN]

    @property
    def taken(self) -> int:
        """Frames that have been read."""
        return self._words[_TAKEN]

    def take(self, count: int) -> None:
        """So many more are about to be given back."""
        self._words[_TAKEN] += count

    def give(self) -> None:
        """They have been given back."""
        self._words[_GIVEN] = self._words[_TAKEN]

    def resume(self, count: int) -> None:
        """A new reader begins here: so many frames had been given back in truth."""
        self._words[_GIVEN] = self._words[_TAKEN] = count

    # --- the owner ------------------------------------------------------------------------------------------------

    @property
    def stored(self) -> int:
        """Frames that the kernel put into the ring, as far as it was asked."""
        return self._words[_STORED]

    @property
    def dropped(self) -> int:
        """Packets for which there was no free frame, as far as it was asked."""
        return self._words[_DROPPED]

    def count(self, stored: int, dropped: int) -> None:
        """What the kernel says was added."""
        self._words[_STORED] += stored
        self._words[_DROPPED] += dropped

    def shut(self) -> None:
        """What is stored from now on is behind the end."""
        if self.end is None:
            self._words[_END], self._words[_DROPPED_AT_END] = self.stored, self.dropped
            self._words[_SHUT] = 1

    @property
    def end(self) -> int | None:
        """How many frames were stored when the door was shut; None: it is open."""
        return self._words[_END] if self._words[_SHUT] else None

    @property
    def dropped_before_end(self) -> int:
        """Packets that were dropped until the door was shut, or until now."""
        return self._words[_DROPPED_AT_END] if self._words[_SHUT] else self.dropped

    @property
    def after_end(self) -> int:
        """Packets that came after the door was shut."""
        end = self.end
        return 0 if end is None else self.stored - end + self.dropped - self.dropped_before_end

    @property
    def rest(self) -> int:
        """Frames that came before the end and were not read."""
        end = self.end
        return (self.stored if end is None else end) - self.taken

    @property
    def ring_bytes(self) -> int:
        """Of the ring's memory."""
        return self._words[_RING_BYTES]

    @ring_bytes.setter
    def ring_bytes(self, size: int) -> None:
        self._words[_RING_BYTES] = size


class RingStates:
    """States of ``count`` rings in memory that has a file descriptor; whoever gets that opens the same."""

    def __init__(self, count: int, fd: int | None = None) -> None:
        self.fd = os.memfd_create("strep-rings") if fd is None else fd
        size = 8 * _WORDS * count
        if fd is None:
            os.ftruncate(self.fd, size)
        self._words = memoryview(mmap.mmap(self.fd, size)).cast("q")

    def of(self, number: int) -> RingState:
        """One ring's."""
        return RingState(self._words[number * _WORDS : (number + 1) * _WORDS])

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last state."""
        os.close(self.fd)
