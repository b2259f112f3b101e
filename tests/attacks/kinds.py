"""What hostile senders send: each kind is a function of how many datagrams, and of a random generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from fuzz import actors
from fuzz.wire import blank

__all__ = ["KINDS", "Kind"]

Rows = npt.NDArray[np.void]
Random = np.random.Generator
Kind = Callable[[int, Random], Rows]

REAL_HI: Final = 0x4242_4242_4242_4242  # of the ids of the real calls
LEG: Final = 0x8181_8181_8181_8181


def _one_leg(n: int, rng: Random) -> Rows:
    rows = blank(n)
    rows["hi"], rows["lo"] = LEG, rng.integers(0, 1 << 40)
    rows["ssrc"] = 5
    rows["seq"] = np.arange(n) & 0xFFFF
    rows["ts"] = (np.arange(n) * 160) & 0xFFFF_FFFF
    return rows


def random_ids(n: int, rng: Random) -> Rows:
    """Every packet another leg."""
    rows = blank(n)
    for name, bits in (("hi", 63), ("lo", 63), ("seq", 16), ("ts", 32), ("ssrc", 32)):
        rows[name] = rng.integers(0, 1 << bits, n)
    return rows


def strided_ids(n: int, rng: Random) -> Rows:
    """Ids in steps of 2^40."""
    rows = random_ids(n, rng)
    rows["hi"], rows["lo"] = LEG, np.arange(n, dtype=np.uint64) << np.uint64(40)
    return rows


def consecutive_ssrcs(n: int, rng: Random) -> Rows:
    """Plain RTP, one SSRC after the other."""
    rows = random_ids(n, rng)
    rows["plain"], rows["ssrc"] = True, int(rng.integers(0, 1 << 31)) + np.arange(n)
    return rows


def pairs(n: int, rng: Random) -> Rows:
    """Two packets in sequence each of any number of legs."""
    rows = blank(n)
    leg = np.arange(n) // 2
    rows["hi"], rows["lo"], rows["seq"], rows["ts"] = LEG, (1 << 50) + leg, np.arange(n) % 2, np.arange(n) % 2 * 160
    rows["ssrc"] = (leg * 2_654_435_761) & 0xFFFF_FFFF
    return rows


def flips(n: int, rng: Random) -> Rows:
    """One leg, another SSRC with every pair."""
    rows = _one_leg(n, rng)
    rows["ssrc"] = (np.arange(n) // 2 * 2_654_435_761) & 0xFFFF_FFFF
    return rows


def restarts(n: int, rng: Random) -> Rows:
    """One leg and SSRC, another sequence with every pair."""
    rows = _one_leg(n, rng)
    rows["seq"] = (np.arange(n) // 2 * 7919 + np.arange(n) % 2) & 0xFFFF
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def duplicates(n: int, rng: Random) -> Rows:
    rows = _one_leg(n, rng)
    rows["seq"] = np.minimum(np.arange(n), 3)
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def far(n: int, rng: Random) -> Rows:
    """One leg, after four packets any sequence numbers."""
    rows = _one_leg(n, rng)
    rows["seq"][4:], rows["ts"] = rng.integers(0, 1 << 16, n - 4), rng.integers(0, 1 << 32, n)
    return rows


def held(n: int, rng: Random) -> Rows:
    """58 packets never two in sequence, then a pair, of each of any number of legs."""
    rows = _one_leg(n, rng)
    at, rows["lo"] = np.arange(n) % 60, np.arange(n) // 60
    rows["seq"] = np.where(at < 58, at * 3 + 10, at - 58)
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def held_behind(n: int, rng: Random) -> Rows:
    """41 packets never two in sequence, then a pair far behind them (F1)."""
    rows = _one_leg(n, rng)
    at, rows["lo"] = np.arange(n) % 43, np.arange(n) // 43
    rows["seq"] = np.where(at < 41, 1000 + at * 2, 59 + at)
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def burst(n: int, rng: Random) -> Rows:
    """One stream in sequence at the whole rate."""
    return _one_leg(n, rng)


def reinvites(n: int, rng: Random) -> Rows:
    """Calls that go from G.729, GSM, AMR or iLBC to PCMU and back (F2)."""
    rows = _one_leg(n, rng)
    rows["lo"] = np.arange(n) % 40
    turn = np.arange(n) // 40
    rows["seq"], rows["ts"] = turn & 0xFFFF, turn * 160
    before = np.array([18, 3, 9, 8])[np.arange(n) % 4]
    rows["type"] = np.where(turn // 10 % 2, 0, before)
    rows["length"] = np.where(rows["type"] == 18, 20, np.where(rows["type"] == 3, 33, 160))
    return rows


def odd_lengths(n: int, rng: Random) -> Rows:
    """PCMU, then L16 stereo of 162 bytes, of some legs (F3)."""
    rows = _one_leg(n, rng)
    rows["lo"] = np.arange(n) % 8
    turn = np.arange(n) // 8
    rows["seq"], rows["type"] = turn & 0xFFFF, np.where(turn < 10, 11, 10)
    rows["length"] = np.where(turn < 10, 160, 162)
    rows["ts"] = np.where(turn < 10, turn * 80, turn * 40)
    return rows


def leaps(n: int, rng: Random) -> Rows:
    """Streams whose clock leaps by days on their second packet (F9)."""
    rows = _one_leg(n, rng)
    leg = np.arange(n) // 40
    rows["lo"], rows["seq"] = leg, np.arange(n) % 40
    rows["strep"] = 0xC4 | leg % 2
    rows["ts"] = np.where(rows["seq"] == 1, 0x7FFF_FF00, rows["seq"].astype(np.int64) * 160)
    return rows


def opus(n: int, rng: Random) -> Rows:
    """A hundred streams of what an opus decoder takes for speech."""
    rows = _one_leg(n, rng)
    rows["lo"], rows["seq"] = np.arange(n) % 100, (np.arange(n) // 100) & 0xFFFF
    rows["ssrc"], rows["type"] = np.arange(n) % 100, 111
    rows["ts"] = np.arange(n) // 100 * 960
    rows["head"], rows["heads"], rows["pool"] = 0x78 << 56, 1, rng.integers(0, 65_536, n)
    return rows


def junk(n: int, rng: Random) -> Rows:
    return actors.junk(rng, n, 1 << 40)


def sizes(n: int, rng: Random) -> Rows:
    """Lengths from 0 to 65,507, of one leg."""
    rows = _one_leg(n, rng)
    rows["length"] = rng.choice([0, 1, 1400, 2000, 2048, 9000, 65_471], n, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.09, 0.01])
    return rows


def _spoofed(n: int, rng: Random, legs: int) -> Rows:
    rows = blank(n)
    rows["hi"], rows["lo"] = REAL_HI, np.arange(n) % legs
    rows["strep"] = 0xC4 | np.arange(n) // legs % 2
    turn = np.arange(n) // (2 * legs)
    rows["seq"], rows["ts"] = (30_000 + turn) & 0xFFFF, turn * 160
    rows["pool"] = rng.integers(0, 65_536, n)
    return rows


def spoofed(n: int, rng: Random) -> Rows:
    """The real calls' ids from another address, with an SSRC of the spoofer's (F5)."""
    rows = _spoofed(n, rng, 10)
    rows["ssrc"] = 0xBAD
    return rows


def mixed_in(n: int, rng: Random) -> Rows:
    """The real calls' ids and SSRCs from another address, near their sequence numbers (F5)."""
    rows = _spoofed(n, rng, 10)
    rows["ssrc"] = 0x1000 + 2 * (np.arange(n) % 10) + np.arange(n) // 10 % 2
    rows["seq"] = rng.integers(0, 1 << 9, n)
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def anything(n: int, rng: Random) -> Rows:
    """What the fuzz sends, all of it."""
    rows: Any = actors.storm(rng, n, 5_000_000_000)
    return rows[:n]


KINDS: Final[dict[str, Kind]] = {
    one.__name__: one
    for one in (
        random_ids, strided_ids, consecutive_ssrcs, pairs, flips, restarts, duplicates, far, held, held_behind, burst,
        reinvites, odd_lengths, leaps, opus, junk, sizes, spoofed, mixed_in, anything,
    )
}  # fmt: skip
