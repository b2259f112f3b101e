"""Who may take a stream over, and when: other SSRCs, other sequences, other addresses.

A stream belongs to the source that proved itself first. Another one proves itself too (two packets in sequence) and
then waits; all that it sends meanwhile is kept. By how long the stream's present source has been silent since, as seen
every 50 ms (many takeovers at once cost little more than one):

    same address and SSRC, sequence goes on after a loss      at once (RFC 3550 A.1)
    same address, another SSRC or sequence                    100 ms: no sender pauses so briefly, a spoofer may hit
                                                              between two packets
    another port of the same host                             100 ms: a NAT has given it, or the sender began anew
    another host                                              1 s, and it must still be sending
    either, if it was sending beside the present one          10 s: no sender that has moved does so
    either, when the control plane announced a move           100 ms; 1 s if it was sending beside the present one
    the address that the stream belonged to before            at once, whoever sends: it was here first
    another address, while the stream is young                at once, when its standing is better (below)

Plain RTP whose port nobody has bound to a direction is told apart by address, too. There a source takes a stream over
only if its sequence numbers and timestamps go on where the stream's stopped; otherwise, or when it has sent beside the
present source for 500 ms, it begins a stream of its own (``siblings``).

As soon as the present source sends again, what came of the others before is rejected.

An address is an IP address and a port; or a network, as streams are pinned (``pinning``).

**Standing** settles a race for the first packet: of two addresses the one from which the leg's other direction comes;
if neither sends it, the one from whose host established streams of other legs come, if those of the other send none.
Where nobody can invent legs (they are announced, or on the allow-list), the hosts are asked first: who knows one leg
can send both of its directions, but has no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS, SECOND_NS
from ..state import ESTABLISHED_NS, StreamState
from ..streams.ring import MAX_DROPOUT, MISORDER
from .keys import KIND_AUTO, SOURCE_BITS, Key, Keys, kind_of, ssrc_of, stream_tag
from .pinning import SourcePins
from .probation import Proofs

__all__ = ["Challengers", "Verdict"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

_GRID_NS: Final = 50_000_000  # silence is looked at on this grid, so that many take over at once
_QUIET_NS: Final = 100_000_000  # of the same host: a present source that has been silent for so long may be followed
_SILENT_NS: Final = SECOND_NS  # likewise of another host
_SENDING_NS: Final = SECOND_NS // 2  # two packets in sequence within this time: a source still sends
_YOUNG_NS: Final = 10 * SECOND_NS  # the age of a stream up to which its address is settled by standing
_INTRUDER_SILENT_NS: Final = 10 * SECOND_NS  # after which an intruder may take over
_BESIDE_NS: Final = SECOND_NS // 2  # who sends this long beside the present source is an intruder
_FORGOTTEN_NS: Final = 2 * SECOND_NS  # after its last pair
_CHALLENGERS: Final = 1024  # that wait, at most
_CHALLENGERS_A_STREAM: Final = 16
_ADDRESSES_BESIDE: Final = 4096  # at most, that are known to have sent beside a stream's own
_RACES_A_TICK: Final = 8  # that are looked into
_DIRECTION: Final = np.uint64(2)  # a stream's tag with this bit changed is its leg's other direction


@dataclass(slots=True)
class _Challenger:
    sequence_number: int  # of the first packet of its last pair
    pair_ns: int  # when that came
    source: int
    timestamp: int  # of the first packet of its last pair
    ticks: int = 0  # in which it proved itself
    new: bool = True  # it has proved itself since the last boundary


@dataclass(frozen=True, slots=True)
class Verdict:
    """Columns (k,) of those who take over, the rows all different; and of the others, with the times before which
    nothing of theirs is wanted any more. ``apart``: those that begin streams of their own, beside one of their SSRC.
    ``moved``: pairs of a sibling's row and which of ``apart`` it is that goes on with it."""

    rows: I64
    keys: Keys
    sources: U64
    waiting_keys: Keys
    waiting_before_ns: I64
    apart: Proofs
    moved: list[tuple[int, int]]


class Challengers:
    """Sources that proved themselves for streams that have a present source."""

    def __init__(self, state: StreamState, pins: SourcePins) -> None:
        self._state = state
        self._pins = pins
        self._waiting: dict[Key, _Challenger] = {}
        self._beside: dict[tuple[int, int], tuple[int, int]] = {}  # by row and address: since and until when

    def __len__(self) -> int:
        return len(self._waiting)

    def going_on(self, keys: Keys, last_ns: I64) -> Bools:
        """Which of these sources, present ones, have proved that they go on behind a loss, and sent nothing before it
        since: their streams' last packets came at ``last_ns``. The others are no challengers any more. Bool (n,)."""
        found = []
        for key, last in zip(zip(*(words.tolist() for words in keys), strict=True), last_ns.tolist(), strict=True):
            one = self._waiting.get(key)
            found.append(one is not None and one.pair_ns >= last)
            if not found[-1]:
                self._waiting.pop(key, None)
        return np.array(found, np.bool_)

    def note(self, proofs: Proofs) -> None:
        """Sources proved themselves, for the first time or again."""
        keys = zip(proofs.hi.tolist(), proofs.lo.tolist(), proofs.tag.tolist(), strict=True)
        last = zip(
            proofs.last_sequence_number.tolist(),
            proofs.last_arrival_ns.tolist(),
            proofs.source.tolist(),
            proofs.last_timestamp.tolist(),
            strict=True,
        )
        for key, (sequence_number, pair_ns, source, timestamp) in zip(keys, last, strict=True):
            one = self._waiting.get(key)
            if one is None:
                if len(self._waiting) >= _CHALLENGERS:
                    continue
                one = self._waiting[key] = _Challenger(sequence_number, pair_ns, source, timestamp)
            one.sequence_number, one.pair_ns, one.timestamp, one.new = sequence_number, pair_ns, timestamp, True

    def judge(self, now_ns: int, *, closing: bool = False) -> Verdict | None:
        """At a boundary: who takes over now. ``closing``: nothing more will come."""
        if not self._waiting:
            return None
        all_keys = list(self._waiting)
        hi, lo, tag = (np.array(words, np.uint64) for words in zip(*all_keys, strict=True))
        rows = self._state.table.find(hi, lo, stream_tag(tag))
        for key, row in zip(all_keys, rows.tolist(), strict=True):
            if row < 0:
                del self._waiting[key]  # its stream has ended: it stays on probation and may begin a new one
        there = np.flatnonzero(rows >= 0)
        if not there.size:
            return None
        hi, lo, tag, rows = hi[there], lo[there], tag[there], rows[there]
        ones = list(self._waiting.values())
        sequence_number = np.array([one.sequence_number for one in ones], np.int64)
        pair_ns = np.array([one.pair_ns for one in ones], np.int64)
        timestamp = np.array([one.timestamp for one in ones], np.uint32)
        sources = np.array([one.source for one in ones], np.uint64)
        new = np.array([one.new for one in ones])
        for one in ones:
            one.ticks += one.new
            one.new = False
        ticks = np.array([one.ticks for one in ones], np.int64)

        last_ns = self._state.reception.last_arrival_ns[rows]
        alive = last_ns > pair_ns
        self._note_beside(rows, sources, np.flatnonzero(alive & new), now_ns)
        intruder = np.array([self.is_intruder(*who) for who in zip(rows.tolist(), sources.tolist(), strict=True)])
        near = self._pins.hosts(sources) == self._pins.hosts(self._state.source[rows])
        plain = (kind_of(tag) == KIND_AUTO) & (tag & SOURCE_BITS != self._pins.bits(self._state.source[rows]))
        goes_on = plain & self._may_go_on(rows, sequence_number, timestamp, pair_ns)
        ready, first = self._ready(
            now_ns=now_ns,
            hi=hi,
            lo=lo,
            tag=tag,
            rows=rows,
            sources=sources,
            sequence_number=sequence_number,
            pair_ns=pair_ns,
            alive=alive,
            near=near,
            intruder=intruder,
            plain=plain,
            closing=closing,
        )
        ready &= ~plain | goes_on | first
        beside = np.array([self._was_beside(*who) for who in zip(rows.tolist(), sources.tolist(), strict=True)])
        apart = plain & ~ready & (~goes_on | (alive & (beside | closing)))
        # a stream's best first: of one host's ports the first, as a sender had them; of other hosts who keeps sending
        order = np.lexsort((np.arange(len(rows)), -np.where(near, 0, ticks), intruder, ~first, ~ready, rows))
        ranked = rows[order]
        best = np.append(True, ranked[1:] != ranked[:-1])
        rank = np.arange(len(rows)) - np.flatnonzero(best)[np.cumsum(best) - 1]
        winners = order[best & ready[order]]
        crowded = np.zeros(len(rows), np.bool_)
        crowded[order[rank >= _CHALLENGERS_A_STREAM]] = True
        crowded &= ~apart
        old = now_ns - pair_ns > _FORGOTTEN_NS
        keys = list(self._waiting)
        proofs = Proofs(
            hi=hi,
            lo=lo,
            tag=tag,
            source=sources,
            last_sequence_number=sequence_number.astype(np.uint16),
            last_timestamp=timestamp,
            last_arrival_ns=pair_ns,
        )
        own, moved = self._of_siblings(proofs, rows, np.flatnonzero(apart), now_ns, closing=closing)
        for i in (*winners.tolist(), *own, *(i for _, i in moved), *np.flatnonzero((crowded | old) & ~ready).tolist()):
            self._waiting.pop(keys[i], None)
        # who is one too many keeps nothing; of the others nothing from before the present source's last packet
        again = np.flatnonzero(((alive & new & ~plain) | crowded) & ~ready)
        before_ns = np.where(crowded[again], NEVER_NS, last_ns[again])
        return Verdict(
            rows[winners],
            (hi[winners], lo[winners], tag[winners]),
            sources[winners],
            (hi[again], lo[again], tag[again]),
            before_ns,
            apart=proofs.take(np.array([*own, *(i for _, i in moved)], np.int64)),
            moved=[(row, len(own) + k) for k, (row, _) in enumerate(moved)],
        )

    def _may_go_on(self, rows: I64, sequence_number: I64, timestamp: npt.NDArray[np.uint32], pair_ns: I64) -> Bools:
        """Whether these pairs may be what streams go on with, by their sequence numbers and timestamps."""
        reception = self._state.reception
        ahead = (sequence_number - reception.max_ext[rows] + MISORDER) & 0xFFFF
        goes_on: Bools = ahead < MAX_DROPOUT + MISORDER
        return goes_on & reception.may_go_on(rows, timestamp, pair_ns)

    def _of_siblings(
        self, proofs: Proofs, rows: I64, apart: I64, now_ns: int, *, closing: bool
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Of those that belong to another stream than that of their row: which begin one; and which go on with a
        sibling of it (its row first), whose source has moved. The others wait until that has been silent for long
        enough."""
        own: list[int] = []
        moved: list[tuple[int, int]] = []
        state, taken = self._state, set[int]()
        for i in apart.tolist():
            siblings = state.siblings.of(int(proofs.lo[i]), int(stream_tag(proofs.tag[i : i + 1])[0]))
            theirs = np.array([row for row in siblings if row != rows[i] and row not in taken], np.int64)
            one = proofs.take(np.full(len(theirs), i, np.int64))
            theirs = theirs[
                self._may_go_on(
                    theirs, one.last_sequence_number.astype(np.int64), one.last_timestamp, one.last_arrival_ns
                )
                & (state.reception.last_arrival_ns[theirs] <= proofs.last_arrival_ns[i])
            ]
            if not theirs.size:
                own.append(i)
                continue
            row = int(theirs[0])
            words = np.array([proofs.source[i], state.source[row]], np.uint64)
            near = len(set(self._pins.hosts(words).tolist())) == 1
            wanted_ns = (0 if closing else _QUIET_NS) if near else _SILENT_NS
            if now_ns - int(state.reception.last_arrival_ns[row]) >= wanted_ns:
                taken.add(row)
                moved.append((row, i))
            elif closing:
                own.append(i)
        return own, moved

    def _ready(
        self,
        now_ns: int,
        hi: U64,
        lo: U64,
        tag: U64,
        rows: I64,
        sources: U64,
        sequence_number: I64,
        pair_ns: I64,
        *,
        alive: Bools,
        near: Bools,
        intruder: Bools,
        plain: Bools,
        closing: bool,
    ) -> tuple[Bools, Bools]:
        """Who may take over now, and who of them comes before others."""
        state = self._state
        bits = tag & SOURCE_BITS
        same = bits == self._pins.bits(state.source[rows])
        same_ssrc = ssrc_of(tag) == state.ssrc[rows]
        jump = (sequence_number - state.ring.next[rows]) & 0xFFFF
        goes_on = same & same_ssrc & (jump < MAX_DROPOUT)
        former = state.former_source[rows]
        owner = ~same & (former != 0) & (bits == self._pins.bits(former))
        moving = now_ns < state.moving_until_ns[rows]
        seen_ns = now_ns if closing else now_ns // _GRID_NS * _GRID_NS
        quiet_ns = seen_ns - state.reception.last_arrival_ns[rows]
        wanted_ns = np.where(near, 0 if closing else _QUIET_NS, _SILENT_NS)
        wanted_ns[intruder] = _INTRUDER_SILENT_NS
        wanted_ns[intruder & moving] = _SILENT_NS  # it is not the one that was announced, if another one comes
        wanted_ns[same | (moving & ~intruder)] = 0 if closing else _QUIET_NS
        ready = ~alive & (goes_on | (quiet_ns >= wanted_ns))
        ready &= near | moving | (now_ns - pair_ns <= _SENDING_NS)
        ready |= owner
        racing = np.flatnonzero(~same & ~plain & ~ready & (now_ns - state.first_arrival_ns[rows] <= _YOUNG_NS))
        racing = racing[np.unique(rows[racing], return_index=True)[1]][:_RACES_A_TICK]
        for i in racing.tolist():
            ready[i] = self._stands_better(int(rows[i]), hi[i], lo[i], tag[i], int(sources[i]))
        return ready, owner

    def _note_beside(self, rows: I64, sources: U64, which: I64, now_ns: int) -> None:
        """These sent while their stream's present source did."""
        state = self._state
        for i in which[sources[which] != state.source[rows[which]]].tolist():
            who = int(rows[i]), int(sources[i])
            since_ns, _ = self._beside.pop(who, (now_ns, now_ns))
            if since_ns < state.first_arrival_ns[rows[i]]:
                since_ns = now_ns  # the row had another stream then
            self._beside[who] = since_ns, now_ns
        while len(self._beside) > _ADDRESSES_BESIDE:
            del self._beside[next(iter(self._beside))]

    def _shut_out(self, row: int, source: int, now_ns: int) -> None:
        """A stream was taken from this source while it was sending: it was the wrong one."""
        self._beside.pop((row, source), None)
        self._beside[row, source] = now_ns + ESTABLISHED_NS, now_ns + ESTABLISHED_NS + _BESIDE_NS

    def _was_beside(self, row: int, source: int) -> bool:
        """Whether a source has sent beside a stream's present one for so long that it is another one."""
        since_ns, until_ns = self._beside.get((row, source), (0, 0))
        return until_ns - since_ns >= _BESIDE_NS

    def is_intruder(self, row: int, source: int) -> bool:
        since_ns, until_ns = self._beside.get((row, source), (0, 0))
        # who came when the stream had just begun may be the one it should belong to
        established_ns = int(self._state.first_arrival_ns[row]) + ESTABLISHED_NS
        return until_ns - since_ns >= _BESIDE_NS and since_ns >= established_ns

    def note_owners(self, rows: I64, sources: U64, now_ns: int) -> None:
        """Streams, in these rows, are taken over from these addresses: note to whom they belong from now on."""
        state = self._state
        former, present = state.former_source[rows], state.source[rows]
        moved = sources != present
        # who was here first keeps its right to come back, but not against the control plane, nor after a race that it
        # lost because its standing was worse: it is still sending then
        silent = state.reception.last_arrival_ns[rows] <= now_ns - _SILENT_NS
        moving = now_ns < state.moving_until_ns[rows]
        rightful = np.where(former != 0, former, present)
        who = zip(rows.tolist(), sources.tolist(), strict=True)
        announced = moving & ~np.array([self.is_intruder(*one) for one in who], np.bool_)
        rightful[(sources == former) | announced | ~silent] = 0
        for i in np.flatnonzero(moved & ~silent & ~moving).tolist():
            self._shut_out(int(rows[i]), int(present[i]), now_ns)
        state.former_source[rows[moved]] = rightful[moved]
        state.moving_until_ns[rows[moved]] = 0

    def _stands_better(self, row: int, hi: np.uint64, lo: np.uint64, tag: np.uint64, source: int) -> bool:
        """Whether a race for a young stream is to be decided for the one who came second."""
        by_sibling, sibling = self._sibling_says(row, hi, lo, tag, source)
        by_hosts = self._hosts_say(row, sibling, source)
        registry = self._state.registry
        first, then = (by_hosts, by_sibling) if registry.legs_are_known else (by_sibling, by_hosts)
        return bool(then if first is None else first)

    def _sibling_says(
        self, row: int, hi: np.uint64, lo: np.uint64, tag: np.uint64, source: int
    ) -> tuple[bool | None, int]:
        """Whether the second one sends the leg's other direction (None: neither or both do), and that one's row."""
        state, pins = self._state, self._pins
        words = np.array([state.source[row], source], np.uint64)
        one_key = np.array([hi]), np.array([lo]), stream_tag(np.array([tag])) ^ _DIRECTION
        sibling = int(state.table.find(*one_key)[0])
        if sibling >= 0:
            # of the leg's two directions each comes from the same socket
            for own, its in (
                (words, state.source[sibling]),
                (pins.hosts(words), pins.hosts(state.source[sibling : sibling + 1])[0]),
            ):
                if (own == its).sum() == 1:
                    return bool(own[1] == its), sibling
        return None, sibling

    def _hosts_say(self, row: int, sibling: int, source: int) -> bool | None:
        """Whether established streams of other legs come from the second one's host and none from the first one's;
        None: from both or from neither."""
        state, pins = self._state, self._pins
        rows = slice(len(state.registry.info))
        first_ns = state.first_arrival_ns[rows]
        established = (first_ns > 0) & (state.reception.last_arrival_ns[rows] - first_ns >= ESTABLISHED_NS)
        established[row] = False
        if sibling >= 0:
            established[sibling] = False
        first, second = pins.hosts(np.array([state.source[row], source], np.uint64))
        theirs = pins.hosts(state.source[rows][established])
        of_first, of_second = bool((theirs == first).any()), bool((theirs == second).any())
        return None if of_first == of_second else of_second
