"""An adversary over real sockets, 10 real calls beside it: every sample of theirs is there, and the accounts are whole.

With ``--run-slow`` every kind on its own at 10,000 packets/s.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from attacks.kinds import KINDS
from attacks.targets import Outcome, attacked, replayed
from attacks.wire import Hostile
from depth import usual_or_slow
from ports import free_port
from service_world import calls_of, check_audio, serving, stand_in

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc, sendmmsg"),
    pytest.mark.realtime,
]

RATE = usual_or_slow(1500, 10_000)  # hostile packets/s: each time few enough beside other tests too
LEGS = 10
SECONDS = usual_or_slow(6.0, 8.0)
LIMIT_US = 10.0  # a packet
LIMIT_SHARE = 0.25  # of a core


def check(outcome: Outcome) -> None:
    print(outcome.line())
    assert outcome.kernel_dropped == 0, "the machine is too slow for this rate: nothing is said about the receiver"
    assert outcome.exit_code in (0, 6)  # there may be no time for files of strangers
    assert not outcome.faults
    assert outcome.unaccounted == 0
    assert outcome.real.good, outcome.real


@pytest.mark.serial
def test_every_attack_in_turn_costs_the_real_calls_nothing_live_and_replayed(tmp_path: Path) -> None:
    pcap = tmp_path / "all.pcap"
    outcome = attacked(list(KINDS), tmp_path / "out", legs=LEGS, seconds=SECONDS, rate=RATE, pcap=pcap)
    check(outcome)
    code, verdict = replayed(pcap, tmp_path / "again", LEGS, round(SECONDS * 50))
    assert code == 0
    assert verdict.good, verdict


@pytest.mark.serial
def test_every_attack_in_turn_costs_the_real_calls_nothing_with_workers(tmp_path: Path) -> None:
    check(attacked(list(KINDS), tmp_path / "out", legs=LEGS, seconds=SECONDS, rate=RATE, workers=2))


@pytest.mark.parametrize("mode", ["target", "rx_tx"])
async def test_attacks_on_a_service_cost_its_calls_nothing(tmp_path: Path, port_range: range, mode: str) -> None:
    """The media port, or all ports of the range, while calls come and go. Who is first at a plain port cannot be told
    from the packets: there ``--allow`` says who may send."""
    port = free_port()
    first = port_range[0]
    ports = tuple(port_range[:24]) if mode == "rx_tx" else ()
    allow = ("--allow", "127.0.0.1/32")
    arguments = ("--mode", mode, "--ports", f"{first}-{first + 23}", *allow) if ports else ()
    api = stand_in(port, calls=8, arrive_s=0.1, ring_s=0.1, seconds=4)
    rng = np.random.default_rng(1)
    each = int(RATE * 4 / len(KINDS))
    rows = np.concatenate([KINDS[kind](each, rng) for kind in KINDS])
    rows["plain"] |= bool(ports)
    async with serving(api, port, tmp_path / "out", *arguments) as daemon, calls_of(api, daemon):
        media = daemon.of("serving")[0]["media"]
        listen = int(media[0].rpartition(":")[2]) if media else first
        hostile: threading.Thread = Hostile(listen, rows, RATE, ports, "127.0.0.2" if ports else "")
        await daemon.until(lambda: len(daemon.of("stream_started")) >= 4)
        hostile.start()
        await api.wait()
        hostile.join()
        await daemon.until(lambda: len(daemon.of("leg")) == 8)
    check_audio(api, daemon, api.calls)
    totals = daemon.summary["totals"]
    known = ("delivered", "duplicate", "late", "malformed", "rejected", "dropped", "buffered")
    assert totals["datagrams"] == sum(totals[name] for name in known)
    assert not totals["faults"]


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("kind", KINDS)
def test_no_hostile_packet_is_dear(tmp_path: Path, kind: str) -> None:
    """At 10,000 packets/s: 10 µs of the receiver's CPU for each, or a quarter of a core."""
    attacked([], tmp_path / "nobody", legs=LEGS, seconds=6.0)
    outcome = attacked([kind], tmp_path / "out", legs=LEGS, seconds=6.0)
    check(outcome)
    assert outcome.cpu_us <= LIMIT_US or outcome.share <= LIMIT_SHARE
