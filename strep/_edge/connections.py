"""Who may be connected to an HTTP server, and who has to make room. Pure: time is an argument.

A connection takes a file descriptor before anything is known about the peer. So the number of connections is limited,
in all and for each address. When there is no more room, the connection that has waited longest is ended: a real request
takes milliseconds, so whoever only holds a connection open has always waited longer.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

from .._model.exceptions import ConfigurationError

__all__ = ["Connection", "Connections", "HttpCounts", "HttpLimits"]

_SUBSCRIBER_BITS: Final = 64  # leading bits of an IPv6 address that tell one subscriber from another
_SAFE_S: Final = 1.0  # a connection younger than this does not have to make room for one of the same address


@dataclass(frozen=True)
class HttpLimits:
    """Limits of an HTTP server.

    ``connections``   in all.
    ``per_address``   of one IPv4 address or IPv6 /64; a proxy is one address.
    ``header_s``      seconds from the connection, or the last answer, until the next request's headers are there.
    ``answer_s``      seconds from there until the answer is sent.
    ``idle_s``        seconds between two requests.
    ``header_bytes``  of one request.

    Raises ConfigurationError if one of them is too small.
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
    """What became of connections: ``refused`` ones got 503 at once, ``evicted`` ones made room for others, ``too_slow``
    ones were ended because their time was over, ``failed`` ones could not be taken (no descriptor, or the peer had
    gone).
    """

    accepted: int = 0
    refused: int = 0
    evicted: int = 0
    too_slow: int = 0
    failed: int = 0

    def as_dict(self) -> dict[str, int]:
        """All counters, by name."""
        return asdict(self)


class Connection:
    """One connection. ``abort`` ends it at once; ``busy``: it is being answered, and does not wait for its peer."""

    __slots__ = ("abort", "busy", "deadline_s", "key", "since_s")

    def __init__(self, key: str, now_s: float, deadline_s: float) -> None:
        self.key = key
        self.since_s = now_s  # that it was made, or answered last
        self.deadline_s = deadline_s
        self.busy = False
        self.abort: Callable[[], object] = lambda: None


class Connections:
    """All connections of one server. Times are seconds on any monotonic clock."""

    def __init__(self, limits: HttpLimits) -> None:
        self.limits = limits
        self.counts = HttpCounts()
        self._all: OrderedDict[Connection, None] = OrderedDict()  # the one that waits longest stands first
        self._by_key: dict[str, OrderedDict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, address: str, now_s: float) -> Connection | None:
        """A new connection, for which another one is ended if there is no room; None: it is to be refused."""
        key = key_of(address)
        own = self._by_key.get(key, OrderedDict())
        if len(own) >= self.limits.per_address:
            victim = _first_waiting(own)
            if victim is None or now_s - victim.since_s < _SAFE_S:
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
        """The answer has been sent; the next request may come."""
        connection.busy = False
        connection.since_s, connection.deadline_s = now_s, now_s + self.limits.header_s
        if connection in self._all:
            self._all.move_to_end(connection)
            self._by_key[connection.key].move_to_end(connection)

    def leave(self, connection: Connection) -> None:
        """The connection has ended. Safe to call twice."""
        if connection not in self._all:
            return
        del self._all[connection]
        own = self._by_key[connection.key]
        del own[connection]
        if not own:
            del self._by_key[connection.key]

    def end_slow(self, now_s: float) -> None:
        """End the connections whose time is over."""
        for connection in [c for c in self._all if now_s > c.deadline_s]:
            self.counts.too_slow += 1
            self.leave(connection)
            connection.abort()

    def end_all(self) -> None:
        """End all connections."""
        for connection in list(self._all):
            self.leave(connection)
            connection.abort()


def key_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the IPv6 network of one subscriber."""
    if ":" not in address:
        return address
    try:
        six = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if six.ipv4_mapped is not None:
        return str(six.ipv4_mapped)
    return str(ipaddress.IPv6Network((six, _SUBSCRIBER_BITS), strict=False))


def _first_waiting(connections: OrderedDict[Connection, None]) -> Connection | None:
    return next((connection for connection in connections if not connection.busy), None)
