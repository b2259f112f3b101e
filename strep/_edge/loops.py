"""The event loop that commands and workers run on."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """What makes uvloop's event loops, for ``asyncio.Runner``; None where uvloop is not installed: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
