"""Work that is put off until somebody wants its result, and then done in order. Floor 4.

Decoders and concealment have state: batches must go through them one after the other, each once. Sinks ask for the
result when their turn comes, from threads of their own, in any order, or never.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

__all__ = ["InOrder"]

_T = TypeVar("_T")
_PENDING: Final = 256  # results nobody asked for so far; beyond it the oldest is made by whoever adds


class _Job(Generic[_T]):
    __slots__ = ("_chain", "_error", "_result", "_work", "done")

    def __init__(self, chain: InOrder, work: Callable[[], _T]) -> None:
        self._chain = chain
        self._work: Callable[[], _T] | None = work
        self._result: _T | None = None
        self._error: Exception | None = None
        self.done = False

    def __call__(self) -> _T:
        if not self.done:
            self._chain.run_until(self)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # run() has set it

    def run(self) -> None:
        if self._work is not None:
            try:
                self._result = self._work()
            except Exception as error:
                self._error = error  # a bug of ours: whoever wants this result hears of it, nobody else
        self._work = None
        self.done = True


class InOrder:
    """``add(work)`` returns a function that gives the work's result; all work that was added before is done first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._jobs: deque[_Job[object]] = deque()

    def add(self, work: Callable[[], _T]) -> Callable[[], _T]:
        job = _Job(self, work)
        with self._lock:
            self._jobs.append(job)  # type: ignore[arg-type]
            while len(self._jobs) > _PENDING:
                self._jobs.popleft().run()
        return job

    def run_until(self, job: _Job[_T]) -> None:
        with self._lock:
            while not job.done:
                self._jobs.popleft().run()
