"""What users may set on a receiver: one value, checked in one place, for every way in.

To add an option: add a field with its help and unit to :class:`Settings`, a line to one of the ``...Options`` below,
for type checkers, and the code that honours it. A way in that cannot honour it says why in :data:`NOT_FOR`.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Any, Final, TypedDict, TypeVar

from .._codecs.payload_types import PayloadTypes
from .._edge.ring.expression import sniffing_program
from .._edge.udp.address import UdpAddress, parse_address
from .._engine.engine import EngineConfig
from .._engine.sources.pinning import SourcePins
from .._engine.sources.port_keys import PortBinding, PortRole
from .._model.addresses import SourceFilter
from .._model.call_legs import parse_call_leg_id
from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from .bindings import bindings_of

__all__ = [
    "LATENCY_MS",
    "LATENCY_WITHOUT_SINKS_MS",
    "NOT_FOR",
    "TRANSPORTS",
    "EngineOptions",
    "ReceiverOptions",
    "ReplayOptions",
    "Settings",
    "SocketOptions",
    "shows_settings",
]

LATENCY_MS: Final = 200.0
LATENCY_WITHOUT_SINKS_MS: Final = 60.0  # somebody iterates, and wants audio soon
TRANSPORTS: Final = ("auto", "recvmmsg", "portable", "ring")

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


def _about(help_text: str, *, unit: str | None = None) -> Mapping[str, str | None]:
    return {"help": help_text, "unit": unit}


@dataclass(frozen=True)
class Settings:
    """Everything that can be set on a receiver but its sinks. Immutable, comparable, and can be pickled.

    The fields are the keyword arguments of :class:`strep.Receiver`, with the same defaults. Each carries
    ``metadata["help"]``, one sentence, and ``metadata["unit"]`` ("ms", "s", "bytes", "streams" or None).

    ``listen``          "udp:HOST:PORT": STREP of any number of calls. Plain RTP is taken too, a stream per SSRC. None:
                        no such port.
    ``rx``, ``tx``      "udp:HOST:PORT": plain RTP of one call leg, inbound and outbound. Both may name the same port:
                        then the SSRC tells them apart, and the first source is taken for inbound. A replay takes port
                        numbers too.
    ``call_leg_id``     UUID or its text: names the leg of the rx/tx pair. None: its streams are named by port and SSRC.
    ``pairs``           "udp:HOST:FIRST-LAST": ports for pairs that are opened while it runs. None: any free port, on
                        all addresses.
    ``latency_ms``      how long a hole waits for its packet, 0 to 800 ms. None: 200 ms with sinks and in replays, 60 ms
                        without sinks.
    ``payload_types``   dynamic payload types, {96: "L16/16000"}, or Codec objects for the texts.
    ``allow``           networks that may send, in CIDR notation. Empty: all.
    ``call_legs``       call_leg_ids that are admitted. None: all.
    ``announced_only``  admit STREP only of legs that were announced, and no plain RTP but on ports that are bound to a
                        leg.
    ``pending_s``       with ``announced_only``: how long packets of a leg wait for it to be announced, more than 0 and
                        at most 60 s. Then they are rejected as "unannounced".
    ``max_streams``     streams at the same time, 1 to 1,000,000. Newer ones are refused.
    ``idle_timeout_s``  a stream that is silent for so long has ended, 1 s or more.
    ``pin``             what a stream belongs to: the "address" and port that it first came from, their "network" (/24
                        of IPv4, /48 of IPv6, any port), or "off", any address.
    ``pcap``            a file to which every datagram is recorded raw. None: no recording.
    ``transport``       "auto", "recvmmsg" (64-bit Linux), "portable", or "ring": a packet ring (Linux, CAP_NET_RAW),
                        which is read instead of sockets, and is in front of the machine's firewall.
    ``interface``       interfaces that a ring looks at, by name; it implies the ring. Empty: those that the ports'
                        addresses belong to.
    ``sniff``           traffic between others to take instead of listening on ports, as it comes by on ``interface``:
                        "udp portrange 10000-20000", in a part of libpcap's language.
    ``receive_buffer``  bytes of receive buffer to ask the kernel for, for each socket of ``listen``, ``rx`` and ``tx``;
                        each port of ``pairs`` gets at most 1 MiB of it.
    ``drain_s``         how much longer than 2 s the end may take, 0 to 3600 s, to read and finish what has come before.
    ``redact``          events tell that a key was pressed, but not which one (card numbers, PINs).

    Raises ConfigurationError if a value is wrong. Addresses are checked when they are asked for.
    """

    listen: str | None = field(default=None, metadata=_about("Port for STREP (and plain RTP), as udp:HOST:PORT."))
    rx: str | int | None = field(
        default=None, metadata=_about("Port for plain RTP that the platform received (inbound).")
    )
    tx: str | int | None = field(
        default=None, metadata=_about("Port for plain RTP that it transmitted (outbound); may be rx's.")
    )
    call_leg_id: uuid.UUID | str | None = field(
        default=None, metadata=_about("Name of the call leg on the rx/tx ports, a UUID.")
    )
    pairs: str | None = field(
        default=None, metadata=_about("Ports for pairs that are opened while it runs, as udp:HOST:FIRST-LAST.")
    )
    latency_ms: float | None = field(
        default=None, metadata=_about("How long a missing packet is waited for, 0 to 800 ms.", unit="ms")
    )
    payload_types: Mapping[int, str | Codec] | None = field(
        default=None,
        metadata=_about("Dynamic payload types, like 96=opus/48000/2, 97=telephone-event or 121=red/8000."),
    )
    allow: Sequence[str] = field(default=(), metadata=_about("Networks that may send, in CIDR notation; none: all."))
    call_legs: Iterable[uuid.UUID | str] | None = field(
        default=None, metadata=_about("call_leg_ids that are admitted; none: all.")
    )
    announced_only: bool = field(default=False, metadata=_about("Admit only call legs that were announced."))
    pending_s: float = field(
        default=5.0, metadata=_about("How long packets wait for their call leg to be announced.", unit="s")
    )
    max_streams: int = field(
        default=20_000, metadata=_about("Streams beyond this are refused, the newest first.", unit="streams")
    )
    idle_timeout_s: float = field(
        default=60.0, metadata=_about("A stream that is silent this long has ended.", unit="s")
    )
    pin: str = field(
        default="address",
        metadata=_about("What a stream is pinned to: the address and port it first came from, or their network."),
    )
    pcap: str | PathLike[str] | None = field(default=None, metadata=_about("Record every datagram raw to this file."))
    transport: str = field(
        default="auto", metadata=_about("How datagrams are read: auto, recvmmsg (Linux), portable or ring (Linux).")
    )
    interface: Sequence[str] = field(
        default=(), metadata=_about("Interfaces that a packet ring looks at; none: those of the ports' addresses.")
    )
    sniff: str | None = field(
        default=None, metadata=_about("Take traffic between others off the interface, like udp portrange 10000-20000.")
    )
    receive_buffer: int = field(
        default=128 << 20, metadata=_about("Socket buffer to ask the kernel for.", unit="bytes")
    )
    drain_s: float = field(
        default=0.0,
        metadata=_about("How much longer than 2 s the end may take, to finish what has come before it.", unit="s"),
    )
    redact: bool = field(default=False, metadata=_about("Events do not tell which keys were pressed."))

    def __post_init__(self) -> None:
        self._normalize()
        if not 0 < self.pending_s <= 60:
            raise ConfigurationError(f"pending_s={self.pending_s:g}: more than 0 and at most 60 s")
        if not 0 <= self.drain_s <= 3600:
            raise ConfigurationError(f"drain_s={self.drain_s:g}: 0 to 3600 s")
        if self.transport not in TRANSPORTS:
            raise ConfigurationError(f'transport {self.transport!r}: "auto", "recvmmsg", "portable" or "ring"')
        if self.sniff is not None:
            sniffing_program(self.sniff, [])  # raises
        if self.latency_ms is not None and not 0 <= self.latency_ms <= 800:
            raise ConfigurationError(f"latency {self.latency_ms:g} ms: choose 0 to 800 ms")
        if not 1 <= self.max_streams <= 1_000_000:
            raise ConfigurationError(f"max_streams {self.max_streams}: choose 1 to 1000000")
        if not self.idle_timeout_s >= 1:
            raise ConfigurationError(f"idle timeout {self.idle_timeout_s:g} s: choose 1 s or more")
        SourcePins(self.pin)  # these three raise
        PayloadTypes(self.payload_types)
        SourceFilter(self.allow)

    def _normalize(self) -> None:
        """Copies of what the caller might change, or that can be read only once."""
        legs = self.call_legs
        if legs is not None:
            legs = tuple(leg for leg in map(parse_call_leg_id, legs) if leg is not None)
        changed = {
            "call_leg_id": parse_call_leg_id(self.call_leg_id),
            "call_legs": legs,
            "allow": tuple(self.allow),
            "interface": (self.interface,) if isinstance(self.interface, str) else tuple(self.interface),
            "payload_types": None if self.payload_types is None else dict(self.payload_types),
        }
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    # --- what others make of it -----------------------------------------------------------------------------------

    def refuse_for(self, way: str) -> None:
        """Raises ConfigurationError if something is set that this way in (a key of :data:`NOT_FOR`) cannot honour."""
        for one in fields(self):
            why = NOT_FOR[way].get(one.name)
            if why is not None and getattr(self, one.name) != one.default:
                raise ConfigurationError(f"{one.name} is not for {way}: {why}")

    def addresses(self) -> list[tuple[UdpAddress, PortRole]]:
        """The ports to bind at the start, and what each is for.

        Raises AddressError, and ConfigurationError if there is no port to receive on, now or later.
        """
        self._check_ring()
        if self.sniff is not None:
            return []
        if self.listen is None and self.rx is None and self.tx is None and self.pairs is None:
            raise ConfigurationError(
                'no port to receive on: give listen="udp:0.0.0.0:9000", rx= and tx=, or pairs="udp:0.0.0.0:20000-20999"'
            )
        listen, rx, tx = (
            None if text is None else parse_address(str(text)) for text in (self.listen, self.rx, self.tx)
        )
        one_port = rx is not None and rx.port != 0  # port 0 is another free one each time
        own = [(listen, PortRole.LISTEN)] if listen is not None else []
        return own + _roles(rx, tx, may_share=one_port)

    def _check_ring(self) -> None:
        if (self.interface or self.sniff is not None) and self.transport not in ("auto", "ring"):
            raise ConfigurationError(
                f'transport {self.transport!r}: interface and sniff are for a packet ring; leave it, or give "ring"'
            )
        if self.sniff is not None:
            if not self.interface:
                raise ConfigurationError("sniff needs interface: the one that the traffic comes by on, like eth1")
            if any(port is not None for port in (self.listen, self.rx, self.tx, self.pairs)):
                raise ConfigurationError("sniff takes traffic between others: give no listen, rx, tx or pairs with it")

    def replayed_bindings(self) -> dict[int, PortBinding]:
        """``rx`` and ``tx`` as ports of a recording. Raises ConfigurationError if they name no UDP port."""
        rx, tx = (None if value is None else _port_number(value) for value in (self.rx, self.tx))
        return bindings_of(_roles(rx, tx), self.leg)

    @property
    def ring(self) -> bool:
        """Whether a packet ring is read instead of sockets."""
        return self.transport == "ring" or bool(self.interface)

    @property
    def leg(self) -> uuid.UUID | None:
        """``call_leg_id`` as a UUID."""
        return parse_call_leg_id(self.call_leg_id)

    def engine_config(self, bindings: Mapping[int, PortBinding], default_latency_ms: float) -> EngineConfig:
        """The engine's part of it. ``default_latency_ms`` is for a ``latency_ms`` of None."""
        latency_ms = default_latency_ms if self.latency_ms is None else self.latency_ms
        legs = None
        if self.call_legs is not None:
            legs = frozenset(leg.int for leg in map(parse_call_leg_id, self.call_legs) if leg is not None)
        return EngineConfig(
            latency_ns=round(latency_ms * 1e6),
            max_streams=self.max_streams,
            idle_ns=round(self.idle_timeout_s * 1e9),
            payload_types=PayloadTypes(self.payload_types),
            sources=SourceFilter(self.allow) if self.allow else None,
            call_legs=legs,
            bindings=bindings,
            pin=self.pin,
            pending_ns=round(self.pending_s * 1e9) if self.announced_only else None,
        )


_NO_CONTROL: Final = "nothing there announces call legs or opens pairs: use a Receiver with CallControl, or strep serve"
_FROM_A_FILE: Final = "a replay reads a file"
_BY_API: Final = "strep serve learns call legs from webhooks, and names and binds them itself"

_ONE_SNIFFS: Final = "one process takes traffic between others: use a Receiver"

_NOT_FOR_REPLAY: Final = {
    "listen": f"{_FROM_A_FILE}: STREP is told by its header, on any port",
    "pairs": f"{_FROM_A_FILE}, which says itself what each port was for",
    "announced_only": f"{_FROM_A_FILE}: nobody announces call legs meanwhile",
    "pending_s": f"{_FROM_A_FILE}: nobody announces call legs meanwhile",
    "pcap": f"{_FROM_A_FILE}: the recording is there already",
    "transport": f"{_FROM_A_FILE}, not sockets",
    "interface": f"{_FROM_A_FILE}, not interfaces",
    "sniff": f"{_FROM_A_FILE}: it takes all that is in it",
    "receive_buffer": f"{_FROM_A_FILE}, not sockets",
    "drain_s": f"{_FROM_A_FILE} to its end, however long that takes",
}

NOT_FOR: Final[Mapping[str, Mapping[str, str]]] = {
    "Receiver": {},
    "replay": _NOT_FOR_REPLAY,
    "Supervisor": {
        **dict.fromkeys(("pairs", "announced_only", "pending_s"), _NO_CONTROL),
        "sniff": _ONE_SNIFFS,
    },
    "strep capture": dict.fromkeys(("pairs", "announced_only", "pending_s"), _NO_CONTROL),
    "strep replay": _NOT_FOR_REPLAY,
    "strep serve": {
        **dict.fromkeys(("rx", "tx", "call_leg_id", "call_legs"), _BY_API),
        "sniff": "the service records what is forked to it",
        "pending_s": "the service announces a call leg before it forks it: the default of 5 s is enough",
    },
}
"""By way in: the fields that it does not take, and why. Every other field it takes and honours."""


# --- for type checkers: what each way in takes as keyword arguments ---------------------------------------------------


class EngineOptions(TypedDict, total=False):
    """What live receivers and replays have in common."""

    call_leg_id: uuid.UUID | str | None
    latency_ms: float | None
    payload_types: Mapping[int, str | Codec] | None
    allow: Sequence[str]
    call_legs: Iterable[uuid.UUID | str] | None
    max_streams: int
    idle_timeout_s: float
    pin: str
    redact: bool


class ReplayOptions(EngineOptions, total=False):
    """Of :func:`strep.replay`."""

    rx: str | int | None
    tx: str | int | None


class SocketOptions(EngineOptions, total=False):
    """Of :class:`strep.Supervisor`."""

    rx: str | None
    tx: str | None
    pcap: str | PathLike[str] | None
    transport: str
    receive_buffer: int
    interface: Sequence[str]
    drain_s: float


class ReceiverOptions(SocketOptions, total=False):
    """Of :class:`strep.Receiver`."""

    sniff: str | None
    pairs: str | None
    announced_only: bool
    pending_s: float


def shows_settings(way: str) -> Callable[[_F], _F]:
    """Let a function that takes ``**options`` show them one by one, in ``help()`` and ``inspect.signature()``.

    ``way`` is a key of :data:`NOT_FOR`.
    """

    def decorate(function: _F) -> _F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = {parameter.name for parameter in own}
        shown = [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
            for one in fields(Settings)
            if one.name not in named and one.name not in NOT_FOR[way]
        ]
        function.__signature__ = signature.replace(parameters=[*own, *shown])  # type: ignore[attr-defined]
        return function

    return decorate


# --- ports ------------------------------------------------------------------------------------------------------------


def _roles(rx: _T | None, tx: _T | None, *, may_share: bool = True) -> list[tuple[_T, PortRole]]:
    """One port for both directions stands there once."""
    if rx is not None and rx == tx and may_share:
        return [(rx, PortRole.BOTH)]
    return [(port, role) for port, role in ((rx, PortRole.RX), (tx, PortRole.TX)) if port is not None]


def _port_number(value: str | int) -> int:
    text = str(value).rpartition(":")[2]
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigurationError(f"{value!r} names no UDP port: give 5004, or ADDR:5004")
    return int(text)
