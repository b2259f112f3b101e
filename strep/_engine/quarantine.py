"""Keys in whose packets something failed again and again: what comes with them is refused for a while."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Key", "Quarantine"]

U64 = npt.NDArray[np.uint64]
_T = TypeVar("_T")
Key = tuple[int, int, int]  # of a stream: the three words by which it is looked up

_FAULTS: Final = 3  # of a key, within the time below: then it is shut out
_FAULTS_WITHIN_NS: Final = 10_000_000_000
_SHUT_OUT_NS: Final = 30_000_000_000
_KEYS_KEPT: Final = 256  # the oldest make way


class Quarantine:
    """One fault costs a stream what it held, and it may begin anew: three within 10 s, and it is shut out for 30 s."""

    def __init__(self) -> None:
        self._faults: dict[Key, list[int]] = {}  # when the last ones were
        self._until: dict[Key, int] = {}

    def __len__(self) -> int:
        """Keys that are shut out, or were until a moment ago."""
        return len(self._until)

    def fault(self, key: Key, now_ns: int) -> None:
        """Something failed in a stream."""
        recent = [at for at in self._faults.pop(key, []) if at > now_ns - _FAULTS_WITHIN_NS]
        if len(recent) + 1 < _FAULTS:
            _keep(self._faults, key, [*recent, now_ns])
        else:
            self._until.pop(key, None)
            _keep(self._until, key, now_ns + _SHUT_OUT_NS)

    def refused(self, hi: U64, lo: U64, tag: U64, now_ns: int) -> npt.NDArray[np.bool_]:
        """Which packets, by their streams' keys, are of streams that are shut out."""
        self._until = {key: until for key, until in self._until.items() if until > now_ns}
        refused = np.isin(lo, np.array([key[1] for key in self._until], np.uint64))
        which = refused.nonzero()[0]
        keys = zip(hi[which].tolist(), lo[which].tolist(), tag[which].tolist(), strict=True)
        refused[which] = [key in self._until for key in keys]
        return refused


def _keep(kept: dict[Key, _T], key: Key, value: _T) -> None:
    while len(kept) >= _KEYS_KEPT:
        del kept[next(iter(kept))]
    kept[key] = value
