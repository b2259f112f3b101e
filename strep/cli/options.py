"""Options of commands. Those of a receiver are made from the fields of :class:`Settings`, in one place.

A new field of Settings is an option of each command whose way in is not in :data:`NOT_FOR`, with the field's help, unit
and default. :data:`_LOOKS` holds what a command line wants otherwise.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from .._codecs.payload_types import PayloadTypes
from .._engine.sources.pinning import PIN_MODES
from .._model.exceptions import ConfigurationError
from .._receiver.settings import LATENCY_MS, NOT_FOR, TRANSPORTS, Settings

__all__ = [
    "decorated",
    "flag_of",
    "http_address",
    "leg_options",
    "option_of",
    "pcap_option",
    "port_options",
    "recording_options",
    "redact_option",
    "settings_of",
    "socket_options",
    "stream_options",
    "values_of",
]

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

_METAVARS: Final = {"ms": "MS", "s": "S", "bytes": "BYTES", "streams": "N"}  # by unit
_SUFFIXES: Final = ("ms", "s")  # units that end the names of fields, but not those of options

_LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "listen": {"metavar": "ADDR:PORT", "help": "Port for STREP (and plain RTP). Default: 0.0.0.0:9000."},
    "rx": {"metavar": "ADDR:PORT"},
    "tx": {"metavar": "ADDR:PORT"},
    "call_leg_id": {"metavar": "UUID", "help": "Name of the call leg on the rx/tx ports."},
    "call_legs": {
        "flag": "--call-leg", "multiple": True, "metavar": "UUID", "help": "Call leg to admit (repeat; default all).",
    },
    "latency_ms": {
        "type": click.FloatRange(0, 800), "default": LATENCY_MS, "help": "How long a missing packet is waited for.",
    },
    "allow": {"metavar": "CIDR", "help": "Network that may send (repeat; default all)."},
    "payload_types": {
        "flag": "--pt", "multiple": True, "metavar": "N=NAME/RATE",
        "help": "What a payload type is, like 96=opus/48000/2, 97=telephone-event or 121=red/8000; 9=G722/16000 where "
        "the sender's RTP clock is not the codec's (repeat).",
    },
    "max_streams": {"type": click.IntRange(1, 1_000_000)},
    "idle_timeout_s": {"type": click.FloatRange(1)},
    "pin": {"type": click.Choice(PIN_MODES)},
    "pcap": {
        "type": click.Path(path_type=Path, dir_okay=False), "metavar": "FILE",
        "help": "Record every datagram raw, for `strep replay`. Wireshark shows plain RTP in it, of STREP only UDP, "
        "unless it has the dissector (`strep wireshark`), or the file goes through `strep unwrap` first. With workers: "
        "FILE-stem.0.pcap, .1.pcap ...; who replaces a dead one takes the next free name, like .1-2.pcap.",
    },
    "transport": {
        "type": click.Choice(TRANSPORTS),
        "help": "How datagrams are read. ring: a packet ring, which needs CAP_NET_RAW and is in front of the firewall.",
    },
    "interface": {"metavar": "NAME", "help": "Interface that a packet ring looks at (repeat); it implies the ring."},
    "sniff": {
        "metavar": "EXPR",
        "help": "Instead of listening, take UDP between others off --interface, like 'udp portrange 10000-20000'.",
    },
    "receive_buffer": {"type": click.IntRange(1 << 12, 1 << 30)},
    "drain_s": {"type": click.FloatRange(0, 3600)},
    "redact": {"help": "Tell that a key was pressed, never which."},
}  # fmt: skip
"""By field, what differs from what the field itself says: ``flag``, and what :func:`click.option` takes."""

_LOOKS_OF_COMMANDS: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("strep replay", "rx"): {
        "metavar": "PORT",
        "help": "Plain RTP to this port is what the platform received (inbound).",
    },
    ("strep replay", "tx"): {"metavar": "PORT", "help": "Plain RTP to this port is what it transmitted (outbound)."},
    ("strep serve", "listen"): {"default": "0.0.0.0:9000", "help": "Where media come to."},
    ("strep serve", "pcap"): {
        "help": "Record every datagram raw, for `strep replay`, and for Wireshark as told there by `strep capture -h`.",
    },
}
"""The same by command, where one command differs."""

_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "payload_types": lambda pairs: dict(PayloadTypes.parse_option(pair) for pair in pairs),
    "call_legs": lambda legs: legs or None,
}
"""By field: what makes its value of an option's."""

_PORTS: Final = ("listen", "rx", "tx")
_LEGS: Final = ("call_leg_id", "call_legs")
_SOCKETS: Final = ("transport", "interface", "sniff", "receive_buffer", "drain_s")
# options of their own in --help, or (pairs, announced_only) other options of the command that has them
_ELSEWHERE: Final = ("redact", "pcap", "pairs", "announced_only")


def decorated(options: Callable[[], list[Any]]) -> Callable[[_F], _F]:
    """``@decorated`` over a function that lists options: a decorator that adds them in that order."""

    def decorate(function: _F) -> _F:
        for option in reversed(options()):
            function = option(function)
        return function

    decorate.__doc__ = options.__doc__
    return decorate


@decorated
def recording_options() -> list[Any]:
    """Where a command that records until it is interrupted writes to, and how long it runs."""
    return [
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                     help="Where files go; without it nothing is written."),
        click.option("--duration", type=click.FloatRange(min=0, min_open=True), metavar="S",
                     help="Stop after S seconds."),
    ]  # fmt: skip


# --- options of receivers ---------------------------------------------------------------------------------------------
# ``way`` is a key of NOT_FOR: "strep capture", "strep replay", "strep serve"


def port_options(way: str) -> Callable[[_F], _F]:
    """Where datagrams come to."""
    return _options(way, _PORTS)


def leg_options(way: str) -> Callable[[_F], _F]:
    """Which call legs there are, for commands that no webhooks tell."""
    return _options(way, _LEGS)


def stream_options(way: str) -> Callable[[_F], _F]:
    """What is taken for a stream; and every field of Settings that no other group here names."""
    others = {*_PORTS, *_LEGS, *_SOCKETS, *_ELSEWHERE}
    mine = [one.name for one in fields(Settings) if one.name not in others]
    mine.sort(key=lambda name: _STREAM_ORDER.index(name) if name in _STREAM_ORDER else len(_STREAM_ORDER))
    return _options(way, mine)


# in --help; others follow
_STREAM_ORDER: Final = ("latency_ms", "allow", "payload_types", "max_streams", "idle_timeout_s", "pin")


def socket_options(way: str) -> Callable[[_F], _F]:
    """How sockets are read, and for how long at the end."""
    return _options(way, _SOCKETS)


def pcap_option(way: str) -> Callable[[_F], _F]:
    """Whether datagrams are recorded raw."""
    return _options(way, ("pcap",))


def redact_option() -> Callable[[_F], _F]:
    """Of all commands that write anything."""
    return _options("strep capture", ("redact",))


def _options(way: str, names: Iterable[str]) -> Callable[[_F], _F]:
    by_name = {one.name: one for one in fields(Settings)}
    return decorated(lambda: [option_of(by_name[name], way) for name in names if name not in NOT_FOR[way]])


def option_of(field: Field[Any], way: str) -> Any:
    """The :func:`click.option` of a field of Settings, which has a default, and ``metadata`` "help" and "unit"."""
    unit, default = field.metadata["unit"], field.default
    look: dict[str, Any] = {
        "flag": flag_of(field),
        "help": field.metadata["help"],
        "default": default,
        "metavar": _METAVARS.get(unit or ""),
    }
    if isinstance(default, bool):
        look["is_flag"] = True
    elif default == ():
        look |= {"multiple": True, "default": None}
    elif isinstance(default, int | float):
        look["type"] = type(default)
    look |= _LOOKS.get(field.name, {})
    look |= _LOOKS_OF_COMMANDS.get((way, field.name), {})
    if look["default"] is not None and not isinstance(look["default"], bool):
        look["show_default"] = True
    if "type" in look and isinstance(look["type"], click.Choice):
        del look["metavar"]
    return click.option(look.pop("flag"), field.name, **look)


def flag_of(field: Field[Any]) -> str:
    """What the option of a field of Settings is called."""
    unit = field.metadata["unit"]
    name = field.name.removesuffix(f"_{unit}") if unit in _SUFFIXES else field.name
    return str(_LOOKS.get(field.name, {}).get("flag", "--" + name.replace("_", "-")))


def settings_of(way: str, options: Mapping[str, Any], **more: Any) -> Settings:
    """The settings that a command's options are; ``more`` are settings that other options say. Raises
    ConfigurationError."""
    taken = [one.name for one in fields(Settings) if one.name in options and one.name not in NOT_FOR[way]]
    values = {name: _READ[name](options[name]) if name in _READ else options[name] for name in taken}
    return Settings(**values | more)


# --- others -----------------------------------------------------------------------------------------------------------


def values_of(kind: type[_T], options: Mapping[str, Any], **more: Any) -> _T:
    """A dataclass whose fields are named like options, made of those; ``more`` are fields that are no options."""
    names = [one.name for one in fields(typing.cast(Any, kind))]
    return kind(**{name: options[name] for name in names if name in options} | more)


def http_address(option: str, text: str) -> tuple[str, int]:
    """HOST and PORT of where HTTP is to be served. Raises ConfigurationError."""
    host, colon, port = text.removeprefix("http://").rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise ConfigurationError(f"{option} {text!r}: write HOST:PORT, like 127.0.0.1:8080 (port 0: any free one)")
    return host.strip("[]") or "127.0.0.1", int(port)
