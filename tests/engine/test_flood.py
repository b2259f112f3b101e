"""A million invented ids: what they cost, and what they cost the calls that are real (faults.md 21)."""

from __future__ import annotations

import json
import subprocess
import sys

from places import TESTS

_FLOOD = """
import json, resource, sys
import numpy as np
sys.path[:0] = [{tests!r}]
from support import MS, T0, Arrival, batch_of, leg_id, packet
from strep._model.datagrams import DatagramBatch
from strep._engine.engine import Engine
from strep._model.events import Ended
from strep._parser import write_headers

IDS, STEP, REAL = 1_000_000, 2_000, 20
rng = np.random.default_rng(1)

def batch(step):
    now = T0 + step * 10 * MS  # 200,000 a second
    slab = np.zeros((STEP, 256), np.uint8)
    size = write_headers(
        slab, payload_type=0, sequence_number=rng.integers(0, 65_536, STEP), rtp_timestamp=0,
        ssrc=rng.integers(0, 1 << 32, STEP), call_leg_hi=rng.integers(0, 1 << 63, STEP, np.uint64),
        call_leg_lo=rng.integers(0, 1 << 63, STEP, np.uint64),
    )
    whole = [Arrival(now, packet(step // 2, call=leg_id(n))) for n in range(REAL)] if step % 2 == 0 else []
    real = batch_of(whole, width=256)
    return DatagramBatch(
        np.concatenate([slab, real.slab]), np.r_[np.full(STEP, size + 160, np.int32), real.length],
        np.full(STEP + len(real), now), *(np.zeros(STEP + len(real), np.uint64) for _ in range(2)),
        *(np.full(STEP + len(real), 9000, np.uint16) for _ in range(2)),
    )

engine = Engine()
engine.receive(batch(0))  # everything that is allocated once is there
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
events = []
for step in range(1, IDS // STEP):
    events += [e for e in engine.receive(batch(step)) if isinstance(e, Ended)]
events += [e for e in engine.flush() if isinstance(e, Ended)]
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
totals = engine.totals()
print(json.dumps({{
    "grown_mib": (after - before) / 1024, "streams": len(events), "unaccounted": totals.unaccounted,
    "lost": sum(e.report.packets_lost for e in events), "received": sum(e.report.packets_received for e in events),
    "rejected": totals.rejected_by, "started": totals.streams_started,
}}))
"""


def test_a_million_invented_ids_cost_little_and_real_calls_nothing() -> None:
    code = _FLOOD.format(tests=str(TESTS))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("grown_mib") <= 64
    assert found == {
        "streams": 20,
        "started": 20,
        "unaccounted": 0,
        "lost": 0,
        "received": 20 * 250,
        "rejected": {"probation": 1_000_000},
    }
