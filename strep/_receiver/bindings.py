"""What ports are for, as the engine wants to know it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from .._engine.sources.port_keys import PortBinding, PortRole

__all__ = ["bindings_of"]


def bindings_of(ports: Iterable[tuple[int, PortRole]], leg: uuid.UUID | None) -> dict[int, PortBinding]:
    """Bindings by port number. All ports with a direction are one pair, of the call leg ``leg`` if that is named."""
    roles = dict(ports)
    pair = min((port for port, role in roles.items() if role), default=0)
    return {port: PortBinding(role, pair if role else 0, leg if role else None) for port, role in roles.items()}
