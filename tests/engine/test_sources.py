"""To whom a stream belongs: pinned addresses, races, moves, floods of newcomers (faults.md 21 to 24)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LEG, MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, run, steady

from strep._engine.engine import Engine, EngineConfig
from strep._engine.release import Release
from strep._engine.sources.limits import AdmissionLimits
from strep._engine.sources.pinning import SourcePins
from strep._engine.sources.port_keys import PortBinding, PortKeys, PortRole
from strep._engine.streams import reception as reception_module
from strep._engine.streams.reception import Reception
from strep._model.events import Event, Limited, Notice
from strep._model.exceptions import ConfigurationError

REAL = (0xFFFF_0A00_0001, 40_000)  # 10.0.0.1
NEIGHBOUR = (0xFFFF_0A00_0007, 40_000)  # of the same /24
SPOOFER = (0xFFFF_C633_6407, 6666)  # 198.51.100.7
FOREIGN_BYTE = 0x2A  # what a spoofer's payloads are made of; a real payload never is
FOREIGN = int(pcmu(bytes([FOREIGN_BYTE]))[0])


def spoof(count: int, *, source: tuple[int, int] = SPOOFER, **options: object) -> list[Arrival]:
    payload = bytes([FOREIGN_BYTE]) * 160
    return [Arrival(a.ns, a.data, source) for a in steady(count, payload=payload, **options)]


def moved(arrivals: list[Arrival], source: tuple[int, int]) -> list[Arrival]:
    return [Arrival(a.ns, a.data, source) for a in arrivals]


def both(*parts: list[Arrival]) -> list[Arrival]:
    return sorted((a for part in parts for a in part), key=lambda a: a.ns)


def foreign_blocks(audio: np.ndarray) -> np.ndarray:
    """Where a packet of the spoofer's is heard, in packets of 160 frames."""
    whole = audio[: len(audio) // 160 * 160].reshape(-1, 160)
    return np.flatnonzero((whole == FOREIGN).all(axis=1))


def audio_of(sequences: range) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(s)) for s in sequences])


@pytest.mark.parametrize("overlap", [1, 5, 15, 32, 100])
def test_a_source_that_overlaps_the_one_before_it_makes_nothing_later(overlap: int) -> None:
    """A re-INVITE: the new SSRC begins while the old one of the same address goes on. What follows is not late."""
    old = [Arrival(a.ns + 7 * MS, a.data) for a in steady(250 + overlap, ssrc=1)]
    new = [Arrival(a.ns + 250 * 20 * MS, a.data) for a in steady(500, ssrc=2, first=30_000)]
    audio, report = run(both(old, new)).only()
    assert abs(report.samples - 750 * 160) <= 160
    np.testing.assert_array_equal(audio[-400 * 160 :], audio_of(range(30_100, 30_500)))


# --- faults.md 22: somebody else sends to a live leg ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ptime_ms"),
    [
        ({"ssrc": 0x1234, "first": 3}, 20),  # knows SSRC and sequence: would be mixed in
        ({"ssrc": 0xBAD, "first": 30_000}, 20),
        ({"ssrc": 0xBAD, "first": 30_000}, 1),  # much faster than the real one
        ({"ssrc": 0x1234, "first": 2_000}, 3),  # as if it went on after a loss
    ],
)
def test_a_foreign_source_beside_the_real_one_is_never_heard(options: dict[str, int], ptime_ms: int) -> None:
    real = steady(300)
    foreign = spoof(200, start_ns=T0 + 1007 * MS, ptime_ms=ptime_ms, **options)
    result = run(both(real, foreign), cuts=range(1, 500, 3))
    audio, report = result.only()
    assert (report.packets_received, report.packets_lost, report.sources) == (300, 0, 1)
    assert result.totals.rejected_by == {"foreign_source": 200}
    np.testing.assert_array_equal(audio, audio_of(range(300)))


@pytest.mark.parametrize(("silence_ms", "begins_ms"), [(1500, 1007), (9500, 1007), (15_000, 1007), (59_000, 2500)])
def test_who_takes_over_during_a_hold_gives_the_stream_back_at_once(silence_ms: int, begins_ms: int) -> None:
    """The real source is put on hold and comes back; a spoofer sends all the time, until long after the call's end."""
    back_ns = T0 + 2000 * MS + silence_ms * MS
    real = steady(100) + steady(200, first=100, start_ns=back_ns)
    foreign = spoof((silence_ms + 9000) // 20, start_ns=T0 + begins_ms * MS, ssrc=0xBAD, first=30_000)
    result = run(both(real, foreign), cuts=range(1, len(real), 5))
    audio, report = result.only()
    np.testing.assert_array_equal(audio[: 100 * 160], audio_of(range(100)))
    # its clock stood still: all of it stands behind what it missed. But its first ones may have come before the end
    # of the other's last ones
    tail = audio_of(range(100 if begins_ms < 2000 and silence_ms < 10_000 else 103, 300))
    np.testing.assert_array_equal(audio[-len(tail) :], tail)
    assert report.trimmed <= 3 * 160
    assert abs(report.samples - (300 * 160 + silence_ms * 8)) <= 160
    heard = foreign_blocks(audio).size
    if begins_ms < 2000 and silence_ms < 10_000:
        assert heard == report.trimmed == 0  # it had been sending beside the real one
        assert result.totals.rejected_by == {"foreign_source": len(foreign)}
    else:
        assert heard > 0
        assert any("another address: 198.51.100.7" in note for note in report.stream.notes)
        assert result.totals.rejected_by["foreign_source"] > 200


def test_two_packets_of_a_spoofer_do_not_take_a_silent_stream() -> None:
    real = steady(100) + steady(50, first=100, start_ns=T0 + 12_000 * MS)
    foreign = spoof(2, start_ns=T0 + 2500 * MS, ssrc=0xBAD)
    result = run(both(real, foreign))
    audio, report = result.only()
    assert (report.sources, foreign_blocks(audio).size, result.totals.rejected) == (1, 0, 2)


# --- faults.md 23: a race for the first packet ------------------------------------------------------------------------


@pytest.mark.parametrize("lead_ms", [0, 50, 3000])
def test_a_spoofer_that_was_first_and_goes_on_loses_to_where_the_other_direction_comes_from(lead_ms: int) -> None:
    real = steady(400)
    foreign = spoof(600, start_ns=T0 - (lead_ms + 1) * MS, ssrc=0xBAD, first=30_000)
    result = run(both(real, steady(400, direction=1, ssrc=0x99), foreign), cuts=range(1, 1000, 7))
    inbound, outbound = result.reports
    audio = result.audio[inbound.stream.serial]
    kept = audio_of(range(50, 400))  # the real one is back within a second
    np.testing.assert_array_equal(audio[-len(kept) :], kept)
    np.testing.assert_array_equal(result.audio[outbound.stream.serial], audio_of(range(400)))
    assert inbound.stream.ssrcs == [0xBAD, 0x1234]


def test_a_race_is_decided_by_where_established_calls_come_from() -> None:
    other_call = steady(600, call=leg_id(9), start_ns=T0 - 3000 * MS)
    foreign = spoof(400, start_ns=T0 - 30 * MS, ssrc=0xBAD, first=30_000)
    result = run(both(other_call, steady(400), foreign), cuts=range(1, 1400, 9))
    audio = next(result.audio[r.stream.serial] for r in result.reports if r.stream.call_leg_id == LEG)
    kept = audio_of(range(50, 400))
    np.testing.assert_array_equal(audio[-len(kept) :], kept)


def test_who_has_calls_of_his_own_cannot_take_over_those_of_a_real_source() -> None:
    """Standing is for races only: a spoofer with invented legs, and a real call of two directions."""
    invented = spoof(500, call=leg_id(66), start_ns=T0 - 3000 * MS, ssrc=0xBAD)
    foreign = spoof(200, start_ns=T0 + 60 * MS, ssrc=0xBAD, first=30_000)
    result = run(both(invented, steady(300), steady(300, direction=1, ssrc=0x99), foreign), cuts=range(1, 1200, 11))
    for report in result.reports:
        if report.stream.call_leg_id == LEG:
            np.testing.assert_array_equal(result.audio[report.stream.serial], audio_of(range(300)))
    assert result.totals.rejected_by == {"foreign_source": 200}


KNOWN = EngineConfig(call_legs=frozenset((LEG.int, leg_id(9).int)))  # nobody else's legs are admitted


@pytest.mark.parametrize("lead_ms", [-500, 50, 3000])
def test_who_sends_both_directions_of_one_leg_loses_to_where_other_known_legs_come_from(lead_ms: int) -> None:
    other_call = steady(600, call=leg_id(9), start_ns=T0 - 5000 * MS)
    start_ns = T0 - (lead_ms + 1) * MS
    foreign = both(
        spoof(600, start_ns=start_ns, ssrc=0xBAD, first=30_000),
        spoof(600, start_ns=start_ns, ssrc=0xBAE, first=30_000, direction=1),
    )
    real = both(steady(400), steady(400, direction=1, ssrc=0x99))
    result = run(both(other_call, real, foreign), cuts=range(1, 2000, 7), config=KNOWN)
    kept = audio_of(range(50, 400))
    for report in result.reports:
        if report.stream.call_leg_id == LEG:
            np.testing.assert_array_equal(result.audio[report.stream.serial][-len(kept) :], kept)


def test_who_makes_the_missing_direction_of_a_known_leg_does_not_get_the_other_one() -> None:
    """Of legs that are forked in one direction only."""
    other_call = steady(600, call=leg_id(9), start_ns=T0 - 5000 * MS)
    outbound = spoof(300, start_ns=T0 + 500 * MS, ssrc=0xBAE, direction=1)
    foreign = spoof(300, start_ns=T0 + 1500 * MS, ssrc=0xBAD, first=30_000)
    result = run(both(other_call, steady(400), outbound, foreign), cuts=range(1, 1500, 7), config=KNOWN)
    (inbound,) = (r for r in result.reports if r.stream.call_leg_id == LEG and r.stream.direction == 0)
    np.testing.assert_array_equal(result.audio[inbound.stream.serial], audio_of(range(400)))
    assert result.totals.rejected_by == {"foreign_source": 300}


# --- sources that move ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ssrc", [0x1234, 0x77])
@pytest.mark.parametrize("to", [SPOOFER, (REAL[0], 55_555)])
def test_a_source_that_moves_loses_nothing(ssrc: int, to: tuple[int, int]) -> None:
    """As after a re-INVITE, or when a NAT gives another port: what comes in the second until the stream goes over has
    been kept."""
    later = steady(200, first=100, ssrc=ssrc, start_ns=T0 + 2000 * MS)
    result = run(steady(100) + moved(later, to), cuts=range(1, 300, 7))
    audio, report = result.only()
    assert (report.packets_received, report.packets_lost, result.totals.rejected) == (300, 0, 0)
    np.testing.assert_array_equal(audio, audio_of(range(300)))


def test_a_sender_with_a_port_for_every_few_packets_loses_nothing() -> None:
    arrivals = [Arrival(T0 + k * MS, packet(k), (REAL[0], 40_000 + k // 10)) for k in range(150)]
    audio, report = run(arrivals, cuts=range(1, 150, 7)).only()
    assert (report.packets_received, report.packets_lost) == (150, 0)
    np.testing.assert_array_equal(audio, audio_of(range(150)))


def test_a_move_that_was_announced_need_not_wait() -> None:
    def expect(engine: Engine) -> None:
        engine.expect_source(LEG, engine.now_ns + 5_000 * MS)

    later = moved(steady(40, first=100, start_ns=T0 + 2000 * MS), SPOOFER)
    taken: list[int] = []
    for between in ({}, {100: expect}):
        engine = Engine()
        for k, arrival in enumerate([*steady(100), *later]):
            if k in between:
                between[k](engine)
            engine.receive(batch_of([arrival]))
        taken.append(engine.totals().delivered + engine.totals().buffered)
        waiting = engine.totals().rejected
        assert waiting == 0
        report = engine.report(engine.registry.live()[0])
        taken[-1] = report.packets_received
    assert taken == [100, 140]


def test_a_move_that_was_announced_is_not_for_who_sent_beside_the_present_source() -> None:
    """The real source stops 300 ms before it goes on at its new address; the other one never stops."""
    foreign = spoof(500, start_ns=T0 + 1007 * MS, ssrc=0xBAD, first=30_000)
    later = moved(steady(300, first=200, start_ns=T0 + 4300 * MS), NEIGHBOUR)
    arrivals = both(steady(200), foreign, later)
    announced = sum(a.ns < T0 + 3990 * MS for a in arrivals)

    def expect(engine: Engine) -> list[Event]:
        engine.expect_source(LEG, engine.now_ns + 5_000 * MS)
        return []

    result = run(arrivals, cuts=range(1, len(arrivals), 7), between={announced: expect})
    audio, report = result.only()
    assert (report.packets_received, report.packets_lost, foreign_blocks(audio).size) == (500, 0, 0)
    np.testing.assert_array_equal(audio[: 203 * 160], audio_of(range(203)))
    np.testing.assert_array_equal(audio[-297 * 160 :], audio_of(range(203, 500)))
    assert report.gaps == {"restart": 300 * 8}  # the pause, known with the fourth packet behind it
    assert result.totals.rejected_by == {"foreign_source": 500}


def test_a_breath_of_the_real_source_while_a_move_is_expected_gives_its_stream_to_nobody() -> None:
    foreign = spoof(500, start_ns=T0 + 1007 * MS, ssrc=0xBAD, first=30_000)
    real = steady(150) + steady(250, first=150, start_ns=T0 + 3600 * MS)  # 600 ms of a bad network
    arrivals = both(real, foreign)
    announced = sum(a.ns < T0 + 2500 * MS for a in arrivals)

    def expect(engine: Engine) -> list[Event]:
        engine.expect_source(LEG, engine.now_ns + 5_000 * MS)
        return []

    result = run(arrivals, cuts=range(1, len(arrivals), 7), between={announced: expect})
    audio, report = result.only()
    assert (report.packets_received, foreign_blocks(audio).size) == (400, 0)


@pytest.mark.parametrize(("pin", "heard"), [("address", False), ("network", True), ("off", True)])
def test_what_counts_as_one_source(pin: str, heard: bool) -> None:
    foreign = moved(steady(100, first=100, start_ns=T0 + 2000 * MS), NEIGHBOUR)
    result = run(both(steady(110), foreign), config=EngineConfig(pin=pin))
    assert (result.totals.duplicate == 10) is heard
    assert ("foreign_source" in result.totals.rejected_by) is not heard


def test_words_of_sources() -> None:
    hi = np.array([0, 0, 0, 0x2001_0DB8_0001_0000, 0x2001_0DB8_0001_FFFF, 0x2001_0DB8_0002_0000], np.uint64)
    lo = np.array([0xFFFF_0A00_0001, 0xFFFF_0A00_00FE, 0xFFFF_0A00_0101, 1, 2, 1], np.uint64)
    port = np.full(6, 9000, np.uint16)
    pins = SourcePins("address")
    words = pins.words(hi, lo, port)
    others = pins.words(hi, lo, port + np.uint16(1))
    assert len({*words.tolist(), *others.tolist()}) == 12
    assert pins.hosts(words).tolist() == pins.hosts(others).tolist()
    assert len(set(pins.hosts(words).tolist())) == 6
    words = SourcePins("network").words(hi, lo, port)
    assert (words[0] == words[1], words[1] == words[2], words[3] == words[4], words[4] == words[5]) == (1, 0, 1, 0)
    assert (SourcePins("network").words(hi, lo, port + np.uint16(1))[:3] == words[:3]).all()
    assert not SourcePins("off").words(hi, lo, port).any()
    with pytest.raises(ConfigurationError, match='"address", "network" or "off"'):
        SourcePins("port")


def test_a_spoofer_with_the_real_address_cannot_slip_in_between_two_packets() -> None:
    """Two packets of another SSRC between each two of the real one's, from the same address."""
    flips = [
        Arrival(T0 + (k * 20 + 5 + n) * MS, packet(n, ssrc=0x9000 + k, payload=bytes([FOREIGN_BYTE]) * 160))
        for k in range(20, 200)
        for n in (0, 1)
    ]
    result = run(both(steady(300), flips), cuts=range(1, 600, 2))
    audio, report = result.only()
    assert (report.sources, result.totals.rejected_by) == (1, {"probation": 360})
    np.testing.assert_array_equal(audio, audio_of(range(300)))


# --- whatever is sent, however it is cut ------------------------------------------------------------------------------

_SENDERS = st.lists(
    st.tuples(
        st.sampled_from([REAL, NEIGHBOUR, SPOOFER]),
        st.sampled_from([0x1234, 0x77, 0xBAD]),  # SSRC
        st.integers(0, 3),  # direction, another leg, or plain RTP
        st.integers(0, 3000),  # begins, ms
        st.integers(1, 60),  # packets
        st.sampled_from([1, 5, 20, 60]),  # ms between them
        st.integers(0, 65_535),  # first sequence number
        st.sampled_from([1, 1, 1, 2, -1, 7919]),  # step
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=usual_or_slow(12, 120), deadline=None)
@given(senders=_SENDERS, cuts=st.sets(st.integers(1, 400), max_size=12), pin=st.sampled_from(["address", "off"]))
def test_any_senders_in_any_cuts_come_to_the_same(
    senders: list[tuple[tuple[int, int], int, int, int, int, int, int, int]], cuts: set[int], pin: str
) -> None:
    arrivals = []
    for n, (source, ssrc, direction, begin, count, apart, first, step) in enumerate(senders):
        for k in range(count):
            data = packet(
                (first + k * step) & 0xFFFF,
                ssrc=ssrc,
                direction=direction & 1 if direction < 3 else 0,
                call=leg_id(direction // 2) if direction < 3 else None,
                timestamp=k * 160,
            )
            arrivals.append(Arrival(T0 + (begin + k * apart) * MS + n, data, source))
    arrivals.sort(key=lambda a: a.ns)
    config = EngineConfig(pin=pin)
    whole = run(arrivals, config=config)
    parts = run(arrivals, cuts=sorted(c for c in cuts if c < len(arrivals)), config=config)
    assert parts.totals == whole.totals
    assert [r.as_dict() for r in parts.reports] == [r.as_dict() for r in whole.reports]
    for serial, audio in whole.audio.items():
        np.testing.assert_array_equal(parts.audio[serial], audio)


# --- floods of newcomers ----------------------------------------------------------------------------------------------


def test_when_the_table_is_full_the_oldest_strangers_make_room() -> None:
    """Pairs of invented legs fill the table; a real call comes and is admitted with all of its packets."""
    pairs = [
        Arrival(T0 + k * 5 * MS + n * MS, packet(n, call=leg_id(100 + k), ssrc=k)) for k in range(300) for n in (0, 1)
    ]
    real = steady(100, start_ns=T0 + 1000 * MS)
    result = run(both(pairs, real), cuts=range(1, 700, 5), config=EngineConfig(max_streams=50))
    ours = [r for r in result.reports if r.stream.call_leg_id == LEG]
    assert [(r.packets_received, r.packets_lost, r.end) for r in ours] == [(100, 0, "closed")]
    np.testing.assert_array_equal(result.audio[ours[0].stream.serial], audio_of(range(100)))
    ended = [r.stream.call_leg_id for r in result.reports if r.end == "evicted"]
    assert ended == sorted(ended, key=lambda leg: leg.int)  # the oldest first
    assert len(ended) > 50


def test_streams_that_only_keep_their_places_make_room() -> None:
    """Strangers hold every place with a packet each 2 s; a call on hold keeps its own."""
    keepers = both(
        *(
            moved(steady(12, call=leg_id(100 + n), start_ns=T0 + n * 7 * MS, ptime_ms=2000, ssrc=n), SPOOFER)
            for n in range(80)
        )
    )
    held = steady(200, call=leg_id(9)) + steady(50, call=leg_id(9), first=200, start_ns=T0 + 21_000 * MS)
    real = steady(200, start_ns=T0 + 16_000 * MS)
    result = run(both(held, keepers, real), cuts=range(1, 1400, 5), config=EngineConfig(max_streams=50))
    ours = {r.stream.call_leg_id: r for r in result.reports if r.stream.call_leg_id in (LEG, leg_id(9))}
    assert [(ours[leg].packets_received, ours[leg].packets_lost) for leg in (LEG, leg_id(9))] == [(200, 0), (250, 0)]
    assert {r.end for r in ours.values()} == {"closed"}
    np.testing.assert_array_equal(result.audio[ours[LEG].stream.serial], audio_of(range(200)))


def test_streams_that_last_are_never_evicted() -> None:
    lasting = both(*(steady(100, call=leg_id(n), start_ns=T0 + n * MS) for n in range(6)))
    late = steady(40, call=leg_id(99), start_ns=T0 + 1000 * MS)
    result = run(both(lasting, late), config=EngineConfig(max_streams=6))
    assert {r.end for r in result.reports} == {"closed"}
    assert len(result.reports) == 6


def test_one_address_begins_so_many_streams_and_no_more() -> None:
    limits = AdmissionLimits(1000)
    assert sum(limits.grant([1] * 2000, T0)) == 500  # half of what there may be, at once
    assert sum(limits.grant([2] * 300, T0)) == 300  # another one has its own
    assert sum(limits.grant([1] * 2000, T0 + 100 * MS)) == 100  # and then 1,000 a second
    assert sum(limits.grant([3] * 2000, T0 + 100 * MS)) == 300  # all together 1,000, and then 2,000 a second
    assert sum(limits.grant(list(range(10, 9000)), T0 + 10_000 * MS)) == 1000
    assert len(limits._sources) == 4096


@pytest.mark.parametrize("known_by", ["named pairs", "pairs", "allowed legs"])
def test_all_calls_of_one_host_begin_at_once_where_nobody_can_invent_them(known_by: str) -> None:
    calls = 450  # of max_streams 1,000: 400 more streams than one host may begin at once, and a tick brings all of them
    legs = [leg_id(100 + call) for call in range(calls)]
    config = EngineConfig(max_streams=1000)
    if known_by == "allowed legs":
        config = replace(config, call_legs=frozenset(leg.int for leg in legs))
    else:
        roles = ((10_000, PortRole.RX), (10_001, PortRole.TX))
        bindings = {
            port + 2 * call: PortBinding(role, 10_000 + 2 * call, legs[call] if known_by == "named pairs" else None)
            for call in range(calls)
            for port, role in roles
        }
        config = replace(config, bindings=bindings)
    arrivals = [
        Arrival(
            T0 + 20 * MS * k + 1000 * (2 * call + way),
            packet(k, ssrc=2 * call + way, call=legs[call] if known_by == "allowed legs" else None, direction=way),
            local_port=10_000 + 2 * call + way,
        )
        for k in range(5)
        for call in range(calls)
        for way in (0, 1)
    ]
    result = run(arrivals, config=config, cuts=[1000, 2100])
    assert len(result.started) == 2 * calls
    assert (result.totals.streams_refused, result.totals.rejected) == (0, 0)
    assert {len(audio) for audio in result.audio.values()} == {5 * 160}


def test_ports_that_are_given_back_let_no_more_streams_in_than_others() -> None:
    ports = PortKeys({9002: PortBinding(PortRole.RX, 9002, LEG), 9003: PortBinding(PortRole.TX, 9002, LEG)})
    leg = (np.array([LEG.int >> 64], np.uint64), np.array([LEG.int & 0xFFFF_FFFF_FFFF_FFFF], np.uint64))
    for unbound, expected in (([], True), ([9002, 9002], True), ([9003], False), ([9003], False)):
        ports.unbind(unbound)
        assert ports.are_of_ports(*leg, np.zeros(1, np.uint64)).tolist() == [expected]


def _collect(engine: Engine, arrivals: list[Arrival], kind: type) -> list[Event]:
    found: list[Event] = []
    for k in range(0, len(arrivals), 100):
        found += [e for e in engine.receive(batch_of(arrivals[k : k + 100])) if isinstance(e, kind)]
    return found


def test_a_flood_of_pairs_is_told_once_with_its_address() -> None:
    pairs = [
        Arrival(T0 + k * 200_000 + n, packet(n, call=leg_id(100 + k), ssrc=k), SPOOFER)
        for k in range(1500)
        for n in (0, 1)
    ]
    told = _collect(Engine(EngineConfig(max_streams=1000)), pairs, Limited)
    assert told == [Limited("source", "198.51.100.7")]
    told = _collect(Engine(EngineConfig(max_streams=100)), pairs, Limited)
    assert Limited("streams", "198.51.100.7") in told
    assert len(told) <= 2


def test_a_stream_that_sends_far_too_much_for_long_is_throttled_and_told() -> None:
    """10,000 packets a second in sequence: refused after five seconds of them, taken again after ten calm ones."""
    engine = Engine(release=Release(100 * MS))
    notices: list[str] = []
    for tick in range(700):
        arrivals = [Arrival(T0 + tick * 10 * MS + k * 100_000, packet(tick * 100 + k)) for k in range(100)]
        notices += [e.text for e in engine.receive(batch_of(arrivals)) if isinstance(e, Notice)]
    for k in range(14 * 50):
        engine.receive(batch_of([Arrival(T0 + 7000 * MS + k * 20 * MS, packet(70_000 + k))]))
    engine.flush()
    totals = engine.totals()
    assert (totals.unaccounted, totals.delivered + totals.rejected) == (0, 70_000 + 14 * 50)
    # its debt of 10,000 units gets less by 950 with each second of 50 packets
    assert 50_000 + 2 * 50 <= totals.delivered <= 50_000 + 4 * 50
    assert [text.split(",")[0] for text in notices] == ["sends more than 1"]


def test_long_packets_are_throttled_by_their_audio() -> None:
    """G.729 in packets of 0.4 s, 500 a second: 200 s of audio a second."""
    engine = Engine(release=Release(100 * MS))
    for tick in range(1200):
        arrivals = [
            Arrival(T0 + tick * 10 * MS + n, packet(5 * tick + n, payload_type=18, payload=bytes(400), frames=3200))
            for n in range(5)
        ]
        engine.receive(batch_of(arrivals, width=512))
    engine.flush()
    totals = engine.totals()
    assert (totals.unaccounted, totals.delivered + totals.rejected) == (0, 6000)
    # 9,000 units too many a second: refused after the fifth
    assert totals.rejected_by == {"rate": 7 * 500}


def test_a_packet_with_more_than_half_a_second_is_none() -> None:
    other = {"payload_type": 18, "payload": bytes(1400), "call": leg_id(1)}
    result = run(both(steady(60, **other), steady(60)), width=1600)
    assert result.totals.dropped_by == {"corrupt": 60}
    np.testing.assert_array_equal(
        next(result.audio[r.stream.serial] for r in result.reports if r.stream.call_leg_id == LEG), audio_of(range(60))
    )


def test_ten_minutes_of_audio_at_once_are_no_flood() -> None:
    arrivals = [Arrival(T0 + k * 30_000, packet(k)) for k in range(30_000)]
    audio, report = run(arrivals, cuts=range(100, 30_000, 100)).only()
    assert (report.packets_received, len(audio)) == (30_000, 30_000 * 160)


@settings(max_examples=usual_or_slow(30, 120), deadline=None)
@given(data=st.data())
def test_packets_of_one_stream_are_counted_one_by_one_as_in_arrays(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    one, other = Reception(4), Reception(4)
    for reception in (one, other):
        reception.open(np.arange(4), np.full(4, 1 << 20), np.full(4, T0), np.zeros(4, np.uint32))
        reception.tick_rate[:] = [8e-6, 4.8e-5, 0.0, 1.6e-5]
    for _ in range(3):
        n = int(rng.integers(1, 60))
        rows = rng.integers(0, int(rng.integers(1, 5)), n)
        ext = (1 << 20) + rng.integers(0, 200, n)
        timestamp = (ext * 160 + rng.integers(0, 50, n)).astype(np.uint32)
        arrival_ns = np.sort(T0 + rng.integers(0, 10**10, n))
        timed = None if rng.random() < 0.5 else rng.random(n) < 0.7
        copies = None if rng.random() < 0.5 else rng.random(n) < 0.2
        order = np.argsort(rows, kind="stable")
        again = np.sort(order[1:][rows[order][1:] == rows[order][:-1]])
        for reception, many in ((one, 4), (other, 1000)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(reception_module, "_PACKETS_SIDE_BY_SIDE", many)
                reception.arrived(rows, ext, timestamp, arrival_ns, timed, copies, again)
        for name, array in vars(one).items():
            if isinstance(array, np.ndarray):
                np.testing.assert_array_equal(array, getattr(other, name), err_msg=name)
