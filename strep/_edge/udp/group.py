"""Many ports that are read together: those of pairs. They share one table of rows: an idle port costs next to nothing.

One question to the kernel tells which have something. These are read one after the other, each with one system call,
into the next rows that are free; then numpy handles all rows at once. When the table is full, the rest of them comes
first the next time. No port may take more than a quarter of it in a turn, so one that is flooded starves no other.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import SLOT_MINIMUM, DatagramBatch, in_one_tick
from .address import UdpAddress
from .base import BoundPort, Port, Reader
from .clock import SteadyClock
from .many_stamps import ManyStamps
from .readiness import readiness

__all__ = ["SharedGroup", "Turn", "in_order"]

I64 = npt.NDArray[np.int64]

_PORTS_IN_A_TURN: Final = 4  # at least, when all of them are flooded

P = TypeVar("P", bound=BoundPort)


@dataclass(slots=True, eq=False)
class _Entry(Generic[P]):
    port: P
    number: int  # of its time stamps


@dataclass(slots=True)
class Turn:
    """What was read in one go: ``filled`` rows, first ``counts[0]`` of the port ``local[0]``, and so on. ``emptied``:
    whether that was everything that the port had."""

    begun_ns: int
    filled: int
    numbers: I64  # of the ports' time stamps
    local: npt.NDArray[np.uint16]
    counts: I64
    emptied: npt.NDArray[np.bool_]

    def arrival(self, stamps: I64, of: ManyStamps) -> I64:
        """Steady arrival times, int64 ns (filled,)."""
        return of.take(stamps, self.numbers, self.counts, self.emptied, self.begun_ns)

    def local_port(self) -> npt.NDArray[np.uint16]:
        """uint16 (filled,)"""
        return np.repeat(self.local, self.counts)


class SharedGroup(Generic[P]):
    """See :class:`PortGroup`. Those who derive from it bind ports, fill rows, and make a batch of them.

    ``rows``: of the table; ``watching``: the loop can watch file descriptors.
    """

    name = "the ports of pairs"
    _fill: Callable[[int, int, int], int]
    """Fill rows with what waits in a port: its file descriptor, the first row, how many at most; returns how many were
    filled. Raises OSError. Called for each port that has something."""

    def __init__(self, rows: int, clock: SteadyClock, *, watching: bool) -> None:
        self.full = False
        self.emptied_ns = clock.now_ns()
        self.rows = rows
        self._clock = clock
        self._stamps = ManyStamps(clock)
        self._entries: dict[int, _Entry[P]] = {}  # by file descriptor
        self._readiness = readiness() if watching else None
        self._waiting: deque[int] = deque()  # those that had something when the kernel was asked, and were not read yet
        self._asked_ns = self.emptied_ns  # when that was
        self._unfinished = False  # some port has had more than it might take since then
        self._numbers: dict[object, int] = {}  # file descriptors by port
        self._left_out: set[int] = set()
        self._again: list[int] = []  # to be tried, though left out
        self._failures: list[tuple[Port, Exception]] = []

    # --- ports ----------------------------------------------------------------------------------------------------

    def open(self, address: UdpAddress, receive_buffer: int) -> P:
        raise NotImplementedError

    def add(self, port: Port) -> None:
        ours = cast("P", port)  # of open()
        number = ours.fileno()
        self._entries[number] = _Entry(ours, self._stamps.open())
        self._numbers[port] = number
        if self._readiness is not None:
            self._readiness.add(number)

    def remove(self, port: Port) -> None:
        number = self._numbers.pop(port, None)
        if number is None:
            return
        self._stamps.close(self._entries.pop(number).number)
        self._unregister(number)
        self._left_out.discard(number)
        if number in self._waiting:
            self._waiting.remove(number)

    def _unregister(self, number: int) -> None:
        if self._readiness is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):  # somebody may have closed it
                self._readiness.remove(number)

    def only(self, ports: Sequence[Port]) -> Reader:
        return _Part(self, [self._numbers[port] for port in ports])

    def failures(self) -> list[tuple[Port, Exception]]:
        failures, self._failures = self._failures, []
        return failures

    def _leave_out(self, number: int, error: Exception) -> None:
        if number not in self._left_out:
            self._left_out.add(number)
            self._unregister(number)
        self._failures.append((self._entries[number].port, error))

    def _bring_back(self, number: int) -> None:
        """Never raises: rows have been filled that must not be lost."""
        try:
            if self._readiness is not None:
                self._readiness.add(number)
            self._left_out.discard(number)
        except OSError as error:
            self._failures.append((self._entries[number].port, error))

    def retry(self, port: object) -> bool:
        number = self._numbers.get(port)
        if number is None or number not in self._left_out:
            return False
        self._again.append(number)
        return True

    def close(self) -> None:
        self._entries.clear()
        self._numbers.clear()
        self._left_out.clear()
        self._waiting.clear()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def held_back(self) -> int:
        return 0

    def watchable(self) -> Collection[int]:
        if self._readiness is not None:
            return (self._readiness.fileno(),)
        return [number for number in self._entries if number not in self._left_out]

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        begun_ns = self._clock.now_ns()
        if not self._waiting:
            self._ask(begun_ns)
        batch = self.read(self._waiting, begun_ns, limit)
        self.full = bool(self._waiting) or self._unfinished
        if not self.full:
            self.emptied_ns = self._asked_ns
        return batch

    def _ask(self, begun_ns: int) -> None:
        """Which ports have something?"""
        entries, left_out = self._entries, self._left_out
        if self._readiness is None:
            ready = [number for number in entries if number not in left_out]
        else:
            ready = [number for number in self._readiness.ready(max(len(entries), 1)) if number in entries]
        again, self._again = [number for number in self._again if number in entries], []
        self._waiting.extend(ready)
        self._waiting.extend(again)
        self._unfinished = False
        self._asked_ns = begun_ns
        self._stamps.idle(begun_ns, np.array([entries[n].number for n in (*ready, *left_out)], np.int64))

    def receive_of(self, numbers: Sequence[int], limit: int | None) -> DatagramBatch | None:
        """What is in some ports, by file descriptor."""
        there = deque(number for number in numbers if number in self._entries and number not in self._left_out)
        unfinished = self._unfinished
        batch = self.read(there, self._clock.now_ns(), limit)
        self._unfinished = unfinished
        return batch

    def read(self, waiting: deque[int], begun_ns: int, limit: int | None = None) -> DatagramBatch | None:
        """What is in these, by file descriptor, as far as there is room; those that were read are taken out."""
        room = self._begin()
        if limit is not None:
            room = min(room, limit)
        most = max(room // _PORTS_IN_A_TURN, 1)
        left_out, fill, take = self._left_out, self._fill, waiting.popleft
        numbers, counts, more = [], [], []
        filled = 0
        while waiting and filled < room:
            number = take()
            asked = most if room - filled > most else room - filled
            try:
                count = fill(number, filled, asked)
            except Exception as error:
                self._leave_out(number, error)
                continue
            if left_out and number in left_out:
                self._bring_back(number)
            if count:
                numbers.append(number)
                counts.append(count)
                filled += count
                if count == asked:
                    more.append(len(counts) - 1)
        self._end(filled)
        self._unfinished |= bool(more)
        if not filled:
            self._stamps.none()
            return None
        return self._batch(self._turn(begun_ns, numbers, counts, more))

    def _turn(self, begun_ns: int, numbers: list[int], counts: list[int], more: list[int]) -> Turn:
        read = [self._entries[number] for number in numbers]
        emptied = np.ones(len(read), np.bool_)
        emptied[more] = False
        return Turn(
            begun_ns,
            filled=sum(counts),
            numbers=np.array([entry.number for entry in read], np.int64),
            local=np.array([entry.port.local_port for entry in read], np.uint16),
            counts=np.array(counts, np.int64),
            emptied=emptied,
        )

    def _begin(self) -> int:
        """All rows are free; returns how many may be filled."""
        raise NotImplementedError

    def _end(self, filled: int) -> None:
        """So many rows are filled."""

    def _batch(self, turn: Turn) -> DatagramBatch:
        raise NotImplementedError


class _Part:
    """Some ports of a group."""

    def __init__(self, group: SharedGroup[Any], numbers: list[int]) -> None:
        self.name = group.name
        self.full = False
        self.held_back = 0
        self._group = group
        self._numbers = numbers

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        return self._group.receive_of(self._numbers, limit)

    def watchable(self) -> Collection[int]:
        return ()


def in_order(batch: DatagramBatch, room: npt.NDArray[np.uint8]) -> DatagramBatch:
    """The batch in order of arrival, if it reaches over a boundary of ticks: then that matters. ``room`` is a slab that
    rows of its width may be put into."""
    if in_one_tick([batch.arrival_ns]):
        return batch
    order = np.argsort(batch.arrival_ns, kind="stable")
    slab = batch.slab
    if batch.first_row is not None:
        return batch.take(order)
    if slab.shape[1] == room.shape[1]:
        return batch.take(order, np.take(slab, order, axis=0, out=room[: len(order)], mode="clip"))
    width = min(max(-(-int(batch.length.max()) // 64) * 64, SLOT_MINIMUM), slab.shape[1])
    return batch.take(order, slab[:, :width][order])
