"""Publishing and hearing, with a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import numpy as np
import pytest
from broker import Broker, broker
from live import hashes, listening, send_paced, until
from support import leg_id, packet

import strep
from strep import remote
from strep.sinks import BaseSink, NatsSink, WavSink

pytestmark = pytest.mark.realtime
LEGS = 12


class Audit(BaseSink):
    """Per stream: whether blocks join, what was lost, all samples (gaps as zeros)."""

    inline = True

    def __init__(self) -> None:
        self.audio: dict[tuple[object, ...], list[np.ndarray]] = {}
        self.next: dict[int, int] = {}
        self.overrun = 0
        self.wrong: list[str] = []
        self.ended: dict[tuple[object, ...], strep.StreamReport] = {}
        self.last_s = time.monotonic()
        self.longest_s = 0.0

    def blocks(self, batch: strep.BlockBatch) -> None:
        now = time.monotonic()
        self.longest_s, self.last_s = max(self.longest_s, now - self.last_s), now
        for block in batch:
            serial = block.stream.serial
            gap = block.gap.samples if block.gap else 0
            expected = self.next.get(serial)
            if expected is not None and block.position != expected + gap:
                self.wrong.append(f"{block.stream.name}: {block.position} after {expected}, gap {gap}")
            if block.gap and block.gap.cause == strep.GapCause.OVERRUN:
                self.overrun += gap
            self.next[serial] = block.position + len(block.samples)
            self.audio.setdefault(who(block.stream), []).extend([np.zeros(gap, np.int16), block.samples.copy()])

    def stream_ended(self, stream: strep.StreamInfo, report: strep.StreamReport) -> None:
        self.ended[who(stream)] = report

    def samples(self) -> dict[tuple[object, ...], bytes]:
        return {key: np.concatenate(parts).tobytes() for key, parts in self.audio.items()}


def who(stream: strep.StreamInfo) -> tuple[object, ...]:
    return stream.call_leg_id, stream.direction


def datagrams(count: int, legs: int = LEGS, first: int = 0) -> list[bytes]:
    """Both directions of some legs; every thirtieth packet is lost."""
    return [
        packet(k, call=leg_id(leg), direction=direction, ssrc=2 * leg + direction + 1)
        for k in range(first, first + count)
        for leg in range(legs)
        for direction in (0, 1)
        if k % 30 != 7 + leg % 3
    ]


def receiving(sinks: list[BaseSink], drain_s: float) -> strep.Receiver:
    return strep.Receiver("udp:127.0.0.1:0", transport="recvmmsg", sinks=sinks, drain_s=drain_s)


async def heard_all(receiver: remote.Receiver, streams: int, seconds: float = 60) -> None:
    await until(lambda: receiver.totals().streams_ended >= streams and not receiver.live_streams, seconds)


@pytest.mark.parametrize("payload", ["native", "pcm16"])
async def test_a_listener_s_files_are_those_of_who_received(tmp_path: Path, payload: str) -> None:
    """Bit for bit, and the figures of its summary too."""
    with broker(tmp_path / "broker") as server:
        here, sink, there = WavSink(tmp_path / "here"), NatsSink(server.url, payload=payload), Audit()
        async with remote.Receiver(server.url, sinks=[WavSink(tmp_path / "there"), there]) as listener:
            async with receiving([here, sink], 5) as receiver:
                await send_paced(listening(receiver), datagrams(100), 300)
            await heard_all(listener, 2 * LEGS)
            await until(lambda: listener.figures().messages == sink.report()["messages"])
            figures = listener.figures()
        assert sink.report()["dropped_frames"] == 0
        assert hashes(tmp_path / "there") == hashes(tmp_path / "here")
        assert len(hashes(tmp_path / "here")) == 2 * LEGS
        assert (there.wrong, there.overrun) == ([], 0)
        mine = {who(r.stream): r.as_dict() for r in receiver.reports()}
        assert {who(r.stream): r.as_dict() for r in listener.reports()} == mine
        assert (figures.lost, figures.refused, figures.shards) == (0, {}, 64)
        assert figures.messages < len(datagrams(100)) / 2


async def test_frames_events_and_streams_are_as_of_a_receiver(tmp_path: Path) -> None:
    from strep.sinks import DtmfDetector

    with broker(tmp_path / "broker") as server:
        frames: dict[tuple[object, ...], int] = {}
        told: list[strep.StreamEvent] = []

        async def consume(stream: strep.Stream) -> None:
            async for frame in stream.frames(ms=20):
                frames[who(stream.info)] = frames.get(who(stream.info), 0) + len(frame.samples)

        async with remote.Receiver(server.url, group="asr", sinks=[DtmfDetector()]) as listener:

            async def listen() -> None:
                async with asyncio.TaskGroup() as group:
                    async for stream in listener:
                        group.create_task(consume(stream))

            async def hear() -> None:
                async for event in listener.events():
                    told.append(event)  # noqa: PERF401  # as they come

            tasks = [asyncio.create_task(listen()), asyncio.create_task(hear())]
            async with receiving([NatsSink(server.url, shards=4)], 5) as receiver:
                payloads = [bytes([5, 10 | (k > 104) << 7, 0, 200]) for k in range(100, 108)]
                keys = [
                    packet(100 + i, payload_type=101, timestamp=16_000, payload=payload)
                    for i, payload in enumerate(payloads)
                ]
                await send_paced(listening(receiver), [*datagrams(100, legs=1), *keys], 40)
            await heard_all(listener, 2)
        await asyncio.wait(tasks, timeout=10)
        assert {key: n // 160 for key, n in frames.items()} == {
            who(r.stream): r.samples // 160 for r in receiver.reports()
        }
        assert [(event.kind, event.data["digit"]) for event in told] == [("dtmf", "5")]


async def test_a_broker_that_is_killed_and_started_again_costs_nothing(tmp_path: Path) -> None:
    """Killed for 2 s in mid-call (of file storage): nothing is lost, nothing is told twice or out of order, and the
    files of who received and who listened are the same."""
    await outage(tmp_path, 2.0, 400, 12)


@pytest.mark.slow
async def test_a_broker_is_killed_for_five_seconds_at_a_high_rate(tmp_path: Path) -> None:
    await outage(tmp_path, 5.0, 600, 200)


async def outage(tmp_path: Path, gone_s: float, packets: int, legs: int) -> None:
    with broker(tmp_path / "broker") as server:
        sink, audit = NatsSink(server.url), Audit()
        async with remote.Receiver(server.url, sinks=[WavSink(tmp_path / "there"), audit]) as listener:
            sinks = [WavSink(tmp_path / "here"), sink]
            async with receiving(sinks, 20) as receiver:
                target = listening(receiver)
                await send_paced(target, datagrams(packets // 4, legs), 2 * legs)
                await until(lambda: listener.live_streams == 2 * legs)
                await asyncio.to_thread(server.kill)
                sending = asyncio.create_task(send_paced(target, datagrams(packets // 2, legs, packets // 4), 2 * legs))
                await asyncio.sleep(gone_s)
                await asyncio.to_thread(server.start)
                await sending
                await send_paced(target, datagrams(packets // 4, legs, packets // 4 * 3), 2 * legs)
                await until(lambda: sink.report()["waiting_bytes"] == 0)
            await heard_all(listener, 2 * legs)
        assert receiver.totals().kernel_dropped == 0
        assert (audit.wrong, audit.overrun) == ([], 0)
        assert hashes(tmp_path / "there") == hashes(tmp_path / "here")
        assert listener.figures().lost == 0
        assert listener.figures().connections == sink.report()["connections"] == 2


async def test_a_broker_that_lost_all_is_published_to_and_heard_again(tmp_path: Path) -> None:
    """Streams in memory are gone with it: they are made anew. What was heard by nobody is a gap, to the frame."""
    with broker(tmp_path / "broker") as server:
        sink, audit, here = NatsSink(server.url, storage="memory"), Audit(), Audit()
        async with remote.Receiver(server.url, sinks=[audit]) as listener:
            async with receiving([here, sink], 20) as receiver:
                target = listening(receiver)
                await send_paced(target, datagrams(100), 2 * LEGS)
                await until(lambda: listener.live_streams == 2 * LEGS)
                await asyncio.to_thread(server.kill)
                await send_paced(target, datagrams(50, first=100), 2 * LEGS)
                await asyncio.to_thread(server.start)
                await send_paced(target, datagrams(150, first=150), 2 * LEGS)
                await until(lambda: sink.report()["waiting_bytes"] == 0)
            await heard_all(listener, 2 * LEGS)
        assert audit.wrong == []
        check_gaps(here, audit)
        assert sink.report()["dropped_frames"] == 0


def check_gaps(whole: Audit, heard: Audit) -> None:
    """What was heard is what was received, zeros in place of what is lost; and the lost frames are counted as such."""
    meant, told = whole.samples(), heard.samples()
    assert told.keys() == meant.keys()
    silent = 0
    for key, found in told.items():
        mine, theirs = np.frombuffer(meant[key], np.int16), np.frombuffer(found, np.int16)
        assert len(mine) == len(theirs)
        other = mine != theirs
        assert not theirs[other].any()
        silent += int(other.sum())
    assert silent <= heard.overrun


async def test_what_finds_no_room_is_a_gap_and_counted_and_ends_are_told(tmp_path: Path) -> None:
    """No broker for so long that the spool is full: the oldest go. The receiver's other sinks lose nothing."""
    server = Broker(tmp_path / "broker")
    sink, audit, here = NatsSink(server.url, spool_bytes=1 << 20), Audit(), Audit()
    async with remote.Receiver(server.url, sinks=[audit]) as listener:
        async with receiving([here, sink], 20) as receiver:
            await send_paced(listening(receiver), datagrams(400), 4 * LEGS)
            await until(lambda: sink.report()["dropped_messages"] > 5)
            assert "connection" in sink.report()["problem"]
            assert sink.report()["waiting_bytes"] <= 2 << 20
            await asyncio.to_thread(server.start)
            await until(lambda: sink.report()["waiting_bytes"] == 0)
            await send_paced(listening(receiver), datagrams(50, first=400), 4 * LEGS)
        try:
            await heard_all(listener, 2 * LEGS)
        finally:
            await listener.stop()
            server.kill()
    assert audit.wrong == []
    assert {key: len(found) for key, found in here.samples().items()} == {
        who(r.stream): 2 * r.samples for r in receiver.reports()
    }
    lost = sink.report()["dropped_frames"]
    assert lost > 0
    for key, report in audit.ended.items():
        assert report.as_dict() == next(r for r in receiver.reports() if who(r.stream) == key).as_dict()
    # the first blocks of all are gone, so they are not gaps between blocks
    total = sum(r.samples - r.gap_samples for r in receiver.reports())
    got = sum(len(part) for parts in audit.audio.values() for part in parts[1::2])
    assert total - got == lost


async def test_a_full_store_is_waited_for(tmp_path: Path) -> None:
    """The broker refuses what does not fit (discard: new): it is told, kept here, and stored when there is room."""
    import nats

    with broker(tmp_path / "broker") as server:
        client = await nats.connect(server.url)
        context = client.jetstream()
        await context.add_stream(name="strep", subjects=["strep.8.*"], max_bytes=400_000, discard="new", storage="file")
        sink, here, audit = NatsSink(server.url, shards=8), Audit(), Audit()
        async with receiving([here, sink], 10) as receiver:
            await send_paced(listening(receiver), datagrams(200), 4 * LEGS)
            await until(lambda: "maximum bytes exceeded" in str(sink.report()["problem"]))
            assert sink.report()["dropped_frames"] == 0
            async with remote.Receiver(server.url, sinks=[audit]) as listener:
                heard = listener.figures().messages
                await until(lambda: listener.figures().messages > heard)
                await context.update_stream(
                    name="strep", subjects=["strep.8.*"], max_bytes=100_000_000, discard="new", storage="file"
                )
                await until(lambda: sink.report()["waiting_bytes"] == 0)
                await receiver.stop(10)
                await heard_all(listener, 2 * LEGS)
        await client.close()
        assert (audit.wrong, audit.overrun) == ([], 0)
        assert audit.samples() == here.samples()
        assert sink.report()["problem"] is None


async def test_a_store_that_discards_the_old_makes_gaps_for_who_is_late(tmp_path: Path) -> None:
    import nats

    with broker(tmp_path / "broker") as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="strep", subjects=["strep.8.*"], max_bytes=400_000, storage="file")
        sink, here, audit = NatsSink(server.url, shards=8), Audit(), Audit()
        async with receiving([here, sink], 10) as receiver:
            await send_paced(listening(receiver), datagrams(200), 4 * LEGS)
        async with remote.Receiver(server.url, sinks=[audit]) as listener:
            await heard_all(listener, 1)
        await client.close()
        assert audit.wrong == []
        assert sink.report()["dropped_frames"] == 0
        assert 0 < sum(map(len, audit.samples().values())) < sum(map(len, here.samples().values()))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"servers": []}, "no NATS server"),
        ({"servers": "http://x:1"}, "nats://HOST:PORT"),
        ({"servers": "nats://me:secret@:4222"}, r"\*\*\*"),
        ({"subject": "a b"}, "letters, digits"),
        ({"subject": "a.>"}, "letters, digits"),
        ({"shards": 0}, "1 to 4096"),
        ({"payload": "mp3"}, "native"),
        ({"storage": "tape"}, "file"),
        ({"tick_s": 0}, "0.01 to 2"),
        ({"spool_bytes": 5}, "1 MiB"),
        ({"replicas": 9}, "replicas"),
    ],
)
def test_wrong_arguments_say_what_is_right(options: dict[str, object], text: str) -> None:
    with pytest.raises(strep.ConfigurationError, match=text) as caught:
        NatsSink(**{"servers": "127.0.0.1", **options})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


async def test_another_number_of_shards_on_one_subject_is_told(tmp_path: Path) -> None:
    with broker(tmp_path / "broker") as server:
        first, second = NatsSink(server.url, shards=4), NatsSink(server.url, shards=8)
        async with receiving([first], 0) as receiver:
            await send_paced(listening(receiver), datagrams(20), 100)
            await until(lambda: first.report()["messages"])
        async with receiving([second], 0) as receiver:
            await send_paced(listening(receiver), datagrams(20), 100)
            await until(lambda: "give shards=4" in str(second.report()["problem"]))
            with contextlib.suppress(TimeoutError):
                await receiver.stop(0.5)
