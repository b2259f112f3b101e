"""Notices that media wait in the sockets while nobody reads them. It has a thread of its own, because the event loop
may be what is stuck.

The pump notes each look at its sockets, which costs one assignment. While it looks, there is nothing more to check.
When it does not, one system call tells whether anything waits in any socket. That alone is no fault: a sleeping pump is
about to wake up. If it has not looked a second later, it has stalled.
"""

from __future__ import annotations

import contextlib
import logging
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from .._threads.incidents import Incidents

__all__ = ["Watchdog"]

_log = logging.getLogger("strep")

_LOOK_EVERY_S: Final = 0.25
_STALLED_NS: Final = 1_000_000_000  # media wait for so long and are not read


class Watchdog:
    """``resume`` is called, from the watchdog's thread, when the pump has stalled, and again each second: its timer may
    be lost. ``give_up`` is called once, from there too, with what is wrong, when it has stalled for so long.
    """

    def __init__(
        self,
        incidents: Incidents,
        resume: Callable[[], object],
        *,
        give_up: Callable[[str], object] = lambda why: None,
        give_up_after_s: float = float("inf"),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._give_up = give_up
        self._give_up_after_s = give_up_after_s
        self._incidents = incidents
        self._resume = resume
        self._clock_ns = clock_ns
        self._looked_ns = self._seen_ns = clock_ns()
        self._since_ns: int | None = None  # since when something waits that is not read
        self._told = False
        self._resume_at_ns = 0
        self._poll: Any = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="strep-watchdog", daemon=True)

    def watch(self, sockets: Iterable[int]) -> None:
        """From now on media may wait in these file descriptors; numbers below 0 are left out."""
        if not hasattr(select, "poll"):
            return  # Windows: there is no way to know
        poll = select.poll()
        for number in sockets:
            if number >= 0:
                poll.register(number, select.POLLIN)
        self._poll = poll

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """There is nothing to watch any more. Does not wait for the thread."""
        self._since_ns = None
        self._end.set()

    def looked(self) -> None:
        """The pump has read its sockets."""
        self._looked_ns = self._clock_ns()

    @property
    def seconds_since_look(self) -> float:
        """How long ago the pump has read its sockets."""
        return (self._clock_ns() - self._looked_ns) / 1e9

    @property
    def problem(self) -> str | None:
        """What is wrong now, as a sentence; None: nothing."""
        since = self._since_ns
        if since is None or self._looked_ns != self._seen_ns:
            return None
        waited_ns = self._clock_ns() - since
        if waited_ns < _STALLED_NS:
            return None
        return f"media wait in the sockets, and for {waited_ns / 1e9:.1f} s nothing has been read"

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._end.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except Exception as error:
                self._incidents.fault("watchdog", error)

    def look(self) -> None:
        """What the thread does each time. Tests call it without the thread."""
        looked = self._looked_ns
        if looked != self._seen_ns or not self._waiting():
            self._seen_ns = looked
            if self._since_ns is not None:
                self._well()
            return
        now = self._clock_ns()
        if self._since_ns is None:
            self._since_ns, self._resume_at_ns = now, now + _STALLED_NS
            return
        problem = self.problem
        if problem is None or now < self._resume_at_ns:
            return
        self._resume_at_ns = now + _STALLED_NS
        if not self._told:
            self._told = True
            _log.error("receiving has stalled: %s", problem)
            self._incidents.tell("stalled", problem)
        with contextlib.suppress(RuntimeError):  # a loop that has been closed
            self._resume()
        if now - self._since_ns >= self._give_up_after_s * 1e9:
            self._give_up_after_s = float("inf")
            self._give_up(problem)

    def _waiting(self) -> bool:
        return self._poll is not None and any(event & select.POLLIN for _, event in self._poll.poll(0))

    def _well(self) -> None:
        seconds = (self._clock_ns() - (self._since_ns or 0)) / 1e9
        self._since_ns = None
        if self._told:
            self._told = False
            _log.warning("receiving goes on after %.1f s", seconds)
            self._incidents.tell("recovered", f"receiving goes on after {seconds:.1f} s", stalled_s=round(seconds, 2))
