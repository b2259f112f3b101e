"""Webhooks: is it from Telnyx, is it new, what does it say. Pure: time is an argument.

Signed are the bytes ``timestamp|body`` with Ed25519 (RFC 8032); headers ``telnyx-timestamp`` (Unix seconds) and
``telnyx-signature-ed25519`` (base64). The public key stands in the account, in base64 (TELNYX_PUBLIC_KEY). Needs the
extra ``serve`` (cryptography).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.extras import install
from ._errors import ForgedWebhookError, MalformedWebhookError, StaleWebhookError, WebhookError
from .events import (
    CallAnswered,
    CallBridged,
    CallHangup,
    CallInitiated,
    CallWebhook,
    ForkStarted,
    ForkStopped,
    PlaybackEnded,
    PlaybackStarted,
    SpeakEnded,
    SpeakStarted,
    WebhookEvent,
    parse_event,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = [
    "TOLERANCE_S",
    "CallAnswered",
    "CallBridged",
    "CallHangup",
    "CallInitiated",
    "CallWebhook",
    "ForgedWebhookError",
    "ForkStarted",
    "ForkStopped",
    "Headers",
    "MalformedWebhookError",
    "PlaybackEnded",
    "PlaybackStarted",
    "PublicKey",
    "ReplayMemory",
    "SpeakEnded",
    "SpeakStarted",
    "StaleWebhookError",
    "WebhookError",
    "WebhookEvent",
    "signature_of",
    "verify",
    "verify_and_parse",
]

TOLERANCE_S: Final = 300.0
_SIGNATURE: Final = "telnyx-signature-ed25519"
_TIMESTAMP: Final = "telnyx-timestamp"
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)

Headers = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


class PublicKey:
    """The account's public key, made ready once: base64 text or its 32 bytes.

    Raises ConfigurationError for what is no such key, MissingExtraError without cryptography.
    """

    __slots__ = ("_key", "text")

    def __init__(self, key: str | bytes) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise MissingExtraError(f"webhooks need cryptography: {install('serve')}") from error
        try:
            raw = base64.b64decode(key.strip(), validate=True) if isinstance(key, str) else bytes(key)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32:
            raise ConfigurationError(
                f"public key {key!r}: give the 32 bytes in base64 (44 letters), as the account shows them"
            )
        self._key: Ed25519PublicKey = Ed25519PublicKey.from_public_bytes(raw)
        self.text = base64.b64encode(raw).decode()

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` (64 bytes) is this key's of ``message``."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey({self.text!r})"


def verify_and_parse(
    body: bytes, headers: Headers, public_key: str | bytes | PublicKey, now: float, *, tolerance_s: float = TOLERANCE_S
) -> WebhookEvent:
    """The event of a request.

    body: as it came, not decoded and encoded again. headers: a mapping or pairs, in any case, text or bytes.
    now: Unix seconds; it is judged before the signature. Raises ForgedWebhookError, StaleWebhookError or
    MalformedWebhookError, and nothing else for anything a stranger sends.
    """
    verify(body, headers, public_key, now, tolerance_s=tolerance_s)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedWebhookError(f"the body is not JSON: {error}") from None
    return parse_event(document)


def verify(
    body: bytes, headers: Headers, public_key: str | bytes | PublicKey, now: float, *, tolerance_s: float = TOLERANCE_S
) -> bytes:
    """Check time and signature; returns the signature's 64 bytes."""
    key = public_key if isinstance(public_key, PublicKey) else PublicKey(public_key)
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    signed_at = _only(pairs, _TIMESTAMP)
    signature = signature_of(pairs)
    if not _SECONDS.fullmatch(signed_at):
        raise ForgedWebhookError(f"{_TIMESTAMP} is no number of seconds")
    age = now - int(signed_at)
    if abs(age) > tolerance_s:
        when = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s ahead"
        raise StaleWebhookError(f"the webhook is {when}, more than {tolerance_s:g} s: a replay, or a wrong clock")
    if not key.accepts(signature, signed_at.encode() + b"|" + body):
        raise ForgedWebhookError("the signature is not this key's of this body")
    return signature


def signature_of(headers: Headers) -> bytes:
    """The 64 bytes that a request is signed with. Raises ForgedWebhookError when there are none."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    try:
        signature = base64.b64decode(_only(pairs, _SIGNATURE), validate=True)
    except (binascii.Error, ValueError):
        raise ForgedWebhookError(f"{_SIGNATURE} is not base64") from None
    if len(signature) != 64:
        raise ForgedWebhookError(f"{_SIGNATURE} has {len(signature)} bytes, not 64")
    return signature


def _only(pairs: Iterable[tuple[str | bytes, str | bytes]], name: str) -> str:
    values = [value for key, value in pairs if _header_text(key).lower() == name]
    if len(values) != 1:
        raise ForgedWebhookError(f"{name} is {'missing' if not values else 'there more than once'}")
    return _header_text(values[0])


def _header_text(text: str | bytes) -> str:
    return text.decode("latin-1") if isinstance(text, bytes) else text


class ReplayMemory:
    """Which webhooks have been taken, by event id and by signature: the last ``size`` of them.

    The same signature is the same request again, within the tolerance by whomever; the same id with another signature
    is a redelivery. Either is to be taken once.
    """

    def __init__(self, size: int = 65_536) -> None:
        if size < 1:
            raise ConfigurationError(f"size={size}: must be 1 or more")
        self._size = size
        self._known: OrderedDict[str | bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def known(self, event: WebhookEvent, signature: bytes) -> bool:
        """Whether it was taken before."""
        return signature in self._known or (event.id is not None and event.id in self._known)

    def remember(self, event: WebhookEvent, signature: bytes) -> None:
        """It is taken. The oldest are forgotten."""
        self._known[signature] = None
        if event.id is not None:
            self._known[event.id] = None
        while len(self._known) > 2 * self._size:
            self._known.popitem(last=False)
