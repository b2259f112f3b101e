"""Options that only ``strep serve`` has, checked before anything begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .._model.exceptions import ConfigurationError
from .options import http_address

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Options that only this command has, checked. Raises ConfigurationError."""

    listen: str
    webhooks: tuple[str, int]
    admin: tuple[str, int] | None
    path: str
    public_url: str | None
    advertise: str
    allow_private: bool
    out: Path
    mode: Any
    ports: str | None
    stream_type: Any
    answer: bool
    only_answered: bool
    record_legs: Any
    allow_unannounced: bool
    stop_timeout_s: float
    min_free_bytes: int
    public_key: str

    @classmethod
    def of(cls, options: dict[str, Any]) -> Settings:
        """Takes them out of ``options``."""
        take = options.pop
        mode, ports, stream_type = take("mode"), take("ports"), take("stream_type")
        if (ports is not None) and mode != "rx_tx":
            raise ConfigurationError("--ports are those of --mode rx_tx: STREP needs only the one of --listen")
        if stream_type == "decrypted" and mode != "rx_tx":
            raise ConfigurationError("--stream-type decrypted exists with --mode rx_tx only")
        admin, public_url = take("admin_listen"), take("public_url")
        return cls(
            listen=take("listen"),
            webhooks=http_address("--webhook-listen", take("webhook_listen")),
            admin=None if admin is None else http_address("--admin-listen", admin),
            path=_path_of(public_url),
            public_url=public_url,
            advertise=take("advertise"),
            allow_private=take("allow_private"),
            out=take("out"),
            mode=mode,
            ports=ports,
            stream_type=stream_type,
            answer=take("answer"),
            only_answered=take("only_answered"),
            record_legs=take("record_legs"),
            allow_unannounced=take("allow_unannounced"),
            stop_timeout_s=take("stop_timeout"),
            min_free_bytes=take("min_free") << 20,
            public_key=_public_key(),
        )


def _path_of(public_url: str | None) -> str:
    """The path that webhooks come to. Raises ConfigurationError."""
    if public_url is None:
        return "/webhooks"
    try:
        parts = urlsplit(public_url)
        host = parts.hostname
    except ValueError as error:
        raise ConfigurationError(f"--public-url {public_url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"--public-url {public_url!r}: give one like https://calls.example.com/webhooks")
    path = parts.path or "/"
    if path in ("/healthz", "/metrics"):
        raise ConfigurationError(f"--public-url {public_url!r}: {path} is something else here, choose another path")
    return path


def _public_key() -> str:
    key = os.environ.get("TELNYX_PUBLIC_KEY", "")
    if not key:
        raise ConfigurationError(
            "no public key: set TELNYX_PUBLIC_KEY to the one that the account shows, so that webhooks can be verified"
        )
    return key
