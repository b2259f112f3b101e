"""The real calls: clean two-way calls of several codecs, the same in every run."""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import Final

import numpy as np

from strep._model.types import Direction, Leg, StreamInfo
from strep.simulate.calls import make_traffic
from strep.simulate.traffic import Traffic

__all__ = ["NO_CALLS", "PAYLOAD_TYPES", "Key", "RealCalls", "key_of", "real_calls"]

Key = tuple[uuid.UUID | None, Leg, Direction]

PAYLOAD_TYPES: Final = {
    96: "L16/16000",
    97: "AMR/8000",
    98: "AMR-WB/16000",
    99: "iLBC/8000",
    100: "opus/48000/2",
    102: "L16/8000",
    103: "AMR/8000;octet-align=1",
}
_CALLS: Final = (("PCMU", 2, ""), ("PCMA", 1, "12#"), ("G722", 1, ""), ("opus", 1, ""), ("L16/16000", 1, ""))


class RealCalls:
    """Columns (n,): ``ns`` since the start, and the datagrams as uint8 (n, width) with their ``length``."""

    def __init__(self, traffic: list[Traffic]) -> None:
        width = max((t.datagrams(slice(0, 1), strep=True).shape[1] for t in traffic), default=64)
        slabs = [np.zeros((0, width), np.uint8)]
        lengths, times = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        ports = [np.zeros(0, np.int64)]
        for number, one in enumerate(traffic):
            data = one.datagrams(slice(None), strep=True)
            slab = np.zeros((len(data), width), np.uint8)
            slab[:, : data.shape[1]] = data
            slabs.append(slab)
            lengths.append(one.lengths(slice(None), strep=True).astype(np.int32))
            times.append(one.time_ns + number * 1_700_000)
            ports.append(20_000 + 10 * number + one.stream // 2)
        ns = np.concatenate(times)
        order = np.argsort(ns, kind="stable")
        self.ns = ns[order]
        self.slab = np.concatenate(slabs)[order]
        self.length = np.concatenate(lengths)[order]
        self.port = np.concatenate(ports).astype(np.uint16)[order]
        self.keys: frozenset[Key] = frozenset(t.key for one in traffic for t in one.truth)
        self.legs = sorted({key[0] for key in self.keys if key[0] is not None})
        self.end_ns = int(self.ns.max(initial=0))

    def __len__(self) -> int:
        return len(self.ns)


NO_CALLS: Final = RealCalls([])


@lru_cache(maxsize=2)
def real_calls(seconds: float, seed: int = 11) -> RealCalls:
    """Six calls, twelve streams."""
    return RealCalls(
        [
            make_traffic(calls=calls, duration_s=seconds, codec=codec, dtmf=keys, seed=seed + n)
            for n, (codec, calls, keys) in enumerate(_CALLS)
        ]
    )


def key_of(stream: StreamInfo) -> Key:
    return stream.call_leg_id, stream.leg, stream.direction
