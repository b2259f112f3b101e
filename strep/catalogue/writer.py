"""The catalogue is written behind: never in the way of media."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from .rows import LegRows, leg_rows
from .store import Catalogue, CatalogueError

__all__ = ["CatalogueWriter"]

log = logging.getLogger("strep.catalogue")

_WAITING: Final = 20_000  # legs; beyond that the oldest are left out, and rebuild() finds them
_AT_ONCE: Final = 100
_PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)  # while the database takes nothing


class CatalogueWriter:
    """Takes what is known of legs from any thread, and keeps it in a thread of its own.

    ``open``: opens the catalogue, in that thread; it is tried again until it works.
    """

    def __init__(self, open: Callable[[], Catalogue], machine: str) -> None:  # noqa: A002
        self._open = open
        self._machine = machine
        self._waiting: deque[LegRows] = deque()
        self._batch: list[LegRows] = []  # what is being written
        self._wake = threading.Condition()
        self._stopping = False
        self.kept = self.left_out = self.refused = 0
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._run, name="strep-catalogue", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, document: Mapping[str, Any], file: str | None) -> None:
        """As :meth:`Catalogue.put`; returns at once, and never raises."""
        try:
            rows = leg_rows(document, file, self._machine)
        except Exception:
            log.exception("a leg is not in the catalogue")
            self.refused += 1
            return
        with self._wake:
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft()
                self.left_out += 1
            self._waiting.append(rows)
            self._wake.notify()

    def stop(self, timeout_s: float) -> None:
        """Write what waits, for at most so long; what is left then is counted as left out."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._wake:
            self.left_out += len(self._waiting) + len(self._batch)
            self._waiting.clear()
            self._batch.clear()
        if self.left_out:
            log.warning("%d legs are not in the catalogue: `strep catalogue rebuild` finds them", self.left_out)

    def figures(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kept": self.kept,
            "waiting": len(self._waiting) + len(self._batch),
            "left_out": self.left_out,
            "refused": self.refused,
            "problem": self.problem,
        }

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        catalogue: Catalogue | None = None
        failures = 0
        try:
            while self._next():
                try:
                    if catalogue is None:
                        catalogue = self._open()
                    self._keep(catalogue)
                except Exception as error:
                    self._failed(error, failures)
                    failures += 1
                    if not self._pause(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1]):
                        return
                else:
                    if failures:
                        log.warning("the catalogue is written again")
                    failures, self.problem = 0, None
        finally:
            if catalogue is not None:
                catalogue.close()

    def _keep(self, catalogue: Catalogue) -> None:
        """Write the batch; where the database takes some of it and never will, leg by leg."""
        try:
            catalogue.put_all(self._batch)
            self._written(len(self._batch))
        except CatalogueError as error:
            if error.passing:
                raise
            while self._batch:
                try:
                    catalogue.put_all(self._batch[:1])
                    self._written(1)
                except CatalogueError as of_it:
                    if of_it.passing:
                        raise
                    log.warning("leg %s is not in the catalogue: %s", self._batch[0].leg["call_leg_id"], of_it)
                    self.refused += 1
                    del self._batch[:1]

    def _written(self, count: int) -> None:
        self.kept += count
        del self._batch[:count]

    def _next(self) -> bool:
        """Whether there is something to write: ``_batch``."""
        with self._wake:
            while not (self._batch or self._waiting or self._stopping):
                self._wake.wait()
            while self._waiting and len(self._batch) < _AT_ONCE:
                self._batch.append(self._waiting.popleft())
            return bool(self._batch)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; False: it is to stop."""
        until = time.monotonic() + seconds
        with self._wake:
            while not self._stopping and (rest := until - time.monotonic()) > 0:
                self._wake.wait(rest)
            return not self._stopping

    def _failed(self, error: Exception, failures: int) -> None:
        self.problem = str(error)
        if not failures:
            log.warning("the catalogue is not written, and tried again: %s", error)
