"""How a stream and its subjects are called, and what is wrong with what users give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .._model.exceptions import ConfigurationError

__all__ = ["Subjects", "checked_name", "checked_servers", "shards_of"]

_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


@dataclass(frozen=True, slots=True)
class Subjects:
    """``base``.``shards``.N is the subject of shard N; the JetStream stream that keeps them is ``base`` with dashes for
    dots. So whoever reads sees how many shards there are."""

    base: str
    shards: int

    @property
    def stream(self) -> str:
        return stream_name(self.base)

    @property
    def all(self) -> str:
        return f"{self.base}.{self.shards}.*"

    def of(self, shard: int) -> str:
        """The subject of a shard."""
        return f"{self.base}.{self.shards}.{shard}"


def stream_name(base: str) -> str:
    """The stream that keeps what is published to ``base``."""
    return base.replace(".", "-")


def shards_of(base: str, subjects: Iterable[str]) -> int | None:
    """How many shards a stream has, by its subjects; None: it is none of ours."""
    found = [text.removeprefix(f"{base}.").removesuffix(".*") for text in subjects]
    return int(found[0]) if len(found) == 1 and found[0].isdecimal() and found[0].isascii() else None


def checked_name(what: str, text: str, *, dots: bool = False) -> str:
    """The name. Raises ConfigurationError."""
    if not (_SUBJECT if dots else _NAME).fullmatch(text) or len(text) > 64:
        more = ", and dots between them" if dots else ""
        raise ConfigurationError(f"{what} {text!r}: 1 to 64 letters, digits, dashes and underscores{more}")
    return text


def checked_servers(servers: str | Sequence[str]) -> list[str]:
    """Addresses of servers, from one text with commas or several. Raises ConfigurationError."""
    given = servers.split(",") if isinstance(servers, str) else list(servers)
    found = [text.strip() if "://" in text else f"nats://{text.strip()}" for text in given if text.strip()]
    if not found:
        raise ConfigurationError("no NATS server: give one like nats://127.0.0.1:4222")
    for text in found:
        try:
            parts = urlsplit(text)
            wrong = parts.scheme not in _SCHEMES or not parts.hostname or (parts.port or 4222) < 1
        except ValueError:
            wrong = True
        if wrong:
            shown = re.sub(r"//.*@", "//***@", text)  # passwords stay out of messages
            raise ConfigurationError(f"NATS server {shown!r}: write nats://HOST:PORT, like nats://127.0.0.1:4222")
    return found
