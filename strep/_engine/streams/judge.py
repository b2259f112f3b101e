"""Where media time and arrival time disagree: the stream's place on the receiver's clock decides. One packet at a time,
for the few streams where that is the question.

A packet is sent when its last sample has been spoken, however long it is: one that ends at ``end`` and came without
waiting arrives at ``line + end / rate``. The line is the lowest offset of the stream's packets so far
(``ClockFilter.floor``), which may rise by 0.1 % as time passes. By it, and with ``end`` where the packet would end if
it followed what is there,

    room = (arrival - line) * rate - end           frames that the packet may stand behind what is there
    wait = room - gap                              what it has waited, if the timestamps are right

    timestamps go forward    right, if no more than ``room`` and a second; so loss behind a queue keeps its length
    they say nothing         a RESTART gap of ``room`` (below 100 ms is jitter); below 0 a source has overlapped the one
                             before it, and what stands twice is left out (less than 10 ms, or 100 ms where the source
                             is the same, is jitter)
    wait rises by 250 ms     a queue, or a sender whose clock stood still. Packets of a queue come faster than they
                             play: so four packets in 60 ms and more that do not, and the clock has stood: what they
                             waited becomes a gap. Of what has come faster, a second must say so

Example at 8 kHz: a pause of 30 s, timestamps go on by 160: room is 240,000, wait too; the fourth packet behind the
pause has a gap of 240,000 before it. 250 packets that come at once after 5 s: room falls by 160 with each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = [
    "LEAN_BITS",
    "PROOF_NS",
    "PROOF_PACKETS",
    "RISE_DIVISOR",
    "UNKNOWN_FLOOR",
    "JudgedPacket",
    "PacketFacts",
    "Place",
    "Watch",
]

_SECOND_NS: Final = 1_000_000_000
LEAN_BITS: Final = 10  # the line rises by 2**-10 of the time that passes: more than any clock is slow
UNKNOWN_FLOOR: Final = 1 << 62
RISE_DIVISOR: Final = 4  # of a second: waiting that rises by so much is a queue, or a clock that stood
_JITTER_DIVISOR: Final = 10  # of a second: less is no gap where timestamps say nothing
_OVERLAP_DIVISOR: Final = 100  # of a second: a source that begins so much too early overlaps the one before it
_FALL_DIVISOR: Final = 33  # of a second: waiting that falls by so much is that of a queue
PROOF_PACKETS: Final = 4
PROOF_NS: Final = 60_000_000
_PROOF_AFTER_QUEUE_NS: Final = _SECOND_NS


@dataclass(slots=True)
class PacketFacts:
    """``delta``: frames between where the packet before ended and where this one begins, by timestamps."""

    delta: int
    frames: int
    arrival_ns: int


@dataclass(slots=True)
class JudgedPacket:
    """``gap`` frames before it, ``trim`` frames off it. ``anchored``: by arrival times. ``jumped``: its timestamp.
    ``stood``: frames of the gap for which the clock has stood."""

    gap: int = 0
    stood: int = 0
    trim: int = 0
    anchored: bool = False
    jumped: bool = False


@dataclass(slots=True)
class Watch:
    """Packets that have waited: so many (0: nobody is watched), since when, the most and the least of it in frames,
    whether it has fallen, and when the packet before all of them came."""

    packets: int
    since_ns: int
    most: int
    least: int
    fell: int
    prior_arrival_ns: int

    def begin(self, arrival_ns: int, wait: int, fell: int) -> None:
        self.packets, self.since_ns, self.most, self.least, self.fell = 1, arrival_ns, wait, wait, fell

    def add(self, arrival_ns: int, wait: int) -> bool:
        """Whether it is now certain that no queue makes them wait."""
        self.packets += 1
        self.most, self.least = max(self.most, wait), min(self.least, wait)
        proof_ns = _PROOF_AFTER_QUEUE_NS if self.fell else PROOF_NS
        return self.packets >= PROOF_PACKETS and arrival_ns - self.since_ns >= proof_ns


@dataclass(slots=True)
class Place:
    """Where a stream stands. ``twice``: frames still to be left out, because they have been heard."""

    rate: int
    position: int
    floor: int
    prior_arrival_ns: int
    begun: bool
    restarted: bool
    watch: Watch
    twice: int

    @property
    def asks(self) -> bool:
        """Whether the next packet must be judged, whatever it is."""
        return self.watch.packets > 0 or self.twice > 0

    def judge_all(self, packets: Sequence[PacketFacts], known: int) -> list[JudgedPacket]:
        """Place the next packets; of the first ``known`` each may be judged by those behind it."""
        return [
            self.judge(packet, self._foresee(packets[i:known]) if i < known else 0) for i, packet in enumerate(packets)
        ]

    def _foresee(self, packets: Sequence[PacketFacts]) -> int:
        """For how many frames the clock has stood before the first of these packets, if the others prove it."""
        if self.watch.packets:
            return 0
        trial = replace(self, watch=replace(self.watch))
        for packet in packets:
            stood = trial.judge(packet).stood
            if not trial.watch.packets or trial.watch.fell:
                return stood
        return 0

    def judge(self, packet: PacketFacts, stood: int = 0) -> JudgedPacket:
        """Place the next packet, before which its clock has ``stood`` for so many frames."""
        found = JudgedPacket()
        if self.begun:
            self._judge(packet, found, stood)
        self.begun, self.restarted = True, False
        self.position += found.gap - found.trim  # a packet was sent whole
        self.position += packet.frames
        ends_ns = self.position * _SECOND_NS // self.rate
        self.floor = min(self.floor, packet.arrival_ns - ends_ns - (packet.arrival_ns >> LEAN_BITS))
        self.prior_arrival_ns = packet.arrival_ns
        return found

    def _judge(self, packet: PacketFacts, found: JudgedPacket, stood: int) -> None:
        rate, delta, watch = self.rate, packet.delta, self.watch
        room = passed = (packet.arrival_ns - self.prior_arrival_ns) * rate // _SECOND_NS - packet.frames
        waited = 0
        if self.floor != UNKNOWN_FLOOR:
            # the line where it was when the packet before came, or before the pause in question: that does not move it
            line = self.floor + ((watch.prior_arrival_ns if watch.packets else self.prior_arrival_ns) >> LEAN_BITS)
            room = (packet.arrival_ns - line) * rate // _SECOND_NS - self.position - packet.frames
            waited = (self.prior_arrival_ns - line) * rate // _SECOND_NS - self.position
        forward = 0 < delta <= max(passed, room, 0) + rate
        overlap = -packet.frames < delta < 0
        if self.restarted:
            goes_on = 0 <= delta <= rate  # one sequence in two pieces: its timestamps are right all the same
        else:
            goes_on = forward or overlap or not delta
            found.jumped = not goes_on
        if goes_on:
            found.gap = delta if forward else 0
            found.trim = -delta if overlap else 0
            found.anchored = self.restarted
            if stood:
                self._stood(stood, found)
            else:
                self._tell_queue(packet.arrival_ns, room - found.gap, waited, found)
        else:
            self._anchor(room, passed, found)
        if self.twice:
            less = min(self.twice, found.gap)
            found.gap -= less
            # a frame of each packet stays, so that no block is empty
            again = min(self.twice - less, packet.frames - found.trim - 1)
            found.trim += again
            self.twice -= less + again

    def _anchor(self, room: int, passed: int, found: JudgedPacket) -> None:
        found.anchored = True
        self.twice = 0
        if self.watch.packets and self.watch.fell:
            room = max(passed, 0)  # out of a queue: it has waited as long as the packet before it
        else:
            self.watch.packets = 0
        if room >= self.rate // _JITTER_DIVISOR:
            found.gap = room
        elif room <= -(self.rate // (_OVERLAP_DIVISOR if self.restarted else _JITTER_DIVISOR)):
            self.twice = -room

    def _tell_queue(self, arrival_ns: int, wait: int, waited: int, found: JudgedPacket) -> None:
        """Tell a clock that stood still from a queue."""
        watch, high = self.watch, self.rate // RISE_DIVISOR
        if not watch.packets:
            if wait - waited >= high and wait >= high:
                watch.begin(arrival_ns, wait, fell=0)
                watch.prior_arrival_ns = self.prior_arrival_ns
        elif wait < high:
            watch.packets = 0
        elif wait - watch.most >= high:  # it rises again
            watch.begin(arrival_ns, wait, watch.fell)
        elif wait <= watch.most - self.rate // _FALL_DIVISOR:
            watch.begin(arrival_ns, wait, fell=1)
        elif watch.add(arrival_ns, wait):
            self._stood(watch.least, found)
            watch.packets = 0

    def _stood(self, frames: int, found: JudgedPacket) -> None:
        found.stood = frames
        found.gap += frames
        found.anchored = True
