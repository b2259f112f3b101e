"""Where a fork's media goes: which ports of the receiver it comes to, and under which address they are reached."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Final, Literal

from .._edge.udp.address import UdpAddress, parse_address
from .._model.exceptions import ConfigurationError
from .._receiver.pairs import PortPair
from ._protocols import MediaReceiver

__all__ = ["ForkRoute", "advertised"]

Mode = Literal["target", "rx_tx"]

_STRAGGLERS_S: Final = 5.0  # what comes this much later of a leg that was forked begins no stream


class ForkRoute:
    """``open`` it before the fork is started, ``close`` it when the fork is over.

    advertise: "IP" or "IP:PORT" as the platform reaches the receiver; None: as the receiver is bound.
    ``addresses``: the arguments of fork_start, "target" or "rx" and "tx". ``host``, ``port``: as advertised (of a pair:
    of its rx). ``listening``: the receiver's own addresses. Raises ConfigurationError.
    """

    def __init__(self, receiver: MediaReceiver, mode: Mode, advertise: str | None) -> None:
        if mode not in ("target", "rx_tx"):
            raise ConfigurationError(f'mode={mode!r}: "target" (STREP to one port) or "rx_tx" (plain RTP to two)')
        self.mode = mode
        self.pair: PortPair | None = None
        self.addresses: dict[str, str] = {}
        self.host, self.port = "", 0
        self.listening: tuple[str, ...] = ()
        self._receiver = receiver
        self._advertise = None if advertise is None else advertised(advertise)

    async def open(self, call_leg_id: uuid.UUID | None) -> None:
        """Find the receiver's port, or open a pair of ports for this leg. Raises ConfigurationError, BindError."""
        if self.mode == "target":
            bound = [socket.address for socket in self._receiver.sockets if socket.role == "listen"]
            if not bound:
                raise ConfigurationError('the receiver has no listen port for mode="target": give it listen=')
            self.host, self.port = self._reached_at(parse_address(bound[0]))
            self.listening = (bound[0],)
            self.addresses = {"target": _udp(self.host, self.port)}
        else:
            self.pair = pair = await self._receiver.open_pair(call_leg_id)
            self.host, _ = self._reached_at(UdpAddress(pair.host, pair.rx))
            self.port = pair.rx
            self.listening = tuple(str(UdpAddress(pair.host, port)) for port in pair.ports)
            self.addresses = {"rx": _udp(self.host, pair.rx), "tx": _udp(self.host, pair.tx)}

    def _reached_at(self, bound: UdpAddress) -> tuple[str, int]:
        if self._advertise is not None:
            host, port = self._advertise
            return host, port or bound.port
        if ipaddress.ip_address(bound.host).is_unspecified:
            raise ConfigurationError(
                f'the receiver listens on all addresses ({bound}): give advertise="IP" or "IP:PORT", as the platform '
                "reaches it"
            )
        return bound.host, bound.port

    def end_strangers(self) -> None:
        """End what came to the pair's ports before they were told to anybody."""
        if self.pair is not None:
            self._receiver.end_strangers(self.pair)

    def close(self, call_leg_id: uuid.UUID | None) -> None:
        """End the streams: of the pair, which is given back, or of this leg (None: it was never known)."""
        if not self._receiver.running:
            return
        if self.pair is not None:
            self._receiver.close_pair(self.pair)
        elif call_leg_id is not None:
            self._receiver.forget(call_leg_id)
            self._receiver.end(call_leg_id, linger_s=_STRAGGLERS_S)


def advertised(text: str) -> tuple[str, int]:
    """ "IP" or "IP:PORT" as both; port 0 stands for the one that the receiver has. Raises ConfigurationError."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare)), 0
    except ValueError:
        address = parse_address(text)
    if not address.port or ipaddress.ip_address(address.host).is_unspecified:
        raise ConfigurationError(f'advertise={text!r}: give the address that the platform sends to, "IP" or "IP:PORT"')
    return address.host, address.port


def _udp(host: str, port: int) -> str:
    return f"udp:{UdpAddress(host, port)}"
