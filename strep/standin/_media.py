"""The media of all forks as arrays: which packets are due, what is in them, what was sent. Pure.

Row 2 i of the columns is what the network received from the party of a call (inbound), row 2 i + 1 what it transmitted
to it (outbound). Packets of a row are counted from when the call was answered, so a fork begins in their middle.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from .._codecs.facts import codec_facts
from .._codecs.g711 import encode
from .._model.exceptions import ConfigurationError
from .._model.types import Codec, Direction
from .._parser import write_headers
from ..simulate.impair import Impairments, impair
from ..simulate.packets import wire_codec
from ..simulate.speech import bundled_voices
from ..simulate.truth import StreamTruth
from ._call import Call, Due, MediaFork
from ._playlist import Item
from ._soundtrack import Soundtrack

__all__ = ["MediaPlan"]

I16 = npt.NDArray[np.int16]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

_PACKETS_PER_PLAN: Final = 250  # of a row, at least
_PLAN_AHEAD_NS: Final = 1_000_000_000
_PLAN_EVERY_NS: Final = 500_000_000  # between two looks for forks that need planning
_TRUTHS_KEPT: Final = 4096  # forks whose truth is remembered
_MASK_64: Final = 0xFFFF_FFFF_FFFF_FFFF
_STREP_BYTES: Final = 24
_RTP_BYTES: Final = 12
_GOLDEN_RATIO: Final = 0.618_033_988_749_895  # spreads phases evenly, however many there are
_FIRST_ROWS: Final = 64  # of the table; it doubles when it is full


@dataclass(slots=True)
class _Transmission:
    """One fork. ``sent`` is of what was planned, bool (2, chunk) each, from packet ``first`` of either row on."""

    fork: MediaFork
    row: int  # of inbound; outbound is the next
    first: I64  # (2,)
    epoch_ns: I64  # (2,): when packet 0 of the row was
    rng: np.random.Generator
    wire: npt.NDArray[np.int64]  # (3, 2): ssrc, first sequence number, first timestamp
    block: I64  # (2,): block of the voice in packet 0
    planned: int = 0  # packets of either row
    planned_ns: int = 0  # until when
    sent: list[Bool] = field(default_factory=list)
    duplicates: I64 = field(default_factory=lambda: np.zeros(2, np.int64))
    reordered: I64 = field(default_factory=lambda: np.zeros(2, np.int64))


class MediaPlan:
    """``start`` and ``stop`` forks, ask for what is ``due``, write it as ``datagrams``.

    ``voices``: int16 at the codec's rate, repeated for ever (default: the bundled ones). The same ``seed`` makes the
    same packets and the same trouble for the same calls. Raises ConfigurationError.
    """

    def __init__(
        self,
        *,
        codec: str | Codec = "PCMU",
        ptime_ms: float = 20,
        voices: tuple[I16, I16] | None = None,
        impairments: Impairments | None = None,
        drift_ppm: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self.codec = chosen = wire_codec(codec)
        frames = round(chosen.clock_rate * ptime_ms / 1000)
        if not 0 < ptime_ms <= 200 or frames < 1 or abs(frames * 1000 - chosen.clock_rate * ptime_ms) > 1e-6:
            raise ConfigurationError(f"ptime {ptime_ms} ms: whole samples at {chosen.clock_rate} Hz, 200 at most")
        if not abs(drift_ppm) <= 100_000:
            raise ConfigurationError(f"drift {drift_ppm} ppm: choose -100000 to 100000")
        self.payload_type = codec_facts(chosen).simulated_type
        self.frames = self._frames = frames
        self._seed = secrets.randbits(64) if seed is None else seed
        self._step_ns = ptime_ms * 1e6 / (1 + drift_ppm * 1e-6)
        self._ptime_ns = round(ptime_ms * 1e6)
        self._impairments = impairments or Impairments()
        self._in_order = not (self._impairments.reorder or self._impairments.jitter_ms or self._impairments.duplicate)
        self._chunk = max(_PACKETS_PER_PLAN, int(2 * _PLAN_AHEAD_NS / self._step_ns) + 1)
        self._table = self._voice_table(bundled_voices(chosen.sample_rate) if voices is None else voices)
        self._soundtrack = Soundtrack(chosen, self._table.shape[2])
        self._asked_ns = 0  # what was due by then has left
        self._sending: dict[int, _Transmission] = {}  # by the fork's number
        self._ended: deque[_Transmission] = deque(maxlen=_TRUTHS_KEPT)
        self._free: list[int] = []
        # leg, direction, ssrc, first sequence number, first timestamp, voice, block in packet 0, strep, destination,
        # call of which something may be heard (-1: inbound)
        self._columns = np.zeros((10, 0), np.int64)
        self._ids = np.zeros((2, 0), np.uint64)  # call_leg_id, upper and lower half
        self._highest = np.zeros(0, np.int64)  # number that was sent
        self._owner = np.zeros(0, np.int64)  # number of the fork
        self._grow(_FIRST_ROWS)
        self._time = np.zeros(0, np.int64)
        self._packets = np.zeros((3, 0), np.int64)  # row, number, whether it is a copy: in order of time, with _time
        self._done = 0
        self._fresh: list[tuple[I64, I64]] = []
        self._look_ns = 0

    def _voice_table(self, voices: tuple[I16, I16]) -> U8:
        """Payloads of both voices, uint8 (2, blocks, bytes)."""
        blocks = min(len(voice) for voice in voices) // self._frames
        if not blocks:
            raise ConfigurationError(f"a voice is shorter than a packet: give {self._frames} samples at least")
        table = []
        for voice in voices:
            samples = voice[: blocks * self._frames]
            if self.codec.channels > 1:
                samples = np.repeat(samples, self.codec.channels)
            table.append(encode(self.codec, samples).reshape(blocks, -1))
        return np.stack(table)

    def _grow(self, rows: int) -> None:
        have = self._columns.shape[1]
        more = ((0, 0), (0, rows - have))
        self._columns, self._ids = np.pad(self._columns, more), np.pad(self._ids, more)
        self._highest, self._owner = np.pad(self._highest, more[1]), np.pad(self._owner, more[1])
        self._free += range(rows - 2, have - 2, -2)

    # --- forks --------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        """Forks that send."""
        return len(self._sending)

    @property
    def next_ns(self) -> int | None:
        """When the next packet is due, None for no fork; a little early when planning is due."""
        if not self._sending:
            return None
        self._merge()
        return int(self._time[self._done]) if self._done < len(self._time) else self._look_ns

    def start(self, fork: MediaFork, destinations: tuple[int, int] = (0, 0)) -> None:
        """Send from the first packet on that is due after the fork's start. ``destinations`` come out of :meth:`to`."""
        if not self._free:
            self._grow(2 * self._columns.shape[1])
        row = self._free.pop()
        call = fork.call
        wire = np.random.default_rng([self._seed, 1, call.number])
        epoch_ns = self._epoch_ns(call)
        first = np.maximum(np.ceil((fork.started_ns - epoch_ns) / self._step_ns), 0).astype(np.int64)
        pair = min(call.number, call.peer.number) if call.peer is not None else call.number
        sending = _Transmission(
            fork,
            row,
            first,
            epoch_ns,
            np.random.default_rng([self._seed, 2, fork.number]),
            np.stack([wire.integers(1, 1 << 32, 2), wire.integers(0, 1 << 16, 2), wire.integers(0, 1 << 32, 2)]),
            np.full(2, pair * 37),
        )
        both = slice(row, row + 2)
        self._ids[:, both] = [[call.call_leg_id.int >> 64] * 2, [call.call_leg_id.int & _MASK_64] * 2]
        self._columns[0, both] = call.leg
        self._columns[1, both] = Direction.INBOUND, Direction.OUTBOUND
        self._columns[2:5, both] = sending.wire
        self._columns[5, both] = (call.leg, 1 - call.leg)
        self._columns[6, both] = sending.block
        self._columns[7, both] = fork.target is not None
        self._columns[8, both] = destinations
        self._columns[9, both] = -1, call.number
        self._highest[both] = -1
        self._owner[both] = fork.number
        self._sending[fork.number] = sending
        self._extend(sending)

    def stop(self, fork: MediaFork) -> list[StreamTruth]:
        """Send nothing more of it; tells what was sent, inbound and outbound."""
        sending = self._sending.get(fork.number)
        if sending is None:
            return []
        sent, sending.duplicates = self._sent(sending)
        sending.sent = [sent]
        others = self._packets[0, self._done :] >> 1 != sending.row >> 1
        self._time = self._time[self._done :][others]
        self._packets = self._packets[:, self._done :][:, others]
        self._done = 0
        del self._sending[fork.number]
        self._free.append(sending.row)
        self._ended.append(sending)
        return self._truth(sending)

    def _epoch_ns(self, call: Call) -> I64:
        """When packet 0 of either direction is due: parties, and calls, do not speak on the same instant."""
        phase = (call.number * _GOLDEN_RATIO + np.array([0.0, 0.5])) % 1.0 * self._step_ns
        return call.media_ns + phase.astype(np.int64)

    def play(self, call: Call, item: Item, at_ns: int) -> None:
        """Its clip is heard by the party of the call: outbound, from the first packet on that is due then."""
        if item.clip is not None:
            first = self._first_after(call, at_ns)
            self._soundtrack.play(item.number, call.number, first, item.clip, item.loops, overlay=item.overlay)

    def silence(self, call: Call, item: Item, at_ns: int) -> None:
        """It is not heard any more from then on."""
        self._soundtrack.stop(item.number, self._first_after(call, at_ns))

    def _first_after(self, call: Call, at_ns: int) -> int:
        since_ns = max(at_ns, self._asked_ns + 1) - int(self._epoch_ns(call)[1])
        return max(int(np.ceil(since_ns / self._step_ns)), 0)

    def _sent(self, sending: _Transmission) -> tuple[Bool, I64]:
        """What was planned less what is still to come: bool (2, packets), and how many were sent twice."""
        self._merge()
        sent, duplicates = np.concatenate(sending.sent, axis=1), sending.duplicates.copy()
        if sending.fork.number in self._sending:
            row, number, copy = self._packets[:, self._done :]
            for which in (0, 1):
                left = row == sending.row + which
                sent[which, number[left & (copy == 0)] - sending.first[which]] = False
                duplicates[which] -= int(np.count_nonzero(left & (copy == 1)))
        return sent, duplicates

    def truth(self, call_number: int) -> list[StreamTruth]:
        """What was sent of a call so far: inbound and outbound of each of its forks in turn."""
        every = [*self._ended, *self._sending.values()]
        return [t for s in every if s.fork.call.number == call_number for t in self._truth(s)]

    def _truth(self, sending: _Transmission) -> list[StreamTruth]:
        sent, duplicates = self._sent(sending)
        there = np.flatnonzero(sent.any(axis=0))
        sent = sent[:, : there[-1] + 1 if there.size else 0]
        call = sending.fork.call
        truth = []
        for which in (0, 1):
            number = sending.first[which] + np.arange(sent.shape[1])
            block = (sending.block[which] + number) % self._table.shape[1]
            ssrc, sequence, timestamp = (int(x) for x in sending.wire[:, which])
            payloads = self._table[which ^ call.leg, block]
            if which:
                self._soundtrack.write(payloads, np.full(len(number), call.number), number)
            truth.append(
                StreamTruth(
                    call.call_leg_id,
                    call.leg,
                    Direction(which),
                    ssrc,
                    int(sequence + sending.first[which]) & 0xFFFF,
                    sent[which].copy(),
                    int(duplicates[which]),
                    self._frames * self.codec.channels,
                    self.codec,
                    payloads,
                    np.full(len(payloads), payloads.shape[1], np.int64),
                    int(sending.reordered[which]),
                    int(timestamp + sending.first[which] * self._frames) & 0xFFFF_FFFF,
                )
            )
        return truth

    # --- packets ------------------------------------------------------------------------------------------------------

    def _extend(self, sending: _Transmission) -> None:
        n = self._chunk
        number = sending.planned + np.arange(n)
        at_ns = sending.epoch_ns[:, None] + np.rint((sending.first[:, None] + number) * self._step_ns).astype(np.int64)
        trouble = self._impairments
        if trouble.protect_first:
            trouble = dataclasses.replace(trouble, protect_first=max(0, trouble.protect_first - sending.planned))
        done = impair(at_ns, self._ptime_ns, trouble, sending.rng)
        first = sending.first[done.stream] + sending.planned
        self._fresh.append((done.time_ns, np.stack([sending.row + done.stream, first + done.number, done.copy])))
        sending.sent.append(~done.lost)
        sending.duplicates += done.doubled.sum(axis=1)
        sending.planned += n
        sending.planned_ns = int(at_ns[:, -1].min())

    def _merge(self) -> None:
        if not self._fresh:
            return
        time_ns = np.concatenate([self._time[self._done :], *(t for t, _ in self._fresh)])
        packets = np.concatenate([self._packets[:, self._done :], *(p for _, p in self._fresh)], axis=1)
        order = np.argsort(time_ns, kind="stable")
        self._time, self._packets, self._done = time_ns[order], packets[:, order], 0
        self._fresh.clear()

    def due(self, now_ns: int, most: int = 4096) -> Due:
        """The packets whose time has come, at most so many; they count as sent."""
        self._asked_ns = max(self._asked_ns, now_ns)
        if now_ns >= self._look_ns:
            for sending in self._sending.values():
                while sending.planned_ns < now_ns + _PLAN_AHEAD_NS:
                    self._extend(sending)
            self._look_ns = now_ns + _PLAN_EVERY_NS
        self._merge()
        begin = self._done
        self._done = end = min(int(np.searchsorted(self._time, now_ns, "right")), begin + most)
        row, number, copy = self._packets[:, begin:end]
        if not self._in_order and end > begin:
            self._watch_order(row, number, copy)
        return Due(row, number)

    def _watch_order(self, row: I64, number: I64, copy: I64) -> None:
        order = np.argsort(row, kind="stable")
        order = order[copy[order] == 0]  # a copy never has the highest number first: its packet came before it
        if not order.size:
            return
        row, number = row[order], number[order]
        # rows one behind the other as one row of numbers: the maximum so far never reaches into the next row
        key = row << 40 | number
        before = np.r_[-1, np.maximum.accumulate(key)[:-1]]
        behind = key < np.maximum(before, row << 40 | np.maximum(self._highest[row], 0))
        for late in row[behind].tolist():  # reordered packets are few
            self._sending[int(self._owner[late])].reordered[late & 1] += 1
        np.maximum.at(self._highest, row, number)

    def to(self, due: Due) -> tuple[Bool, I64]:
        """Of each packet whether it goes with the STREP header, and its destination."""
        return self._columns[7, due.row].astype(np.bool_), self._columns[8, due.row]

    def datagrams(self, due: Due, *, strep: bool) -> U8:
        """uint8 (n, length), all of one length."""
        leg, direction, ssrc, sequence, timestamp, voice, block, _, _, call = self._columns[:, due.row]
        number = due.number
        slab = np.empty((len(due), _STREP_BYTES * strep + _RTP_BYTES + self._table.shape[2]), np.uint8)
        header = write_headers(
            slab,
            strep=strep,
            call_leg_hi=self._ids[0, due.row],
            call_leg_lo=self._ids[1, due.row],
            leg=leg,
            direction=direction,
            payload_type=self.payload_type,
            sequence_number=(sequence + number) & 0xFFFF,
            rtp_timestamp=(timestamp + number * self._frames) & 0xFFFF_FFFF,
            ssrc=ssrc,
            marker=number == 0,
        )
        slab[:, header:] = self._table[voice, (block + number) % self._table.shape[1]]
        self._soundtrack.write(slab[:, header:], call, number)
        return slab
