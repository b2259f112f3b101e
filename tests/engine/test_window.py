"""How far ahead a packet may be: whatever is accepted has a place in the ring."""

from __future__ import annotations

import numpy as np

from strep._engine.streams.ring import LONG_RUN, WINDOW, JitterRing
from strep._engine.streams.slots import SLOTS, Bodies


def bodies(count: int) -> Bodies:
    return Bodies(
        timestamp=np.arange(count, dtype=np.uint32),
        payload_type=np.zeros(count, np.uint8),
        arrival_ns=np.arange(count),
        offset=np.zeros(count, np.int32),
        length=np.full(count, 8, np.int32),
        slab_rows=None,
        slab=np.zeros((count, 8), np.uint8),
    )


def test_the_window_and_the_longest_run_before_it_fit_into_the_slots() -> None:
    assert WINDOW + LONG_RUN - 1 <= SLOTS - 1


def test_the_last_packet_of_the_window_behind_the_longest_run_is_kept() -> None:
    ring, row = JitterRing(1), np.zeros(1, np.int64)
    ring.open(row, row, np.array([8]))
    run = np.arange(LONG_RUN - 1)
    ring.insert(np.zeros(len(run), np.int64), run, bodies(len(run)), different=False)
    assert ring.settle(row)[0] == LONG_RUN - 1  # a run of one more would leave
    last = ring.edge + WINDOW - 1
    ring.insert(row, last, bodies(1), different=True)
    assert ring.run(row)[0] == LONG_RUN - 1
    assert ring.highest(row)[0] == last[0] == WINDOW + LONG_RUN - 2
    assert ring.came(np.zeros(2, np.int64), np.array([last[0] - 1, last[0]])).tolist() == [False, True]
