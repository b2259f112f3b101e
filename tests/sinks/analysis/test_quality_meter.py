"""The quality meter: exact loss and jitter in every window, the same however packets come in batches."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from amr_payloads import amr_payloads
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet, steady

import strep
from strep._codecs import amr, counts, opus
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.blocks import BlockBatch, joined
from strep.quality import (
    impairment_of,
    impairments_by_mode,
    mos_from_r,
    r_factor,
    r_factor_fullband,
    r_factor_wideband,
)
from strep.simulate import Impairments, make_traffic
from strep.sinks import BaseSink, QualityMeter
from strep.sinks.analysis.quality_series import WINDOW_FIELDS, GapList, WindowSeries


def feed(
    meter: QualityMeter, arrivals: list[Arrival], *, step: int = 25, types: dict[int, str] | None = None
) -> list[dict[str, Any]]:
    """Figures of all streams, in order of their beginning."""
    engine = Engine(EngineConfig(payload_types=PayloadTypes(types)) if types else None, release=Release(40 * MS))
    dispatcher = Dispatcher([meter])
    arrivals = sorted(arrivals, key=lambda a: a.ns)
    for begin in range(0, len(arrivals), step):
        dispatcher.handle(engine.receive(batch_of(arrivals[begin : begin + step], width=1024)))
    dispatcher.handle(engine.flush())
    dispatcher.close(5)
    assert dispatcher.reports()[0]["failed"] is None
    ended = sorted(dispatcher.ended, key=lambda report: report.stream.serial)
    return [dispatcher.figures(report.stream).get("quality", {}) for report in ended]


def without(arrivals: list[Arrival], lost: set[int]) -> list[Arrival]:
    return [a for number, a in enumerate(arrivals) if number not in lost]


def test_a_clean_stream_has_what_the_defaults_have() -> None:
    (q,) = feed(QualityMeter(), steady(1500))
    assert [(w["start_s"], w["duration_s"], w["loss"]) for w in q["series"]] == [(0, 10, 0), (10, 10, 0), (20, 10, 0)]
    assert q["jitter_ms"] == 0
    assert q["delay_ms"] == 20  # the packets themselves: nothing else is known to delay
    assert q["mos_lq"] == round(float(mos_from_r(r_factor())), 3) == 4.409
    assert q["r"] == round(float(r_factor(ta=20, t=20, tr=40)), 2)
    assert q["mos_min"] == q["mos_cq"] == round(float(mos_from_r(r_factor(ta=20, t=20, tr=40))), 3)
    assert (q["model"], q["ie"], q["bpl"]) == ("G.107", 0, 25.1)
    assert q["burst"] == {
        "gmin": 16, "count": 0, "density": 0, "duration_ms": 0, "gap_density": 0, "gap_duration_ms": 30_000,
    }  # fmt: skip
    assert q["gap_list"] == []


def test_loss_and_bursts_of_each_window() -> None:
    lost = {100, 300, *range(700, 710), 715}
    (q,) = feed(QualityMeter(delay_ms=50), without(steady(1500), lost))
    assert [w["loss"] for w in q["series"]] == [round(2 / 500, 5), round(11 / 500, 5), 0]
    assert q["loss"] == round(13 / 1500, 6)
    assert q["burst"] == {
        "gmin": 16,
        "count": 1,
        "density": round(11 / 16, 5),
        "duration_ms": 16 * 20,
        "gap_density": round(2 / 1484, 5),
        "gap_duration_ms": 1484 * 20,
    }
    second = q["series"][1]
    # two runs of 11 lost packets, of 500
    assert second["burst_r"] == round(11 / 2 * 489 / 500, 3)
    assert second["burst_ms"] == 320
    wanted = r_factor(ppl=2.2, bpl=25.1, burst_r=11 / 2 * 489 / 500, ta=70, t=70, tr=140)
    assert second["r"] == pytest.approx(float(wanted), abs=0.01)
    assert q["mos_min"] == second["mos_cq"]
    assert q["gap_list"] == [[2, 0.02, "loss"], [6, 0.02, "loss"], [14, 0.2, "loss"], [14.3, 0.02, "loss"]]
    assert q["gap_list_omitted"] == 0


def test_jitter_is_the_mean_deviation_of_rfc_3550() -> None:
    rng = np.random.default_rng(5)
    late = rng.integers(0, 15, 1000)
    arrivals = [Arrival(a.ns + int(d) * MS, a.data) for a, d in zip(steady(1000), late, strict=True)]
    (q,) = feed(QualityMeter(), arrivals)
    deviation = np.abs(np.diff(late.astype(float)))
    halves = [deviation[:499].mean(), deviation[499:].mean()]
    assert [w["jitter_ms"] for w in q["series"]] == pytest.approx(halves, abs=1e-3)
    assert q["jitter_ms"] == pytest.approx(deviation.mean(), abs=1e-3)
    for w in q["series"]:
        assert 10 < w["buffer_ms"] < 20  # what delays up to 14 ms need
    (fixed,) = feed(QualityMeter(latency_ms=120), arrivals)
    assert fixed["delay_ms"] == 140
    assert {w["buffer_ms"] for w in fixed["series"]} == {120}
    assert fixed["mos_cq"] < q["mos_cq"]
    assert fixed["mos_lq"] == q["mos_lq"]


@settings(max_examples=usual_or_slow(6, 15), deadline=None)
@given(
    streams=st.lists(st.text("0111111", min_size=60, max_size=200), min_size=1, max_size=2),
    steps=st.lists(st.sampled_from([1, 7, 60, 10_000]), min_size=2, max_size=2),
)
def test_figures_do_not_depend_on_batches(streams: list[str], steps: list[int]) -> None:
    """And losses are those that were left out, once packets go on."""
    arrivals = []
    for number, pattern in enumerate(streams):
        sent = steady(len(pattern) + 4, call=leg_id(number))
        arrivals += without(sent, {2 + k for k, packet_ in enumerate(pattern) if packet_ == "0"})
    found = [feed(QualityMeter(window_s=1.0), arrivals, step=step) for step in steps]
    assert found[0] == found[1]
    for q, pattern in zip(found[0], streams, strict=True):
        assert q["loss"] == round(pattern.count("0") / (len(pattern) + 4), 6)
        runs = [(m.start() + 2, len(m.group())) for m in re.finditer("0+", pattern)]
        assert q["gap_list"] == [[round(at * 0.02, 4), round(n * 0.02, 4), "loss"] for at, n in runs]


def test_what_came_too_late_is_lost_and_discarded() -> None:
    """And copies are nothing."""
    arrivals = [Arrival(a.ns + (900 * MS if k == 100 else 0), a.data) for k, a in enumerate(steady(300))]
    (q,) = feed(QualityMeter(), [*arrivals, Arrival(arrivals[200].ns + MS, arrivals[200].data)], step=1)
    assert (q["loss"], q["discard"]) == (round(1 / 300, 6), round(1 / 300, 6))


def test_silence_that_was_not_sent_is_not_lost() -> None:
    """Silence suppression: the timestamp goes on, the sequence does not skip."""
    arrivals = [
        Arrival(T0 + 20 * (k + (50 if k >= 100 else 0)) * MS, packet(k, timestamp=160 * (k + (50 if k >= 100 else 0))))
        for k in range(300)
    ]
    (q,) = feed(QualityMeter(), arrivals)
    assert (q["loss"], q["jitter_ms"], q["burst"]["count"]) == (0, 0, 0)
    assert q["gap_list"] == [[2, 1, "silence"]]
    assert [w["duration_s"] for w in q["series"]] == [6]


def test_another_source_is_no_jitter() -> None:
    arrivals = steady(200) + steady(200, first=9000, ssrc=77, start_ns=T0 + 4000 * MS)
    (q,) = feed(QualityMeter(), arrivals)
    assert (q["loss"], q["jitter_ms"]) == (0, 0)


def test_it_is_told_when_a_stream_becomes_poor_and_when_it_is_good_again() -> None:
    told: list[strep.StreamEvent] = []
    lost = {k for k in range(500, 1500) if k % 5 in (0, 1)}
    meter = QualityMeter(on_event=told.append)
    (q,) = feed(meter, without(steady(2500), lost))
    found = [(e.kind, e.position, e.data["state"]) for e in told]
    assert found == [("quality", 500 * 160, "poor"), ("quality", 1500 * 160, "good")]
    assert told[0].data["loss"] == pytest.approx(0.4, abs=0.005)
    assert told[0].data["mos_cq"] < 3.6 < told[1].data["mos_cq"]
    assert told[0].time_ns == T0 + told[0].position * 125_000
    assert q["mos_min"] == min(w["mos_cq"] for w in q["series"])
    assert told[0].as_dict()["event"] == "quality"


def test_samples_are_not_looked_at() -> None:
    class Undecoded(BaseSink):
        def __init__(self) -> None:
            self.seen = 0

        def blocks(self, batch: BlockBatch) -> None:
            assert batch._samples is None
            self.seen += len(batch)

    engine, meter, last = Engine(), QualityMeter(), Undecoded()
    for event in engine.receive(batch_of(steady(100))) + engine.flush():
        if isinstance(event, BlockBatch):
            meter.blocks(event)
            last.blocks(event)
    assert last.seen
    assert meter.wants_audio
    assert not meter.concealment


def test_rows_are_reused_and_many_streams_are_told_apart() -> None:
    meter = QualityMeter()
    first = feed(meter, without(steady(600), {100, 101}))
    again = feed(meter, steady(600, call=leg_id(9)))
    assert (first[0]["loss"], again[0]["loss"]) == (round(2 / 600, 6), 0)
    assert meter.arrays()["serial"].tolist() == []
    many = [a for n in range(300) for a in without(steady(60, call=leg_id(n)), {20} if n % 3 == 0 else set())]
    figures = feed(QualityMeter(window_s=1.0), many, step=3000)
    assert [q["loss"] for q in figures] == [round(1 / 60, 6) if n % 3 == 0 else 0 for n in range(300)]


def test_all_live_streams_as_arrays() -> None:
    meter, engine = QualityMeter(window_s=1.0), Engine()
    arrivals = [a for n in range(3) for a in without(steady(150, call=leg_id(n)), {20 + n} if n else set())]
    dispatcher = Dispatcher([meter])
    dispatcher.handle(engine.receive(batch_of(sorted(arrivals, key=lambda a: a.ns))))
    dispatcher.handle(engine.advance(T0 + 10_000 * MS))
    dispatcher._lanes[0].close(5)
    columns = meter.arrays()
    order = np.argsort(columns["serial"])
    assert columns["loss_all"][order].tolist() == pytest.approx([0, 1 / 150, 1 / 150])
    assert columns["mos_cq"].shape == (3,)
    assert (columns["mos_cq"] > 4).all()
    assert not columns["wideband"].any()
    assert columns["scale"].tolist() == ["narrowband"] * 3


def test_wideband_has_a_scale_of_its_own() -> None:
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, payload=bytes(640), timestamp=320 * k, payload_type=96))
        for k in range(500)
        if k % 50 != 7
    ]
    (q,) = feed(QualityMeter(), arrivals, types={96: "L16/16000"})
    cost = impairment_of("L16", 16_000)
    assert (q["model"], q["scale"]) == ("G.107.1", "wideband")
    assert q["r"] > 100
    assert q["basis"] == cost.source
    assert q["loss"] == 10 / 500
    assert q["series"][0]["duration_s"] == 10


def coded(payloads: list[bytes], *, clock: int, spelled: str, lost: set[int] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
    """The figures of a stream of such payloads, 20 ms each."""
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, payload=payload, timestamp=clock // 50 * k, payload_type=96))
        for k, payload in enumerate(payloads)
        if k not in lost
    ]
    (q,) = feed(QualityMeter(), arrivals, types={96: spelled})
    return q


def amr_wb(mode: int, *, aligned: bool = True) -> bytes:
    bits = amr.SPEECH_BITS[True][mode]
    return amr.pack([amr.AmrFrame(mode, True, bytes(-(-bits // 8)))], wide=True, octet_aligned=aligned)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("mode", range(9))
def test_each_mode_of_amr_wb_is_rated_as_itself(mode: int, aligned: bool) -> None:
    """R of a clean call, with the delay of its packets: by table IV.1."""
    ie = (41, 26, 13, 10, 7, 5, 3, 1, 8)[mode]
    q = coded([amr_wb(mode, aligned=aligned)] * 500, clock=16_000, spelled=f"AMR-WB/16000;octet-align={int(aligned)}")
    assert (q["scale"], q["model"], q["ie"]) == ("wideband", "G.107.1", ie)
    assert q["modes"] == {impairments_by_mode("AMR-WB")[mode].mode: 1}
    wanted = r_factor_wideband(ie=ie, ta=20, t=20, tr=40)
    assert q["r"] == round(float(wanted), 2) == pytest.approx(q["series"][0]["r"], abs=0.01)
    assert q["mos_cq"] == round(float(mos_from_r(wanted, scale="wideband")), 3)
    assert "IV.1" in q["basis"]


def test_modes_are_weighed_in_each_window() -> None:
    """10 s of 23.05 kbit/s, 10 s of 6.6 and 23.05 by turns (and silence descriptors, which are none), 10 s of these
    descriptors alone."""
    payloads = [amr_wb(7)] * 500 + [amr_wb(k) for k in (0, 9, 0, 7, 7)] * 100 + [amr_wb(9)] * 500
    q = coded(payloads, clock=16_000, spelled="AMR-WB/16000;octet-align=1", lost={700})  # a frame of 6.6 kbit/s
    by_mode = impairments_by_mode("AMR-WB")
    good, bad = by_mode[7], by_mode[0]
    second = 199 / 399
    whole = 199 / 899
    wanted = []
    for share, loss in ((0.0, 0.0), (second, 0.2), (whole, 0.0)):
        ie, bpl = (share * a + (1 - share) * b for a, b in ((bad.ie, good.ie), (bad.bpl, good.bpl)))
        wanted.append(float(r_factor_wideband(ie=ie, bpl=bpl, ppl=loss, ta=20, t=20, tr=40)))
    assert [w["r"] for w in q["series"]] == pytest.approx(wanted, abs=0.011)
    assert q["modes"] == {"6.6": round(whole, 4), "23.05": round(1 - whole, 4)}
    assert q["ie"] == pytest.approx(whole * 41 + (1 - whole) * 1, abs=1e-3)
    assert q["basis"] == good.source  # of the mode that came most


@pytest.mark.parametrize(
    ("config", "mode"), [(1, 0), (5, 1), (9, 2), (13, 3), (15, 4), (19, 0), (23, 2), (27, 3), (31, 4)]
)
def test_opus_is_rated_by_its_bandwidth_on_the_fullband_scale(config: int, mode: int) -> None:
    q = coded([bytes([config << 3]) + bytes(60)] * 500, clock=48_000, spelled="opus/48000")
    cost = impairments_by_mode("opus")[mode]
    assert (q["scale"], q["model"], q["ie"], q["bpl"]) == ("fullband", "G.107.2", cost.ie, cost.bpl)
    assert q["modes"] == {cost.mode: 1}
    assert q["r"] == pytest.approx(float(r_factor_fullband(ie=cost.ie, ta=20)), abs=0.01)


def test_batches_say_where_each_packet_begins() -> None:
    """Also parts of a batch, and batches put together."""
    sent = {(call, k): amr_wb((k + call) % 10) for call in range(3) for k in range(40) if (k + call) % 13}
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, call=leg_id(call), payload=data, timestamp=320 * k, payload_type=96))
        for (call, k), data in sorted(sent.items(), key=lambda item: item[0][1])
    ]
    engine = Engine(EngineConfig(payload_types=PayloadTypes({96: "AMR-WB/16000;octet-align=1"})))
    events = engine.receive(batch_of(arrivals, width=256)) + engine.flush()
    whole = joined([event for event in events if isinstance(event, BlockBatch)])
    some = whole.take(np.arange(1, len(whole), 2))
    again = joined([some, whole.take(np.arange(0, len(whole), 2))])
    for batch in (whole, some, again):
        assert batch.packet_offset is not None
        assert len(batch.packet_offset) == len(batch.packet_frames) + 1
        np.testing.assert_array_equal(batch.packet_offset[batch.packet_first], batch.payload_offset)
        block = np.repeat(np.arange(len(batch)), np.diff(batch.packet_first))
        for k, (begin, end) in enumerate(zip(batch.packet_offset[:-1], batch.packet_offset[1:], strict=True)):
            key = batch.streams[block[k]].call_leg_id, int(batch.packet_rtp_timestamp[k]) // 320
            (call,) = [call for call in range(3) if leg_id(call) == key[0]]
            assert batch.payload[begin:end].tobytes() == sent[call, key[1]]
    assert len(again.packet_frames) == len(whole.packet_frames) == len(sent)


@settings(max_examples=60, deadline=None)
@given(payloads=st.lists(st.one_of(amr_payloads(True), st.binary(max_size=80)), min_size=1, max_size=8), data=st.data())
def test_modes_of_many_payloads_are_those_of_each(payloads: list[bytes], data: st.DataObject) -> None:
    parameter = data.draw(st.sampled_from(["", ";octet-align=0", ";octet-align=1"]))
    codec = parse_codec(f"AMR-WB/16000{parameter}")
    heads = np.full((len(payloads), counts.HEAD_BYTES), 0xA5, np.uint8)
    for row, payload in zip(heads, payloads, strict=True):
        row[: len(payload)] = np.frombuffer(payload[: counts.HEAD_BYTES], np.uint8)
    found = counts.mode_counts(codec, heads, np.array([len(p) for p in payloads]))
    for row, payload in zip(found, payloads, strict=True):
        frames = amr.unpack(payload, wide=True, octet_aligned=amr.octet_aligned(codec)) or []
        assert row.tolist() == [sum(frame.type == mode for frame in frames) for mode in range(9)]


def test_how_long_opus_is_in_each_bandwidth() -> None:
    codec = parse_codec("opus/48000")
    heads = np.zeros((32, counts.HEAD_BYTES), np.uint8)
    heads[:, 0] = np.arange(32) << 3 | 1  # two frames each
    found = counts.mode_counts(codec, heads, np.full(32, 80))
    np.testing.assert_array_equal(120 * found.sum(axis=1), opus.frame_counts(codec, heads, np.full(32, 80)))
    # RFC 6716 table 2: SILK-only NB, MB, WB; hybrid SWB, FB; CELT-only NB, WB, SWB, FB
    table = [0] * 4 + [1] * 4 + [2] * 4 + [3] * 2 + [4] * 2 + [0] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert found.argmax(axis=1).tolist() == table
    assert (np.count_nonzero(found, axis=1) == 1).all()
    with pytest.raises(ValueError, match="no modes"):
        counts.mode_counts(parse_codec("AMR/8000"), heads, np.full(32, 80))


def test_streams_of_all_scales_in_one_batch_say_theirs() -> None:
    told: list[strep.StreamEvent] = []
    sent = {
        0: ("PCMU", 160, bytes(160)), 96: ("L16/16000", 320, bytes(640)),
        97: ("opus/48000", 960, bytes([31 << 3]) * 60),
        98: ("AMR-WB/16000;octet-align=1", 320, amr_wb(8)),
    }  # fmt: skip
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, call=leg_id(kind), payload=data, timestamp=step * k, payload_type=kind))
        for kind, (_, step, data) in sent.items()
        for k in range(1200)
        if k < 600 or k % 3  # a third is lost in the second half
    ]
    meter = QualityMeter(on_event=told.append, window_s=2.0)
    found = feed(meter, arrivals, step=400, types={kind: name for kind, (name, _, _) in sent.items() if kind})
    scales = ["narrowband", "wideband", "fullband", "wideband"]
    assert sorted(q["scale"] for q in found) == sorted(scales)
    assert {(e.stream.codec.name if e.stream.codec else "", e.data["scale"]) for e in told} == {
        ("PCMU", "narrowband"), ("L16", "wideband"), ("opus", "fullband"), ("AMR-WB", "wideband"),
    }  # fmt: skip
    assert all(q["window_s"] == 2.0 for q in found)
    assert all([w["end_s"] for w in q["series"]] == [2.0 * (k + 1) for k in range(12)] for q in found)


def test_an_hour_and_more_is_kept_in_as_many_windows() -> None:
    series = WindowSeries()
    for k in range(5000):
        row = np.full(len(WINDOW_FIELDS), 4.0, np.float32)
        row[:2] = 10 * k, 10
        row[9] = 2.5 if k == 777 else 4.0
        row[11] = 10 * (k + 1)
        series.add(row)
    listed = series.as_list()
    assert len(listed) <= 360
    assert sum(w["duration_s"] for w in listed) == 50_000
    assert [w["start_s"] for w in listed] == np.cumsum([0, *[w["duration_s"] for w in listed[:-1]]]).tolist()
    assert [w["end_s"] for w in listed] == np.cumsum([w["duration_s"] for w in listed]).tolist()
    assert series.mos_min == 2.5
    worst = min(listed, key=lambda w: w["mos_cq"])
    assert worst["mos_cq"] == 2.5
    assert worst["start_s"] <= 7770 < worst["start_s"] + worst["duration_s"]


def test_of_too_many_gaps_the_longest_are_kept() -> None:
    gaps = GapList()
    for k in range(7000):
        gaps.add(1000 * k, 500 if k % 70 == 0 else 160 + k % 3, 2 if k % 2 else 1)
    gaps.shorten()
    assert len(gaps.kept) == 1000
    assert gaps.omitted == 6000
    assert gaps.kept == sorted(gaps.kept)
    assert {gap[0] for gap in gaps.kept if gap[1] == 500} >= {1000 * k for k in range(0, 7000, 140)}


@pytest.mark.parametrize("options", [{"window_s": 0.5}, {"threshold": 5}, {"delay_ms": -1}, {"latency_ms": -1}])
def test_wrong_arguments(options: dict[str, float]) -> None:
    with pytest.raises(strep.ConfigurationError):
        QualityMeter(**options)  # type: ignore[arg-type]


def test_simulated_calls_have_the_loss_that_was_done_to_them() -> None:
    """Gilbert loss, jitter, copies and packets out of order, through the engine: the simulation's truth, exactly."""
    damage = Impairments(loss=0.06, burst=3, duplicate=0.03, reorder=0.03, jitter_ms=30)
    traffic = make_traffic(calls=4, duration_s=20, impairments=damage, seed=11)
    engine, dispatcher = Engine(), Dispatcher([meter := QualityMeter(window_s=5)])
    for part in traffic.batches():
        dispatcher.handle(engine.receive(part))
    dispatcher.handle(engine.flush())
    dispatcher.close(5)
    truth = {t.key: t for t in traffic.truth}
    for report in dispatcher.ended:
        stream = report.stream
        assert stream.call_leg_id is not None
        q = meter.figures(stream)["quality"]
        t = truth[stream.call_leg_id, stream.leg, stream.direction]
        there = np.flatnonzero(t.sent)
        pattern = "".join("01"[int(sent)] for sent in t.sent[there[0] : there[-1] + 1])
        bursts = [m.group() for m in re.finditer(r"0(?:1{0,15}0)+", pattern)]
        inside = "".join(bursts)
        assert q["loss"] == round(pattern.count("0") / len(pattern), 6) == round(t.lost / t.expected, 6)
        assert q["discard"] == 0
        assert q["burst"]["count"] == len(bursts)
        assert q["burst"]["density"] == round(inside.count("0") / len(inside), 5)
        assert q["burst"]["duration_ms"] == round(20 * len(inside) / len(bursts), 2)
        runs = len(re.findall("0+", pattern))
        received = pattern.count("1")
        assert q["burst_r"] == round(max(1.0, t.lost / runs * received / len(pattern)), 4)
        assert sum(w["duration_s"] for w in q["series"]) == pytest.approx(0.02 * len(pattern), abs=1e-3)
        assert [gap[1] for gap in q["gap_list"]] == [round(0.02 * len(r), 4) for r in re.findall("0+", pattern)]
        mine = traffic.stream == traffic.truth.index(t)
        came = np.full(len(t.sent), np.inf)
        np.minimum.at(came, traffic.number[mine], traffic.time_ns[mine])
        delay_ms = came[t.sent] / 1e6 - 20.0 * there
        assert q["jitter_ms"] == pytest.approx(np.abs(np.diff(delay_ms)).mean(), abs=2e-3)
