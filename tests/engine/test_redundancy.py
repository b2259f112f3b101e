"""Redundant audio data (RFC 2198): copies stand in for what the network lost, sample by sample; the accounts say what
the network did."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from captures import capture_file
from commands import strep_command
from depth import usual_or_slow
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from red import RED, RedSender, parsed, red
from support import MS, T0, Arrival, Result, batch_of, packet, payload_of, pcmu, run

from strep._codecs.payload_types import PayloadTypes
from strep._engine import insertion
from strep._engine.engine import Engine, EngineConfig
from strep._engine.streams.recovery import Copies
from strep._engine.streams.ring import JitterRing, RingPackets
from strep._engine.streams.timeline import Timeline
from strep._parser.redundant import MAX_BLOCKS, RedFault, parse_redundant

NAMED = EngineConfig(payload_types=PayloadTypes({RED: "red/8000", 96: "L16/8000"}))
WIDE = 2048


def heard(sender: RedSender, k: int) -> npt.NDArray[np.int16]:
    payload = sender.payloads[k]
    return pcmu(payload) if sender.payload_type == 0 else np.frombuffer(payload, ">i2").astype(np.int16)


def sent(sender: RedSender, kept: Sequence[int], **options: object) -> list[Arrival]:
    return [Arrival(T0 + k * 20 * MS, sender.packet(k, **options)) for k in kept]


def g711(count: int, distances: Sequence[int] = (1,), **options: object) -> RedSender:
    return RedSender([payload_of(7 * k + 1) for k in range(count)], distances, **options)  # type: ignore[arg-type]


def covered(lost: set[int], distances: Sequence[int], count: int) -> set[int]:
    """The oracle: which lost packets another one brings."""
    return {k for k in lost if any(k + d < count and k + d not in lost for d in distances)}


def assert_heard(result: Result, sender: RedSender, there: set[int]) -> None:
    """Every packet's samples in their place; silence where a packet is not there."""
    audio = result.only()[0].reshape(-1)
    for k in range(len(sender.payloads)):
        at = sender.timestamp(k) - sender.timestamp(0)
        expected = heard(sender, k) if k in there else np.zeros(sender.frames, np.int16)
        np.testing.assert_array_equal(audio[at : at + sender.frames], expected, str(k))


# --- payloads ---------------------------------------------------------------------------------------------------------


@given(
    payloads=st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                lambda blocks, rest: red([(pt, ticks, bytes(n)) for pt, ticks, n in blocks], 8, rest),
                st.lists(
                    st.tuples(st.integers(0, 127), st.integers(0, 16383), st.integers(0, 40)), max_size=MAX_BLOCKS + 2
                ),
                st.binary(max_size=20),
            ).flatmap(lambda whole: st.integers(0, len(whole)).map(lambda n: whole[:n])),
        ),
        min_size=1,
        max_size=12,
    ),
    before=st.integers(0, 30),
)
@settings(max_examples=usual_or_slow(80, 3000), deadline=None)
def test_any_bytes_are_read_as_the_rfc_says(payloads: list[bytes], before: int) -> None:
    width = before + max(map(len, payloads))
    slab = np.full((len(payloads), max(width, 1)), 0xFF, np.uint8)
    for i, payload in enumerate(payloads):
        slab[i, before : before + len(payload)] = np.frombuffer(payload, np.uint8)
    offset = np.full(len(payloads), before, np.int32)
    length = np.array([len(payload) for payload in payloads], np.int32)
    found = parse_redundant(slab, np.arange(len(payloads)), offset, length)
    for i, payload in enumerate(payloads):
        right = parsed(payload, MAX_BLOCKS)
        assert RedFault(int(found.fault[i])).label == (right.fault or "red_none")
        mine = (found.packet == i).nonzero()[0]
        blocks = [
            (
                int(found.block_payload_type[m]),
                int(found.ticks[m]),
                slab[i, found.block_offset[m] : found.block_offset[m] + found.block_length[m]].tobytes(),
            )
            for m in mine
        ]
        assert blocks == right.blocks
        assert found.rank[mine].tolist() == list(range(len(blocks), 0, -1))
        if not right.fault:
            primary = slab[i, found.offset[i] : found.offset[i] + found.length[i]].tobytes()
            assert (found.payload_type[i], primary) == (right.payload_type, right.payload)


CONTRADICTIONS = {
    "red_cut": [b"", b"\x80", b"\x80\x02\x80", b"\x80\x02\x80\x00"],
    "red_length": [red([(0, 160, bytes(160))], 0, b"")[:-1], b"\x80\x02\x83\xff\x00" + bytes(900)],
    "red_chain": [b"\x80\x02\x80\x00" * 200, red([(0, 160, b"")] * (MAX_BLOCKS + 1), 0, bytes(160))],
    "red_nested": [red([], RED, red([], 0, bytes(160))), red([(0, 160, bytes(9))], RED, b"\x00")],
}


@pytest.mark.parametrize(("cause", "payload"), [(c, p) for c, some in CONTRADICTIONS.items() for p in some])
def test_payloads_that_contradict_themselves_are_counted_by_cause(cause: str, payload: bytes) -> None:
    """It is a packet that came, so nothing is lost; its audio is there if the next one brings a copy."""
    sender = g711(60)
    arrivals = sent(sender, range(60))
    arrivals[30] = Arrival(arrivals[30].ns, packet(30, timestamp=30 * 160, payload=payload, payload_type=RED))
    result = run(arrivals, width=WIDE, config=NAMED)
    report = result.only()[1]
    assert result.totals.dropped_by == {cause: 1}
    assert (report.packets_received, report.packets_lost, report.undecoded, report.recovered) == (60, 0, 1, 0)
    assert [text for text in result.notices if "contradict" in text] == [
        f"payload type {RED}: packets whose redundant audio data contradict themselves"
    ]
    assert report.payload_types == [0, RED]
    assert_heard(result, sender, set(range(60)) - {30})


@pytest.mark.parametrize(
    ("cause", "block"),
    [
        ("nested", (RED, 160, bytes(160))),
        ("payload_type", (77, 160, bytes(160))),
        ("payload_type", (101, 160, bytes(5))),  # no report of a key press is so long
        ("offset", (0, 0, bytes(160))),
    ],
)
def test_blocks_that_no_use_can_be_made_of_are_counted_by_cause(cause: str, block: tuple[int, int, bytes]) -> None:
    sender = g711(60, ())
    arrivals = sent(sender, [k for k in range(60) if k != 29])
    arrivals[29] = Arrival(
        arrivals[29].ns, packet(30, timestamp=30 * 160, payload=red([block], 0, sender.payloads[30]), payload_type=RED)
    )
    result = run(arrivals, width=WIDE, config=NAMED)
    assert result.totals.unused_copies_by == {cause: 1}
    assert (result.totals.dropped, result.totals.recovered) == (0, 0)
    assert_heard(result, sender, set(range(60)) - {29})


@pytest.mark.parametrize("ticks", [64 * 160, 16383])
def test_a_copy_from_before_all_that_is_remembered_is_counted(ticks: int) -> None:
    sender = g711(200, ())
    arrivals = sent(sender, [k for k in range(200) if k != 149])
    whole = red([(0, ticks, bytes(160))], 0, sender.payloads[150])
    arrivals[149] = Arrival(arrivals[149].ns, packet(150, timestamp=150 * 160, payload=whole, payload_type=RED))
    result = run(arrivals, width=WIDE, config=NAMED)
    assert result.totals.unused_copies_by == {"too_old": 1}
    assert_heard(result, sender, set(range(200)) - {149})


# --- loss -------------------------------------------------------------------------------------------------------------


def test_every_second_packet_lost_leaves_no_gap() -> None:
    sender = g711(100)
    result = run(sent(sender, [0, *range(1, 100, 2)]), width=WIDE, config=NAMED)
    report = result.only()[1]
    assert (report.packets_lost, report.recovered, report.gap_samples, report.gaps) == (49, 49, 0, {})
    assert (result.totals.delivered, result.totals.recovered) == (51, 49)
    assert_heard(result, sender, set(range(100)))


@given(
    distances=st.sampled_from([(1,), (2,), (1, 2), (1, 3), (3,), (1, 2, 3, 4)]),
    linear=st.booleans(),
    lost=st.lists(st.tuples(st.integers(2, 110), st.integers(1, 9)), max_size=12),
    first=st.sampled_from([0, 65_470]),
    first_timestamp=st.sampled_from([0, 0xFFFF_F000]),
    cuts=st.lists(st.integers(1, 119), max_size=12),
    live=st.booleans(),
    ticking=st.booleans(),
    prompt=st.booleans(),
)
@example((2,), True, [(20, 1), (30, 2), (40, 3), (60, 9)], 65_470, 0xFFFF_F000, [], True, True, True)
@settings(max_examples=usual_or_slow(12, 1000), deadline=None, suppress_health_check=list(HealthCheck))
def test_what_copies_cover_is_heard_exactly(
    distances: Sequence[int],
    linear: bool,
    lost: list[tuple[int, int]],
    first: int,
    first_timestamp: int,
    cuts: list[int],
    live: bool,
    ticking: bool,
    prompt: bool,
) -> None:
    count = 120
    payloads = [payload_of(7 * k + 1, 320 if linear else 160) for k in range(count)]
    sender = RedSender(payloads, distances, 96 if linear else 0, first=first, first_timestamp=first_timestamp)
    gone = {k for at, length in lost for k in range(at, min(at + length, count - 1))}
    kept = [k for k in range(count) if k not in gone]
    cuts = sorted(c for c in cuts if c < len(kept))
    result = run(sent(sender, kept), cuts=cuts, live=live, ticking=ticking, prompt=prompt, width=WIDE, config=NAMED)
    report = result.only()[1]
    back = covered(gone, distances, count)
    assert (report.packets_received, report.packets_lost, report.late) == (len(kept), len(gone), 0)
    assert report.recovered == result.totals.recovered == len(back)
    assert report.gap_samples == 160 * len(gone - back)
    assert set(report.gaps) <= {"loss"}
    assert result.totals.unused_copies_by == {}
    assert_heard(result, sender, set(kept) | back)


@pytest.mark.parametrize("length", [30, 44, 45, 100, 1000])
@pytest.mark.parametrize("live", [False, True])
def test_copies_cover_the_end_of_a_loss_of_any_length(length: int, live: bool) -> None:
    sender = g711(50 + length + 50, (1, 2))
    gone = set(range(50, 50 + length))
    kept = [k for k in range(len(sender.payloads)) if k not in gone]
    result = run(sent(sender, kept), live=live, width=WIDE, config=NAMED)
    report = result.only()[1]
    back = covered(gone, (1, 2), len(sender.payloads))
    assert (report.packets_lost, report.recovered, report.restarts) == (length, len(back), 0)
    assert report.gaps == {"loss": 160 * (length - len(back))}
    assert_heard(result, sender, set(kept) | back)


def test_a_copy_after_a_silence_stands_for_the_last_packet_before_it() -> None:
    """Its offset spans the silence: 50 packets in time, one in sequence."""
    sender = g711(60, skips={30: 50 * 160})
    result = run(sent(sender, [k for k in range(60) if k != 29]), width=WIDE, config=NAMED)
    report = result.only()[1]
    assert (report.recovered, report.gaps) == (1, {"silence": 50 * 160})
    assert_heard(result, sender, set(range(60)))


# --- what comes late, twice, out of order -----------------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("prompt", [False, True])
def test_a_packet_that_comes_in_time_wins_over_its_copy(live: bool, prompt: bool) -> None:
    """Every fifth packet comes 50 ms late, behind two others that bring copies of other samples."""
    sender = g711(100, (1, 2))
    liar = RedSender([bytes([0x55]) * 160] * 100, (1, 2))
    arrivals = []
    for k in range(100):
        real = sender.packet(k)
        if k % 5 in (1, 2) and k > 5:
            blocks = [(0, d * 160, liar.payloads[k - d]) for d in (2, 1)]
            real = packet(k, timestamp=k * 160, payload=red(blocks, 0, sender.payloads[k]), payload_type=RED)
        arrivals.append(Arrival(T0 + k * 20 * MS + (50 * MS if k % 5 == 0 and k > 5 else 0), real))
    result = run(sorted(arrivals, key=lambda a: a.ns), live=live, prompt=prompt, width=WIDE, config=NAMED)
    report = result.only()[1]
    assert (report.packets_lost, report.late, report.duplicates, report.recovered) == (0, 0, 0, 0)
    assert_heard(result, sender, set(range(100)))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("delay_ms", [201, 212, 300, 900])
def test_a_packet_that_comes_after_its_copy_was_taken_is_late(live: bool, prompt: bool, delay_ms: int) -> None:
    """And once more, when it is a duplicate: as if there were no copies."""
    sender = g711(120)
    arrivals = sent(sender, [k for k in range(120) if k != 50])
    arrivals += [Arrival(T0 + 51 * 20 * MS + (delay_ms + n) * MS, sender.packet(50)) for n in (10, 15)]
    arrivals.sort(key=lambda a: a.ns)
    result = run(arrivals, live=live, ticking=True, prompt=prompt, width=WIDE, config=NAMED,
                 cuts=range(1, len(arrivals)))  # fmt: skip
    report = result.only()[1]
    assert (report.packets_lost, report.late, report.duplicates, report.recovered) == (0, 1, 1, 1)
    assert (result.totals.late, result.totals.duplicate, result.totals.delivered) == (1, 1, 119)
    assert_heard(result, sender, set(range(120)))


@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(1, 299), max_size=20), live=st.booleans(),
       ticking=st.booleans(), prompt=st.booleans())  # fmt: skip
@settings(max_examples=usual_or_slow(4, 300), deadline=None, suppress_health_check=list(HealthCheck))
def test_the_outcome_does_not_depend_on_how_packets_are_cut(
    seed: int, cuts: list[int], live: bool, ticking: bool, prompt: bool
) -> None:
    """Two streams, one of an unnamed type, with loss, copies, disorder, late packets, contradictions."""
    rng = np.random.default_rng(seed)
    senders = (g711(150, (1, 2)), g711(150, (2,), red_type=119))
    arrivals = []
    for s, sender in enumerate(senders):
        for k in range(150):
            ns = (
                T0 + k * 20 * MS + int(rng.integers(0, 12 * MS)) + int(rng.random() < 0.1) * int(rng.integers(350 * MS))
            )
            data = sender.packet(k, direction=s, ssrc=s + 1)
            if rng.random() < 0.02:
                data = data[: -int(rng.integers(1, 330))]
            if k < 3 or rng.random() > 0.15:
                arrivals += [Arrival(ns + n * MS, data) for n in range(1 + int(rng.random() < 0.05))]
    arrivals.sort(key=lambda a: a.ns)
    whole = run(arrivals, width=WIDE, config=NAMED)
    cuts = sorted(c for c in cuts if c < len(arrivals))
    other = run(arrivals, cuts=cuts, live=live, ticking=ticking, prompt=prompt, width=WIDE, config=NAMED)
    assert other.totals == whole.totals
    assert whole.totals.recovered > 0
    assert [r.as_dict() for r in other.reports] == [r.as_dict() for r in whole.reports]
    for serial, samples in whole.audio.items():
        np.testing.assert_array_equal(other.audio[serial], samples)


# --- keys -------------------------------------------------------------------------------------------------------------


def report_of(event: int, duration: int, *, end: bool = False) -> bytes:
    return struct.pack(">BBH", event, end << 7 | 10, duration)


@pytest.mark.parametrize("lost", [set(), {40, 41}, {44, 45, 46}, {43, 44}, {41, 43, 45}])
def test_a_key_press_in_redundant_data_is_told_once(lost: set[int]) -> None:
    """RFC 4733 2.5.1.4: packets of a press bring the last report of the press before once more."""
    audio = g711(100)
    arrivals = []
    keys = {range(40, 45): 5, range(45, 50): 7}
    for k in range(100):
        data = audio.packet(k)
        for during, key in keys.items():
            if k in during:
                start = during[0]
                blocks = [(101, 5 * 160, report_of(5, 800, end=True))] if key == 7 else []
                last = k == during[-1]
                body = report_of(key, 160 * (k - start + 1), end=last)
                data = packet(k, timestamp=start * 160, payload=red(blocks, 101, body), payload_type=RED)
        if k not in lost:
            arrivals.append(Arrival(T0 + k * 20 * MS, data))
    result = run(arrivals, width=WIDE, config=NAMED)
    told = [(event[4]["digit"], round(float(event[3]), 2)) for event in result.events[0]]  # type: ignore[index, arg-type]
    assert told == [("5", 0.1), ("7", 0.1)]
    assert result.totals.dropped == 0


# --- types that nobody named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distances", [(1,), (1, 2), (2,)])
@pytest.mark.parametrize("red_type", [RED, 63, 35])
def test_an_unnamed_type_is_guessed(distances: Sequence[int], red_type: int) -> None:
    """63 is what WebRTC has for it by habit."""
    sender = g711(100, distances, red_type=red_type)
    lost = {30, 50, 51, 70}
    result = run(sent(sender, [k for k in range(100) if k not in lost]), width=WIDE)
    report = result.only()[1]
    assert [text for text in result.notices if "looks like" in text] == [
        f"payload type {red_type} looks like red (redundant audio data), a guess from headers and timestamps; "
        f"--pt {red_type}=NAME/RATE says what it is"
    ]
    assert report.stream.codec_guessed
    assert report.stream.codec is not None
    assert report.stream.codec.name == "PCMU"
    looked_at = 3 + min(distances)
    back = covered(lost, distances, 100)
    assert (report.undecoded, report.recovered) == (looked_at, len(back))
    audio = result.only()[0]
    heard_now = [heard(sender, k) if k not in lost - back else np.zeros(160, np.int16) for k in range(looked_at, 100)]
    np.testing.assert_array_equal(audio, np.concatenate(heard_now))


@given(st.lists(st.binary(min_size=1, max_size=400), min_size=30, max_size=60))
@settings(max_examples=usual_or_slow(20, 300), deadline=None, suppress_health_check=list(HealthCheck))
def test_other_payloads_are_never_taken_for_redundant_data(payloads: list[bytes]) -> None:
    arrivals = [
        Arrival(T0 + k * 20 * MS, packet(k, payload=payload, payload_type=RED)) for k, payload in enumerate(payloads)
    ]
    result = run(arrivals, width=WIDE)
    assert not any("red (" in text for text in result.notices)
    assert result.totals.unused_copies_by == {}


def test_types_that_are_made_up_are_looked_at_four_at_a_time() -> None:
    """Each of them could be redundant data without any block: a fifth one is not looked at."""
    made_up = [
        Arrival(T0 + k * MS, packet(k, payload=b"\0" + bytes(160), payload_type=96 + k % 4)) for k in range(3 * 4)
    ]
    engine = Engine(EngineConfig())
    fifth = Arrival(T0 + 12 * MS, packet(12, payload=b"\0", payload_type=RED))
    engine.receive(batch_of([*made_up, fifth], width=WIDE))
    assert engine.state.red_settled[0, 96:100].tolist() == [0] * 4
    assert engine.state.red_settled[0, RED] == 1


def test_a_type_of_redundant_data_is_named_as_in_sdp() -> None:
    for spelled in ("red/8000", "RED/8000/1", "red", "red/48000/2"):
        types = PayloadTypes({63: spelled})
        assert types.is_red.nonzero()[0].tolist() == [63]
    assert PayloadTypes.parse_option("121=red/8000") == (121, "red")


# --- faults of our own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["copies", "placing", "leaving"])
@pytest.mark.parametrize("live", [False, True])
def test_a_fault_with_copies_costs_at_most_their_stream(
    place: str, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``run`` checks the accounts after each step; the other stream is as ever."""
    insert, put, pop = insertion.insert_copies, Timeline.place, JitterRing.pop

    def insert_copies(ring: JitterRing, copies: Copies) -> int:
        found = insert(ring, copies)
        if (copies.row == 1).any():
            raise RuntimeError("a fault")
        return found

    def placing(
        self: Timeline, packets: RingPackets, codec: npt.NDArray[np.int16], frames: npt.NDArray[np.int64]
    ) -> object:
        if packets.recovered is not None and (packets.recovered & (packets.row == 1)).any():
            raise RuntimeError("a fault")
        return put(self, packets, codec, frames)

    def leaving(self: JitterRing, rows: npt.NDArray[np.int64], run: npt.NDArray[np.int64]) -> RingPackets:
        packets = pop(self, rows, run)
        if packets.recovered is not None and (packets.recovered & (packets.row == 1)).any():
            raise RuntimeError("a fault")
        return packets

    if place == "copies":
        monkeypatch.setattr(insertion, "insert_copies", insert_copies)
    elif place == "placing":
        monkeypatch.setattr(Timeline, "place", placing)
    else:
        monkeypatch.setattr(JitterRing, "pop", leaving)
    senders = (g711(80), g711(80, (1, 2)))
    lost = {30, 31, 50}
    arrivals = [
        Arrival(T0 + k * 20 * MS + s, sender.packet(k, direction=s, ssrc=s + 1))
        for k in range(80)
        for s, sender in enumerate(senders)
        if k not in lost
    ]
    result = run(arrivals, live=live, width=WIDE, config=NAMED)
    first, *others = result.reports
    assert (first.packets_received, first.recovered, first.end) == (77, 2, "closed")
    assert others[0].end == "fault"
    sound = Result(audio={0: result.audio[0]}, reports=[first])
    assert_heard(sound, senders[0], set(range(80)) - {30})


def test_the_summary_tells(tmp_path: Path) -> None:
    sender = g711(100)
    path = capture_file(tmp_path / "a.pcap", sent(sender, [k for k in range(100) if k % 10 != 5]))
    done = strep_command("replay", path, "--out", tmp_path / "out", "--pt", "121=red/8000")
    assert done.returncode == 0, done.stderr
    assert "10 recovered" in done.stderr + done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["totals"]["recovered"], summary["totals"]["datagrams"]) == (10, 90)
    (stream,) = summary["streams"]
    figures = ("codec", "payload_types", "packets_lost", "recovered", "gap_samples")
    assert [stream[name] for name in figures] == ["PCMU", [0, 121], 10, 10, 0]
