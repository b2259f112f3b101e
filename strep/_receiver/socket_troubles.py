"""Ports and readers that raise when they are read: reported, and tried again ever later while the others go on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from .._edge.udp.base import Port, Reader
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
    """The ports and readers that cannot be read at the moment. Empty, and so false, while all is well."""

    def __init__(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self._of: dict[Port | Reader, _Trouble] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def __contains__(self, what: object) -> bool:
        return what in self._of

    def raised(self, what: Port | Reader, error: Exception, now_ns: int) -> None:
        """Reading something has raised: it is tried again later."""
        self._incidents.fault("socket", error)
        trouble = self._of.get(what)
        if trouble is not None:
            trouble.pause_ns = min(2 * trouble.pause_ns, _LONGEST_PAUSE_NS)
            trouble.again_ns = now_ns + trouble.pause_ns
            return
        sentence = f"{what.name} cannot be read: {error}"
        self._of[what] = _Trouble(sentence, now_ns + _FIRST_PAUSE_NS, _FIRST_PAUSE_NS)
        _log.error("%s; it is tried again", sentence)
        self._incidents.tell("socket_failed", sentence, **_port_of(what))

    def wait(self, what: Port | Reader, now_ns: int) -> bool:
        """Whether it is too early to try something again."""
        trouble = self._of.get(what)
        return trouble is not None and now_ns < trouble.again_ns

    def due(self, now_ns: int) -> list[Port | Reader]:
        """What is to be tried again by now."""
        return [what for what, trouble in self._of.items() if now_ns >= trouble.again_ns]

    def went_well(self, what: Port | Reader) -> None:
        """Reading something has not raised."""
        if self._of.pop(what, None) is not None:
            sentence = f"{what.name} can be read again"
            _log.warning("%s", sentence)
            self._incidents.tell("socket_recovered", sentence, **_port_of(what))

    def forget(self, what: Port | Reader) -> None:
        """It is closed."""
        self._of.pop(what, None)

    def next_ns(self) -> int | None:
        """When the next of them is to be tried again, on the clock of ``now_ns``; None: there is none."""
        return min((trouble.again_ns for trouble in self._of.values()), default=None)

    def problems(self) -> list[str]:
        """What is wrong now, a sentence a socket."""
        return [trouble.what for trouble in list(self._of.values())]


def _port_of(what: Port | Reader) -> dict[str, int]:
    number = getattr(what, "local_port", None)
    return {} if number is None else {"port": number}
