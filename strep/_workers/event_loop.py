"""The event loop that programs of ours run on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Makes event loops of uvloop; None, which means asyncio's own, where it is not installed or cannot be."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
