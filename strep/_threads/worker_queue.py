"""A thread with a bounded queue before it: for work that must not hold up whoever hands it over."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["WorkerQueue"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_log = logging.getLogger("strep")


class WorkerQueue(Generic[_T]):
    """A daemon thread that calls ``work(item)`` with each item that is put, in order, one at a time.

    ::

        queue = WorkerQueue(write, name="strep-pcap", limit=64 << 20, on_fault=partial(incidents.fault, "recorder"))
        if not queue.put(batch, batch.nbytes):
            dropped += len(batch)
        ...
        if not queue.close(2.0):
            ...  # it hangs in a call that does not return: it is left behind

    ``name``      of the thread
    ``limit``     how much may wait, the item that is being worked on included, in the unit of the sizes that are given
                  to :meth:`put`: bytes, or items. None: no bound
    ``on_fault``  called in the thread with what ``work``, ``between`` or ``finish`` raised; the thread goes on. None:
                  it is logged
    ``between``   called in the thread after each item, and again when no item has come for as long as it said, but not
                  after :meth:`close`. Its argument tells whether an item was done since its last call. It returns the
                  seconds to wait for the next item: 0 if it has more to do itself, None for as long as it takes
    ``finish``    called in the thread when it ends, with the items that it did not begin

    All methods may be called from any thread.
    """

    def __init__(
        self,
        work: Callable[[_T], object],
        *,
        name: str,
        limit: int | None = None,
        on_fault: Callable[[Exception], object] | None = None,
        between: Callable[[bool], float | None] | None = None,
        finish: Callable[[list[_T]], object] | None = None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._on_fault = on_fault
        self._between = between
        self._finish = finish
        self._items: deque[tuple[_T, int]] = deque()
        self._size = 0  # of the items, and of the one that is being worked on
        self._working = False
        self._closing = False
        self._work_until_s = math.inf  # monotonic
        self._abandoned = False
        self._ended = False  # nobody takes items any more
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # --- whoever has work for the thread --------------------------------------------------------------------------

    def put(self, item: _T, size: int = 0, *, reserved: int = 0, wait: bool = False) -> bool:
        """Hand an item over. Returns whether it was taken: False if there is no room, or if the thread has ended.

        An item has room if all that waits, the item and ``reserved`` together are within the limit. An item of size 0
        always has room, and so has one before which no other item waits. ``wait``: block until there is room.
        """
        with self._condition:
            if wait:
                self._condition.wait_for(lambda: self._ended or self._has_room(size, reserved))
            if self._ended or not self._has_room(size, reserved):
                return False
            self._items.append((item, size))
            self._size += size
            self._condition.notify_all()
            return True

    def _has_room(self, size: int, reserved: int) -> bool:
        return not size or not self._items or self._limit is None or self._size + reserved + size <= self._limit

    def wait_for_room(self) -> None:
        """Block until at most half of the limit waits, or the thread has ended."""
        most = math.inf if self._limit is None else self._limit // 2
        with self._condition:
            self._condition.wait_for(lambda: self._size <= most or self._ended)

    # --- what is known of it --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many items wait, without the one that is being worked on."""
        return len(self._items)

    @property
    def size(self) -> int:
        """Of all items that wait, and of the one that is being worked on."""
        return self._size

    @property
    def idle(self) -> bool:
        """Whether no item waits and none is being worked on."""
        with self._condition:
            return not self._items and not self._working

    @property
    def ended(self) -> bool:
        """Whether the thread takes no more items."""
        return self._ended

    @property
    def alive(self) -> bool:
        """Whether the thread runs still."""
        return self._thread.is_alive()

    # --- its end --------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float | None, *, work_s: float = math.inf) -> bool:
        """Let the thread work on what waits, for at most ``work_s``, and end. Blocks for at most ``timeout_s`` (None:
        for as long as it takes). Returns whether it has ended; otherwise it goes on, and is left behind."""
        with self._condition:
            self._work_until_s = time.monotonic() + work_s
            self._closing = True
            self._condition.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def abandon(self) -> list[_T]:
        """Take all items away that the thread has not begun, and return them. It takes no more, and ends when it has
        done the one that it is working on, if that is ever done. May be called by ``work``."""
        with self._condition:
            left = [item for item, _ in self._items]
            self._size -= sum(size for _, size in self._items)
            self._items.clear()
            self._abandoned = self._ended = True
            self._condition.notify_all()
        return left

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        patience_s: float | None = None
        while True:
            with self._condition:
                if not self._items and not self._closing and not self._abandoned and patience_s != 0.0:
                    self._condition.wait(patience_s)
                closing = self._closing
                if self._abandoned or (closing and not self._items) or time.monotonic() > self._work_until_s:
                    break
                found = self._items.popleft() if self._items else None
                self._working = found is not None
            if found is not None:
                self._contained(self._work, found[0])
                with self._condition:
                    self._working = False
                    self._size -= found[1]
                    self._condition.notify_all()
            if self._between is not None and not closing:
                patience_s = self._contained(self._between, found is not None)
        left = self.abandon()
        if self._finish is not None:
            self._contained(self._finish, left)

    def _contained(self, call: Callable[..., _R], *arguments: object) -> _R | None:
        try:
            return call(*arguments)
        except Exception as error:
            if self._on_fault is not None:
                self._on_fault(error)
            else:
                _log.exception("what thread %s was given failed", self._thread.name)
            return None
