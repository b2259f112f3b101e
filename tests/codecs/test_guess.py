"""What a payload type is that nobody named: by payloads, timestamps and arrival times; never a wrong rate."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import MS, T0, Arrival, packet, payload_of, run

from strep._codecs.decoder import available
from strep._codecs.encoder import make_encoder
from strep._codecs.facts import parse_codec
from strep._codecs.g711 import PCMA, PCMU, encode, likelier_law
from strep._codecs.payload_types import PayloadTypes
from strep._engine.outlet.guess import PACKETS_TO_GIVE_UP, PACKETS_TO_GUESS, Observation, guess
from strep._model.types import Codec

CANDIDATES = PayloadTypes().candidates
RATES = (8000, 16_000, 24_000, 32_000, 44_100, 48_000)
needs_codecs = pytest.mark.skipif(not available(parse_codec("G722")), reason="pip install '.[codecs]'")


def first_guess(packets: list[Observation]) -> Codec | str | None:
    """What is made of them, one after the other."""
    for count in range(PACKETS_TO_GUESS, min(len(packets), PACKETS_TO_GIVE_UP) + 1):
        found = guess(packets[:count], CANDIDATES)
        if found is not None:
            return found
    return None


def observed(step: int, length: int, ms: float, *, late: list[float], lost: set[int], payload: bytes = b"\0") -> list:
    return [
        Observation(k, (0xFFFF_FF00 + step * k) & 0xFFFF_FFFF, length, payload, T0 + int((ms * k + late[k]) * MS))
        for k in range(PACKETS_TO_GIVE_UP)
        if k not in lost
    ]


def ptimes(rate: int) -> list[int]:
    return [ms for ms in (5, 10, 20, 30, 40, 60) if rate * ms % 1000 == 0]


@pytest.mark.parametrize(("rate", "ms"), [(rate, ms) for rate in RATES for ms in ptimes(rate)])
def test_linear_audio_of_every_rate_and_length(rate: int, ms: int) -> None:
    """Packets that come as they were sent: known after five of them."""
    step = rate * ms // 1000
    packets = observed(step, 2 * step, ms, late=[0.0] * PACKETS_TO_GIVE_UP, lost=set())[:PACKETS_TO_GUESS]
    assert first_guess(packets) == Codec("L16", rate, rate, 1, 2)


def test_a_first_packet_that_is_late_does_not_decide() -> None:
    """40 ms of 24 kHz, the first packet 25 ms late: not 30 ms of 32 kHz."""
    for late in range(0, 40, 5):
        packets = observed(960, 1920, 40, late=[float(late), *[0.0] * (PACKETS_TO_GIVE_UP - 1)], lost=set())
        for count in range(PACKETS_TO_GUESS, len(packets) + 1):
            assert first_guess(packets[:count]) in (None, Codec("L16", 24_000, 24_000, 1, 2))


@given(st.sampled_from(RATES), st.data())
def test_linear_audio_is_never_taken_for_another_rate(rate: int, data: st.DataObject) -> None:
    """Each packet may be late by a whole packet, some are lost; also when all come at once: then nothing is guessed."""
    ms = data.draw(st.sampled_from(ptimes(rate)))
    step = rate * ms // 1000
    late = data.draw(
        st.lists(st.floats(0, 0.9 * ms), min_size=PACKETS_TO_GIVE_UP, max_size=PACKETS_TO_GIVE_UP), label="late"
    )
    lost = data.draw(st.sets(st.integers(0, PACKETS_TO_GIVE_UP - 1), max_size=5), label="lost")
    assert first_guess(observed(step, 2 * step, ms, late=late, lost=lost)) in (None, Codec("L16", rate, rate, 1, 2))
    at_once = observed(step, 2 * step, 0.0, late=[0.001 * k for k in range(PACKETS_TO_GIVE_UP)], lost=lost)
    assert first_guess(at_once) is None


def sounds() -> dict[str, npt.NDArray[np.int16]]:
    """A second of each, int16 at 8 kHz."""
    rng, t = np.random.default_rng(5), np.arange(8000) / 8000
    vowel = sum(np.sin(2 * np.pi * 120 * n * t) / n for n in range(1, 12)) * (1.2 + np.sin(2 * np.pi * 4 * t))
    made = {
        "silence": np.zeros(8000),
        "noise of a room": rng.normal(0, 20, 8000),
        "ringing": 3000 * (np.sin(2 * np.pi * 440 * t) + np.sin(2 * np.pi * 480 * t)),
        "digit": 5000 * (np.sin(2 * np.pi * 941 * t) + np.sin(2 * np.pi * 1633 * t)),
        "vowel": 4000 * vowel,
    }
    return {name: np.clip(sound, -32_768, 32_767).astype(np.int16) for name, sound in made.items()}


@pytest.mark.parametrize("law", [PCMU, PCMA], ids=str)
@pytest.mark.parametrize("name", sounds())
def test_the_law_of_sound_is_told(name: str, law: Codec) -> None:
    """Of each 100 ms."""
    coded = encode(law, sounds()[name])
    assert {likelier_law(coded[a : a + 800]) for a in range(0, 7200, 800)} == {law}


def test_what_is_no_sound_has_no_law() -> None:
    rng = np.random.default_rng(1)
    assert {likelier_law(rng.integers(0, 256, 800, np.uint8)) for _ in range(200)} == {None}
    assert [likelier_law(np.zeros(n, np.uint8)) for n in (0, 1)] == [None, None]


@needs_codecs
@pytest.mark.parametrize("name", ["ringing", "digit", "vowel"])
def test_g722_is_not_taken_for_g711(name: str) -> None:
    """As many bytes a packet, and as many ticks. Of each 100 ms."""
    wide = np.repeat(sounds()[name], 2)
    encoder = make_encoder(parse_codec("G722"), 320)
    coded = np.frombuffer(b"".join(encoder.encode(wide[a : a + 320]) for a in range(0, 16_000, 320)), np.uint8)
    assert {likelier_law(coded[a : a + 800]) for a in range(0, 7200, 800)} == {None}


@pytest.mark.parametrize("law", [PCMU, PCMA], ids=str)
def test_g711_of_a_type_that_nobody_named(law: Codec) -> None:
    sound = encode(law, sounds()["vowel"])
    parts = [sound[160 * k : 160 * k + 160].tobytes() for k in range(50)]
    arrivals = [Arrival(T0 + 20 * k * MS, packet(k, payload=p, payload_type=120)) for k, p in enumerate(parts)]
    whole = run(arrivals)
    audio, report = whole.only()
    assert (report.stream.codec, report.stream.codec_guessed, report.undecoded) == (law, True, 5)
    assert len(audio) == 45 * 160
    np.testing.assert_array_equal(encode(law, audio), sound[5 * 160 :])
    (notice,) = whole.notices
    assert "guess" in notice
    assert "the sound" in notice
    single = run(arrivals, cuts=range(1, 50), live=True, ticking=True)
    np.testing.assert_array_equal(single.audio[0], audio)


def dialled(digits: str, reports: int, *, between: bool = False) -> list[Arrival]:
    """Speech of 200 ms and a key, again and again: ``reports`` and three ends of an unnamed type, in 20 ms packets.
    ``between``: audio goes on between them."""
    sent: list[Arrival] = []
    slot = 0

    def send(payload: bytes, payload_type: int, at: int) -> None:
        data = packet(len(sent), timestamp=160 * at, payload=payload, payload_type=payload_type)
        sent.append(Arrival(T0 + slot * 20 * MS + len(sent) * 1000, data))

    for digit in digits:
        for _ in range(10):
            send(payload_of(slot), 0, slot)
            slot += 1
        begin = slot
        for k in range(reports + 3):
            end = k >= reports
            duration = 160 * min(k + 1, reports)
            send(struct.pack("!BBH", int(digit), end << 7 | 10, duration), 96, begin)
            if between:
                send(payload_of(slot), 0, slot)
            slot += 1
    return sent


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("reports", [1, 2, 3, 8])
def test_the_keys_that_a_guess_was_made_from_are_told(reports: int, between: bool) -> None:
    arrivals = dialled("1234", reports, between=between)
    whole = run(arrivals)
    (report,) = whole.reports
    told = whole.events[report.stream.serial]
    assert [(data["digit"], duration) for _, _, _, duration, data in told] == [(d, 0.02 * reports) for d in "1234"]
    slots = 10 + reports + 3
    assert [position for _, position, *_ in told] == [160 * (slots * n + 10) for n in range(4)]
    assert (report.undecoded, whole.totals.delivered, whole.totals.dropped) == (0, len(arrivals), 0)
    for cuts, live in ((range(1, len(arrivals)), True), (range(0, len(arrivals), 3), False)):
        other = run(arrivals, cuts=cuts, live=live)
        assert (other.events, other.totals) == (whole.events, whole.totals)
        assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
