"""The end of a socket: nothing more gets in, and what is in it is counted. A sender who goes on cannot delay it."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from ..bpf import DROP, SO_ATTACH_FILTER, attach

__all__ = ["admit_all", "count_waiting", "refuse_all", "shut"]

_SO_DETACH_FILTER: Final = 27
_MSG_DONTWAIT: Final = 0x40
_MSG_TRUNC: Final = 0x20
_COUNTED_A_CALL: Final = 1024  # datagrams
_MSGHDR_BYTES: Final = 64  # struct mmsghdr of 64-bit Linux


def refuse_all(sock: socket.socket) -> None:
    """Let nothing into a socket until :func:`admit_all`. The kernel counts what it refuses as dropped. Linux; raises
    OSError."""
    attach(sock, SO_ATTACH_FILTER, [DROP])


def admit_all(sock: socket.socket) -> None:
    """Undo :func:`refuse_all`. Raises OSError."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def shut(sock: socket.socket) -> None:
    """Let no datagram in any more. What has come before stays readable; what comes now the kernel counts as dropped."""
    if sock.fileno() < 0:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            refuse_all(sock)
            return
    with contextlib.suppress(OSError):
        sock.connect(sock.getsockname())  # from nobody but itself


def count_waiting(sock: socket.socket, until_s: float) -> int:
    """Take all datagrams that wait in a socket, and throw them away; returns how many. Stops at ``until_s`` on the
    monotonic clock, which matters only if the socket could not be shut."""
    if sock.fileno() < 0:
        return 0
    return _count_many(sock, until_s) if sys.platform == "linux" else _count_singly(sock, until_s)


def _count_singly(sock: socket.socket, until_s: float) -> int:
    count, little = 0, bytearray(1)
    while time.monotonic() < until_s:
        try:
            sock.recv_into(little)
        except (BlockingIOError, InterruptedError):
            break
        except ConnectionError:
            continue
        except OSError as error:
            if getattr(error, "winerror", None) != 10_040:  # WSAEMSGSIZE: longer than a byte
                break
        count += 1
    return count


def _count_many(sock: socket.socket, until_s: float) -> int:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return _count_singly(sock, until_s)
    take = _taking()
    count = 0
    while time.monotonic() < until_s:
        found = take(sock.fileno())
        if found <= 0:
            break
        count += found
    return count


@functools.cache  # there may be thousands of sockets
def _taking() -> Callable[[int], int]:
    """Takes up to 1,024 datagrams from a socket, by its file descriptor; returns how many, or below 0. The messages
    have no buffers, so the kernel copies nothing; what it notes in them nobody reads."""
    receive = ctypes.CDLL(None, use_errno=True).recvmmsg
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    messages = np.zeros((_COUNTED_A_CALL, _MSGHDR_BYTES), np.uint8)
    at, flags = messages.ctypes.data, _MSG_DONTWAIT | _MSG_TRUNC

    def take(number: int, kept: object = messages) -> int:
        return int(receive(number, at, _COUNTED_A_CALL, flags, None))

    return take
