"""A decoder that raises, and payloads of impossible lengths: faults.md 48 and 49. The packet costs itself, no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu

import strep
from strep._codecs import batch_decoder as payloads
from strep._codecs import g711 as _codecs
from strep._codecs import packed_audio
from strep._edge.pcap import PcapWriter
from strep._engine.engine import Engine, EngineConfig
from strep._model.events import Fault
from strep._model.types import Mask
from strep.sinks import ArraySink, BaseSink, WavSink

I16 = npt.NDArray[np.int16]
COUNT, BAD = 30, 12


class Brittle:
    """In place of a codec library: the number of the packet as its samples, and how many packets it has had."""

    made = 0

    def __init__(self, raising: BaseException | None = None) -> None:
        type(self).made += 1
        self._raising = raising
        self._had = 0

    def decode(self, payload: bytes, frames: int, lost_frames: int = 0) -> tuple[I16, None]:
        if payload[0] == BAD and self._raising is not None:
            raise self._raising
        self._had += 1
        return np.full(frames, 100 * payload[0] + self._had, np.int16), None


def gsm(call: int) -> list[Arrival]:
    return [
        Arrival(
            T0 + k * 20 * MS + call,
            packet(k, payload=bytes([k]) + bytes(32), payload_type=3, ssrc=3, call=leg_id(call)),
        )
        for k in range(COUNT)
    ]


def g711(call: int) -> list[Arrival]:
    return [Arrival(T0 + k * 20 * MS + call, packet(k, ssrc=4, call=leg_id(call))) for k in range(COUNT)]


def capture(path: Path, arrivals: list[Arrival]) -> Path:
    writer = PcapWriter(path)
    writer.write(batch_of(sorted(arrivals, key=lambda a: a.ns), width=2200))
    writer.close()
    return path


class Kept(BaseSink):
    """Samples and masks by call."""

    inline = True

    def __init__(self, conceal: bool = False) -> None:
        self.concealment = conceal
        self.samples: dict[int, list[I16]] = {}
        self.masks: dict[int, list[npt.NDArray[np.uint8]]] = {}

    def blocks(self, batch: strep.BlockBatch) -> None:
        assert not batch.plain or (batch.mask == Mask.RECEIVED).all()
        for block in batch:
            assert block.stream.call_leg_id is not None
            call = block.stream.call_leg_id.int - leg_id(0).int
            self.samples.setdefault(call, []).append(block.samples)
            self.masks.setdefault(call, []).append(block.mask)

    def of(self, call: int) -> tuple[I16, npt.NDArray[np.uint8]]:
        return np.concatenate(self.samples[call]), np.concatenate(self.masks[call])


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError(), ZeroDivisionError()], ids=repr)
def test_a_decoder_that_raises_costs_its_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Silence of its length, told as lost; a new decoder from the next packet on; other streams exact."""
    decoders = iter([error, None, None])
    monkeypatch.setattr(packed_audio, "make_decoder", lambda codec: Brittle(next(decoders)))
    plain, filled = Kept(), Kept(conceal=True)
    path = capture(tmp_path / "a.pcap", gsm(1) + gsm(2) + g711(3))
    found = strep.replay(path, sinks=[plain, filled])
    totals = found.totals()
    assert totals.faults == {"decode": 1}
    assert (totals.unaccounted, totals.delivered, totals.dropped) == (0, 3 * COUNT, 0)
    assert [report["failed"] for report in found.sink_reports()] == [None, None]
    number = np.arange(COUNT)
    whole = np.repeat(100 * number + number + 1, 160)
    broken = np.repeat(100 * number + np.where(number > BAD, number - BAD, number + 1), 160)
    broken[BAD * 160 :][:160] = 0
    heard = [plain.of(1), plain.of(2)]
    silent = [h for h in heard if (h[1] != Mask.RECEIVED).any()]
    assert len(silent) == 1
    for audio, mask in heard:
        here = broken if mask is silent[0][1] else whole
        np.testing.assert_array_equal(audio, here)
        np.testing.assert_array_equal(mask == Mask.LOST, (here == 0))
    for call in (1, 2, 3):  # nothing was missing, so nothing is made up
        np.testing.assert_array_equal(plain.of(call), filled.of(call))
    np.testing.assert_array_equal(plain.of(3)[0], np.concatenate([pcmu(payload_of(k)) for k in range(COUNT)]))


def test_a_failed_packet_beside_a_gap_is_told_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch is filled, what could not be decoded stays what it is."""
    monkeypatch.setattr(packed_audio, "make_decoder", lambda codec: Brittle(RuntimeError("broken")))
    arrivals = [a for k, a in enumerate(gsm(1)) if k != BAD - 2]
    plain, filled = Kept(), Kept(conceal=True)
    found = strep.replay(capture(tmp_path / "a.pcap", arrivals), sinks=[plain, filled])
    assert found.totals().faults == {"decode": 1}
    audio, mask = filled.of(1)
    assert len(audio) == COUNT * 160
    marks = mask.reshape(COUNT, 160)
    assert (marks[BAD] == Mask.LOST).all()
    assert (marks[BAD - 2] == Mask.CONCEALED).all()
    assert (np.delete(marks, [BAD - 2, BAD], axis=0) == Mask.RECEIVED).all()
    assert not audio[BAD * 160 :][:160].any()


def test_where_no_decoder_can_be_made_packets_are_lost_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they come, told with their stream; when it can be made again, the audio goes on."""
    left = [MemoryError()] * 5

    def make(codec: strep.Codec) -> Brittle:
        if left:
            raise left.pop()
        return Brittle()

    monkeypatch.setattr(packed_audio, "make_decoder", make)
    engine = Engine(EngineConfig())
    events: list[Any] = engine.receive(batch_of(sorted(gsm(1) + g711(2), key=lambda a: a.ns))) + engine.flush()
    kept = Kept()
    for event in events:
        if isinstance(event, strep.BlockBatch):
            kept.blocks(event)
    faults = [e for e in [*events, *engine.advance(engine.now_ns)] if isinstance(e, Fault)]
    assert [(f.place, f.packets, f.stream.call_leg_id if f.stream else None) for f in faults] == (
        [("decode", 1, leg_id(1))] * 5
    )
    audio, mask = kept.of(1)
    np.testing.assert_array_equal(mask == Mask.LOST, np.arange(len(mask)) < 5 * 160)
    np.testing.assert_array_equal(audio == 0, np.arange(len(mask)) < 5 * 160)
    np.testing.assert_array_equal(kept.of(2)[0], np.concatenate([pcmu(payload_of(k)) for k in range(COUNT)]))
    assert engine.totals().unaccounted == 0


@pytest.mark.parametrize("beside", [None, 8, 3], ids=["alone", "beside PCMA", "beside GSM"])
def test_table_codecs_fail_by_the_packet_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: int | None
) -> None:
    """Decoded all at once; when that raises, one by one."""
    bad = payload_of(BAD)
    real = _codecs.decode

    def decode(codec: strep.Codec, data: npt.NDArray[np.uint8]) -> I16:
        if codec.name == "PCMU" and bad in data.tobytes():
            raise MemoryError
        return real(codec, data)

    monkeypatch.setattr(payloads, "decode", decode)
    monkeypatch.setattr(packed_audio, "make_decoder", lambda codec: Brittle())
    others = gsm(2) if beside == 3 else []
    if beside == 8:
        others = [
            Arrival(T0 + k * 20 * MS + 2, packet(k, ssrc=5, payload_type=8, call=leg_id(2))) for k in range(COUNT)
        ]
    plain = Kept()
    found = strep.replay(capture(tmp_path / "a.pcap", g711(1) + others), sinks=[plain])
    assert (found.totals().faults, found.totals().unaccounted) == ({"decode": 1}, 0)
    audio, mask = plain.of(1)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(COUNT)])
    wanted[BAD * 160 :][:160] = 0
    np.testing.assert_array_equal(audio, wanted)
    np.testing.assert_array_equal(mask == Mask.LOST, np.arange(len(mask)) // 160 == BAD)
    assert all((plain.of(call)[1] == Mask.RECEIVED).all() for call in plain.masks if call != 1)


# --- files -----------------------------------------------------------------------------------------------------------


def changing(call: int, numbers: list[tuple[int, int]], clock: int = 8000) -> list[Arrival]:
    """Ten packets each of (payload type, bytes), 20 ms apart, of random content."""
    rng = np.random.default_rng(call)
    arrivals: list[Arrival] = []
    for number, size in numbers:
        for _ in range(10):
            k = len(arrivals)
            data = packet(
                k, timestamp=k * clock // 50, payload=rng.bytes(size), payload_type=number, ssrc=6, call=leg_id(call)
            )
            arrivals.append(Arrival(T0 + k * 20 * MS + call, data))
    return arrivals


@pytest.mark.parametrize("native", [False, True])
def test_files_of_streams_that_change_are_whole(tmp_path: Path, native: bool) -> None:
    """What stopped the receiver: G.729 and GSM to PCMU, L16 in stereo of an odd length; all in others' batches."""
    pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")
    arrivals = changing(1, [(18, 20), (0, 160)]) + changing(2, [(3, 33), (8, 160), (3, 33)])
    arrivals += changing(3, [(0, 160), (18, 20), (0, 160)]) + changing(4, [(8, 160), (9, 160)])
    arrivals += changing(5, [(11, 160), (10, 162), (10, 1), (10, 1403), (11, 161)], 4000)
    arrivals += g711(6)
    folder = tmp_path / "out"
    array, sink = ArraySink(), WavSink(folder, encoding="native" if native else "pcm16")
    found = strep.replay(capture(tmp_path / "a.pcap", arrivals), sinks=[array, sink])
    totals = found.totals()
    assert (totals.faults, totals.unaccounted, totals.dropped_by) == ({}, 0, {"corrupt": 10})
    assert [report["failed"] for report in found.sink_reports()] == [None, None]
    assert sum(report["dropped_frames"] for report in found.sink_reports()) == 0
    assert len(found.reports()) == 6
    for report in found.reports():
        stream = report.stream
        assert stream.codec is not None
        (name,) = sink.files(stream)
        data = (folder / name).read_bytes()
        data = data[data.index(b"data") + 8 :]
        wanted = array.get(stream).samples.reshape(-1)
        assert wanted.any()
        assert wanted.size == report.samples
        if native and stream.codec.name in ("PCMU", "PCMA"):
            kept = _codecs.decode(stream.codec, np.frombuffer(data, np.uint8)).astype(np.int32)
            # what came in another codec is within half a step of G.711
            assert (np.abs(kept - wanted) <= np.abs(wanted.astype(np.int32)) / 32 + 8).all()
        else:
            np.testing.assert_array_equal(np.frombuffer(data, "<i2"), wanted)
    np.testing.assert_array_equal(
        array.get(found.reports()[-1].stream).samples, np.concatenate([pcmu(payload_of(k)) for k in range(COUNT)])
    )
