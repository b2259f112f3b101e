"""Work that is put off until somebody wants its result, and then done in order.

Decoders and concealment have state: batches must go through them one after the other, each once. Sinks ask for the
result when their turn comes, from threads of their own, in any order, or never. Whoever adds work, above all the event
loop, never does any and never waits for those who do. Work whose result nobody asks for in time is done by a thread
that is started for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["OrderedWork", "WorkOmitted"]

_T = TypeVar("_T")
_MAX_PENDING: Final = 256  # pieces of work; beyond that a thread does the oldest
_MAX_BYTES: Final = 64 << 20  # of memory that work holds; beyond that the oldest is omitted


class WorkOmitted(Exception):
    """There was no time for this work: too much of it was waiting."""


class _Job(Generic[_T]):
    __slots__ = ("_chain", "_error", "_result", "_work", "done", "nbytes")

    def __init__(self, chain: OrderedWork, work: Callable[[], _T]) -> None:
        self._chain = chain
        self._work: Callable[[], _T] | None = work
        self._result: _T | None = None
        self._error: Exception | None = None
        self.nbytes: int = getattr(work, "nbytes", 0)
        self.done = False

    def __call__(self) -> _T:
        if not self.done:
            self._chain.run_until(self)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # run() has set it

    def run(self) -> None:
        work = self._chain.begin(self)
        if work is not None:
            try:
                self._result = work()
            except Exception as error:
                self._error = error  # raised to whoever wants this result, nobody else
        self.done = True

    def take_work(self) -> Callable[[], _T] | None:
        work, self._work = self._work, None
        return work

    def omit(self) -> None:
        self._error = WorkOmitted("decoding has fallen behind, and this was left out")


class OrderedWork:
    """``add(work)`` returns a function that returns the work's result; all work that was added before is done first.

    Work that holds memory says so by an attribute ``nbytes``. When all that waits holds more than ``most_bytes``, the
    oldest such work is omitted: whoever wants its result gets WorkOmitted. Work without ``nbytes`` is always done.
    """

    def __init__(self, most_bytes: int = _MAX_BYTES) -> None:
        self._most_bytes = most_bytes
        self._running = threading.RLock()  # held while work is done
        self._lock = threading.Lock()  # held for moments only
        self._jobs: deque[_Job[object]] = deque()
        self._heavy: deque[_Job[object]] = deque()  # those of them that hold memory
        self._bytes = 0
        self._helped = False  # a thread does the oldest work
        self.omitted = 0

    def add(self, work: Callable[[], _T]) -> Callable[[], _T]:
        job = _Job(self, work)
        with self._lock:
            self._jobs.append(job)  # type: ignore[arg-type]
            if job.nbytes:
                self._heavy.append(job)  # type: ignore[arg-type]
                self._bytes += job.nbytes
                while self._bytes > self._most_bytes and len(self._heavy) > 1:
                    self._omit_oldest()
            if len(self._jobs) <= _MAX_PENDING or self._helped:
                return job
            self._helped = True
        threading.Thread(target=self._help, name="strep-decoding", daemon=True).start()
        return job

    def _omit_oldest(self) -> None:
        job = self._heavy.popleft()
        if job.take_work() is not None:
            self._bytes -= job.nbytes
            self.omitted += 1
            job.omit()

    def begin(self, job: _Job[_T]) -> Callable[[], _T] | None:
        """The job's work, to be done now; None if it was omitted."""
        with self._lock:
            work = job.take_work()
            if work is not None and job.nbytes:
                self._bytes -= job.nbytes
                while self._heavy and self._heavy[0]._work is None:
                    self._heavy.popleft()
        return work

    def _help(self) -> None:
        while True:
            with self._running:  # released after each job: whoever wants a result does not wait for all of them
                with self._lock:
                    if len(self._jobs) <= _MAX_PENDING:
                        self._helped = False
                        return
                    job = self._jobs.popleft()
                job.run()

    def run_until(self, job: _Job[_T]) -> None:
        while not job.done:
            with self._running:
                with self._lock:
                    first = None if job.done else self._jobs.popleft()
                if first is not None:
                    first.run()
