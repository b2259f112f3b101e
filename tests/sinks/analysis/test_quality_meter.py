"""The quality meter: exact loss and jitter in every window, the same however packets come in batches."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0, Arrival, batch_of, leg_id, packet, steady

import strep
from strep._codecs.payload_types import PayloadTypes
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._model.blocks import BlockBatch
from strep.quality import impairment_of, mos_from_r, r_factor
from strep.simulate import Impairments, make_traffic
from strep.sinks import BaseSink, QualityMeter
from strep.sinks.analysis.quality_series import GapList, WindowSeries


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


@settings(max_examples=15, deadline=None)
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


def test_wideband_has_a_scale_of_its_own() -> None:
    arrivals = [
        Arrival(T0 + 20 * k * MS, packet(k, payload=bytes(640), timestamp=320 * k, payload_type=96))
        for k in range(500)
        if k % 50 != 7
    ]
    (q,) = feed(QualityMeter(), arrivals, types={96: "L16/16000"})
    cost = impairment_of("L16", 16_000)
    assert q["model"] == "G.107.1"
    assert q["r"] > 100
    assert q["basis"] == cost.source
    assert q["loss"] == 10 / 500
    assert q["series"][0]["duration_s"] == 10


def test_an_hour_and_more_is_kept_in_as_many_windows() -> None:
    series = WindowSeries()
    for k in range(5000):
        row = np.full(12, 4.0, np.float32)
        row[:2] = 10 * k, 10
        row[9] = 2.5 if k == 777 else 4.0
        series.add(row)
    listed = series.as_list()
    assert len(listed) <= 360
    assert sum(w["duration_s"] for w in listed) == 50_000
    assert [w["start_s"] for w in listed] == np.cumsum([0, *[w["duration_s"] for w in listed[:-1]]]).tolist()
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
