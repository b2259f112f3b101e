"""What a request asks for, checked as the contract says; what is impossible is refused. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

from .._edge.udp.address import UdpAddress, parse_address
from .._model.exceptions import AddressError
from ._answers import Problem, Refusal

__all__ = [
    "Body", "Command", "Dial", "ForkStart", "Page", "parse_command", "parse_dial", "parse_fork_start", "parse_page",
]  # fmt: skip

StreamType = Literal["raw", "decrypted"]

_STREAM_TYPES: Final = ("raw", "decrypted")
_LARGEST_PAGE_SIZE: Final = 250


@dataclass(frozen=True, slots=True)
class Command:
    """What all commands share; ``stream_type`` is of ``fork_stop`` in newer descriptions of the API."""

    command_id: str | None = None
    client_state: str | None = None  # base64, as it came
    webhook_url: str | None = None
    stream_type: StreamType | None = None


@dataclass(frozen=True, slots=True)
class ForkStart:
    """Either ``target``, or ``rx`` and ``tx``."""

    command: Command
    target: UdpAddress | None
    rx: UdpAddress | None
    tx: UdpAddress | None
    stream_type: StreamType

    def as_dict(self) -> dict[str, str]:
        """Where to, as it was asked for: the "raw event" of its entry in ``/call_events``."""
        named = {"target": self.target, "rx": self.rx, "tx": self.tx}
        return {name: f"udp:{address}" for name, address in named.items() if address is not None}


@dataclass(frozen=True, slots=True)
class Dial:
    command: Command
    connection_id: str
    to: str
    from_: str
    link_to: str | None
    time_limit_s: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """``filter[...]`` of call events by name, and which page of how many."""

    filters: dict[str, str]
    number: int
    size: int


class Body:
    """Fields of a JSON object, and what is wrong with them. ``check`` raises Refusal."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise Refusal(400, Problem("10015", "Bad Request", "The body is no JSON object.", pointer=""))
        self._body: dict[str, Any] = body
        self.problems: list[Problem] = []

    def wrong(self, name: str, detail: str, code: str = "10015", title: str = "Invalid value") -> None:
        self.problems.append(Problem(code, title, detail, pointer=f"/{name}"))

    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self._body.get(name)
        if value is None or (value == "" and required):
            if required:
                self.wrong(name, f"The {name} parameter is required.", "10004", "Missing required parameter")
            return None
        if not isinstance(value, str):
            self.wrong(name, f"The {name} parameter must be a string.")
            return None
        return value

    def choice(self, name: str, among: Collection[str], *, required: bool = False) -> str | None:
        value = self.text(name, required=required)
        if value is None or value in among:
            return value
        self.wrong(name, f"{name} must be {' or '.join(among)}.", "10032", "Invalid enumerated value")
        return None

    def flag(self, name: str) -> bool | None:
        value = self._body.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(name, f"The {name} parameter must be true or false.")
        return None

    def raw(self, name: str) -> Any:
        return self._body.get(name)

    def whole(self, name: str) -> int | None:
        value = self._body.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        self.wrong(name, f"The {name} parameter must be a positive integer.")
        return None

    def stream_type(self) -> StreamType | None:
        value = self.text("stream_type")
        if value is None or value == "raw":
            return None if value is None else "raw"
        if value == "decrypted":
            return "decrypted"
        options = " or ".join(_STREAM_TYPES)
        self.wrong("stream_type", f"stream_type must be {options}.", "10032", "Invalid enumerated value")
        return None

    def udp(self, name: str, *, prefix: bool) -> UdpAddress | None:
        value = self.text(name)
        if value is None:
            return None
        # the contract's description has udp:ip_address:port for all three, its examples of rx and tx no udp:
        target = None if prefix and not value.startswith("udp:") else _address(value)
        if target is None:
            form = "udp:ip_address:port" if prefix else "ip_address:port or udp:ip_address:port"
            self.wrong(name, f"{name} must be {form}, the port from 1 to 65535.")
        return target

    def command(self) -> Command:
        client_state = self.text("client_state")
        if client_state is not None:
            try:
                base64.b64decode(client_state, validate=True)
            except (binascii.Error, ValueError):
                self.wrong("client_state", "client_state must be a valid Base-64 encoded string.")
        webhook_url = self.text("webhook_url")
        if webhook_url is not None and not webhook_url.startswith(("http://", "https://")):
            self.wrong("webhook_url", "webhook_url must be an http or https URL.", "10003", "Invalid URL")
        return Command(self.text("command_id"), client_state, webhook_url, self.stream_type())

    def check(self) -> None:
        if self.problems:
            raise Refusal(422, *self.problems)


def _address(text: str) -> UdpAddress | None:
    try:
        address = parse_address(text)
    except AddressError:
        return None
    named = text.removeprefix("udp:").startswith(("localhost", ":"))  # parse_address has an address for these
    return None if named or not address.port or ipaddress.ip_address(address.host).is_unspecified else address


def parse_command(body: Any) -> Command:
    """``answer``, ``hangup``, ``fork_stop``. Raises Refusal."""
    fields = Body(body)
    command = fields.command()
    fields.check()
    return command


def parse_fork_start(body: Any) -> ForkStart:
    """Raises Refusal for neither or both of target and rx/tx, ``decrypted`` without rx/tx, and what is no address."""
    fields = Body(body)
    command = fields.command()
    target = fields.udp("target", prefix=True)
    rx, tx = fields.udp("rx", prefix=False), fields.udp("tx", prefix=False)
    if not fields.problems:
        given = [name for name, value in (("target", target), ("rx", rx), ("tx", tx)) if value is not None]
        if not given:
            fields.wrong("target", "Either target, or rx and tx are required.", "10004", "Missing required parameter")
        elif "target" in given and len(given) > 1:
            fields.wrong("target", "target cannot be used together with rx and tx.")
        elif len(given) == 1 and "target" not in given:
            missing = "tx" if "rx" in given else "rx"
            fields.wrong(missing, "rx and tx are required together.", "10004", "Missing required parameter")
        elif command.stream_type == "decrypted" and "target" in given:
            fields.wrong("stream_type", "rx and tx are required when stream_type is decrypted.")
    fields.check()
    return ForkStart(command, target, rx, tx, command.stream_type or "raw")


def parse_dial(body: Any) -> Dial:
    """Raises Refusal."""
    fields = Body(body)
    command = fields.command()
    connection_id, to, from_ = (fields.text(name, required=True) or "" for name in ("connection_id", "to", "from"))
    link_to, time_limit_s = fields.text("link_to"), fields.whole("time_limit_secs")
    fields.check()
    return Dial(command, connection_id, to, from_, link_to, time_limit_s)


def parse_page(query: list[tuple[str, str]]) -> Page:
    """The query of ``/call_events``. Raises Refusal."""
    filters: dict[str, str] = {}
    sizes = {"page[number]": 1, "page[size]": 20}
    for name, value in query:
        if name in sizes:
            most = _LARGEST_PAGE_SIZE if name == "page[size]" else 10**9
            if not (value.isascii() and value.isdigit() and 1 <= int(value) <= most):
                detail = f"{name} must be an integer from 1 to {most}."
                raise Refusal(422, Problem("10015", "Invalid value", detail, parameter=name))
            sizes[name] = int(value)
        elif name.startswith("filter[") and name.endswith("]"):
            filters[name[len("filter[") : -1]] = value
    return Page(filters, sizes["page[number]"], sizes["page[size]"])
