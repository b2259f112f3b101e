"""Bodies of webhooks in the form of the contract, and their signatures. Pure."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import Any

from .._model.exceptions import MissingExtraError
from .._model.extras import install
from ._call import Call, iso

__all__ = ["Signer", "encode_body", "webhook_body"]


def webhook_body(call: Call, event_type: str, event_id: uuid.UUID, now_ns: int, **more: Any) -> dict[str, Any]:
    """``{"data": {...}}`` of a call's event. ``more`` goes into the payload."""
    payload = {
        "call_control_id": call.call_control_id,
        "call_leg_id": str(call.call_leg_id),
        "call_session_id": str(call.call_session_id),
        "connection_id": call.connection_id,
    }
    if call.client_state is not None:
        payload["client_state"] = call.client_state
    if not event_type.startswith(("call.fork.", "call.speak.", "call.playback.")):
        payload |= {"from": call.from_, "to": call.to}
    return {
        "data": {
            "record_type": "event",
            "event_type": event_type,
            "id": str(event_id),
            "occurred_at": iso(now_ns),
            "payload": payload | more,
        }
    }


class Signer:
    """Signs as the API does: Ed25519 over ``timestamp|body``. ``seed``: 32 bytes make the key; None draws one.

    Raises MissingExtraError without the package cryptography.
    """

    def __init__(self, seed: bytes | None = None) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise MissingExtraError(f"webhooks are signed with cryptography: {install('serve')}") from error
        self._key = Ed25519PrivateKey.generate() if seed is None else Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @classmethod
    def from_number(cls, number: int | None) -> Signer:
        """The same key for the same number; one of its own for None."""
        return cls(None if number is None else hashlib.sha256(f"strep stand-in {number}".encode()).digest())

    def headers(self, body: bytes, now_s: int) -> dict[str, str]:
        signature = self._key.sign(f"{now_s}|".encode() + body)
        return {
            "content-type": "application/json",
            "telnyx-signature-ed25519": base64.b64encode(signature).decode(),
            "telnyx-timestamp": str(now_s),
        }


def encode_body(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
