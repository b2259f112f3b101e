"""Directions of which one pauses, jumps, bursts or restarts, in one file: within 20 ms of each other soon after."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from block_batches import Part, batch_of_blocks, stream
from depth import usual_or_slow
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live import hashes
from support import LEG, T0, run, steady
from told_seconds import BEEP_S, seconds_heard, sound_at

from strep._model.types import Direction, StreamInfo
from strep.sinks import WavSink
from strep.sinks.wav.drift import DriftCorrector

RATE = 8000
SECOND = 1_000_000_000
PACKET = 160
WINDOW = 10 * RATE  # of the clock: in between, the time goes with the position

I16 = npt.NDArray[np.int16]
F64 = npt.NDArray[np.float64]


# --- what an engine makes of a sender ---------------------------------------------------------------------------------


@dataclass
class Timeline:
    """A direction's packets, their positions, and what is known of them at the time. In seconds, except positions.

    ``ppm``: how much too fast the sender's clock runs. ``unsure``: spans of true time, from when something happened
    until it must be mended: what there is to take out has gone into pauses.
    """

    ppm: float = 0.0
    now: float = 0.0
    position: int = 0
    told: float = 0.0  # time less position: what the receiver believes
    since: int = 0  # where the window began
    rows: list[tuple[float, int, float, float]] = field(default_factory=list)  # true time, position, told, arrival
    begins: set[int] = field(default_factory=set)  # packets that begin a block, however blocks are cut
    unsure: list[tuple[float, float]] = field(default_factory=list)

    @property
    def true_offset(self) -> float:
        return self.now - self.position / RATE

    def tell(self) -> None:
        """The receiver has found out; as everywhere, for the middle of the window that begins."""
        self.told = self.true_offset - self.ppm * 1e-6 * WINDOW / RATE / 2
        self.since = self.position
        self.begins.add(len(self.rows))

    def speak(self, seconds: float, *, at_once: bool = False, pace: float = 1.0) -> None:
        """``at_once``: its packets come at its end. ``pace``: as many times as fast as it should."""
        end = self.now + seconds
        while self.now < end:
            if self.position - self.since >= WINDOW:
                self.tell()
            self.rows.append((self.now, self.position, self.told, (end if at_once else self.now) + 0.02))
            self.position += PACKET
            self.now += PACKET / RATE / (1 + self.ppm * 1e-6) / pace

    def happen(self, passes: float, gap: float, proof: float, *, doubted: float = 0.0) -> None:
        """Some time passes without a packet, of which ``gap`` is placed; the truth is told ``proof`` later, and
        believed after no more than ``doubted``."""
        began = self.now
        self.now += passes
        self.position += round(gap * RATE)
        self.begins.add(len(self.rows))
        self.speak(proof)
        self.tell()
        mending = 4.0 + doubted + max(gap - passes, 0.0) / PAUSES
        self.unsure.append((began - 0.1, self.now + mending))
        self.speak(mending)

    def parts(self, info: StreamInfo, samples: I16, cuts: set[int]) -> list[Part]:
        """As blocks: of what may be one, a packet of ``cuts`` begins another."""
        edges = sorted({0, *self.begins, *cuts} & set(range(len(self.rows))))
        parts = []
        for first, end in itertools.pairwise([*edges, len(self.rows)]):
            _, position, told, arrival = self.rows[first]
            before = self.rows[first - 1][1] + PACKET if first else 0
            time_ns = T0 + position * (SECOND // RATE) + round(told * 1e9)
            block = samples[first * PACKET : end * PACKET]
            arrival_ns = T0 + round(arrival * 1e9)
            parts.append(Part(info, position, position - before, block, time_ns=time_ns, arrival_ns=arrival_ns))
        return parts


PAUSES = 0.25  # of the sound are pauses, nearly, of which three fourths can be left out


def sound_of(timeline: Timeline, seed: int) -> I16:
    """A beep at every true second, and talk in three seconds of seven, with pauses of 0.4 s."""
    begin = np.array([row[0] for row in timeline.rows])
    true = (begin[:, None] + np.arange(PACKET) / (RATE * (1 + timeline.ppm * 1e-6))).reshape(-1)
    noise = np.random.default_rng(seed).normal(0, 1, len(true))
    talks = (true % 7 < 3) & (true % 1 > 0.2) & (true % 1 < 0.8)
    return sound_at(true, noise * np.where(talks, 2000, 40))


def directions() -> list[StreamInfo]:
    return [
        replace(stream(d), call_leg_id=LEG, leg_name=str(LEG), stem=f"a-{way}", direction=Direction(d), origin_ns=T0)
        for d, way in enumerate(("inbound", "outbound"))
    ]


def recorded(folder: Path, timelines: list[Timeline], cuts: list[set[int]], **options: Any) -> tuple[I16, list[Any]]:
    """The file, and what correcting took by direction."""
    infos = directions()
    sink = WavSink(folder, **{"layout": "stereo", **options})
    parts: list[Part] = []
    for d, (timeline, info) in enumerate(zip(timelines, infos, strict=True)):
        parts += timeline.parts(info, sound_of(timeline, d), cuts[d])
    parts.sort(key=lambda part: part.arrival_ns or 0)
    for begin in range(0, len(parts), 50):
        batch = sorted(parts[begin : begin + 50], key=lambda part: (part.stream.index, part.position))
        sink.blocks(batch_of_blocks(batch))
        sink.wait_for_room()
    report = run(steady(3)).reports[0]
    for info in infos:
        sink.stream_ended(info, replace(report, stream=info))
    sink.close(60.0)
    assert sink.report()["failed"] is None
    assert sink.dropped_frames == 0
    (path,) = folder.rglob("*.wav")
    return soundfile.read(path, dtype="int16", always_2d=True)[0], [sink.figures(info)["drift"] for info in infos]


def check(channels: I16, timeline: Timeline, since: float = 0.0) -> float:
    """The first channel is ``timeline``'s, the second one is on time. Returns the worst distance, in ms."""
    mine, other = seconds_heard(channels[:, 0]), seconds_heard(channels[:, 1])
    begin = np.array([row[0] for row in timeline.rows])
    length = PACKET / RATE + 1e-4

    def was_sent(at: float) -> bool:
        return bool(((begin <= at) & (at < begin + length)).any())

    sent = {s for s in other if s >= since and was_sent(s) and was_sent(s + BEEP_S)}
    assert sent - set(mine) == set(), "beeps that are not heard, or twice"
    sure = [s for s in sorted(sent) if not any(a <= s < b for a, b in timeline.unsure)]
    assert len(sure) > 15
    apart = np.array([(mine[s] - other[s]) * 1000 for s in sure])
    print(f"{len(sure)} of {len(sent)} beeps, at most {np.abs(apart).max():.2f} ms apart")
    assert np.abs(apart).max() <= 20.0, sure[int(np.abs(apart).argmax())]
    return float(np.abs(apart).max())


# --- the property -----------------------------------------------------------------------------------------------------

_proofs = st.sampled_from([0.1, 0.5, 5.0, 23.0])
_events = st.one_of(
    st.tuples(st.just("pause"), st.sampled_from([0.3, 1.5, 6.0, 30.0]), st.sampled_from([0.0, 0.5, 1.0]), _proofs),
    st.tuples(st.just("jump"), st.sampled_from([0.15, 0.9, 4.0]), st.just(0.0), _proofs),
    st.tuples(st.just("burst"), st.sampled_from([0.5, 5.0]), st.sampled_from([0.0, 1.0]), _proofs),
    st.tuples(st.just("restart"), st.sampled_from([0.2, 3.0, 12.0]), st.sampled_from([0.9, 1.0, 1.2]), _proofs),
)


def played(events: list[tuple[str, float, float, float]], ppm: float) -> Timeline:
    """A pause of which a part has become a gap; a gap that was none; a burst, which looked like a pause for a while; a
    restart whose gap is not quite right."""
    timeline = Timeline(ppm)
    timeline.speak(12)
    for kind, seconds, share, proof in events:
        timeline.speak(-(timeline.now + 0.5) % 1)  # a beep that is cut could be taken for another
        if kind == "burst":
            timeline.unsure.append((timeline.now - 0.1, timeline.now + seconds + 0.5))
            timeline.speak(seconds, at_once=True)
            if share:
                timeline.speak(-(timeline.now + 0.5) % 1)
                timeline.happen(0.0, seconds, proof, doubted=12.0)  # it came faster than real time
        elif kind == "jump":
            timeline.happen(0.0, seconds, proof)
        else:
            timeline.happen(seconds, seconds * share, proof)
        timeline.speak(8)
    timeline.speak(6)
    return timeline


def on_time(seconds: float) -> Timeline:
    other = Timeline()
    other.speak(seconds)
    return other


@given(
    events=st.lists(_events, min_size=1, max_size=3),
    ppm=st.sampled_from([0.0, 40.0, -300.0, 900.0]),
    seed=st.integers(0, 1 << 32),
)
@settings(
    phases=[Phase.generate], max_examples=usual_or_slow(6, 150), deadline=None, suppress_health_check=list(HealthCheck)
)
def test_channels_find_together_after_any_event(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, float, float, float]], ppm: float, seed: int
) -> None:
    timeline = played(events, ppm)
    other = on_time(timeline.now)
    rng = np.random.default_rng(seed)
    found = []
    for count in (0, int(rng.integers(1, 400)), *usual_or_slow((), (len(timeline.rows),))):
        folder = tmp_path_factory.mktemp("split")
        cuts = [set(rng.integers(0, len(t.rows), count).tolist()) for t in (timeline, other)]
        channels, drift = recorded(folder, [timeline, other], cuts)
        found.append((hashes(folder), drift))
    assert all(one == found[0] for one in found)
    check(channels, timeline)
    assert len(channels) / RATE == pytest.approx(timeline.now, abs=2.5 * PACKET / RATE)
    assert drift[1] == {"skew_ppm": drift[1]["skew_ppm"], "inserted": 0, "dropped": 0, "resampled": 0}


@given(ppm=st.floats(-5000, 5000))
@settings(max_examples=usual_or_slow(2, 40), deadline=None, suppress_health_check=list(HealthCheck))
def test_clocks_that_are_far_off_are_followed(tmp_path_factory: pytest.TempPathFactory, ppm: float) -> None:
    timeline = Timeline(ppm, told=-ppm * 5e-6)
    timeline.speak(90)
    timeline.unsure.append((0.0, 31.0))  # until the time has made two steps
    channels, _ = recorded(tmp_path_factory.mktemp("skew"), [timeline, on_time(90)], [set(), set()])
    check(channels, timeline)
    assert len(channels) / RATE == pytest.approx(90, abs=0.04)


def test_what_comes_twice_as_fast_stays_as_it_is(tmp_path: Path) -> None:
    """A minute in half of one, then a minute in real time, which is 30 s late; pauses are shortened then."""
    timeline = Timeline()
    timeline.speak(30, pace=2.0)
    fast = timeline.position
    sound = sound_of(timeline, 0)
    timeline.speak(200)
    channels, (drift, _) = recorded(tmp_path, [timeline, on_time(230)], [set(), set()])
    np.testing.assert_array_equal(channels[:fast, 0], sound[:fast])
    assert drift["dropped"] == pytest.approx(30 * RATE, abs=80)
    check(channels, timeline, since=30 + 12 + 30 / PAUSES)


# --- the corrector alone ----------------------------------------------------------------------------------------------


def corrected(samples: I16, steps: dict[int, int], arrivals: dict[int, int] | None = None) -> tuple[I16, Any]:
    """``steps`` by position: what the time wants added from there on; ``arrivals``: when what is there came."""
    corrector = DriftCorrector(RATE, T0)
    parts = []
    for begin, end in itertools.pairwise(sorted({0, len(samples), *steps})):
        wanted = next((w for at, w in sorted(steps.items(), reverse=True) if at <= begin), 0)
        time_ns = T0 + (begin + wanted) * (SECOND // RATE)
        arrival_ns = T0 + arrivals[begin] * (SECOND // RATE) if arrivals and begin in arrivals else time_ns
        parts += corrector.process(begin, samples[begin:end], time_ns, arrival_ns)
    parts += corrector.flush()
    out = np.zeros(parts[-1][0] + len(parts[-1][1]), np.int16)
    for at, part in parts:
        out[at : at + len(part)] = part
    return out, corrector


def noise(frames: int, rms: float = 3000.0) -> I16:
    return np.random.default_rng(frames).normal(0, rms, frames).astype(np.int16)


def test_much_that_is_missing_is_put_into_the_first_pause() -> None:
    first, second = noise(RATE), noise(RATE // 2)
    samples = np.concatenate([first, np.zeros(1600, np.int16), second])
    out, corrector = corrected(samples, {1600: 40 * RATE})
    assert (corrector.inserted, corrector.dropped, corrector.resampled) == (40 * RATE, 0, 0)
    np.testing.assert_array_equal(out[:RATE], first)
    assert not out[RATE : 41 * RATE + 1600].any()
    np.testing.assert_array_equal(out[41 * RATE + 1600 :], second)


def test_without_a_pause_it_is_put_in_after_two_seconds() -> None:
    """The sound fades for 5 ms; nothing is lost."""
    samples = noise(5 * RATE)
    out, corrector = corrected(samples, {1600: 3 * RATE})
    assert corrector.inserted == 3 * RATE
    assert len(out) == 8 * RATE
    at = int(np.flatnonzero(samples != out[: len(samples)])[0])
    assert at == pytest.approx(1600 + 2 * RATE, abs=160)
    silent = np.flatnonzero(np.convolve(out != 0, np.ones(200), "same") == 0)
    assert silent.size == pytest.approx(3 * RATE, abs=400)
    np.testing.assert_array_equal(out[at + 3 * RATE + 100 :], samples[at + 100 :])


def test_what_is_too_late_loses_pauses_only() -> None:
    """2 s too late: pauses become a fourth of what they were, all sound stays as it was."""
    words = [noise(3200 + 160 * (i % 3)) for i in range(12)]
    pause = np.zeros(3200, np.int16)
    samples = np.concatenate([piece for word in words for piece in (word, pause)])
    arrivals = {0: 0, 1600: 1600}
    out, corrector = corrected(samples, {1600: -2 * RATE}, arrivals)
    assert corrector.dropped == pytest.approx(2 * RATE, abs=8)
    assert corrector.inserted == 0
    assert corrector.resampled < 0.1 * len(samples)
    for word in words[:6]:  # then it is 100 ms too late, which is drift
        assert word.tobytes() in out.tobytes()
    assert len(out) == len(samples) - corrector.dropped


def test_nothing_is_put_in_past_the_arrival_of_what_is_behind() -> None:
    samples = np.zeros(4 * RATE, np.int16)
    out, corrector = corrected(samples, {RATE: 100 * RATE}, {RATE: 3 * RATE})
    assert corrector.inserted == 3 * RATE  # it arrived 2 s after its position, and a second more
    assert len(out) == 7 * RATE


@given(st.integers(0, 1 << 32))
@settings(max_examples=usual_or_slow(30, 1000), deadline=None)
def test_no_time_makes_files_longer_than_their_streams(seed: int) -> None:
    """Any steps, there and back: what comes in real time ends no later than a second after its arrival."""
    rng = np.random.default_rng(seed)
    samples = (rng.normal(0, 1, 20 * RATE) * np.repeat(rng.random(50) < 0.5, 3200) * 3000).astype(np.int16)
    at = [0, *np.unique(rng.integers(1, len(samples), 12)).tolist()]
    reach = 10 ** rng.uniform(1, 9)
    steps = {p: int(rng.uniform(-reach, reach)) for p in at}
    out, corrector = corrected(samples, steps, {p: p for p in at})
    assert len(out) <= len(samples) + RATE + 1
    assert len(out) == len(samples) + corrector.inserted - corrector.dropped
