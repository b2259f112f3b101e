"""Streams in all kinds of trouble."""

from __future__ import annotations

import numpy as np
from support import MS, T0, Arrival, leg_id, packet


def traffic(seed: int, streams: int, trouble: float, packets: int = 150) -> list[Arrival]:
    """Streams with loss, duplicates, reordering, jitter, DTX, SSRC changes, restarts, jumps, outages and wraps."""
    rng = np.random.default_rng(seed)
    arrivals: list[Arrival] = []
    for s in range(streams):
        sequence = int(rng.integers(65_400, 65_536)) if s % 2 else int(rng.integers(0, 65_536))
        timestamp, ssrc = int(rng.integers(0, 1 << 32)), s + 1
        start = T0 + int(rng.integers(0, 20 * MS))
        for k in range(packets):
            chance = rng.random(10)
            if chance[0] >= trouble:
                ns = start + k * 20 * MS + int(rng.integers(0, 15 * MS))
                if chance[1] < trouble:
                    ns += int(rng.integers(0, 60 * MS if rng.random() < 0.7 else 1500 * MS))
                data = packet(
                    sequence,
                    timestamp=timestamp,
                    ssrc=ssrc,
                    call=leg_id(s // 2),
                    direction=s % 2,
                    payload_type=101 if chance[2] < trouble / 5 else 8 if chance[2] > 1 - trouble / 5 else 0,
                )
                arrivals.append(Arrival(ns, data))
                if chance[3] < trouble:
                    arrivals.append(Arrival(ns + int(rng.integers(0, 50 * MS)), data))
            sequence, timestamp = sequence + 1, timestamp + 160
            rare = trouble / 10
            if chance[4] < rare:
                ssrc += 1000
                sequence, timestamp = int(rng.integers(0, 65_536)), int(rng.integers(0, 1 << 32))
            if chance[5] < rare:
                sequence = int(rng.integers(0, 65_536))
            if chance[6] < rare:
                timestamp += int(rng.integers(0, 1 << 31))
            if chance[7] < rare:
                timestamp += 1600
            if chance[8] < rare:
                lost = int(rng.integers(10, 400))
                sequence, timestamp = sequence + lost, timestamp + lost * 160
            if chance[9] < rare:
                arrivals.append(Arrival(start + k * 20 * MS, rng.bytes(int(rng.integers(0, 80)))))
    return sorted(arrivals, key=lambda a: a.ns)
