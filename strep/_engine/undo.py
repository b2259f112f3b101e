"""A journal of what is overwritten, so that work over many streams that raises leaves no trace.

Work over all streams at once writes to a dozen arrays. Copying them first would cost as much as the work. But such
work has nearly always read what it overwrites. So it only notes what it read, which costs 50 ns a column.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Note", "Undo"]

Note = Callable[[tuple[Any, Any, Any]], None]


class Undo:
    """``note((target, key, value))`` before ``target[key]`` is written to: an array and rows, a dict and a key, an
    object's ``__dict__`` and a name, a list and a slice. ``value`` and ``key`` must not be written to afterwards.
    ``keep`` False: nothing is kept, and nothing can be undone."""

    __slots__ = ("_notes", "clear", "note")

    def __init__(self, keep: bool = True) -> None:
        self._notes: list[tuple[Any, Any, Any]] | deque[tuple[Any, Any, Any]] = [] if keep else deque(maxlen=0)
        # the methods of the list itself: they are called a dozen times a batch
        self.note: Note = self._notes.append
        self.clear: Callable[[], None] = self._notes.clear  # what was done so far stays

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Note a call that undoes something, where that is not the assignment of an item."""
        self._notes.append((function, arguments, None))

    def back(self) -> None:
        """Undo what was done since ``clear()``, the last thing first."""
        notes = self._notes
        while notes:
            target, key, value = notes.pop()
            if callable(target):
                target(*key)
            else:
                target[key] = value
