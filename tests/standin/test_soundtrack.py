"""What packets hold while something is played: the arrays against a look at one packet after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0

from strep._codecs.g711 import decode, encode
from strep.simulate.packets import wire_codec
from strep.standin import _soundtrack
from strep.standin._call import Call, MediaFork
from strep.standin._calls import Calls
from strep.standin._media import MediaPlan
from strep.standin._playlist import Clip, Item, Speech
from strep.standin._soundtrack import Soundtrack

PCMU = wire_codec("PCMU")
FRAMES = 4  # short packets: the more of them


def clip_of(seed: int, packets: int, frames: int = FRAMES) -> Clip:
    samples = np.random.default_rng(seed).integers(-32768, 32767, (packets, frames)).astype(np.int16)
    return Clip(samples, packets * 20 * MS)


CLIPS = [clip_of(seed, packets) for seed, packets in ((1, 1), (2, 3), (3, 10))]
PLAYS = st.tuples(
    st.integers(0, 3),  # call
    st.integers(0, 10),  # packets since the one before ended, or began
    st.sampled_from(CLIPS),
    st.sampled_from([1, 2, None]),
    st.booleans(),  # whether it is an overlay
    st.none() | st.integers(0, 30),  # stopped after so many packets
)


@given(st.lists(PLAYS, max_size=15), st.sampled_from(["PCMU", "PCMA", "L16/8000"]), st.integers(0, 99))
@settings(max_examples=usual_or_slow(80, 800), deadline=None)
def test_it_is_what_one_packet_after_the_other_gives(plays: list[Any], codec_name: str, seed: int):
    codec = wire_codec(codec_name)
    track = Soundtrack(codec, len(encode(codec, np.zeros(FRAMES, np.int16))))
    told: list[tuple[int, int, int, Clip, bool]] = []  # call, first, end, what, overlay
    free = [0] * 4
    for item, (call, pause, clip, loops, overlay, stopped) in enumerate(plays):
        first = free[call] + pause
        end = 1 << 30 if loops is None else first + loops * len(clip.samples)
        track.play(item, call, first, clip, loops, overlay=overlay)
        if stopped is not None or loops is None:
            end = min(end, first + (stopped or 0))
            track.stop(item, end)
        told.append((call, first, end, clip, overlay))
        if not overlay:
            free[call] = end
    number = np.tile(np.arange(120), 5)
    call = np.repeat([-1, 0, 1, 2, 3], 120)
    order = np.random.default_rng(seed).permutation(len(number))
    call, number = call[order], number[order]
    voices = np.random.default_rng(seed).integers(0, 256, (len(number), track._payloads.shape[1])).astype(np.uint8)
    payloads = voices.copy()
    track.write(payloads, call, number)
    for row in range(len(number)):
        expected = voices[row]
        for overlays in (False, True):
            for which, first, end, clip, overlay in told:
                if overlay is overlays and which == call[row] and first <= number[row] < end:
                    samples = clip.samples[(number[row] - first) % len(clip.samples)]
                    if overlay:
                        below = decode(codec, expected).astype(int)
                        samples = np.clip(below + samples, -32768, 32767).astype(np.int16)
                    expected = encode(codec, samples)
        assert payloads[row].tobytes() == expected.tobytes(), (call[row], number[row])


def test_what_is_over_is_forgotten_and_what_is_not_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_soundtrack, "_SEGMENTS_KEPT", 20)
    monkeypatch.setattr(_soundtrack, "_OVERLAYS_KEPT", 5)
    track = Soundtrack(PCMU, FRAMES)
    steady = clip_of(7, 5)
    track.play(0, 0, 0, steady, None)
    track.play(1, 1, 0, clip_of(8, 2), None, overlay=True)
    for item in range(2, 1000):
        track.play(item, 2, 10 * item, clip_of(item, 3), 1, overlay=item % 2 == 0)
        track.stop(item, 10 * item + 3)
        assert track._segments.shape[1] <= 21
        assert len(track._overlays) <= 7
        assert len(track._payloads) < 300
        assert len(track._clips) <= 21
    payloads = np.zeros((3, FRAMES), np.uint8)
    track.write(payloads, np.array([0, 1, 2]), np.array([9, 9, 9992]))
    assert payloads[0].tobytes() == encode(PCMU, steady.samples[4]).tobytes()
    assert payloads[1].any()
    assert payloads[2].tobytes() == encode(PCMU, clip_of(999, 3).samples[2]).tobytes()


def test_the_same_clip_on_many_calls_is_kept_once():
    track = Soundtrack(PCMU, FRAMES)
    clip = clip_of(1, 50)
    for call in range(1000):
        track.play(call, call, call, clip, 1)
    assert track._used == 50
    payloads = np.zeros((1000, FRAMES), np.uint8)
    calls = np.arange(1000)
    track.write(payloads, calls, calls + 7)
    assert (payloads == encode(PCMU, clip.samples[7])).all()


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "L16/16000", "L16/44100/2"])
def test_the_plans_packets_hold_it_from_the_next_one_on_and_the_truth_says_so(codec: str):
    plan = MediaPlan(codec=codec, ptime_ms=20, seed=1)
    calls = Calls(calls=3, now_ns=T0, seed=1)
    calls.advance(T0)
    call: Call = calls.all[1]
    fork = MediaFork(0, call, None, None, None, "raw", T0)
    plan.start(fork)
    values = plan.frames * plan.codec.channels
    clip = clip_of(3, 30, values)
    item = Item(5, Speech("x"), clip=clip)
    sent: dict[tuple[int, int], bytes] = {}

    def send(now_ns: int) -> None:
        due = plan.due(now_ns)
        slab = plan.datagrams(due, strep=False)
        for row, number, datagram in zip(due.row.tolist(), due.number.tolist(), slab, strict=True):
            sent[row & 1, number] = datagram[12:].tobytes()

    send(T0 + 400 * MS)
    late = T0 + 350 * MS  # it is due when packets of that time have left already
    plan.play(call, item, late)
    send(T0 + 700 * MS)
    plan.silence(call, item, T0 + 700 * MS)
    send(T0 + 2000 * MS)
    plan.stop(fork)
    other = MediaPlan(codec=codec, ptime_ms=20, seed=1)
    other.start(fork)
    other.due(T0 + 2000 * MS)
    other.stop(fork)
    for which in (0, 1):
        (truth, plain) = plan.truth(1)[which], other.truth(1)[which]
        payloads = [sent[which, number] for number in range(len(truth.payloads))]
        assert payloads == [payload.tobytes() for payload in truth.payloads]
        differs = [n for n, (a, b) in enumerate(zip(truth.payloads, plain.payloads, strict=True)) if (a != b).any()]
        if which == 0:
            assert differs == []
        else:
            first = min(differs)
            assert T0 + 400 * MS < T0 + (first + 1) * 20 * MS <= T0 + 440 * MS
            assert differs == list(range(first, first + 15))  # 300 ms of it: until the stop
            heard = np.concatenate([truth.payloads[n] for n in differs])
            assert heard.tobytes() == encode(plan.codec, clip.samples[:15].reshape(-1)).tobytes()
