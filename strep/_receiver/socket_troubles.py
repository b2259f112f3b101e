"""Sockets that raise when they are read: reported, and tried again at growing intervals while the others go on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from .._edge.udp.base import UdpSocket
from .._threads.incidents import Incidents

__all__ = ["SocketTroubles"]

_log = logging.getLogger("strep")

_FIRST_PAUSE_NS: Final = 100_000_000
_LONGEST_PAUSE_NS: Final = 5_000_000_000


@dataclass(slots=True)
class _Trouble:
    what: str
    again_ns: int
    pause_ns: int


class SocketTroubles:
    """The sockets that cannot be read at the moment. Empty, and so false, while all is well."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self._of: dict[UdpSocket, _Trouble] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, socket: object) -> bool:
        return socket in self._of

    def raised(self, socket: UdpSocket, error: Exception, now_ns: int) -> None:
        """Reading a socket has raised: it is tried again later."""
        self._incidents.fault("socket", error)
        trouble = self._of.get(socket)
        if trouble is not None:
            trouble.pause_ns = min(2 * trouble.pause_ns, _LONGEST_PAUSE_NS)
            trouble.again_ns = now_ns + trouble.pause_ns
            return
        host, port = socket.address
        what = f"udp:{host}:{port} cannot be read: {error}"
        self._of[socket] = _Trouble(what, now_ns + _FIRST_PAUSE_NS, _FIRST_PAUSE_NS)
        _log.error("%s; it is tried again", what)
        self._incidents.tell("socket_failed", what, port=port)

    def wait(self, socket: UdpSocket, now_ns: int) -> bool:
        """Whether it is too early to try a socket again."""
        trouble = self._of.get(socket)
        return trouble is not None and now_ns < trouble.again_ns

    def went_well(self, socket: UdpSocket) -> None:
        """Reading a socket has not raised."""
        if self._of.pop(socket, None) is not None:
            host, port = socket.address
            _log.warning("udp:%s:%d can be read again", host, port)
            self._incidents.tell("socket_recovered", f"udp:{host}:{port} can be read again", port=port)

    def forget(self, socket: UdpSocket) -> None:
        """The socket is closed."""
        self._of.pop(socket, None)

    def next_ns(self) -> int | None:
        """When the next of them is to be tried again, on the clock of ``now_ns``; None: there is none."""
        return min((trouble.again_ns for trouble in self._of.values()), default=None)

    def problems(self) -> list[str]:
        """What is wrong now, a sentence a socket."""
        return [trouble.what for trouble in list(self._of.values())]
