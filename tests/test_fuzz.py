"""Hostile datagrams through engine, sinks and analyzers, real calls beside them: faults.md 16, 12, 15, 49; issue of
F1-F3.

A seed that fails is run again, and shrunk: ``python -m fuzz --shrink`` and what is printed (``tests`` on the path).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from depth import usual_or_slow
from fuzz.actors import ACTORS, storm
from fuzz.machine import SECONDS, Setup, Violation, replayed, storm_of, survive, survives
from fuzz.shrink import ddmin, literal, shrunk
from fuzz.vectors import VECTORS
from fuzz.wire import LONGEST, POOL, Datagram, batch_of_wire, datagrams_of, wire_of

import strep
from strep._model.datagrams import DatagramBatch
from strep._model.events import Event

FIRST = int(os.environ.get("STREP_FUZZ_SEED", "0"))  # nightly runs go on where others ended
# hostile datagrams a seed: with all sinks and analyzers, and without
HEARD, UNHEARD = usual_or_slow((2000, 8000), (8000, 25_000))
MIB = 1 << 20


@pytest.mark.parametrize("seed", range(FIRST, FIRST + usual_or_slow(2, 3)))
def test_storms_cost_the_real_calls_beside_them_nothing(seed: int) -> None:
    """Engine, every sink and every analyzer; audio, files, frames, events and reports are what they are alone."""
    seconds = usual_or_slow(2.0, SECONDS)
    print(f"--seeds {seed} --datagrams {HEARD} --seconds {seconds}")
    survive(seed, HEARD, setup=Setup.of(seed, seconds=seconds))


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory as Linux tells it")
def test_storms_leave_the_engine_sound_and_small() -> None:
    """The engine alone, many more of them: nothing raised, accounts exact at every step, the process no larger."""
    # what was freed, and malloc keeps, is nobody's: it may be 50 MiB, by what came before
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None) or pytest.skip("a malloc that keeps what was freed")
    resident = []
    for seed in range(FIRST + 100, FIRST + usual_or_slow(103, 107)):
        print(f"--seeds {seed} --datagrams {UNHEARD} --engine")
        survive(seed, UNHEARD, setup=Setup.of(seed, listen=False))
        gc.collect()
        give_back(0)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    # the first ones touch what is allocated once
    assert resident[-1] - resident[1] <= 8 * MIB, [r // MIB for r in resident]


@pytest.mark.parametrize("name", VECTORS)
def test_what_storms_have_found_stays_mended(name: str) -> None:
    """The fewest datagrams of what seeds have found, one by one and all at once."""
    datagrams = VECTORS[name]
    for cuts in (None, []):
        run = replayed(datagrams, cuts)
        assert run.datagrams == len(datagrams)


# --- the fuzz itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTORS)
def test_an_actor_sends_and_a_seed_is_the_same_again(name: str) -> None:
    one, two = (storm(np.random.default_rng(7), 500, 5_000_000_000, name) for _ in range(2))
    assert len(one) >= 500
    assert (one == two).all()
    assert (np.diff(one["ns"]) >= 0).all()


def test_actors_speak_well_where_they_do_not_lie() -> None:
    """What nobody mutated is what our own builder makes."""
    rows = storm(np.random.default_rng(1), 300, 5_000_000_000, "restarts")
    for datagram in datagrams_of(rows)[:20]:
        parsed = strep.parse_datagram(datagram.data)
        again = strep.build_datagram(
            payload=parsed.payload, payload_type=0, sequence_number=parsed.sequence_number, ssrc=parsed.ssrc,
            rtp_timestamp=parsed.rtp_timestamp, call_leg_id=parsed.call_leg_id, leg=parsed.leg,
            direction=parsed.direction,
        )  # fmt: skip
        assert again == datagram.data


def test_datagrams_by_their_bytes_are_the_same_datagrams() -> None:
    rows = storm_of(3, 3000)
    one, two = batch_of_wire(rows, 0), wire_of(datagrams_of(rows), 0)
    np.testing.assert_array_equal(one.length, two.length)
    np.testing.assert_array_equal(one.arrival_ns, two.arrival_ns)
    assert any(len(one.data(i)) > 60_000 for i in range(len(one)))
    for i, length in enumerate(one.length.tolist()):
        assert len(one.data(i)) == min(length, int(rows["snap"][i]))
        assert one.data(i) == two.data(i)


def test_every_storm_reaches_every_length_and_every_first_byte() -> None:
    rows = np.concatenate([storm_of(seed, 20_000) for seed in range(3)])
    batch = batch_of_wire(rows, 0)
    assert set(range(60)) <= set(batch.length.tolist())
    assert 65_507 in batch.length
    assert 65_507 in batch.kept()  # whole
    assert len(np.unique(batch.heads()[:, 0])) == len(np.unique(rows["type"])) == 256
    long = int(np.count_nonzero(batch.kept() > 2048))
    assert len(batch) // 1000 <= long <= len(batch) // 50, f"{long} of {len(batch)}"  # some, and no more than is cheap


def test_long_datagrams_are_whole_to_their_ends() -> None:
    rows = storm(np.random.default_rng(5), 400, 5_000_000_000, "long")
    rows["snap"], rows["tail"], rows["flip"] = LONGEST, -1, -1
    pool, whole = POOL.tobytes(), 0
    for row, datagram in zip(rows, datagrams_of(rows), strict=True):
        assert len(datagram.data) == datagram.length
        if datagram.length > 2048:
            payload = datagram.data[12 if row["plain"] else 36 :]
            at = int(row["pool"]) + 8  # the first ones may be others
            assert payload[8:] == pool[at : at + len(payload) - 8]
            whole += 1
    assert whole > 50


def test_a_fault_is_found_and_shrunk_to_what_causes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fault put into the engine: payload type 4 in a packet of 24 bytes raises."""
    from strep._engine.engine import Engine

    sound = Engine.receive

    def unsound(self: Engine, batch: DatagramBatch) -> list[Event]:
        if ((batch.heads()[:, 25] & 0x7F == 4) & (batch.length == 60)).any():
            raise ZeroDivisionError("made up")
        return sound(self, batch)

    monkeypatch.setattr(Engine, "receive", unsound)
    setup = Setup.of(1, listen=False)
    rows = storm_of(1, 2000, "switches")
    with pytest.raises(Violation) as found:
        survives(rows, setup)
    few = shrunk(rows, setup, found.value)
    assert 1 <= len(few) <= 4
    assert set(few["type"][-1:] & 0x7F) == {4}
    made = eval(literal(few), {"Datagram": Datagram})  # what is printed is Python
    assert made == datagrams_of(few)
    with pytest.raises(Violation):
        replayed(made)


def test_delta_debugging_leaves_what_is_needed_and_nothing_else() -> None:
    assert ddmin(list(range(100)), lambda some: {3, 41, 97} <= set(some)) == [3, 41, 97]
    assert ddmin([5], lambda some: True) == [5]
