"""Datagrams of a tick that has only begun, until a look takes it whole."""

from __future__ import annotations

from .._model.datagrams import DatagramBatch, joined

__all__ = ["HeldBack"]


class HeldBack:
    """What was read together with the tick that a look takes, but came after it.

    The engine works tick by tick, and a tick of ten datagrams costs what one of a hundred costs. Ports that are read
    one after the other cannot stop at the tick's end by themselves.
    """

    def __init__(self) -> None:
        self._rest: DatagramBatch | None = None

    def __len__(self) -> int:
        return 0 if self._rest is None else len(self._rest)

    def cut(self, batch: DatagramBatch | None, before_ns: int | None) -> DatagramBatch | None:
        """What was held back and ``batch`` together, up to the tick that begins at ``before_ns`` (None: all of it); the
        rest is held back. ``batch``: in order of arrival, if it is of several ticks."""
        rest, self._rest = self._rest, None
        if rest is not None:
            batch = rest if batch is None else joined([rest, batch])
        if batch is None or before_ns is None:
            return batch
        first = int(batch.arrival_ns.searchsorted(before_ns))
        if first == len(batch):
            return batch
        self._rest = batch.take(slice(first, None)).copy()
        return batch.take(slice(0, first)) if first else None
