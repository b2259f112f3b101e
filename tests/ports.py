"""Ports for tests, also when several run at once."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

_FIRST, _LAST = 20_000, 32_000  # below those that Linux gives out by itself


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        return int(plain.getsockname()[1])


@contextlib.contextmanager
def reserved(count: int) -> Iterator[range]:
    """UDP ports of 127.0.0.1 that are free. The last one is bound for TCP meanwhile, so that nobody else takes them."""
    blocks = (_LAST - _FIRST) // count
    for number in range(blocks):
        first = _FIRST + (os.getpid() * 7 + number) % blocks * count
        with contextlib.suppress(OSError), socket.socket() as guard:
            guard.bind(("127.0.0.1", first + count - 1))
            for port in range(first, first + count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
                    plain.bind(("127.0.0.1", port))
            yield range(first, first + count)
            return
    raise AssertionError(f"no {count} ports are free")
