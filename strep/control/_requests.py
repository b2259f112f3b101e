"""Builds the API's requests, and refuses what cannot be meant before it is sent. Pure.

Each function here is a method of the two clients, with the same signature but for the first argument.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote, urlsplit

from .._model.exceptions import AddressError, ConfigurationError
from . import _answers
from ._answers import Answer, Call, CallEventPage, CommandResult

__all__ = [
    "DEFAULT_BASE_URL",
    "REAL_HOST",
    "Request",
    "Site",
    "answer",
    "call_events",
    "command",
    "dial",
    "fork_start",
    "fork_stop",
    "hangup",
    "present",
    "retrieve_call",
]

REAL_HOST: Final = "api.telnyx.com"
DEFAULT_BASE_URL: Final = f"https://{REAL_HOST}/v2"

R_co = TypeVar("R_co", covariant=True)
StreamType = Literal["raw", "decrypted"]
WebhookMethod = Literal["POST", "GET"]


@dataclass(frozen=True)
class Site:
    """Whom requests go to.

    Raises ConfigurationError for a URL that is not http(s)://HOST[:PORT][/PATH], and for http except to this machine.
    """

    base_url: str = DEFAULT_BASE_URL
    allow_private: bool = False

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigurationError(f"base URL {self.base_url!r}: {error}") from None
        if "@" in parts.netloc:
            raise ConfigurationError("the base URL has a user or password in it: the API takes a key, as api_key=")
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
            raise ConfigurationError(f"base URL {self.base_url!r}: give one like {DEFAULT_BASE_URL}")
        if parts.scheme == "http" and not self.loopback:
            raise ConfigurationError(
                f"base URL {self.base_url!r}: http would show the API key to the network; use https "
                "(http goes to localhost, 127.0.0.0/8 and [::1] only)"
            )

    @property
    def host(self) -> str:
        return (urlsplit(self.base_url).hostname or "").rstrip(".").lower()

    @property
    def loopback(self) -> bool:
        """Whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def real(self) -> bool:
        """Whether it is the real API, which reaches public addresses only."""
        return self.host == REAL_HOST

    def url(self, path: str) -> str:
        return self.base_url.rstrip("/") + path


@dataclass(frozen=True)
class Request(Generic[R_co]):
    """A request, and what makes its answer a value. The same one is sent in every attempt."""

    operation: str
    method: Literal["GET", "POST"]
    path: str
    parse: Callable[[Answer], R_co] = field(repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)  # dial's may have a SIP password
    query: tuple[tuple[str, str], ...] = ()
    ended_is_success: bool = False

    @property
    def command_id(self) -> str | None:
        return None if self.body is None else self.body.get("command_id")


def fork_start(
    site: Site,
    call_control_id: str,
    *,
    target: str | None = None,
    rx: str | None = None,
    tx: str | None = None,
    stream_type: StreamType | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
    allow_private: bool | None = None,
) -> Request[CommandResult]:
    """Fork a call's media.

    To ``target`` ("udp:IP:PORT"): both directions, each packet with the STREP header. Or to ``rx`` (what the platform
    receives) and ``tx`` (what it transmits): plain RTP; one of them suffices, except with ``stream_type="decrypted"``,
    which removes SRTP and needs both.
    client_state: bytes, or text that is base64 already; comes back in every later webhook of the call.
    command_id: one is made (UUID4) when none is given. allow_private: whether private addresses are fine (default: the
    client's; they are refused towards the real API only).

    Raises ConfigurationError, before anything is sent, for what cannot work, CallEndedError when the call is over,
    other APIErrors as they come.
    """
    plain = [name for name, value in (("rx", rx), ("tx", tx)) if value is not None]
    if target is not None and plain:
        both = " and ".join(plain)
        raise ConfigurationError(f"target and {both} exclude each other: STREP goes to target, plain RTP to rx and tx")
    if target is None and not plain:
        raise ConfigurationError("no address to fork to: give target=, or rx= and tx=")
    if stream_type not in (None, "raw", "decrypted"):
        raise ConfigurationError(f"stream_type={stream_type!r}: there are 'raw' and 'decrypted'")
    if stream_type == "decrypted" and len(plain) != 2:
        raise ConfigurationError("stream_type='decrypted' exists with rx= and tx= only, and needs both")
    private = site.allow_private if allow_private is None else allow_private
    for name, address in (("target", target), ("rx", rx), ("tx", tx)):
        if address is not None:
            _check_address(name, address, public=site.real and not private)
    body = {"target": target, "rx": rx, "tx": tx, "stream_type": stream_type}
    return command("fork_start", call_control_id, body, client_state, command_id)


def fork_stop(
    site: Site,
    call_control_id: str,
    *,
    stream_type: StreamType | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
) -> Request[CommandResult]:
    """Stop forking a call's media.

    stream_type: the newer API wants the one that the fork was started with. A call that has already ended is a success,
    and the result says so (``already_ended``).
    """
    if stream_type not in (None, "raw", "decrypted"):
        raise ConfigurationError(f"stream_type={stream_type!r}: there are 'raw' and 'decrypted'")
    return command("fork_stop", call_control_id, {"stream_type": stream_type}, client_state, command_id, ended=True)


def answer(
    site: Site,
    call_control_id: str,
    *,
    webhook_url: str | None = None,
    webhook_url_method: WebhookMethod | None = None,
    billing_group_id: str | uuid.UUID | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
) -> Request[CommandResult]:
    """Answer an incoming call. Raises CallEndedError when the caller has given up."""
    group = None if billing_group_id is None else str(billing_group_id)
    body = {"webhook_url": webhook_url, "webhook_url_method": webhook_url_method, "billing_group_id": group}
    return command("answer", call_control_id, body, client_state, command_id)


def hangup(
    site: Site,
    call_control_id: str,
    *,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
) -> Request[CommandResult]:
    """End a call. One that has already ended is a success, and the result says so (``already_ended``)."""
    return command("hangup", call_control_id, {}, client_state, command_id, ended=True)


def dial(
    site: Site,
    *,
    connection_id: str,
    to: str,
    from_: str,
    from_display_name: str | None = None,
    timeout_secs: int | None = None,
    time_limit_secs: int | None = None,
    link_to: str | None = None,
    audio_url: str | None = None,
    webhook_url: str | None = None,
    webhook_url_method: WebhookMethod | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Request[Call]:
    """Call somebody. The answer is the new call, which is not alive yet: webhooks tell how it goes on.

    to, from_: numbers in E.164 form, or SIP URIs. extra: other fields of the API, sent as they are.
    """
    body: dict[str, Any] = {
        "connection_id": connection_id, "to": to, "from": from_, "from_display_name": from_display_name,
        "timeout_secs": timeout_secs, "time_limit_secs": time_limit_secs, "link_to": link_to, "audio_url": audio_url,
        "webhook_url": webhook_url, "webhook_url_method": webhook_url_method,
        "client_state": _client_state(client_state), "command_id": _command_id(command_id),
    }  # fmt: skip
    for name in ("connection_id", "to", "from"):
        if not isinstance(body[name], str) or not body[name]:
            raise ConfigurationError(f"dial needs {name}, a string that is not empty")
    if timeout_secs is not None and not 5 <= timeout_secs <= 120:
        raise ConfigurationError(f"timeout_secs={timeout_secs}: from 5 to 120")
    if twice := sorted(body.keys() & (extra or {}).keys()):
        raise ConfigurationError(f"extra has {', '.join(twice)}, which have arguments of their own")
    return Request("dial", "POST", "/calls", _answers.call, present({**body, **(extra or {})}))


def retrieve_call(site: Site, call_control_id: str) -> Request[Call]:
    """A call's status: whether it is alive, and its ids."""
    return Request("retrieve_call", "GET", f"/calls/{_path_segment(call_control_id)}", _answers.call)


def call_events(
    site: Site,
    *,
    call_leg_id: str | uuid.UUID | None = None,
    call_session_id: str | uuid.UUID | None = None,
    kind: Literal["command", "webhook"] | None = None,
    status: Literal["delivered", "failed"] | None = None,
    after: datetime | None = None,
    before: datetime | None = None,
    page_number: int | None = None,
    page_size: int | None = None,
) -> Request[CallEventPage]:
    """What the API logged: commands that it took, webhooks that it sent and whether they were delivered.

    kind: of events, the API's ``type``. after, before: aware datetimes, both exclusive.
    page_number: from 1; page_size: 1 to 250.
    """
    if page_number is not None and page_number < 1:
        raise ConfigurationError(f"page_number={page_number}: pages count from 1")
    if page_size is not None and not 1 <= page_size <= 250:
        raise ConfigurationError(f"page_size={page_size}: from 1 to 250")
    if kind not in (None, "command", "webhook"):
        raise ConfigurationError(f"kind={kind!r}: there are 'command' and 'webhook'")
    if status not in (None, "delivered", "failed"):
        raise ConfigurationError(f"status={status!r}: there are 'delivered' and 'failed'")
    query = {
        "filter[call_leg_id]": _uuid("call_leg_id", call_leg_id),
        "filter[call_session_id]": _uuid("call_session_id", call_session_id),
        "filter[type]": kind,
        "filter[status]": status,
        "filter[event_timestamp][gt]": _moment("after", after),
        "filter[event_timestamp][lt]": _moment("before", before),
        "page[number]": page_number,
        "page[size]": page_size,
    }
    pairs = tuple((name, str(value)) for name, value in query.items() if value is not None)
    return Request("call_events", "GET", "/call_events", _answers.call_events, query=pairs)


def command(
    operation: str,
    call_control_id: str,
    body: dict[str, Any],
    client_state: bytes | str | None,
    command_id: str | uuid.UUID | None,
    *,
    ended: bool = False,
) -> Request[CommandResult]:
    """A command to a call. ``body``: its own fields, None for those that are not given. ``ended``: whether a call that
    is over is a success."""
    path = f"/calls/{_path_segment(call_control_id)}/actions/{operation}"
    body |= {"client_state": _client_state(client_state), "command_id": _command_id(command_id)}
    return Request(operation, "POST", path, _answers.result, present(body), ended_is_success=ended)


def present(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None."""
    return {name: value for name, value in body.items() if value is not None}


def _path_segment(call_control_id: str) -> str:
    if not isinstance(call_control_id, str) or not call_control_id or call_control_id in (".", ".."):
        raise ConfigurationError(f"call_control_id={call_control_id!r}: give the id that the call's webhooks carry")
    if len(call_control_id) > _LONGEST_ID:
        raise ConfigurationError(
            f"call_control_id={call_control_id[:40]!r}…: {len(call_control_id)} letters, {_LONGEST_ID} at most"
        )
    if not call_control_id.isprintable() or " " in call_control_id:
        raise ConfigurationError(f"call_control_id={call_control_id!r}: there is a space or a control character in it")
    return quote(call_control_id, safe=":=")


def _command_id(command_id: str | uuid.UUID | None) -> str:
    if command_id is None:
        return str(uuid.uuid4())
    text = str(command_id)
    if not text or not text.isprintable():
        raise ConfigurationError(f"command_id={text!r}: give a UUID, or nothing and one is made")
    return text


def _client_state(state: bytes | str | None) -> str | None:
    if state is None:
        return None
    if isinstance(state, bytes | bytearray | memoryview):
        return base64.b64encode(state).decode()
    try:
        base64.b64decode(state, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(
            f"client_state={state!r} is not base64 ({error}): give bytes, which are encoded for you"
        ) from None
    return state


_LONGEST_ID: Final = 2000  # the platform's have 60 letters
_ADDRESS: Final = re.compile(r"(?P<udp>udp:)?(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,9})")


def _check_address(name: str, text: str, *, public: bool) -> None:
    """The contract's form is udp:IP:PORT; its examples of rx and tx leave "udp:" away, so there both are fine."""
    form = "udp:IP:PORT" if name == "target" else "[udp:]IP:PORT"
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None or (name == "target" and not match["udp"]):
        raise AddressError(f"{name}={text!r}: the API takes {form}, like udp:198.51.100.7:9000")
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(match["v6"] or match["v4"])
        if (address.version == 6) != bool(match["v6"]):
            raise ValueError
    except ValueError:
        raise AddressError(
            f"{name}={text!r}: {match['v6'] or match['v4']!r} is not an IP address, and the API looks up no names"
        ) from None
    if not 1 <= int(match["port"]) <= 65535:
        raise AddressError(f"{name}={text!r}: ports go from 1 to 65535")
    seen = address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
    if seen.is_unspecified or seen.is_multicast:
        what = "is where to listen" if seen.is_unspecified else "is a multicast group"
        raise AddressError(f"{name}={text!r}: {seen} {what}, not an address to send to; give this machine's public one")
    if public and not seen.is_global:
        kind = "a loopback" if seen.is_loopback else "a private or reserved"
        raise AddressError(
            f"{name}={text!r}: {seen} is {kind} address, which {REAL_HOST} cannot reach; give the public one, or "
            "allow_private=True when the way there is your own (a private interconnect)"
        )


def _uuid(name: str, value: str | uuid.UUID | None) -> str | None:
    if value is None:
        return None
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise ConfigurationError(f"{name}={value!r} is not a UUID") from None


def _moment(name: str, value: datetime | None) -> str | None:
    if value is None:
        return None
    if value.tzinfo is None:
        raise ConfigurationError(f"{name}: give an aware datetime, like datetime.now(UTC)")
    return value.isoformat()
