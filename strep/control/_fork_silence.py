"""When nothing came of a fork, told as it begins and as it ends. Pure: time is an argument."""

from __future__ import annotations

from typing import Any

from .._model.report import utc_text

__all__ = ["ForkSilence"]


class ForkSilence:
    """The silence that lasts, if one does."""

    def __init__(self) -> None:
        self._since_ns: int | None = None

    def begins(self, last_ns: int) -> dict[str, Any]:
        """What is to be told of it; ``last_ns`` is when the last packet came, UTC ns. Nothing if it lasts already."""
        if self._since_ns is not None:
            return {}
        self._since_ns = last_ns
        return {"silent_since": utc_text(last_ns)}

    def ends(self, until_ns: int) -> dict[str, Any]:
        """What is to be told of it when it ends, at ``until_ns``. Nothing if there is none."""
        since_ns, self._since_ns = self._since_ns, None
        if since_ns is None:
            return {}
        return {"silent_since": utc_text(since_ns), "silent_s": round((until_ns - since_ns) / 1e9, 3)}
