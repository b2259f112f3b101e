"""Which sources that have proved themselves begin streams: as far as there is room, within limits, and if they may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.addresses import format_address
from ..._model.events import Limited
from ..._model.time import SECOND_NS
from ..._model.types import Direction
from ..accounts import Accounts
from ..state import StreamState
from .beginnings import Runs, looks_encrypted, only, origins_ns
from .decisions import Decision, Eviction, NewStreams, Takeover
from .held import HeldPackets
from .keys import KIND_SHARED, Key, Keys, kind_of, ssrc_of, stream_tag
from .limits import AdmissionLimits
from .pinning import SourcePins
from .probation import Probation, Proofs
from .shared_port import Replacement, SharedPorts

__all__ = ["Admission", "first_of_each_stream"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_STREAMS_A_TICK: Final = 256  # new ones that somebody may have invented: a flood of pairs costs a bounded time
_SHARED_PORTS_A_TICK: Final = 8  # new sources on ports that rx and tx share, which are looked at one by one
_EVICTABLE_SILENCE_NS: Final = 200_000_000  # after which a stream of a few packets may be evicted
_TOLD_AGAIN_NS: Final = 10 * SECOND_NS  # that a limit is reached


class Admission:
    def __init__(self, state: StreamState, accounts: Accounts, probation: Probation) -> None:
        self._state = state
        self._accounts = accounts
        self._probation = probation
        self._limits = AdmissionLimits(len(state.ssrc))
        self._shared = SharedPorts(state)
        self._tick_ns = 0  # when the present tick began
        self._admitted = 0  # in this tick
        self._shared_looks = 0  # likewise
        self._told_ns: dict[str, int] = {}  # by cause of a limit: when it was last told
        self.without_room = 0  # streams that were refused in this tick because there are as many as may be

    def begin_tick(self, now_ns: int) -> None:
        self._tick_ns = now_ns
        self._admitted = self._shared_looks = 0

    def admit(self, proofs: Proofs, *, apart: bool = False) -> Iterator[Decision]:
        """Sources of unknown streams have proved themselves. Those that are too many now stay on probation, and end
        there or prove themselves again. ``apart``: they become siblings of streams of their port and SSRC."""
        expected = self._state.registry.expected(proofs.hi, proofs.lo, proofs.tag)
        asking = np.cumsum(~expected)
        proofs = proofs.take(np.flatnonzero(expected | (asking <= _STREAMS_A_TICK - self._admitted)))
        if not len(proofs):
            return
        self._admitted += min(int(asking[-1]), _STREAMS_A_TICK - self._admitted)
        first = first_of_each_stream((proofs.source if apart else proofs.hi, proofs.lo, proofs.tag))
        if len(first) < len(proofs):
            proofs = proofs.take(first)  # a stream's other sources prove themselves again, as those that change it
        refused = max(0, len(proofs) - self._state.registry.room)
        if refused:
            self.without_room += refused
            yield from self._refuse(refused, "streams", proofs.take(slice(len(proofs) - refused, len(proofs))))
            proofs = proofs.take(slice(0, len(proofs) - refused))
        granted = self._state.registry.expected(proofs.hi, proofs.lo, proofs.tag)
        rest = np.flatnonzero(~granted)
        granted[rest] = self._limits.grant(SourcePins.hosts(proofs.source[rest]).tolist(), self._tick_ns)
        if not granted.all():
            others = np.flatnonzero(~granted)
            yield from self._refuse(others.size, "source", proofs.take(others))
            proofs = proofs.take(np.flatnonzero(granted))
        if len(proofs):
            yield from self.admit_held((proofs.hi, proofs.lo, proofs.tag), proofs.source, apart=apart)

    def _refuse(self, streams: int, limit: str, proofs: Proofs) -> Iterator[Limited]:
        self._accounts.streams_refused += streams
        if self._tick_ns - self._told_ns.get(limit, -_TOLD_AGAIN_NS) >= _TOLD_AGAIN_NS:
            self._told_ns[limit] = self._tick_ns
            one = self._probation.newest(proofs.hi[:1], proofs.lo[:1], proofs.tag[:1])[0]
            yield Limited(limit, format_address(int(one["source_hi"]), int(one["source_lo"])))

    def admit_held(self, keys: Keys, sources: U64, *, apart: bool = False) -> Iterator[Decision]:
        """Sources begin streams, or replace those of a shared port, with all that was kept of them."""
        places = self._places(keys, sources)
        if any(place is None for place in places):
            chosen = np.array([place is not None for place in places])
            keys, sources = (keys[0][chosen], keys[1][chosen], keys[2][chosen]), sources[chosen]
            places = [place for place in places if place is not None]
            if not places:
                return
        held = self._probation.release(*keys)
        runs = Runs(held, len(places), takes_over=False)
        held, runs = self._without_unproven(held, runs, len(places))
        if not len(held.columns):
            return  # a flood has pushed out what proved them
        stream_keys = sources if apart else keys[0], keys[1], stream_tag(keys[2])
        each_key = list(zip(*(words.tolist() for words in stream_keys), strict=True))
        objections = self._objections(each_key, held, runs)
        ssrc = ssrc_of(keys[2])
        new = []
        for i, (place, objection) in enumerate(zip(places, objections, strict=True)):
            if objection is not None:
                continue
            if not isinstance(place, Replacement):
                new.append(i)
                continue
            mine = held.owner == i
            one = replace(held.take(mine), owner=np.zeros(int(mine.sum()), np.int64))
            this = slice(i, i + 1)
            yield Takeover(
                rows=np.array([place.row]),
                sources=sources[this],
                ssrc=ssrc[this],
                lowest=runs.lowest[this],
                held=one,
                key=each_key[i],
            )
        if new:
            yield self._new_streams(
                new=np.array(new), keys=stream_keys, sources=sources, ssrc=ssrc, places=places, held=held, runs=runs
            )

    def _new_streams(
        self,
        new: I64,
        keys: Keys,
        sources: U64,
        ssrc: npt.NDArray[np.uint32],
        places: list[Direction | Replacement | None],
        held: HeldPackets,
        runs: Runs,
    ) -> NewStreams:
        """Those of the columns that ``new`` names."""
        types = self._state.types
        origin_ns, encrypted = origins_ns(held, runs, types), looks_encrypted(held, runs, types)
        number = np.full(len(sources), -1)
        number[new] = np.arange(len(new))
        mine = only(held, (number >= 0)[held.owner])
        # only the streams of shared ports have a place; others' keys tell their directions
        shared = (kind_of(keys[2]) == KIND_SHARED).tolist()
        direction = [place if shared[i] and isinstance(place := places[i], Direction) else None for i in new.tolist()]
        return NewStreams(
            keys=(keys[0][new], keys[1][new], keys[2][new]),
            sources=sources[new],
            ssrc=ssrc[new],
            direction=direction,
            lowest=runs.lowest[new],
            first=held.columns[runs.first[new]],
            origin_ns=origin_ns[new],
            encrypted=encrypted[new],
            held=replace(mine, owner=number[mine.owner]),
        )

    def _places(self, keys: Keys, sources: U64) -> list[Direction | Replacement | None]:
        """Where each new source belongs; None: nowhere, for now. Only on ports that rx and tx share there is a
        question."""
        places: list[Direction | Replacement | None] = [Direction.INBOUND] * len(sources)
        pairs = set()
        for i in np.flatnonzero(kind_of(keys[2]) == KIND_SHARED).tolist():
            pair = int(keys[1][i])
            places[i] = None
            if pair not in pairs and self._shared_looks < _SHARED_PORTS_A_TICK:
                # one new source of a pair at a time: the next one looks at what became of it
                pairs.add(pair)
                self._shared_looks += 1
                places[i] = self._shared.place_of(pair, int(sources[i]), self._tick_ns)
        return places

    def _without_unproven(self, held: HeldPackets, runs: Runs, owners: int) -> tuple[HeldPackets, Runs]:
        """What belongs to the sources' sequences; the rest is rejected."""
        if runs.kept.all():
            return held, runs
        self._accounts.reject_held(held.columns["foreign"][~runs.kept])
        held = only(held, runs.kept)
        return held, Runs(held, owners, takes_over=False)

    def _objections(self, keys: list[Key], held: HeldPackets, runs: Runs) -> list[str | None]:
        """Why streams may not begin, by the registry: what was held of them is rejected for that; or "unproven", where
        nothing is left to make one of. None: they may."""
        registry = self._state.registry
        at_ns = held.columns["arrival_ns"][runs.first].tolist()
        found = [
            registry.objection(key, at) if proven else "unproven"
            for key, at, proven in zip(keys, at_ns, runs.proven.tolist(), strict=True)
        ]
        for cause in {cause for cause in found if cause not in (None, "unproven")}:
            those = np.array([one == cause for one in found])
            self._accounts.reject(str(cause), int(np.count_nonzero(those[held.owner])))
            self._accounts.streams_refused += int(np.count_nonzero(those))
        return found

    def evict(self, now_ns: int) -> Iterator[Eviction]:
        """If there was no room: the oldest of the streams that were but a few packets, and are silent since, make some;
        and after them those that only keep their places."""
        wanted, self.without_room = self.without_room, 0
        if not wanted:
            return
        state = self._state
        first_ns = state.first_arrival_ns[: len(state.registry.info)]
        rows = np.flatnonzero(first_ns)
        brief = state.is_brief(rows, now_ns - _EVICTABLE_SILENCE_NS)
        found = brief | state.is_sparse(rows, now_ns - _EVICTABLE_SILENCE_NS)
        if found.any():
            order = np.lexsort((first_ns[rows], ~brief, ~found))[: min(wanted, int(np.count_nonzero(found)))]
            yield Eviction(rows[order])


def first_of_each_stream(keys: Keys) -> I64:
    """Of sources, in order, the first of each stream: indices."""
    hi, lo, tag = keys[0], keys[1], stream_tag(keys[2])
    order = np.lexsort((tag, lo, hi))  # of equal ones, the first one first
    hi, lo, tag = hi[order], lo[order], tag[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1]) | (tag[1:] != tag[:-1])
    return np.sort(order[first])
