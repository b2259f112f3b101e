"""When sockets are looked at, and what is done then.

Asleep, the pump watches its sockets, and a timer is set for the engine's next deadline. Woken up, it stops watching and
looks again every few milliseconds, because a batch of many datagrams costs hardly more than one of few. When two looks
found nothing it sleeps again.

Whatever a look raises, the next one is arranged for: ``_poll`` always ends in ``_arm``, and ``_arm`` cannot fail to
set a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from .._edge.udp.base import PortGroup, Reader
from .._engine.release import Release
from .._model.datagrams import DatagramBatch
from .._model.time import TICK_NS
from .._threads.incidents import Incidents
from .pacing import Pacing, PairsLook
from .socket_troubles import SocketTroubles
from .sockets import SocketSet
from .watchdog import Watchdog
from .whole_ticks import HeldBack

__all__ = ["Pump"]

_BATCHES_A_LOOK: Final = 8  # of each reader, so that timers still run under flood
_RETRY_S: Final = 0.01  # until the next look, after one that failed
_GUARD_NS: Final = 2_000_000  # a datagram stamped this long ago has reached its socket's queue
_SHORTEST_SLEEP_S: Final = 0.001


class Downstream(Protocol):
    """Where datagrams go: the engine, and what drives it."""

    @property
    def live_streams(self) -> int:
        """How many streams live."""

    def take_all(self, received: list[DatagramBatch], release: Release) -> int:
        """Take what several sockets gave; returns how many datagrams."""

    def advance(self, until_ns: int, release: Release) -> None:
        """Everything that arrived before ``until_ns`` has been taken."""

    def next_deadline_ns(self) -> int | None:
        """When :meth:`advance` is due at the latest; None: not before the next datagram."""


class Pump:
    """Everything that it touches is handed in, so it runs in any loop and on any clock.

    ``loop``        timers and readers.
    ``now_ns``      the clock of arrival times.
    ``sockets``     what is read; ``troubles`` remembers those that cannot be read.
    ``downstream``  takes what was read.
    ``pacing``      says how long to wait, and how promptly the engine is to release what is ready.
    ``watchdog``    is told of each look.
    ``consumed``    says whether somebody may read audio.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now_ns: Callable[[], int],
        sockets: SocketSet,
        downstream: Downstream,
        pacing: Pacing,
        *,
        troubles: SocketTroubles,
        watchdog: Watchdog,
        incidents: Incidents,
        consumed: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._now_ns = now_ns
        self._sockets = sockets
        self._downstream = downstream
        self._pacing = pacing
        self._troubles = troubles
        self._watchdog = watchdog
        self._incidents = incidents
        self._consumed = consumed
        self._timer: asyncio.TimerHandle | None = None
        self._asleep = False
        self._watched: set[int] = set()  # file descriptors, while it is asleep
        self._looks_in_vain = 0
        self._datagrams = 0  # found by the last look, those that it held back too
        self._of_pairs = 0  # of them, those of pairs
        self._held_back = HeldBack()
        self._looked_ns = now_ns()  # when the last look began
        self._stopped = False

    def start(self) -> None:
        """Begin to look. What came before is found at once."""
        self._watchdog.watch(self._sockets.descriptors())
        self._watchdog.start()
        self._arm(None)
        self.wake()

    def stop(self) -> None:
        """Look no more. What has been read goes downstream."""
        self._stopped = True
        self._disarm()
        if (rest := self._held_back.cut(None, None)) is not None:
            self._downstream.take_all([rest], self._pacing.release(self._downstream.live_streams))
        self._watchdog.close()

    def wake(self) -> None:
        """Something has come."""
        if not self._asleep:
            return  # an endpoint's first datagram, but the timer looks anyway
        self._disarm()
        self._looks_in_vain = 0
        self._poll()

    def resume(self) -> None:
        """From any thread: look, whether a timer is set or not."""
        self._loop.call_soon_threadsafe(self._look_now)

    def _look_now(self) -> None:
        self._disarm()
        self._poll()

    def _poll(self) -> None:
        if self._stopped:
            return
        pause_s: float | None = _RETRY_S
        try:
            pause_s = self._look()
        except Exception as error:
            self._incidents.fault("pump", error)
        finally:
            self._arm(pause_s)

    def _arm(self, pause_s: float | None) -> None:
        """See to it that there is a next look: after ``pause_s``, or (None) when something comes."""
        try:
            if pause_s is None:
                self._sleep()
                return
        except Exception as error:
            self._incidents.fault("pump", error)
            self._disarm()
        self._timer = self._loop.call_later(_RETRY_S if pause_s is None else pause_s, self._poll)

    def _look(self) -> float | None:
        """Take what has come; returns how long to wait before the next look, None: until something comes."""
        now_ns = self._now_ns()
        since_ns, self._looked_ns = now_ns - self._looked_ns, now_ns
        count = of_pairs = held_back = 0
        whole_ticks = self._pacing.whole_ticks(self._datagrams, self._of_pairs)
        tick_ns, before_ns = None, 0
        while tick_ns != before_ns:
            # a look that began before a tick's end, and ended behind it, takes that too
            tick_ns = before_ns = self._now_ns() // TICK_NS * TICK_NS
            count += self.drain(tick_ns if whole_ticks else None)
            of_pairs += self._of_pairs
            held_back = len(self._held_back)
            if held_back:
                before_ns = self._now_ns() // TICK_NS * TICK_NS
        self._datagrams, self._of_pairs = count + held_back, of_pairs + held_back
        if self._datagrams or any(reader.held_back for reader in self._sockets.readers):
            self._looks_in_vain = 0
        else:
            self._looks_in_vain += 1
            if self._looks_in_vain > 1:
                return None
        pairs = self._pairs_look()
        return self._pacing.pause_s(self._datagrams - self._of_pairs, self._now_ns(), pairs, since_ns)

    def _pairs_look(self) -> PairsLook | None:
        """What the last look found in the ports of pairs; None: there are no pairs."""
        group, buffer = self._sockets.group, self._sockets.pair_buffer
        if group is None or not buffer:
            return None
        return PairsLook(self._of_pairs, group.full, buffer, group.rows)

    # --- sleeping -------------------------------------------------------------------------------------------------

    def _sleep(self) -> None:
        """Watch the sockets, and set a timer for what is due without a datagram."""
        self._asleep = True
        self._watch()
        times = (self._downstream.next_deadline_ns(), self._troubles.next_ns())
        deadline_ns = min((time for time in times if time is not None), default=None)
        if deadline_ns is not None:
            wait_s = (deadline_ns + _GUARD_NS - self._now_ns()) / 1e9
            self._timer = self._loop.call_later(max(wait_s, _SHORTEST_SLEEP_S), self.wake)

    def _disarm(self) -> None:
        """No timer, and nothing watched."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._asleep = False
        for number in self._watched:
            with contextlib.suppress(OSError, ValueError):
                self._loop.remove_reader(number)
        self._watched = set()

    def _watch(self) -> None:
        """Watch what is to be watched by now, and nothing else."""
        before, now = self._watched, self._sockets.watched(without=self._troubles)
        for number in before - now:
            self._loop.remove_reader(number)
        self._watched = before & now
        for number in now - before:
            self._loop.add_reader(number, self.wake)
            self._watched.add(number)

    @contextlib.contextmanager
    def changing_sockets(self) -> Iterator[None]:
        """Around what adds sockets or removes them: afterwards those are watched that there are."""
        yield
        if self._asleep:
            self._watch()
        self._watchdog.watch(self._sockets.descriptors())

    # --- reading --------------------------------------------------------------------------------------------------

    def drain(self, before_ns: int | None = None) -> int:
        """Take what the sockets hold, at most a few batches each, if possible only what came before ``before_ns``;
        returns how many datagrams."""
        now_ns = self._now_ns()
        release = self._pacing.release(self._downstream.live_streams, consumed=self._consumed())
        readers, group = self._sockets.readers, self._sockets.group
        total = self._of_pairs = 0
        for _ in range(_BATCHES_A_LOOK):
            received = [self._read(reader, before_ns) for reader in self._sockets.first]
            if group is not None:
                received.append(batch := self._read_group(group, before_ns))
                self._of_pairs += len(batch) if batch is not None and self._sockets.pairs_apart else 0
            self._watchdog.looked()
            total += self._downstream.take_all([b for b in received if b is not None and len(b)], release)
            if not any(reader.full for reader in readers):
                # everything stamped before has been read
                until_ns = (now_ns if group is None else min(now_ns, group.emptied_ns)) - _GUARD_NS
                if before_ns is not None:
                    until_ns = min(until_ns, before_ns)
                self._downstream.advance(until_ns, release)
                break
        return total

    def _read(self, reader: Reader, before_ns: int | None) -> DatagramBatch | None:
        troubles = self._troubles
        if troubles and troubles.wait(reader, self._now_ns()):
            return None
        try:
            batch = reader.receive(before_ns)
        except Exception as error:
            reader.full = False
            troubles.raised(reader, error, self._now_ns())
            return None
        if troubles:
            troubles.went_well(reader)
        return batch

    def _read_group(self, group: PortGroup, before_ns: int | None) -> DatagramBatch | None:
        """Read all ports of pairs, but for those that cannot be read at the moment."""
        troubles = self._troubles
        tried = {port for port in troubles.due(self._now_ns()) if group.retry(port)} if troubles else set()
        batch = self._read(group, before_ns)
        for port, error in group.failures():
            troubles.raised(port, error, self._now_ns())
            tried.discard(port)
        for again in tried:
            troubles.went_well(again)
        holds = self._pacing.iterated and self._sockets.pairs_apart
        return self._held_back.cut(batch, before_ns if holds else None)
