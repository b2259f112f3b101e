"""The sockets of a port that several workers share: bound once, in order, and open as long as the parent lives."""

from __future__ import annotations

import socket
import sys
from typing import Final

from .._edge.udp import UdpAddress
from .._edge.udp.base import bind_socket
from .._edge.udp.ending import admit_all, refuse_all
from .._model.exceptions import BindError
from . import steering

__all__ = ["SteeringError", "bind_group"]

_SO_TIMESTAMPNS: Final = 35


class SteeringError(Exception):
    """The kernel does not steer here; the message says why. Nothing is left bound."""


def bind_group(address: UdpAddress, workers: int, receive_buffer: int) -> list[socket.socket]:
    """``workers`` sockets on one port; socket i gets the datagrams of which :func:`steering.worker_of` says i.

    The first one is bound without SO_REUSEPORT, which fails where anybody else has the port. Until all are there every
    socket refuses what comes, so that no datagram is steered wrong. A program of the same user that joins the port
    later gets nothing: the steering never names its place. Raises BindError, SteeringError.
    """
    sockets: list[socket.socket] = []
    try:
        if workers == 1:
            sockets.append(bind_socket(address, receive_buffer))
        else:
            sockets.append(bind_socket(address, receive_buffer, refuse_all))
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            same = UdpAddress(*sockets[0].getsockname()[:2])
            while len(sockets) < workers:
                sockets.append(bind_socket(same, receive_buffer, _share))
            steering.attach_program(sockets[0], workers)
            for sock in sockets:
                admit_all(sock)
        if sys.platform == "linux":
            for sock in sockets:  # what comes before the worker looks has its arrival time all the same
                sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError as error:
        for sock in sockets:
            sock.close()
        if isinstance(error, BindError):
            raise
        raise SteeringError(f"the kernel does not steer datagrams to workers: {error.strerror or error}") from error
    return sockets


def _share(sock: socket.socket) -> None:
    refuse_all(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
