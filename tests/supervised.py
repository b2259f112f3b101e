"""Supervisors under load, and what must be true of their figures and files afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
from live import port_of, samples_of, until
from support import LEG, packet, payload_of, pcmu

import strep
from strep._workers.steering import worker_of
from strep.simulate.load import LoadReport, call_leg_id_of, expected_samples, send_load

PARTS = ("delivered", "duplicate", "late", "malformed", "rejected", "dropped", "buffered")


@contextlib.asynccontextmanager
async def supervising(**options: Any) -> AsyncIterator[strep.Supervisor]:
    supervisor = strep.Supervisor(**{"listen": "127.0.0.1:0", "workers": 2, **options})
    async with asyncio.timeout(60), supervisor:
        yield supervisor


def worker_of_stream(stream: int, workers: int = 2) -> int:
    return worker_of(packet(0, call=call_leg_id_of(stream)), workers)


def load(supervisor: strep.Supervisor, *, streams: int, rate: float, duration_s: float) -> asyncio.Task[LoadReport]:
    to = f"udp:127.0.0.1:{port_of(supervisor)}"  # type: ignore[arg-type]
    return asyncio.create_task(asyncio.to_thread(send_load, to, streams=streams, rate=rate, duration_s=duration_s))


def streams_of(summary: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Entries by number of the generator's stream, in order of first arrival."""
    found: dict[int, list[dict[str, Any]]] = {}
    for entry in summary["streams"]:
        found.setdefault(entry["ssrcs"][0] - 1, []).append(entry)
    return found


def check_accounts(summary: dict[str, Any]) -> None:
    totals = summary["totals"]
    assert totals["datagrams"] == sum(totals[part] for part in PARTS)
    assert totals["datagrams"] == sum(worker["datagrams"] for worker in summary["workers"])
    assert totals["buffered"] == 0
    for whole, parts in (("dropped", "dropped_by"), ("rejected", "rejected_by"), ("datagrams", "by_kind")):
        assert totals[whole] == sum(totals[parts].values())


async def plain_load(supervisor: strep.Supervisor) -> list[str]:
    """30 packets of each of eight plain streams to ``listen``, of one to ``rx`` and of one to ``tx``; their files."""
    ports = {role: port_of(supervisor, role) for role in ("listen", "rx", "tx")}  # type: ignore[arg-type]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        for k in range(30):
            for ssrc in range(1, 9):
                plain.sendto(packet(k, call=None, ssrc=ssrc), ("127.0.0.1", ports["listen"]))
            plain.sendto(packet(k, call=None, ssrc=100), ("127.0.0.1", ports["rx"]))
            plain.sendto(packet(k, call=None, ssrc=200), ("127.0.0.1", ports["tx"]))
            await asyncio.sleep(0.002)
    await until(lambda: supervisor.totals().datagrams == 300)
    names = [f"rtp-{ports['listen']}-{ssrc:08x}/a-inbound.wav" for ssrc in range(1, 9)]
    return [*names, f"{LEG}/a-inbound.wav", f"{LEG}/a-outbound.wav"]


def check_plain_load(summary: dict[str, Any], files: list[Path]) -> None:
    """After `plain_load` to three workers: every sample is there, and each packet came to the worker it is for."""
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(30)])
    for file in files:
        np.testing.assert_array_equal(samples_of(file), wanted)
    check_accounts(summary)
    expected = Counter(worker_of(packet(0, call=None, ssrc=ssrc), 3) for ssrc in range(1, 9))
    assert [w["datagrams"] for w in summary["workers"]] == [30 * (expected[i] + 2 * (i == 2)) for i in range(3)]


async def under_load(
    supervisor: strep.Supervisor, harm: Callable[[int], None], *, streams: int = 40, seconds: float = 2.0
) -> LoadReport:
    """Calls while worker 1 comes to harm and another takes over."""
    sending = load(supervisor, streams=streams, rate=50 * streams, duration_s=seconds)
    await until(lambda: supervisor.totals().datagrams > 50 * streams)  # a second: their files are there
    await asyncio.sleep(0.06)  # figures are told each 0.1 s: some of what it has received is not in them
    first = supervisor.workers[1].pid
    assert first
    harm(first)
    await until(lambda: supervisor.workers[1].state == "running" and supervisor.workers[1].pid not in (None, first))
    sent = await sending
    # all that is still in a socket is worked off
    await until(lambda: len(supervisor.top(2 * streams)) == streams)
    await until(lambda: supervisor.totals().datagrams + gaps_of(supervisor) == sent.sent)
    return sent


def gaps_of(supervisor: strep.Supervisor) -> int:
    return sum(worker["restart_gap_packets"] for worker in supervisor.summary()["workers"])


def check_after_restart(summary: dict[str, Any], sent: LoadReport, out: Path, end: str) -> None:
    check_accounts(summary)
    assert [w["restarts"] for w in summary["workers"]] == [0, 1]
    assert summary["workers"][0]["restart_gap_packets"] == 0
    found = streams_of(summary)
    assert len(found) == sent.streams
    gaps = 0
    for stream, entries in found.items():
        truth = expected_samples(stream, sent.packets_a_stream)
        if worker_of_stream(stream) == 0:
            (entry,) = entries
            assert (entry["packets_received"], entry["packets_lost"]) == (sent.packets_a_stream, 0)
            np.testing.assert_array_equal(samples_of(out / entry["files"][0]), truth)
            continue
        before, after = entries
        assert (before["end"], after["end"]) == (end, "closed")
        gap = after["restart_gap_packets"]
        assert (before["packets_lost"], after["packets_lost"]) == (0, 0)
        assert before["packets_received"] + gap + after["packets_received"] == sent.packets_a_stream
        gaps += gap
        direction = ("inbound", "outbound")[stream % 2]
        assert after["files"] == [f"{call_leg_id_of(stream)}/a-{direction}-2.wav"]
        second = samples_of(out / after["files"][0])
        np.testing.assert_array_equal(second, truth[len(truth) - len(second) :])
        assert len(second) == 160 * after["packets_received"]
        assert before["files"] == [f"{call_leg_id_of(stream)}/a-{direction}.wav"]
        with wave.open(str(out / before["files"][0])) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(samples, truth[: len(samples)])
        assert len(samples) > 0
    assert gaps == summary["workers"][1]["restart_gap_packets"]
    lost = sent.sent - summary["totals"]["datagrams"]
    assert lost == gaps
    assert gaps <= 0.5 * sent.rate  # what the dead one had taken since its last word
    assert not list(out.rglob("*.part.wav"))
