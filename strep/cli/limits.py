"""What this process may use of the machine: file descriptors, shared out so that no part of it starves another, and
core files, which would hold the API key."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import Any, Final, Self

resource: Any
try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

__all__ = ["Descriptors", "hide_key"]

_OTHER_DESCRIPTORS: Final = 256  # listening sockets, requests to the API, the journal, libraries
_MAX_CONNECTIONS: Final = 1024  # of HTTP
_UNLIMITED: Final = 1 << 20  # descriptors, where the system knows no limit
_WITHOUT_LIMITS: Final = 2048  # descriptors, where there is nothing to ask


@dataclass(frozen=True, slots=True)
class Descriptors:
    """How many of the process's file descriptors are for what: ``files``, media ``sockets`` of pairs, ``http``
    connections. What is left over is for everything else."""

    limit: int
    files: int
    sockets: int
    http: int

    @classmethod
    def share(cls, *, pairs: bool) -> Self:
        """Raise the limit as far as it may be, and share it out. ``pairs``: each stream has a socket of its own."""
        return cls.of(_raised(), pairs=pairs)

    @classmethod
    def of(cls, limit: int, *, pairs: bool) -> Self:
        http = max(8, min(_MAX_CONNECTIONS, limit // 8))
        others = min(_OTHER_DESCRIPTORS, limit // 4)
        rest = max(16, limit - http - others)
        sockets = rest // 2 if pairs else 0
        return cls(limit, rest - sockets, sockets, http)


def _raised() -> int:
    if resource is None:
        return _WITHOUT_LIMITS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return _UNLIMITED if soft == resource.RLIM_INFINITY else min(soft, _UNLIMITED)


def hide_key() -> None:
    """With an API key in the environment this process leaves no core file: it would hold the key many times.

    The limit is 1 byte, not 0: Linux gives programs that ``core_pattern`` names (a pipe) everything at 0, and
    nothing at 1. Programs that this one starts inherit it.
    """
    if resource is None or not os.environ.get("TELNYX_API_KEY"):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 1 if hard == resource.RLIM_INFINITY or hard > 1 else hard
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
