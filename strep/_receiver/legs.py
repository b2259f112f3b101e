"""Call legs, as whoever controls calls knows them: announced, given ports, and ended while the receiver runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from .._edge.udp.base import Port
from .._engine.engine import Engine
from .._engine.sources.port_keys import PortRole
from .._model.datagrams import DatagramBatch
from .._model.events import Event
from .._model.exceptions import ConfigurationError
from .._model.types import StreamInfo
from .bindings import bindings_of
from .ending import read_now
from .pairs import PortPair
from .recorder import Recorder
from .socket_troubles import SocketTroubles
from .sockets import SocketSet

__all__ = ["Legs"]

_PAIR_READING_S: Final = 0.05  # for what has come to a pair that is closed


class Legs:
    """The receiver's methods on call legs, while it runs.

    ``take`` gives the engine a batch, ``drain`` everything that the sockets hold; ``do`` has it do something else.
    ``changing_sockets`` goes around what adds sockets or removes them. ``now_ns`` and ``monotonic_s`` are clocks.
    """

    def __init__(
        self,
        engine: Engine,
        sockets: SocketSet,
        troubles: SocketTroubles,
        recorder: Recorder | None,
        *,
        take: Callable[[DatagramBatch], None],
        do: Callable[[Callable[[], list[Event]]], None],
        drain: Callable[[], int],
        changing_sockets: Callable[[], AbstractContextManager[None]],
        now_ns: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._sockets = sockets
        self._troubles = troubles
        self._recorder = recorder
        self._take = take
        self._do = do
        self._drain = drain
        self._changing_sockets = changing_sockets
        self._now_ns = now_ns
        self._monotonic_s = monotonic_s

    def announce(self, leg: uuid.UUID) -> None:
        """See :meth:`Receiver.announce`."""
        announcements = self._engine.registry.announcements
        self._do(lambda: self._engine.announce(leg))
        if announcements is not None and not announcements.known(*divmod(leg.int, 1 << 64)):
            raise ConfigurationError("too many legs are announced: forget() those that ended, or raise max_streams")

    def forget(self, leg: uuid.UUID) -> None:
        """See :meth:`Receiver.forget`."""
        self._engine.forget(leg)

    def expect_source(self, leg: uuid.UUID, within_s: float) -> None:
        """See :meth:`Receiver.expect_source`."""
        self._engine.expect_source(leg, self._now_ns() + round(within_s * 1e9))

    def end(self, leg: uuid.UUID, linger_s: float) -> int:
        """See :meth:`Receiver.end`."""
        self._drain()
        streams = [info for info in self._engine.registry.live() if info.call_leg_id == leg]
        now_ns = self._now_ns()
        self._engine.registry.shut_out(leg, now_ns + round(linger_s * 1e9), now_ns)
        return self._end(streams, "stopped")

    def open_pair(self, ports: tuple[Port, Port], leg: uuid.UUID | None) -> PortPair:
        """Make two bound ports a pair, and read them from now on."""
        pair = self._sockets.pair_of(ports, leg)
        roles = dict(zip(pair.ports, (PortRole.RX, PortRole.TX), strict=True))
        self._engine.registry.bind(bindings_of(roles.items(), leg))
        if leg is not None:
            self.announce(leg)
        if self._recorder is not None:
            self._recorder.bind(roles)
        with self._changing_sockets():
            self._sockets.add_pair(pair, ports)
        return pair

    def end_strangers(self, pair: PortPair) -> int:
        """See :meth:`Receiver.end_strangers`."""
        return self._end(self._streams_of(pair), "evicted")

    def close_pair(self, pair: PortPair) -> int:
        """See :meth:`Receiver.close_pair`."""
        self._drain()
        closing = self._sockets.shut_pair(pair)
        read_now([closing.rest], self._take, _PAIR_READING_S, self._monotonic_s)
        count = self._end(self._streams_of(pair), "stopped")
        self._engine.registry.unbind(pair.ports)
        if pair.call_leg_id is not None:
            self._engine.forget(pair.call_leg_id)
        if self._recorder is not None:
            self._recorder.bind(dict.fromkeys(pair.ports, int(PortRole.LISTEN)))
        with self._changing_sockets():
            self._sockets.remove_pair(closing)
        for port in closing.ports:
            self._troubles.forget(port)
        self._engine.accounts.leave_unread(self._sockets.close_pair(closing))
        return count

    def _streams_of(self, pair: PortPair) -> list[StreamInfo]:
        return [info for info in self._engine.registry.live() if info.local_port in pair.ports]

    def _end(self, streams: list[StreamInfo], reason: str) -> int:
        self._do(lambda: self._engine.end(streams, reason))
        return len(streams)
