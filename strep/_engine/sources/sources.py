"""Which packets belong to which stream's present source: sources come, change and are refused.

Nothing is done to streams here. What is decided is yielded, one by one, and each decision must have been carried out
before the next one is asked for: that one depends on it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np
import numpy.typing as npt

from ..._model.time import NEVER_NS
from ..accounts import Accounts
from ..packets import Packets
from ..state import StreamState
from .admission import Admission, first_of_each_stream
from .announcements import Announcements
from .beginnings import Runs, only
from .decisions import Decision, Takeover
from .keys import Key, Keys, ssrc_of, stream_tag
from .pinning import SourcePins
from .probation import Probation, Proofs
from .takeover import Challengers

__all__ = ["Sources"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


class Sources:
    def __init__(self, state: StreamState, accounts: Accounts, pins: SourcePins) -> None:
        self._announcements = state.registry.announcements
        self._state = state
        self._accounts = accounts
        self._pins = pins
        self._probation = Probation()
        self._admission = Admission(state, accounts, self._probation)
        self._challengers = Challengers(state, pins)

    @property
    def waiting(self) -> bool:
        """Whether something is to be decided at the next boundary."""
        return bool(self._challengers) or bool(self._admission.without_room)

    @property
    def held(self) -> int:
        """Packets on probation."""
        return self._probation.held

    @property
    def next_ns(self) -> int:
        """When the next source has waited in vain to be announced."""
        return NEVER_NS if self._announcements is None else self._announcements.earliest_ns

    def settle_accounts(self) -> None:
        """Reject in the accounts what probation gave up since the last call."""
        expired, self._probation.expired = self._probation.expired, 0
        self._accounts.reject("probation", expired)
        foreign, self._probation.expired_foreign = self._probation.expired_foreign, 0
        self._accounts.reject("foreign_source", foreign)

    def close(self) -> None:
        """Nothing more will come: reject all that waits."""
        if self._announcements is not None and (keys := self._announcements.overdue(NEVER_NS)) is not None:
            self._turn_away(keys)
        self._probation.clear()
        self.settle_accounts()

    def expect_move(self, rows: I64, until_ns: int) -> None:
        """These streams' media is about to come from another address."""
        self._state.moving_until_ns[rows] = min(until_ns, NEVER_NS)

    # --- packets ----------------------------------------------------------------------------------------------------

    def offer(self, packets: Packets, foreign: Bools | None = None) -> Iterator[Decision]:
        """Packets that no present source accounts for: of unknown streams, other SSRCs or addresses, or far out of
        sequence. ``foreign``: which come from another address than their stream's; None: none."""
        tag = packets.tag & np.uint64(0xFFFF_FFFF)
        tag |= packets.ssrc.astype(np.uint64) << np.uint64(32)
        tag |= self._pins.bits(packets.source)
        columns = packets.held_columns()
        if foreign is not None:
            columns["foreign"] = foreign
        hi, lo, slab_rows, offset = packets.hi, packets.lo, packets.rows(), packets.offset.astype(np.int64)
        for proofs in self._probation.offer(
            hi=hi, lo=lo, tag=tag, columns=columns, slab=packets.slab, slab_rows=slab_rows, payload_offset=offset
        ):
            known = self._state.table.find(proofs.hi, proofs.lo, stream_tag(proofs.tag)) >= 0
            if known.any():
                self._challengers.note(proofs.take(np.flatnonzero(known)))
            new = np.flatnonzero(~known)
            if new.size and self._announcements is not None:
                new = self._announced(self._announcements, proofs, new)
            if not new.size:
                continue
            first = first_of_each_stream((proofs.hi[new], proofs.lo[new], proofs.tag[new]))
            yield from self._admission.admit(proofs.take(new[first]))
            if len(first) < len(new):  # those of streams that another source has just begun
                others = proofs.take(np.delete(new, first))
                known = self._state.table.find(others.hi, others.lo, stream_tag(others.tag)) >= 0
                self._challengers.note(others.take(np.flatnonzero(known)))

    def recall(self, rows: I64) -> tuple[Packets, I64] | None:
        """What waits of the present sources of these streams (distinct), and whose it is. Those that have proved that
        they go on behind it do so at the end of the tick. None: there are no others."""
        keys = self._state.table.keys(rows)
        tag = keys[2] & np.uint64(0xFFFF_FFFF)
        tag |= self._state.ssrc[rows].astype(np.uint64) << np.uint64(32)
        tag |= self._pins.bits(self._state.source[rows])
        last_ns = self._state.reception.last_arrival_ns[rows]
        alone = np.flatnonzero(~self._challengers.going_on((keys[0], keys[1], tag), last_ns))
        if not alone.size:
            return None
        hi, lo, stream = (words[alone] for words in keys)
        held = self._probation.release(hi, lo, tag[alone])
        return Packets.of_held(held, hi, lo, stream), rows[alone][held.owner]

    # --- announcements ----------------------------------------------------------------------------------------------

    def _announced(self, announcements: Announcements, proofs: Proofs, new: I64) -> I64:
        """Those of the new sources whose leg was announced; the others stay on probation, if there is room to wait."""
        one = proofs.take(new)
        welcome, turned_away = announcements.sift(one.hi, one.lo, one.tag, one.last_arrival_ns)
        if turned_away.any():
            self._turn_away((one.hi[turned_away], one.lo[turned_away], one.tag[turned_away]))
        return new[welcome]

    def _turn_away(self, keys: Keys) -> None:
        if keys[0].size:
            held = self._probation.release(*keys)
            self._accounts.reject("unannounced", len(held.columns))
            self._accounts.streams_refused += keys[0].size

    def admit_waiting(self, keys: Keys) -> Iterator[Decision]:
        """Sources whose leg has just been announced begin streams, with all that was kept of them."""
        if not keys[0].size or self._state.registry.room < keys[0].size:
            return  # without room for all of them they prove themselves again with their next packets
        new = np.flatnonzero(self._state.table.find(keys[0], keys[1], stream_tag(keys[2])) < 0)
        new = new[first_of_each_stream((keys[0][new], keys[1][new], keys[2][new]))]
        if new.size:
            keys = keys[0][new], keys[1][new], keys[2][new]
            yield from self._admission.admit_held(keys, self._probation.newest(*keys)["source"].copy())

    # --- at a boundary ----------------------------------------------------------------------------------------------

    def boundary(self, now_ns: int, *, closing: bool = False) -> Iterator[Decision]:
        """The present tick ends at ``now_ns``. ``closing``: nothing more will come."""
        now_ns = min(now_ns, NEVER_NS)
        self._admission.begin_tick(now_ns)
        if self._announcements is not None and (keys := self._announcements.overdue(now_ns)) is not None:
            self._turn_away(keys)
        again = True
        while again:
            took_over = yield from self._judge(now_ns, closing)
            again = took_over and closing  # at the end all go in that waited for each other
        yield from self._admission.evict(now_ns)

    def _judge(self, now_ns: int, closing: bool) -> Generator[Decision, None, bool]:
        """Let those take over whose turn it is; tells whether there were any."""
        verdict = self._challengers.judge(now_ns, closing=closing)
        if verdict is None:
            return False
        if verdict.waiting_before_ns.size:
            self._probation.trim(*verdict.waiting_keys, verdict.waiting_before_ns)
        if verdict.rows.size:
            yield from self._change(verdict.rows, verdict.keys, verdict.sources, now_ns)
        apart = verdict.apart
        for row, i in verdict.moved:
            one = apart.take(slice(i, i + 1))
            key = int(one.source[0]), int(one.lo[0]), int(stream_tag(one.tag)[0])
            yield from self._change(np.array([row]), (one.hi, one.lo, one.tag), one.source, now_ns, key)
        alone = len(apart) - len(verdict.moved)
        if alone:
            yield from self._admission.admit(apart.take(slice(0, alone)), apart=True)
        return bool(verdict.rows.size or len(apart))

    def _change(self, rows: I64, keys: Keys, sources: U64, now_ns: int, key: Key | None = None) -> Iterator[Takeover]:
        """The sources with these keys take over these rows (distinct). ``key``: that the one stream has from now on;
        None: they keep theirs."""
        held = self._probation.release(*keys)
        runs = Runs(held, len(rows), takes_over=True)
        self._accounts.reject_held(held.columns["foreign"][~runs.kept])
        held = only(held, runs.kept)
        proven = runs.proven
        if not proven.all():
            held.owner = (np.cumsum(proven) - 1)[held.owner]
            rows, sources, keys = rows[proven], sources[proven], (keys[0][proven], keys[1][proven], keys[2][proven])
        if rows.size:
            self._challengers.note_owners(rows, sources, now_ns)
            yield Takeover(rows, sources, ssrc_of(keys[2]), runs.lowest[proven], held, key)
