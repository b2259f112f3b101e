"""Decoding that is put off until somebody wants the samples, and that must be done in order: decoders keep state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..._codecs.batch_decoder import BatchDecoder, PacketContext, PacketSamples
from ..streams.placement import Placement

__all__ = ["DecodingJob", "DecodingJobs", "Defer", "at_once"]

I64 = npt.NDArray[np.int64]
_T = TypeVar("_T")

# Puts work off until its result is asked for, and keeps its order: see ``_delivery.ordered_work``
Defer = Callable[[Callable[[], Any]], Callable[[], Any]]


def at_once(work: Callable[[], _T]) -> Callable[[], _T]:
    """A :data:`Defer` for engines without threads around them: nothing is put off. What went wrong is raised to who
    asks for the result."""
    try:
        result = work()
    except Exception as error:
        failed = error

        def fail() -> _T:
            raise failed

        return fail
    return lambda: result


@dataclass(frozen=True, slots=True)
class DecodingJob:
    """A batch to decode. It may be left undone when too much of it waits: ``nbytes`` says what it holds."""

    decoder: BatchDecoder
    payload: npt.NDArray[np.uint8]
    begin: I64
    placed: Placement
    context: PacketContext
    careful: npt.NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        return self.payload.nbytes

    def __call__(self) -> PacketSamples:
        return self.decoder.decode_all(self.payload, self.begin, self.placed, self.context, self.careful)


class DecodingJobs:
    """Jobs that are put off only once it is certain that they are to be done: decoders cannot go back."""

    def __init__(self, defer: Defer) -> None:
        self._defer = defer
        self._jobs: list[tuple[Callable[[], Any], list[Callable[[], Any]]]] = []

    def add(self, work: Callable[[], _T]) -> Callable[[], _T]:
        """A job that is not certain yet. Returns what gives its result, after :meth:`commit`."""
        results: list[Callable[[], Any]] = []
        self._jobs.append((work, results))
        return lambda: results[0]()

    def commit(self) -> None:
        """What was added is certain."""
        if self._jobs:
            jobs, self._jobs = self._jobs, []
            for work, results in jobs:
                results.append(self._defer(work))

    def forget(self) -> None:
        """What was added and is not certain is not to be done."""
        self._jobs.clear()
