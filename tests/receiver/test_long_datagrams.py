"""L16/48000/2 over real sockets: datagrams of up to 65,507 bytes, on every transport and loop, recorded, replayed."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from live import EDGES, hashes, port_of, run_on, until
from support import leg_id, packet, payload_of, pcmu
from worker_sinks import Recording

import strep
from strep._edge.pcap import PcapReader
from strep._workers.steering import worker_of
from strep.sinks import WavSink

pytestmark = pytest.mark.realtime

TYPES = {96: "L16/48000/2"}
PTIMES_MS = (10, 20, 60, 200, 340)  # 1,920 to 65,280 bytes
COUNT = 12  # packets of each call

Wide = dict[int, tuple[list[bytes], npt.NDArray[np.int16]]]  # by packet time, ms


def l16(ptime_ms: int, count: int) -> tuple[list[bytes], npt.NDArray[np.int16]]:
    frames = 48 * ptime_ms
    samples = np.random.default_rng(ptime_ms).integers(-(1 << 15), 1 << 15, (count * frames, 2), np.int16)
    datagrams = [
        strep.build_datagram(
            payload=samples[k * frames : (k + 1) * frames].astype(">i2").tobytes(), payload_type=96,
            sequence_number=k, rtp_timestamp=k * frames, ssrc=9, call_leg_id=leg_id(ptime_ms),
        )
        for k in range(count)
    ]  # fmt: skip
    return datagrams, samples


async def send_all(wide: Wide, port: int) -> list[bytes]:
    """Wide calls, four ordinary ones, and with each packet a stranger as long as can be; returns what was sent."""
    sent: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for k in range(COUNT):
            every = [datagrams[k] for datagrams, _ in wide.values()]
            every += [packet(k, call=leg_id(n)) for n in range(4)]
            every.append(packet(k, call=leg_id(900 + k)) + bytes(65_507 - 196))  # a stranger
            for data in every:
                plain.sendto(data, ("127.0.0.1", port))
            sent.extend(every)
            await asyncio.sleep(0.01)
    return sent


def check_files(wide: Wide, folder: Path) -> None:
    for ptime_ms, (_, samples) in wide.items():
        audio, rate = soundfile.read(folder / str(leg_id(ptime_ms)) / "a-inbound.wav", dtype="int16")
        assert rate == 48_000
        np.testing.assert_array_equal(audio, samples)
    for n in range(4):
        audio, _ = soundfile.read(folder / str(leg_id(n)) / "a-inbound.wav", dtype="int16")
        np.testing.assert_array_equal(audio, np.concatenate([pcmu(payload_of(k)) for k in range(COUNT)]))


@pytest.mark.parametrize(("transport", "loop"), EDGES)
def test_l16_48000_2_beside_ordinary_calls(transport: str, loop: str, tmp_path: Path) -> None:
    wide = {ptime_ms: l16(ptime_ms, COUNT) for ptime_ms in PTIMES_MS}
    sent: list[bytes] = []

    async def main() -> dict[str, Any]:
        receiver = strep.Receiver(
            "127.0.0.1:0",
            sinks=[WavSink(tmp_path / "live")],
            pcap=tmp_path / "a.pcap",
            transport=transport,
            payload_types=TYPES,
        )
        async with receiver:
            sent.extend(await send_all(wide, port_of(receiver)))
            await until(lambda: receiver.totals().datagrams == len(sent))
        totals = receiver.totals()
        assert (totals.unaccounted, totals.dropped_by, totals.malformed_by) == (0, {}, {})
        assert totals.rejected_by == {"probation": COUNT}
        assert totals.delivered == COUNT * (len(PTIMES_MS) + 4)
        return receiver.summary()

    summary = run_on(loop, main())
    check_files(wide, tmp_path / "live")
    with PcapReader(tmp_path / "a.pcap") as reader:
        assert [b.data(i) for b in reader.batches() for i in range(len(b))] == sent
    again = strep.replay(tmp_path / "a.pcap", sinks=[WavSink(tmp_path / "again")], payload_types=TYPES)
    assert hashes(tmp_path / "again") == hashes(tmp_path / "live")
    assert again.totals().as_dict() == {**summary["totals"], "kernel_dropped": 0}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux steers datagrams by a program")
async def test_l16_48000_2_beside_ordinary_calls_with_workers(tmp_path: Path) -> None:
    """The kernel's steering, each worker's sockets, its recording: the same for datagrams of any length."""
    workers = 3
    wide = {ptime_ms: l16(ptime_ms, COUNT) for ptime_ms in PTIMES_MS}
    supervisor = strep.Supervisor(
        "127.0.0.1:0",
        workers=workers,
        sinks=Recording(tmp_path / "live"),
        pcap=tmp_path / "a.pcap",
        payload_types=TYPES,
        receive_buffer=8 << 20,
    )
    async with asyncio.timeout(60), supervisor:
        sent = await send_all(wide, port_of(supervisor))
        await until(lambda: supervisor.totals().datagrams == len(sent))
    totals, summary = supervisor.totals(), supervisor.summary()
    assert (totals.unaccounted, totals.dropped_by, totals.malformed_by) == (0, {}, {})
    assert totals.rejected_by == {"probation": COUNT}
    assert (totals.delivered, totals.kernel_dropped) == (COUNT * (len(PTIMES_MS) + 4), 0)
    steered = [[data for data in sent if worker_of(data, workers) == index] for index in range(workers)]
    assert [worker["datagrams"] for worker in summary["workers"]] == [len(some) for some in steered]
    assert sum(any(len(data) > 2048 for data in some) for some in steered) >= 2  # long ones came to several
    check_files(wide, tmp_path / "live")
    for index, some in enumerate(steered):
        with PcapReader(tmp_path / f"a.{index}.pcap") as reader:
            assert [b.data(i) for b in reader.batches() for i in range(len(b))] == some
