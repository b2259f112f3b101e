"""Packets that no present source of a stream accounts for go on probation.

An error there cannot be undone, and is of no stream that is known. So after one, packets are offered key by key for a
second: then it is known of whose packets it arises, and keys that fail again and again come into quarantine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.time import SECOND_NS
from .accounts import Accounts
from .packets import Packets
from .quarantine import Quarantine
from .sources.keys import Key

__all__ = ["Strangers"]

Bools = npt.NDArray[np.bool_]

_KEYS_APART: Final = 64  # a tick: so many keys are offered each by itself, all others together
_APART_NS: Final = SECOND_NS  # after an error


class Strangers:
    """``offer(packets, foreign)`` puts packets on probation and carries out what is decided; it returns the error that
    arose in that, if any did. ``foreign``: which packets are of other addresses than their streams'; None: none."""

    def __init__(
        self,
        accounts: Accounts,
        quarantine: Quarantine,
        offer: Callable[[Packets, Bools | None], Exception | None],
    ) -> None:
        self._accounts = accounts
        self._quarantine = quarantine
        self._offer = offer
        self._apart_until_ns = 0

    def failed(self, now_ns: int) -> None:
        """An error arose among sources."""
        self._apart_until_ns = now_ns + _APART_NS

    def of_no_stream(self, packets: Packets, now_ns: int) -> None:
        """Packets of keys that no stream has."""
        if self._quarantine:
            refused = self._quarantine.refused(packets.hi, packets.lo, packets.tag, now_ns)
            if refused.any():
                self._accounts.reject("fault", int(np.count_nonzero(refused)))
                packets = packets.take(~refused)
                if not len(packets):
                    return
        self.take(packets, None, now_ns)

    def take(self, packets: Packets, foreign: Bools | None, now_ns: int) -> None:
        """Packets that are strange to their streams, or have none."""
        if now_ns >= self._apart_until_ns:
            self._offer(packets, foreign)
            return
        members: dict[Key, list[int]] = {}
        for i, key in enumerate(zip(packets.hi.tolist(), packets.lo.tolist(), packets.tag.tolist(), strict=True)):
            members.setdefault(key, []).append(i)
        keys = list(members)
        parts = [[key] for key in keys[:_KEYS_APART]]
        if keys[_KEYS_APART:]:
            parts.append(keys[_KEYS_APART:])
        for part in parts:
            which = np.array(sorted(i for key in part for i in members[key]), np.int64)
            error = self._offer(packets.take(which), None if foreign is None else foreign[which])
            if error is not None and len(part) == 1:
                self._quarantine.fault(part[0], now_ns)
