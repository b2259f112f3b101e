"""Plays, queues and stops on calls, as the contract says. Time is an argument; effects come out. Pure.

What the contract leaves open: what was queued and is cleared had not begun, so no event tells of it; what cannot be
played never begins, its one event is ``ended``; without ``stop`` all waits in the queue, also a playback, though the
contract calls "all" the default of its field; an overlay goes on when what it was mixed into ends.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from ._answers import Problem, Refusal
from ._audio_requests import Play, Stop
from ._call import AudioLoad, AudioStart, AudioStop, Call, Effect, Webhook
from ._playlist import Clip, Item

__all__ = ["Jukebox"]

_COMPLETED: Final = {"speak": "completed", "playback": "valid"}
_FAILED: Final = {"speak": "completed", "playback": "invalid"}  # the contract has no word for a speech that fails
_LONGEST_QUEUE: Final = 1000


class _Events(Protocol):
    def __call__(self, call: Call, event_type: str, now_ns: int, **more: Any) -> Webhook: ...


class Jukebox:
    """``event`` makes the webhook of a call. Commands raise Refusal, and have done nothing then."""

    def __init__(self, event: _Events) -> None:
        self._event = event
        self._items = 0

    def play(self, call: Call, request: Play, now_ns: int) -> list[Effect]:
        """Let it be heard at once, or when what is heard now and what waits has ended."""
        calls = self._targets(call, request)
        if request.overlay and (call.playlist.current is None or request.stop is not None):
            detail = "overlay works only while other audio is being played on the call."
            raise Refusal(422, Problem("10015", "Invalid value", detail, pointer="/overlay"))
        if any(len(one.playlist.queue) >= _LONGEST_QUEUE for one in calls):
            raise Refusal(422, Problem("10015", "Queue is full", f"{_LONGEST_QUEUE} audio files wait already."))
        effects: list[Effect] = []
        for one in calls:
            item = Item(self._items, request.source, request.loops, request.overlay)
            self._items += 1
            if request.stop is not None:
                effects += self._stop(one, request.stop, now_ns)
            (one.playlist.overlays if item.overlay else one.playlist.queue).append(item)
            effects.append(AudioLoad(one, item))
        return effects

    def stop(self, call: Call, request: Stop, now_ns: int) -> list[Effect]:
        """End what is heard; without anything to end that is fine too."""
        kept = call.playlist
        if request.overlay:
            gone = kept.overlays if request.what == "all" else kept.overlays[-1:]
            return [effect for item in list(gone) for effect in self._end_overlay(call, item, now_ns)]
        return self._stop(call, request.what, now_ns)

    def loaded(self, call: Call, item: Item, clip: Clip | None, now_ns: int) -> list[Effect]:
        """Its sound is there; None: it cannot be played."""
        kept = call.playlist
        if item not in kept.queue and item not in kept.overlays:
            return []  # it was stopped meanwhile
        item.clip, item.failed = clip, clip is None
        if not item.overlay:
            return self._go_on(call, now_ns)
        if item.failed:
            kept.overlays.remove(item)
            return [self._ended(call, item, now_ns, _FAILED[item.kind])]
        return self._begin(call, item, now_ns)

    def advance(self, call: Call, now_ns: int) -> list[Effect]:
        """What has come to its end by now ends, and the next begins."""
        effects: list[Effect] = []
        for item in call.playlist.heard:
            if item.ends_ns <= now_ns:
                if item.overlay:
                    effects += self._end_overlay(call, item, now_ns)
                else:
                    effects += self._end_current(call, now_ns)
        return effects + self._go_on(call, now_ns)

    def hang_up(self, call: Call, now_ns: int) -> list[Effect]:
        """The call ends, and all that is heard on it."""
        kept = call.playlist
        effects: list[Effect] = []
        for item in kept.heard:
            effects += [AudioStop(call, item, now_ns), self._ended(call, item, now_ns, "call_hangup")]
        kept.current = None
        kept.queue.clear()
        kept.overlays.clear()
        return effects

    def _targets(self, call: Call, request: Play) -> list[Call]:
        peer = call.peer if call.peer is not None and call.peer.talking else None
        if request.legs == "self" or (request.legs == "both" and peer is None):
            return [call]
        if peer is None:
            detail = "The call is not bridged: there is no opposite leg."
            raise Refusal(422, Problem("10015", "Invalid value", detail, pointer="/target_legs"))
        return [peer] if request.legs == "opposite" else [call, peer]

    def _stop(self, call: Call, what: str, now_ns: int) -> list[Effect]:
        """End what is heard, for "all" overlays too, and go on with the queue, which is empty then."""
        effects: list[Effect] = []
        if what == "all":
            call.playlist.queue.clear()
            for item in list(call.playlist.overlays):
                effects += self._end_overlay(call, item, now_ns)
        return effects + self._end_current(call, now_ns) + self._go_on(call, now_ns)

    def _go_on(self, call: Call, now_ns: int) -> list[Effect]:
        """Begin with the next of the queue, when nothing is heard and it is there."""
        kept = call.playlist
        effects: list[Effect] = []
        while kept.current is None and kept.queue and (kept.queue[0].failed or kept.queue[0].clip is not None):
            item = kept.queue.pop(0)
            if item.failed:
                effects.append(self._ended(call, item, now_ns, _FAILED[item.kind]))
            else:
                kept.current = item
                effects += self._begin(call, item, now_ns)
        return effects

    def _begin(self, call: Call, item: Item, now_ns: int) -> list[Effect]:
        item.started_ns = now_ns
        started = self._event(call, f"call.{item.kind}.started", now_ns, **item.told())
        return [AudioStart(call, item, now_ns), started]

    def _end_current(self, call: Call, now_ns: int) -> list[Effect]:
        item, call.playlist.current = call.playlist.current, None
        if item is None:
            return []
        return [AudioStop(call, item, now_ns), self._ended(call, item, now_ns, _COMPLETED[item.kind])]

    def _end_overlay(self, call: Call, item: Item, now_ns: int) -> list[Effect]:
        call.playlist.overlays.remove(item)
        if item.started_ns is None:
            return []
        return [AudioStop(call, item, now_ns), self._ended(call, item, now_ns, _COMPLETED[item.kind])]

    def _ended(self, call: Call, item: Item, now_ns: int, status: str) -> Webhook:
        return self._event(call, f"call.{item.kind}.ended", now_ns, **item.told(), status=status)
