"""Options that only ``strep serve`` has, checked before anything begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import click

from .._model.exceptions import ConfigurationError
from .calls import CATALOGUE_FILE
from .options import decorated, http_address

__all__ = ["ServeOptions", "public_key", "serve_options"]

_DEFAULT_PATH = "/webhooks"
_OWN_PATHS = ("/healthz", "/metrics")


@decorated
def serve_options() -> list[Any]:
    """Webhooks, forks, and the service itself."""
    return [
        click.option("--webhook-listen", metavar="ADDR:PORT", default="127.0.0.1:8080", show_default=True,
                     help="Where webhooks are taken, over HTTP; /healthz and /metrics too, but not through a proxy, "
                     "unless --admin-listen is given."),
        click.option("--public-url", metavar="URL",
                     help="Where the platform sends webhooks, like https://calls.example.com/webhooks: what stands "
                     "before this program forwards it with the same path. Default: /webhooks at --webhook-listen."),
        click.option("--admin-listen", metavar="ADDR:PORT", help="Where /healthz and /metrics are instead."),
        click.option("--advertise", metavar="IP[:PORT]", required=True, help="Where the platform reaches --listen."),
        click.option("--allow-private", is_flag=True,
                     help="Advertise a private address to the real API all the same."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
                     help="Where files go."),
        click.option("--answer", is_flag=True, help="Answer calls that come in; default: somebody else does."),
        click.option("--only-answered", is_flag=True,
                     help="Fork calls when they are answered; default: as soon as known."),
        click.option("--record-legs", type=click.Choice(["a", "b", "both"]), default="both", show_default=True,
                     help="A: the leg of a session that came in, or was dialled first; B: those after it."),
        click.option("--mode", type=click.Choice(["target", "rx_tx"]), default="target", show_default=True,
                     help="STREP to one port; or plain RTP, to a pair of ports for each call."),
        click.option("--ports", metavar="LOW-HIGH", help="Ports for the pairs of --mode rx_tx."),
        click.option("--stream-type", type=click.Choice(["raw", "decrypted"]),
                     help="decrypted: without SRTP (rx_tx only)."),
        click.option("--allow-unannounced", is_flag=True, help="Record media too whose call no webhook told of."),
        click.option("--stop-timeout", "stop_timeout_s", type=click.FloatRange(0.1, 60), default=10.0,
                     show_default=True, metavar="S", help="How long stopping the forks may take at the end."),
        click.option("--catalogue", metavar="FILE|URL", envvar="STREP_CATALOGUE",
                     help="What was recorded, for `strep calls`: SQLite, or postgresql://USER@HOST/DATABASE; none: do "
                     "without.  [default: catalogue.sqlite in --out]"),
        click.option("--min-free", "min_free_mib", type=click.IntRange(0), default=256, show_default=True,
                     metavar="MIB", help="With less on the disk /healthz fails."),
    ]  # fmt: skip


@dataclass(frozen=True)
class ServeOptions:
    """The values of :func:`serve_options`. Raises ConfigurationError for wrong ones."""

    webhook_listen: str
    public_url: str | None
    admin_listen: str | None
    advertise: str
    allow_private: bool
    out: Path
    answer: bool
    only_answered: bool
    record_legs: Literal["a", "b", "both"]
    mode: Literal["target", "rx_tx"]
    ports: str | None
    stream_type: Literal["raw", "decrypted"] | None
    allow_unannounced: bool
    stop_timeout_s: float
    min_free_mib: int
    catalogue: str | None

    def __post_init__(self) -> None:
        if self.ports is not None and self.mode != "rx_tx":
            raise ConfigurationError("--ports are those of --mode rx_tx: STREP needs only the one of --listen")
        if self.stream_type == "decrypted" and self.mode != "rx_tx":
            raise ConfigurationError("--stream-type decrypted exists with --mode rx_tx only")
        _ = self.webhook_address, self.admin_address, self.path  # they raise

    @cached_property
    def webhook_address(self) -> tuple[str, int]:
        """Where webhooks are taken."""
        return http_address("--webhook-listen", self.webhook_listen)

    @cached_property
    def admin_address(self) -> tuple[str, int] | None:
        """Where health and figures are; None: where webhooks are taken."""
        return None if self.admin_listen is None else http_address("--admin-listen", self.admin_listen)

    @cached_property
    def path(self) -> str:
        """The path that webhooks come to."""
        return _DEFAULT_PATH if self.public_url is None else _path_of(self.public_url)

    @property
    def catalogue_url(self) -> str | None:
        """Where the catalogue is; None: there is to be none."""
        if self.catalogue == "none":
            return None
        return self.catalogue or str(self.out / CATALOGUE_FILE)

    @property
    def min_free_bytes(self) -> int:
        return self.min_free_mib << 20

    def port_settings(self, listen: str) -> dict[str, Any]:
        """The receiver's settings that ``--mode``, ``--ports`` and ``--allow-unannounced`` say; ``listen`` is that of
        ``--listen``."""
        announced_only = not self.allow_unannounced
        if self.mode == "target":
            return {"listen": listen, "announced_only": announced_only}
        host = listen.removeprefix("udp:").rpartition(":")[0]
        return {"listen": None, "pairs": f"udp:{host}:{self.ports or 0}", "announced_only": announced_only}


def _path_of(public_url: str) -> str:
    try:
        parts = urlsplit(public_url)
        host = parts.hostname
    except ValueError as error:
        raise ConfigurationError(f"--public-url {public_url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigurationError(f"--public-url {public_url!r}: give one like https://calls.example.com/webhooks")
    path = parts.path or "/"
    if path in _OWN_PATHS:
        raise ConfigurationError(f"--public-url {public_url!r}: {path} is something else here, choose another path")
    return path


def public_key() -> str:
    """The key that webhooks are verified with, from the environment. Raises ConfigurationError if there is none."""
    key = os.environ.get("TELNYX_PUBLIC_KEY", "")
    if not key:
        raise ConfigurationError(
            "no public key: set TELNYX_PUBLIC_KEY to the one that the account shows, so that webhooks can be verified"
        )
    return key
