"""Who may be connected to an HTTP server, and who has to go for others. Time is an argument.

Whoever connects takes a file descriptor before anything is known of him. So there is room for so many in all and for so
many of one address. When there is no more, the one goes that has waited longest: a request that is meant takes
milliseconds, and whoever only holds a connection has always waited longer.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from .._model.exceptions import ConfigurationError

__all__ = ["Connection", "Connections", "HttpCounts", "HttpLimits"]

_NETWORK: Final = 64  # bits of an IPv6 address that are one subscriber's
_PATIENCE_S: Final = 1.0  # no connection has to go for another one of its address before


@dataclass(frozen=True)
class HttpLimits:
    """connections: in all. per_address: of one IPv4 address or IPv6 /64; a proxy is one address. header_s: from the
    connection, or the last answer, until the next request's headers are there. answer_s: from there until the answer is
    sent. idle_s: between two requests. header_bytes: of one request. Raises ConfigurationError.
    """

    connections: int = 256
    per_address: int = 128
    header_s: float = 10.0
    answer_s: float = 30.0
    idle_s: int = 5
    header_bytes: int = 16 << 10

    def __post_init__(self) -> None:
        if min(self.connections, self.per_address, self.header_bytes) < 1:
            raise ConfigurationError("connections, per_address and header_bytes must be 1 or more")
        if min(self.header_s, self.answer_s, self.idle_s) <= 0:
            raise ConfigurationError("header_s, answer_s and idle_s must be above 0 seconds")


@dataclass
class HttpCounts:
    """What became of connections: ``refused`` got 503 at once, ``evicted`` made room for others, ``too_slow`` did not
    come to an end in time, ``failed`` could not be taken (no descriptor, or the peer had gone)."""

    accepted: int = 0
    refused: int = 0
    evicted: int = 0
    too_slow: int = 0
    failed: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Connection:
    """One of them. ``abort`` ends it at once; ``busy``: it is being answered, it does not wait for its peer."""

    __slots__ = ("abort", "busy", "deadline_s", "key", "since_s")

    def __init__(self, key: str, now_s: float, deadline_s: float) -> None:
        self.key = key
        self.since_s = now_s  # that it was made, or answered last
        self.deadline_s = deadline_s
        self.busy = False
        self.abort: Callable[[], object] = lambda: None


class Connections:
    """Those of one server."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.counts = HttpCounts()
        self._all: OrderedDict[Connection, None] = OrderedDict()  # who waits longest stands first
        self._by_key: dict[str, OrderedDict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, address: str, now_s: float) -> Connection | None:
        """Let one in, and end another one if there is no room; None: it is to be refused."""
        key = key_of(address)
        own = self._by_key.get(key, OrderedDict())
        if len(own) >= self.limits.per_address:
            victim = _first_waiting(own)
            if victim is None or now_s - victim.since_s < _PATIENCE_S:
                return self._refuse()
            self._evict(victim)
        elif len(self._all) >= self.limits.connections:
            most = max(self._by_key.values(), key=len)
            victim = _first_waiting(most if len(most) > 1 else self._all) or _first_waiting(self._all)
            if victim is None:
                return self._refuse()
            self._evict(victim)
        connection = Connection(key, now_s, now_s + self.limits.header_s)
        self._all[connection] = None
        self._by_key.setdefault(key, OrderedDict())[connection] = None
        self.counts.accepted += 1
        return connection

    def _refuse(self) -> Connection | None:
        self.counts.refused += 1
        return None

    def _evict(self, victim: Connection) -> None:
        self.counts.evicted += 1
        self.leave(victim)
        victim.abort()

    def requested(self, connection: Connection, now_s: float) -> None:
        """The headers of a request are there."""
        connection.deadline_s = now_s + self.limits.answer_s

    def answered(self, connection: Connection, now_s: float) -> None:
        """The answer is given, the next request may come."""
        connection.busy = False
        connection.since_s, connection.deadline_s = now_s, now_s + self.limits.header_s
        if connection in self._all:
            self._all.move_to_end(connection)
            self._by_key[connection.key].move_to_end(connection)

    def leave(self, connection: Connection) -> None:
        """It has ended. Safe to call twice."""
        if connection not in self._all:
            return
        del self._all[connection]
        own = self._by_key[connection.key]
        del own[connection]
        if not own:
            del self._by_key[connection.key]

    def end_slow(self, now_s: float) -> None:
        """End those whose time is over."""
        for connection in [c for c in self._all if now_s > c.deadline_s]:
            self.counts.too_slow += 1
            self.leave(connection)
            connection.abort()

    def end_all(self) -> None:
        for connection in list(self._all):
            self.leave(connection)
            connection.abort()


def key_of(address: str) -> str:
    """What counts as one address: of IPv6 the network that one subscriber has."""
    if ":" not in address:
        return address
    try:
        six = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if six.ipv4_mapped is not None:
        return str(six.ipv4_mapped)
    return str(ipaddress.IPv6Network((six, _NETWORK), strict=False))


def _first_waiting(connections: OrderedDict[Connection, None]) -> Connection | None:
    return next((connection for connection in connections if not connection.busy), None)
