"""The whole receiver over real sockets, on every transport and loop: what comes out is what went in, and a replay of
the recording gives the same once more."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import virtual
from live import EDGES, check_truth, hashes, listening, port_of, run_on, samples_of, send_paced, until
from support import LEG, leg_id, packet, payload_of, pcmu
from virtual import in_memory, run_virtually, send

import strep
from strep.simulate import Impairments, make_traffic, play
from strep.sinks import ArraySink, WavSink

pytestmark = pytest.mark.realtime

TROUBLE = Impairments(loss=0.03, duplicate=0.02, reorder=0.03, jitter_ms=8, protect_first=3)
edges = pytest.mark.parametrize(("transport", "loop"), EDGES)

_OF_THE_RUN = ("sinks", "sockets")


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in _OF_THE_RUN}


def check_replay(pcap: Path, live: Path, again: Path, summary: dict[str, Any], **options: Any) -> None:
    """Bit-identical files and equal figures."""
    replayed = strep.replay(pcap, sinks=[WavSink(again)], **options)
    assert hashes(again) == hashes(live)
    assert figures(replayed.summary()) == figures(summary)


# --- STREP -----------------------------------------------------------------------------------------------------------


@edges
def test_calls_over_strep_with_trouble(transport: str, loop: str, tmp_path: Path) -> None:
    traffic = make_traffic(calls=6, duration_s=1.6, legs="both", impairments=TROUBLE, seed=4)

    async def main() -> dict[str, Any]:
        receiver = strep.Receiver(
            "127.0.0.1:0", sinks=[WavSink(tmp_path / "live")], pcap=tmp_path / "a.pcap", transport=transport
        )
        async with receiver:
            sent = await play(traffic, f"udp:127.0.0.1:{port_of(receiver)}")
            await until(lambda: receiver.totals().datagrams == sent.datagrams)
            assert receiver.live_streams == 24
        totals = receiver.totals()
        assert totals.datagrams == len(traffic) == totals.delivered + totals.duplicate
        assert (totals.unaccounted, totals.buffered, totals.kernel_dropped) == (0, 0, 0)
        assert totals.by_kind["strep"] == len(traffic)
        reports = {(r.stream.call_leg_id, r.stream.leg, r.stream.direction): r for r in receiver.reports()}
        assert reports.keys() == {t.key for t in traffic.truth}
        for truth in traffic.truth:
            check_truth(truth, reports[truth.key])
            leg, direction = truth.leg.label, truth.direction.label
            audio = samples_of(tmp_path / "live" / str(truth.call_leg_id) / f"{leg}-{direction}.wav")
            np.testing.assert_array_equal(audio, truth.audio())
        return receiver.summary()

    summary = run_on(loop, main())
    assert json.loads(json.dumps(summary)) == summary
    check_replay(tmp_path / "a.pcap", tmp_path / "live", tmp_path / "again", summary)


@pytest.mark.sockets
def test_ipv6(tmp_path: Path) -> None:
    async def main() -> None:
        async with strep.Receiver("udp:[::1]:0", sinks=[WavSink(tmp_path)]) as receiver:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
                for k in range(10):
                    plain.sendto(packet(k), ("::1", port_of(receiver)))
            await until(lambda: receiver.totals().datagrams == 10)
        assert receiver.reports()[0].stream.source[0] == "::1"

    run_on("asyncio", main())
    np.testing.assert_array_equal(
        samples_of(tmp_path / str(LEG) / "a-inbound.wav"), np.concatenate([pcmu(payload_of(k)) for k in range(10)])
    )


# --- plain RTP -------------------------------------------------------------------------------------------------------


@edges
@pytest.mark.parametrize("named", [True, False])
def test_rx_and_tx_ports(transport: str, loop: str, named: bool, tmp_path: Path) -> None:
    traffic = make_traffic(calls=1, duration_s=0.8, impairments=TROUBLE, seed=9)
    inbound, outbound = sorted(traffic.truth, key=lambda t: t.direction)

    async def main() -> tuple[dict[str, Any], int]:
        receiver = strep.Receiver(
            rx="127.0.0.1:0",
            tx="127.0.0.1:0",
            call_leg_id=str(LEG) if named else None,
            sinks=[WavSink(tmp_path / "live")],
            pcap=tmp_path / "a.pcap",
            transport=transport,
        )
        async with receiver:
            rx, tx = port_of(receiver, "rx"), port_of(receiver, "tx")
            sent = await play(traffic, rx_to=f"127.0.0.1:{rx}", tx_to=f"127.0.0.1:{tx}")
            await until(lambda: receiver.totals().datagrams == sent.datagrams)
        assert len({report.stream.leg_name for report in receiver.reports()}) == 1
        for report, truth in zip(receiver.reports(), (inbound, outbound), strict=True):
            check_truth(truth, report)
            assert report.stream.direction == truth.direction
            assert report.stream.call_leg_id == (LEG if named else None)
            folder, stem = (str(LEG), "a-") if named else (report.stream.leg_name, "")
            audio = samples_of(tmp_path / "live" / folder / f"{stem}{truth.direction.label}.wav")
            np.testing.assert_array_equal(audio, truth.audio())
        return receiver.summary(), len(traffic)

    summary, count = run_on(loop, main())
    assert summary["totals"]["by_kind"]["rtp"] == count
    check_replay(
        tmp_path / "a.pcap", tmp_path / "live", tmp_path / "again", summary, call_leg_id=LEG if named else None
    )


@edges
def test_one_port_for_both_directions(transport: str, loop: str, tmp_path: Path) -> None:
    """The first SSRC is inbound, the second outbound, a third is neither: it is the first one's new source."""

    async def main() -> dict[str, Any]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        receiver = strep.Receiver(
            rx=f"127.0.0.1:{port}",
            tx=f"127.0.0.1:{port}",
            call_leg_id=LEG,
            sinks=[WavSink(tmp_path / "live")],
            pcap=tmp_path / "a.pcap",
            transport=transport,
        )
        async with receiver:
            assert [s.role for s in receiver.sockets] == ["rx+tx"]
            both = [packet(k + 500 * s, call=None, ssrc=7 + s) for k in range(60) for s in (0, 1)]
            await send_paced(("127.0.0.1", port), both)
            await until(lambda: receiver.totals().datagrams == 120)
        first, second = receiver.reports()
        assert (first.stream.direction, first.stream.ssrc) == (strep.Direction.INBOUND, 7)
        assert (second.stream.direction, second.stream.ssrc) == (strep.Direction.OUTBOUND, 8)
        return receiver.summary()

    summary = run_on(loop, main())
    for start, name in ((0, "inbound"), (500, "outbound")):
        wanted = np.concatenate([pcmu(payload_of(k + start)) for k in range(60)])
        np.testing.assert_array_equal(samples_of(tmp_path / "live" / str(LEG) / f"a-{name}.wav"), wanted)
    check_replay(tmp_path / "a.pcap", tmp_path / "live", tmp_path / "again", summary, call_leg_id=LEG)


@pytest.mark.sockets
def test_plain_rtp_on_the_strep_port(tmp_path: Path) -> None:
    async def main() -> int:
        async with strep.Receiver("127.0.0.1:0", sinks=[WavSink(tmp_path)]) as receiver:
            await send_paced(listening(receiver), [packet(k, call=None, ssrc=0xABCD) for k in range(30)])
            await until(lambda: receiver.totals().datagrams == 30)
            return port_of(receiver)

    port = run_on("asyncio", main())
    assert set(hashes(tmp_path)) == {f"rtp-{port}-0000abcd/a-inbound.wav"}


# --- who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.sockets
def test_sources_and_call_legs_that_are_not_allowed() -> None:
    async def main() -> None:
        kept = ArraySink()
        receiver = strep.Receiver("127.0.0.1:0", sinks=[kept], allow=["127.0.0.1/32"], call_legs=[leg_id(1)])
        async with receiver:
            await send_paced(listening(receiver), [packet(k, call=leg_id(n)) for k in range(10) for n in (1, 2)])
            await until(lambda: receiver.totals().datagrams == 20)
        assert [r.stream.call_leg_id for r in receiver.reports()] == [leg_id(1)]
        assert receiver.totals().rejected_by == {"call_leg": 10}
        receiver = strep.Receiver("127.0.0.1:0", sinks=[kept], allow=["192.0.2.0/24", "2001:db8::/32"])
        async with receiver:
            await send_paced(listening(receiver), [packet(k) for k in range(10)])
            await until(lambda: receiver.totals().datagrams == 10)
        assert receiver.totals().rejected_by == {"source": 10}
        assert receiver.reports() == []

    run_on("asyncio", main())


def test_the_newest_streams_are_refused() -> None:
    async def main() -> None:
        async with in_memory(max_streams=2) as receiver:
            for n in range(3):
                await send(receiver, [packet(k, call=leg_id(n)) for k in range(4)])
            await virtual.until(lambda: receiver.totals().datagrams == 12)
        totals = receiver.totals()
        assert (totals.streams_started, totals.streams_refused) == (2, 1)
        assert totals.rejected == 4
        assert totals.unaccounted == 0

    run_virtually(main())


# --- iteration -------------------------------------------------------------------------------------------------------


@edges
@pytest.mark.parametrize(("rate", "dtype"), [(None, "int16"), (16_000, "float32")])
def test_streams_and_frames(transport: str, loop: str, rate: int | None, dtype: str) -> None:
    missing = {20, 21, 33}

    async def consume(stream: strep.Stream) -> list[strep.Frame]:
        return [frame async for frame in stream.frames(ms=20, rate=rate, dtype=dtype)]  # type: ignore[arg-type]

    async def main() -> None:
        tasks: dict[strep.Direction, asyncio.Task[list[strep.Frame]]] = {}

        async def follow() -> None:
            async for stream in receiver:
                assert (stream.call_leg_id, stream.leg, stream.ended) == (LEG, strep.Leg.A, False)
                tasks[stream.direction] = asyncio.create_task(consume(stream))

        async with strep.Receiver("127.0.0.1:0", latency_ms=40, transport=transport) as receiver:
            follower = asyncio.create_task(follow())
            datagrams = [packet(k, direction=d) for k in range(60) if k not in missing for d in (0, 1)]
            await send_paced(listening(receiver), datagrams, chunk=8)
            await until(lambda: receiver.totals().datagrams == len(datagrams))
        await follower
        assert tasks.keys() == {strep.Direction.INBOUND, strep.Direction.OUTBOUND}
        size = 160 if rate is None else 320
        wanted = np.concatenate([pcmu(payload_of(k)) * (k not in missing) for k in range(60)])
        for task in tasks.values():
            frames = await task
            assert {f.samples.shape for f in frames} == {(size,)}
            assert {f.samples.dtype for f in frames} == {np.dtype(dtype)}
            assert [f.position for f in frames] == [size * i for i in range(60)]
            assert [f.rtp_timestamp for f in frames] == [160 * i for i in range(60)]
            assert {i for i, f in enumerate(frames) if f.gap} == missing
            assert all(f.gap == strep.Gap(size, strep.GapCause.LOSS) for f in frames if f.gap)
            assert all(a.arrival_ns <= b.arrival_ns for a, b in itertools.pairwise(frames))
            assert not any(f.missed or f.padding for f in frames)
            audio = np.concatenate([f.samples for f in frames])
            if rate is None:
                np.testing.assert_array_equal(audio, wanted)
            else:
                theirs = strep.Resampler(8000, rate, dtype="float32")
                parts = [theirs.process((wanted / 32768).astype(np.float32)), theirs.flush()]
                np.testing.assert_array_equal(audio, np.concatenate(parts))

    run_on(loop, main())


def test_who_comes_late_finds_the_streams_that_live() -> None:
    async def main() -> None:
        async with in_memory(latency_ms=0) as receiver:
            await send(receiver, [packet(k) for k in range(10)])
            await virtual.until(lambda: receiver.totals().datagrams == 10)
            stream = await anext(aiter(receiver))
            assert stream.call_leg_id == LEG
            await send(receiver, [packet(k) for k in range(10, 20)])
            await virtual.until(lambda: receiver.totals().datagrams == 20)
        blocks = [block async for block in stream.blocks()]
        assert blocks[-1].position + len(blocks[-1].samples) == 20 * 160
        assert blocks[0].gap is None
        report = await stream.wait_ended()
        assert (report.packets_received, report.end, stream.ended) == (20, "closed", True)

    run_virtually(main())


def test_what_a_slow_consumer_misses_is_counted_on_the_next_frame() -> None:
    async def main() -> None:
        async with in_memory(latency_ms=0) as receiver:
            streams = aiter(receiver)
            await send(receiver, [packet(k) for k in range(5)])
            frames = (await anext(streams)).frames(ms=20, queue_s=0.5)
            first = await anext(frames)
            assert first.missed == 0
            # half a second fits; three are sent while nobody takes any
            await send(receiver, [packet(k) for k in range(5, 150)], chunk=10)
            await virtual.until(lambda: receiver.totals().datagrams == 150)
        rest = [frame async for frame in frames]
        missed = [f for f in rest if f.missed]
        assert len(missed) == 1
        assert missed[0].missed > 160 * 100
        assert missed[0].gap is not None
        assert missed[0].gap.cause is strep.GapCause.OVERRUN
        # positions stay exact: what was there, what was missed, and what came add up
        assert rest[-1].position == 149 * 160
        there = 160 * (1 + len(rest)) - sum(f.gap.samples for f in rest if f.gap and f.position > missed[0].position)
        assert there + missed[0].missed >= 150 * 160
        np.testing.assert_array_equal(rest[-1].samples, pcmu(payload_of(149)))

    run_virtually(main())


@pytest.mark.parametrize("wrong", [{"ms": 0}, {"ms": 0.3}, {"ms": 20, "rate": 11_025}, {"dtype": "int8"}])
def test_frames_that_cannot_be(wrong: dict[str, Any]) -> None:
    async def main() -> None:
        async with in_memory(latency_ms=0) as receiver:
            streams = aiter(receiver)
            await send(receiver, [packet(k) for k in range(5)])
            stream = await anext(streams)
            with pytest.raises(strep.ConfigurationError):
                await anext(stream.frames(**wrong))

    run_virtually(main())


# --- life ------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
def test_stop_takes_what_has_arrived_and_may_be_called_twice() -> None:
    async def main() -> None:
        receiver = strep.Receiver("127.0.0.1:0", sinks=[ArraySink()])
        await receiver.stop()  # before the start: nothing to do
        await receiver.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            for k in range(30):
                plain.sendto(packet(k), listening(receiver))
        # the loop has had no turn since: they are in the kernel
        await receiver.stop()
        await receiver.stop()
        assert receiver.totals().delivered == 30
        assert [stream async for stream in receiver] == []
        with pytest.raises(strep.ConfigurationError, match="make a new one"):
            await receiver.start()

    run_on("asyncio", main())


def test_an_idle_stream_ends_by_itself() -> None:
    async def main() -> None:
        async with in_memory(idle_timeout_s=1) as receiver:
            streams = aiter(receiver)
            await send(receiver, [packet(k) for k in range(5)])
            stream = await anext(streams)
            report = await stream.wait_ended()
            assert (report.end, receiver.live_streams) == ("idle", 0)

    run_virtually(main())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "no port"),
        ({"listen": "nowhere"}, "udp:ADDR:PORT"),
        ({"listen": ":0", "transport": "tcp"}, "transport"),
        ({"listen": ":0", "latency_ms": 900}, "latency"),
        ({"listen": ":0", "latency_ms": -1}, "latency"),
        ({"listen": ":0", "max_streams": 0}, "max_streams"),
        ({"listen": ":0", "idle_timeout_s": 0}, "idle"),
        ({"listen": ":0", "allow": ["10.0.0.0/33"]}, "CIDR"),
        ({"listen": ":0", "call_legs": ["x"]}, "UUID"),
        ({"rx": ":0", "call_leg_id": "x"}, "UUID"),
        ({"listen": ":0", "payload_types": {96: "OPUS/44100"}}, "48000"),
    ],
)
def test_wrong_arguments(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(strep.ConfigurationError, match=says):
        strep.Receiver(**wrong)


@pytest.mark.sockets
def test_a_port_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with strep.Receiver("127.0.0.1:0") as first:
            port = port_of(first)
            second = strep.Receiver(rx="127.0.0.1:0", tx=f"127.0.0.1:{port}", pcap=tmp_path / "a.pcap")
            with pytest.raises(strep.BindError, match="taken"):
                await second.start()
            assert not (tmp_path / "a.pcap").exists()

    run_on("asyncio", main())  # warnings are errors: a socket left open would be one
