"""A sink that goes on without the stream that makes it raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .base import BaseSink
from .exclusion import StreamExclusion

if TYPE_CHECKING:
    from .._model.blocks import BlockBatch
    from .._model.report import StreamReport
    from .._model.types import StreamInfo
    from .._threads.incidents import Incidents

__all__ = ["IsolatingSink"]


class IsolatingSink(BaseSink):
    """Work of subclasses for many streams at once goes through :attr:`aside`, which finds the stream that makes it
    raise, and sets it aside.

    Of such a stream this sink gets nothing more (counted in ``dropped_frames``), and tells nothing.
    """

    def __init__(self) -> None:
        self.aside = StreamExclusion(f"sink {self.kind}")

    def report_to(self, incidents: Incidents) -> None:
        self.aside.incidents = incidents

    def blocks(self, batch: BlockBatch) -> None:
        aside = self.aside
        if aside:
            batch = aside.rest_of(batch)
            if not len(batch):
                return
        try:
            self._take(batch)
        finally:
            if aside.fresh:
                self._clear(batch)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        if self.aside and stream in self.aside:
            self.aside.forget(stream)
            return
        try:
            self._end(stream, report)
        except Exception:
            self._abandon(stream)
            raise
        finally:
            if self.aside.fresh:
                self._clear(None)
                self.aside.forget(stream)

    def _clear(self, batch: BlockBatch | None) -> None:
        """Streams were just set aside: count their frames in the batch as dropped, and forget what is known of them."""
        for stream in self.aside.take_fresh(batch):
            self._abandon(stream)

    def _take(self, batch: BlockBatch) -> None:
        """Take a batch, without streams that are set aside."""
        raise NotImplementedError

    def _end(self, stream: StreamInfo, report: StreamReport) -> None:
        """A stream has ended that was not set aside."""

    def _abandon(self, stream: StreamInfo) -> None:
        """Forget a stream that was set aside; must not raise."""

    def _for(self, stream: StreamInfo | None, work: Callable[..., object], *arguments: Any) -> None:
        """Do ``work`` for one stream, which is set aside if it raises. ``stream`` None: it is not known, and what is
        raised is raised here."""
        try:
            work(*arguments)
        except Exception as error:
            if stream is None:
                raise
            self.aside.put(stream, error)

    def report(self) -> dict[str, Any]:
        return {**super().report(), **self.aside.figures()}
