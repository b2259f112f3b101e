"""Who sends hostile datagrams: streams that lie in every field, and templates of attacks that are known.

An actor makes all its datagrams at once, as columns. Actors share a few call legs, so that they meet on the same
streams. Nothing here knows the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .wire import LONGEST, WIDTH, WIRE, blank

__all__ = ["ACTORS", "storm"]

Rows = npt.NDArray[np.void]
Random = np.random.Generator
Actor = Callable[[Random, int, int], Rows]

MS: Final = 1_000_000
HI: Final = 0x5151_5151_5151_5151  # of the hostile call legs' ids
LEGS: Final = 20  # that actors share
_OTHER_LEGS: Final = 1 << 20  # from here on legs that only one actor has

# payload type: (usual payload bytes of 20 ms, RTP clock units of 20 ms)
_CODECS: Final = {
    0: (160, 160), 3: (33, 160), 8: (160, 160), 9: (160, 160), 10: (3528, 882), 11: (1764, 882), 13: (1, 160),
    18: (20, 160), 96: (640, 320), 97: (32, 160), 98: (33, 320), 99: (38, 160), 100: (80, 960), 101: (4, 160),
    102: (320, 160), 103: (32, 160), 111: (80, 960), 4: (24, 160), 120: (160, 160), 121: (33, 160), 122: (80, 960),
    72: (160, 160),
}  # fmt: skip
_TYPES: Final = np.array(list(_CODECS))
_BYTES = np.full(128, 160)
_UNITS = np.full(128, 160)
for _type, (_size, _units) in _CODECS.items():
    _BYTES[_type], _UNITS[_type] = _size, _units
_OPUS: Final = (100, 111, 122)
_AMR: Final = (97, 98, 103)

_SEQUENCE_JUMPS: Final = np.array(
    [
        "-40000",
        "-3001",
        "-200",
        "-101",
        "-100",
        "-99",
        "-65",
        "-64",
        "-45",
        "-20",
        "-2",
        "-1",
        "1",
        "1",
        "1",
        "2",
        "5",
        "20",
        "42",
        "43",
        "44",
        "45",
        "46",
        "63",
        "64",
        "65",
        "100",
        "127",
        "128",
        "129",
        "2999",
        "3000",
        "3001",
        "32767",
        "32768",
        "32769",
    ],
    np.int64,
)
_CLOCK_JUMPS: Final = np.array(
    f"{-(1 << 31)} {0x7FFF_FF00} {1 << 31} {1 << 30} 28800000 -28800000 -160000 -8000 -321 -160 -80 -1 1 79 160 1600"
    " 7999 16000 80000".split(),
    np.int64,
)
_LENGTHS: Final = np.array([0, 1, 2, 3, 4, 5, 7, 8, 11, 31, 50, 159, 161, 162, 164, 170, 176, 240, 255, 256, 257, 320])
_LARGE: Final = np.array([500, 960, 1399, 2011, 2012, 2013, 2048, 2049, 4000, 9000, 32_768, 65_471])
_PAUSES_MS: Final = np.array([100, 190, 200, 210, 500, 999, 1500, 2500])


def _chosen(rng: Random, n: int, chance: float) -> npt.NDArray[np.bool_]:
    return rng.random(n) < chance


def _chance(rng: Random, *chances: float) -> float:
    return float(rng.choice(chances))


def _keyed(rows: Rows, rng: Random, leg: int | None = None) -> Rows:
    """One leg and direction for all of them: one that others send to as well, or not."""
    if leg is None:
        leg = int(rng.integers(0, LEGS) if rng.random() < 0.6 else rng.integers(_OTHER_LEGS, 2 * _OTHER_LEGS))
    rows["hi"], rows["lo"] = HI, leg
    rows["strep"] = 0xC4 | rng.integers(0, 4)
    rows["ssrc"] = rng.integers(1, 4) if rng.random() < 0.7 else rng.integers(0, 1 << 32)
    return rows


def _timed(rows: Rows, rng: Random, span_ns: int, every_ns: int = 0) -> Rows:
    n = len(rows)
    every_ns = every_ns or int(rng.choice([0, 100_000, MS, 5 * MS, 20 * MS, 20 * MS, 20 * MS, 30 * MS]))
    rows["ns"] = int(rng.integers(0, span_ns)) + np.arange(n) * every_ns
    return rows


def _numbered(rows: Rows, rng: Random) -> Rows:
    """In sequence from anywhere, with a true clock."""
    n = len(rows)
    first = int(rng.choice([0, 65_530, int(rng.integers(0, 65_536))]))
    rows["seq"] = (first + np.arange(n)) & 0xFFFF
    rows["ts"] = (int(rng.integers(0, 1 << 32)) + np.arange(n) * 160) & 0xFFFF_FFFF
    return rows


def _repeated(rows: Rows, rng: Random, chance: float, most: int = 4) -> Rows:
    copies = np.where(_chosen(rng, len(rows), chance), rng.integers(2, most + 1, len(rows)), 1)
    out = np.repeat(rows, copies)
    again = np.r_[False, np.repeat(np.arange(len(rows)), copies)[1:] == np.repeat(np.arange(len(rows)), copies)[:-1]]
    out["ns"][again] += rng.integers(0, 80 * MS, int(again.sum()))
    return out


def _coded(rows: Rows, rng: Random, types: npt.NDArray[np.int64]) -> Rows:
    """The payload types given, with payloads of the usual size that decoders take for sound."""
    rows["type"] = types
    rows["length"] = _BYTES[types] * rng.choice([1, 1, 1, 1, 2, 3])
    rows["pool"] = rng.integers(0, 65_536, len(rows))
    rows["ts"] = (int(rows["ts"][0]) + np.cumsum(_UNITS[types])) & 0xFFFF_FFFF
    opus = np.flatnonzero(np.isin(types, _OPUS))
    # TOC byte (RFC 6716 3.1): any mode and duration, mono or stereo, mostly one frame
    toc = rng.integers(0, 32, opus.size) << 3 | rng.integers(0, 2, opus.size) << 2
    rows["head"][opus] = (toc | rng.choice([0, 0, 0, 1, 2, 3], opus.size)) << 56
    rows["heads"][opus] = 1
    amr = np.flatnonzero(np.isin(types, _AMR))
    # CMR 15, then F 0, FT, Q 1 (RFC 4867 4.3 and 4.4)
    aligned = types[amr] == 103
    frame_type = rng.integers(0, 16, amr.size)
    head = np.where(aligned, 0xF000 | frame_type << 3 | 4, 0xF000 | frame_type << 7 | 0x40)
    rows["head"][amr], rows["heads"][amr] = head << 48, 2
    return rows


def _switching(rng: Random, n: int, chance: float) -> npt.NDArray[np.int64]:
    """Payload types that stay for a while."""
    types = rng.choice(_TYPES, n)
    keep = ~_chosen(rng, n, chance)
    keep[0] = False
    return types[np.maximum.accumulate(np.where(keep, 0, np.arange(n)))]


def walker(rng: Random, n: int, span_ns: int) -> Rows:
    """A stream of any codecs, of which every field may go wrong."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns)
    rows = _coded(rows, rng, _switching(rng, n, _chance(rng, 0, 0.01, 0.1, 0.4)))
    jump = np.where(_chosen(rng, n, _chance(rng, 0, 0.01, 0.05, 0.3)), rng.choice(_SEQUENCE_JUMPS, n), 0)
    rows["seq"] = (rows["seq"] + np.cumsum(jump)) & 0xFFFF
    step = np.where(_chosen(rng, n, _chance(rng, 0, 0, 0.01, 0.2)), rng.choice(_CLOCK_JUMPS, n), 0)
    if rng.random() < 0.1:
        step = step - 160  # the clock stands still
    rows["ts"] = (rows["ts"] + np.cumsum(step)) & 0xFFFF_FFFF
    if rng.random() < 0.3:
        rows["ssrc"] = rows["ssrc"] + np.cumsum(_chosen(rng, n, _chance(rng, 0.01, 0.1, 0.5))).astype(np.uint32)
    pause = np.where(_chosen(rng, n, _chance(rng, 0, 0, 0.01)), rng.choice(_PAUSES_MS, n), 0) * MS
    rows["ns"] += np.cumsum(pause)
    if rng.random() < 0.5:
        rows["ns"] += rng.integers(0, int(rng.choice([2, 30, 150, 400])) * MS, n)
    _mutate(rows, rng, _chance(rng, 0, 0.01, 0.05, 0.3))
    rows = rows[~_chosen(rng, n, _chance(rng, 0, 0.02, 0.3))]
    return _repeated(rows, rng, _chance(rng, 0, 0.02, 0.3))


def _mutate(rows: Rows, rng: Random, chance: float) -> None:
    """Every field, each on its own."""
    n = len(rows)
    if not chance:
        return

    def some(share: float = 1.0) -> npt.NDArray[np.intp]:
        return np.flatnonzero(_chosen(rng, n, chance * share))

    at = some()
    rows["length"][at] = rng.choice(_LENGTHS, at.size)
    at = some(0.2)
    rows["length"][at] = rng.choice(_LARGE, at.size)
    at = some(0.3)
    rows["head"][at], rows["heads"][at] = rng.integers(0, 1 << 62, at.size), rng.integers(1, 8, at.size)
    at = some(0.5)
    rows["type"][at] = rng.integers(0, 256, at.size)
    at = some(0.3)
    rows["type"][at] |= 0x80
    at = some(0.5)
    rows["rtp"][at] = 0x80 | rng.integers(0, 64, at.size)  # P, X, CC
    at = some(0.3)
    rows["tail"][at] = rng.integers(0, 256, at.size)
    at = some(0.2)
    rows["rtp"][at] = rng.integers(0, 256, at.size)
    at = some(0.3)
    rows["strep"][at] ^= rng.choice([1, 2, 3], at.size).astype(np.uint8)  # another direction, another leg
    at = some(0.1)
    rows["strep"][at] = rng.integers(0, 256, at.size)
    at = some(0.1)
    rows["header"][at] = rng.integers(0, 256, at.size)
    at = some(0.1)
    rows["reserved"][at] = rng.integers(0, 1 << 48, at.size)
    at = some(0.2)
    rows["lo"][at] = rng.integers(0, LEGS, at.size)
    at = some(0.2)
    rows["ssrc"][at] = rng.integers(0, 1 << 32, at.size)
    at = some(0.2)
    rows["seq"][at] = rng.integers(0, 65_536, at.size)
    at = some(0.2)
    rows["ts"][at] = rng.integers(0, 1 << 32, at.size)
    at = some(0.2)
    rows["cut"][at] = rng.integers(0, 80, at.size)
    at = some(0.5)
    rows["flip"][at, 0] = rng.integers(0, 8 * 44, at.size)
    at = some(0.2)
    rows["source"][at] += rng.integers(0, 3, at.size).astype(np.uint64)
    rows["port"][at] = rng.integers(1, 65_536, at.size)
    at = some(0.2)
    rows["plain"][at] = True
    at = some(0.2)
    rows["local"][at] = rng.choice([9000, 9002, 9004, 9006], at.size)


def held(rng: Random, n: int, span_ns: int) -> Rows:
    """Packets never two in sequence, held back until a pair far from them proves the source (F1)."""
    out = []
    for _ in range(max(1, n // 60)):
        count = int(rng.choice([10, 38, 40, 41, 57, 150]))
        rows = _keyed(blank(count + 2), rng, int(rng.integers(_OTHER_LEGS, 2 * _OTHER_LEGS)))
        rows = _timed(_numbered(rows, rng), rng, span_ns, int(rng.choice([1000, MS, 5 * MS])))
        base = int(rng.integers(0, 65_536))
        step = rng.choice([2, 3, 7, 45, -2, -3], count) if rng.random() < 0.5 else np.full(count, 2)
        rows["seq"][:count] = (base + np.cumsum(step)) & 0xFFFF
        pair = (base + int(rng.choice([-30_000, -900, -100, -33, -1, count, 2 * count + 2, 3000, 9000]))) & 0xFFFF
        rows["seq"][count:] = (pair, (pair + 1) & 0xFFFF)
        rows["ts"] = rows["seq"].astype(np.int64) * 160
        out.append(rows)
    return np.concatenate(out)


def flips(rng: Random, n: int, span_ns: int) -> Rows:
    """The SSRC changes with every pair; the sequence goes on, or does not."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, int(rng.choice([100_000, MS, 20 * MS])))
    pair = np.arange(n) // int(rng.choice([2, 2, 3]))
    rows["ssrc"] = (pair * 2_654_435_761) & 0xFFFF_FFFF if rng.random() < 0.6 else pair % 2
    if rng.random() < 0.5:
        rows["seq"] = (rows["seq"] + pair * 7919) & 0xFFFF
    return rows


def restarts(rng: Random, n: int, span_ns: int) -> Rows:
    """One SSRC, and every pair of packets is another sequence."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, int(rng.choice([100_000, MS, 10 * MS])))
    rows["seq"] = (np.arange(n) // 2 * int(rng.choice([7919, 3001, 101, -101, -5000])) + np.arange(n) % 2) & 0xFFFF
    return rows


def pairs(rng: Random, n: int, span_ns: int) -> Rows:
    """Two packets each of many legs: as many streams, for as long as the idle timeout lasts."""
    n = min(n, 60) // 2 * 2
    rows = _timed(blank(n), rng, span_ns, int(rng.choice([50_000, MS])))
    rows["hi"], rows["lo"] = HI, int(rng.integers(_OTHER_LEGS, 1 << 40)) + np.arange(n) // 2
    rows["seq"], rows["ts"] = np.arange(n) & 1, (np.arange(n) & 1) * 160
    rows["ssrc"] = np.arange(n) // 2
    return rows


def ids(rng: Random, n: int, span_ns: int) -> Rows:
    """Every packet another leg: any, consecutive, in steps of 2^40; or another SSRC of plain RTP."""
    rows = _timed(blank(n), rng, span_ns, int(rng.choice([1000, 50_000])))
    kind = int(rng.integers(0, 4))
    if kind == 0:
        rows["hi"], rows["lo"] = rng.integers(0, 1 << 63, n), rng.integers(0, 1 << 63, n)
    elif kind == 3:
        rows["plain"], rows["ssrc"] = True, int(rng.integers(0, 1 << 31)) + np.arange(n)
    else:
        rows["hi"] = HI + 1
        rows["lo"] = (np.arange(n, dtype=np.uint64)) << np.uint64(0 if kind == 1 else 40)
    rows["seq"] = rng.integers(0, 65_536, n)
    return rows


def switches(rng: Random, n: int, span_ns: int) -> Rows:
    """A re-INVITE every few packets: each codec to any other, as orderly as can be (F2)."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    every = int(rng.choice([1, 2, 3, 10]))
    return _coded(rows, rng, np.repeat(rng.choice(_TYPES, n // every + 1), every)[:n])


def odd(rng: Random, n: int, span_ns: int) -> Rows:
    """Frames that are not whole: L16 and others in lengths that are no multiple of anything (F3)."""
    rows = switches(rng, n, span_ns)
    types = np.where(np.arange(n) < n // 3, rng.choice([0, 8, 11, 102]), rng.choice([10, 11, 96, 9, 18, 97, 99]))
    rows["type"] = types
    rows["length"] = rng.choice([161, 162, 163, 639, 641, 1, 3, 7, 157], n)
    rows["head"] = -1
    rows["ts"] = (int(rows["ts"][0]) + np.arange(n) * int(rng.choice([40, 80, 160]))) & 0xFFFF_FFFF
    return rows


def leap(rng: Random, n: int, span_ns: int) -> Rows:
    """Both directions of a leg; the clock of one leaps by hours on an early packet (F9)."""
    leg = int(rng.integers(_OTHER_LEGS, 2 * _OTHER_LEGS))
    out = []
    for direction in (0, 1):
        rows = _timed(_numbered(_keyed(blank(n // 2), rng, leg), rng), rng, span_ns // 4, 20 * MS)
        rows["strep"] = 0xC4 | direction
        rows["ts"] = np.arange(n // 2) * 160
        if direction or rng.random() < 0.3:
            at = int(rng.integers(0, 4))
            rows["ts"][at : at + int(rng.choice([1, 2, n]))] += np.uint32(
                rng.choice([0x7FFF_FF00, 28_800_000, 1 << 31])
            )
        out.append(rows[np.arange(len(rows)) % 50 != 49])
    return np.concatenate(out)


def keys(rng: Random, n: int, span_ns: int) -> Rows:
    """Telephone-events that lie (RFC 4733): durations that go back, ends that never or always come, odd lengths."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    event = np.flatnonzero(_chosen(rng, n, _chance(rng, 0.3, 0.8, 1.0)))
    rows["type"][event] = rng.choice([101, 101, 110, 126], event.size)
    rows["length"][event] = rng.choice([4, 4, 4, 4, 0, 1, 3, 5, 8, 12, 160], event.size)
    digit = rng.choice([0, 5, 9, 10, 11, 15, 16, 17, 255], event.size)
    held_for = rng.choice([0, 1, 159, 160, 320, 480, 8000, 0xFFFF], event.size)
    head = digit << 24 | rng.integers(0, 256, event.size) << 16 | held_for
    rows["head"][event], rows["heads"][event] = head << 32, 4
    same = _chosen(rng, n, 0.7)
    same[0] = False
    rows["ts"] = rows["ts"][np.maximum.accumulate(np.where(same, 0, np.arange(n)))]
    return rows


def comfort(rng: Random, n: int, span_ns: int) -> Rows:
    """Comfort noise of any size among speech (RFC 3389), and after it silence in time."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    quiet = np.flatnonzero(_chosen(rng, n, _chance(rng, 0.05, 0.5, 0.95)))
    rows["type"][quiet] = 13
    rows["length"][quiet] = rng.choice([0, 1, 2, 5, 11, 12, 13, 40, 200], quiet.size)
    rows["pool"] = rng.integers(0, 65_536, n)
    wait = np.zeros(n, np.int64)
    wait[quiet] = rng.choice([0, 0, 1, 10, 50], quiet.size)
    rows["ts"] = (rows["ts"] + np.cumsum(wait) * 160) & 0xFFFF_FFFF
    rows["ns"] += np.cumsum(wait) * 20 * MS
    return rows


def srtp(rng: Random, n: int, span_ns: int) -> Rows:
    """Payloads as much too long as SRTP makes them, now and then not."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    rows["type"] = rng.choice([0, 8, 9, 18])
    rows["length"] += int(rng.choice([4, 10, 16]))
    plain = np.flatnonzero(_chosen(rng, n, _chance(rng, 0, 0.1)))
    rows["length"][plain] = 160
    rows["pool"] = rng.integers(0, 65_536, n)
    return rows


def red(rng: Random, n: int, span_ns: int) -> Rows:
    """RFC 2198: blocks of older packets before the newest, with offsets and lengths that need not be true."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    rows["type"] = rng.choice([116, 121, 63])
    block = rng.choice([0, 8, 101], n) | 0x80
    rows["head"] = block << 56 | rng.integers(0, 1 << 14, n) << 42 | rng.choice([0, 10, 160, 1023], n) << 32
    rows["head"] = rows["head"] & ((1 << 62) - 1)  # the first bit is lost: a block that claims to be the last
    rows["heads"] = 5
    return rows


def junk(rng: Random, n: int, span_ns: int) -> Rows:
    """Random bytes; RTCP, STUN, DTLS and SIP by their first ones."""
    rows = _timed(blank(n), rng, span_ns, int(rng.choice([10_000, MS])))
    for name, bits in (("strep", 8), ("header", 8), ("reserved", 48), ("rtp", 8), ("type", 8), ("seq", 16)):
        rows[name] = rng.integers(0, 1 << bits, n)
    rows["hi"], rows["lo"] = rng.integers(0, 1 << 63, n), rng.integers(0, 1 << 63, n)
    rows["ts"], rows["ssrc"] = rng.integers(0, 1 << 32, n), rng.integers(0, 1 << 32, n)
    rows["length"], rows["pool"] = rng.integers(0, 300, n), rng.integers(0, 65_536, n)
    some = _chosen(rng, n, 0.5)
    rows["strep"][some] = rng.choice([0x80, 0x81, 0x00, 0x01, 20, 22, 0x49, 0x0D, 0xC4], int(some.sum()))
    rows["header"][some] = rng.choice([200, 201, 202, 0, 1, 24, 78], int(some.sum()))
    rows["cut"] = rng.integers(0, 340, n)
    rows["local"] = rng.choice([9000, 9002, 9004, 9006], n)
    return rows


def copies(rng: Random, n: int, span_ns: int) -> Rows:
    """The same few packets over and over."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, int(rng.choice([10_000, MS])))
    one = np.minimum(np.arange(n), 3 + np.arange(n) // int(rng.choice([20, 200, 5000])))
    for name in ("seq", "ts"):
        rows[name] = rows[name][one]
    return rows


def far(rng: Random, n: int, span_ns: int) -> Rows:
    """A stream that lives, and then any sequence number: late, beyond the window, another sequence."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, int(rng.choice([100_000, MS, 10 * MS])))
    reach = int(rng.choice([60, 130, 3100, 65_536]))
    rows["seq"][4:] = (int(rows["seq"][0]) + rng.integers(-reach, reach, n - 4)) & 0xFFFF
    rows["ts"] = rows["seq"].astype(np.int64) * 160
    return rows


def bursts(rng: Random, n: int, span_ns: int) -> Rows:
    """In order, but so many at once that a window is too small."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, 20 * MS)
    size = int(rng.choice([10, 20, 45, 64, 65, 130]))
    rows["ns"] = rows["ns"][np.arange(n) // size * size] + np.arange(n) % size * 1000
    return rows


def ports(rng: Random, n: int, span_ns: int) -> Rows:
    """Plain RTP on rx, tx and shared ports: SSRCs that come and go."""
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns)
    rows["plain"] = True
    rows["local"] = rng.choice([9000, 9002, 9004, 9006, 9006])
    turn = np.arange(n) // int(rng.choice([2, 3, 20, 80]))
    rows["ssrc"] = 7 + turn % int(rng.choice([1, 2, 3, 50]))
    _mutate(rows, rng, _chance(rng, 0, 0.05))
    rows["local"][rows["local"] == 0] = 9000
    return rows


def long(rng: Random, n: int, span_ns: int) -> Rows:
    """Datagrams up to the longest that there are: linear audio mostly, of packets alike or not, among short ones."""
    n = min(n, int(rng.choice([10, 24, 40])))
    rows = _timed(_numbered(_keyed(blank(n), rng), rng), rng, span_ns, int(rng.choice([100_000, 20 * MS, 100 * MS])))
    sound = int(rng.choice([10, 10, 11, 96, 102, 0, 9, 97, 98, 100]))
    rows["type"] = sound
    rows["length"] = int(rng.choice([1920, 2012, 2013, 3840, 9000, 17_640, 38_400, LONGEST - 36]))
    other = np.flatnonzero(_chosen(rng, n, _chance(rng, 0, 0.1, 0.5)))
    rows["length"][other] = rng.integers(0, LONGEST - 35, other.size)
    rows["pool"] = rng.integers(0, 65_536, n)
    frame = {10: 4, 0: 1, 9: 1, 97: 1, 98: 1, 100: 1}.get(sound, 2)
    rows["ts"] = (int(rows["ts"][0]) + np.cumsum(rows["length"] // frame)) & 0xFFFF_FFFF
    _mutate(rows, rng, _chance(rng, 0, 0, 0.05, 0.3))
    return _repeated(rows[~_chosen(rng, len(rows), _chance(rng, 0, 0.05, 0.3))], rng, _chance(rng, 0, 0.1), 2)


ACTORS: Final[dict[str, tuple[Actor, float]]] = {
    "walker": (walker, 8.0),
    "held": (held, 1.0),
    "flips": (flips, 0.6),
    "restarts": (restarts, 0.6),
    "pairs": (pairs, 0.3),
    "ids": (ids, 1.0),
    "switches": (switches, 2.0),
    "odd": (odd, 2.0),
    "leap": (leap, 0.4),
    "keys": (keys, 1.0),
    "comfort": (comfort, 1.0),
    "srtp": (srtp, 0.5),
    "red": (red, 0.3),
    "junk": (junk, 1.0),
    "copies": (copies, 0.5),
    "far": (far, 0.8),
    "bursts": (bursts, 0.6),
    "ports": (ports, 1.0),
    "long": (long, 0.6),
}
_LONG: Final = ("junk", "ids", "copies")


def storm(rng: Random, datagrams: int, span_ns: int, only: str | None = None) -> Rows:
    """About so many hostile datagrams of any actors, in order of arrival, none after ``span_ns``."""
    names = list(ACTORS) if only is None else [only]
    weights = np.array([ACTORS[name][1] for name in names])
    parts: list[Any] = []
    have = 0
    while have < datagrams:
        name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        rows = ACTORS[name][0](rng, int(rng.choice([300, 900] if name in _LONG else [30, 90, 200, 350])), span_ns)
        rows = rows[(rows["ns"] >= 0) & (rows["ns"] < span_ns)]
        rows["actor"] = len(parts)
        rows["snap"] = rng.choice([LONGEST, LONGEST, LONGEST, WIDTH, 96])
        parts.append(rows)
        have += len(rows)
    rows = np.concatenate(parts) if parts else np.zeros(0, WIRE)
    return rows[np.argsort(rows["ns"], kind="stable")]
