"""Who of a group reads which shard: one document, which each member rewrites more than twice a second. Pure: time is an
argument.

Members count beats in it. Who sees that another one's beats have stood still for :data:`DEAD_S`, on a clock of its own,
takes it out; so clocks need not agree. A member that could not write for :data:`LEASE_S`, which is less, reads nothing
any more: so no shard is ever read by two. Writing fails if somebody else wrote meanwhile: then it is read anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["DEAD_S", "LEASE_S", "RENEW_S", "Observer", "Roster", "Shard"]

RENEW_S: Final = 0.4
LEASE_S: Final = 2.0
DEAD_S: Final = 2.4
_BLIND_S: Final = 1.5  # who has not looked for so long cannot tell who stood still


@dataclass(slots=True)
class Shard:
    """``owner``: who reads it, "" nobody; ``claim`` counts who has."""

    owner: str = ""
    claim: int = 0


@dataclass(slots=True)
class Roster:
    """The document: beats by member, and shards by number."""

    members: dict[str, int] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes | None) -> Roster:
        """Of what stands there; an empty one of anything else."""
        roster = cls()
        try:
            found: Any = json.loads(data or b"{}")
            roster.members = {str(name): int(beat) for name, beat in found["members"].items()}
            roster.shards = {int(n): Shard(str(owner), int(claim)) for n, (owner, claim) in found["shards"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()
        return roster

    def text(self) -> bytes:
        shards = {str(n): [shard.owner, shard.claim] for n, shard in self.shards.items()}
        return json.dumps({"version": 1, "members": self.members, "shards": shards}).encode()

    def of(self, member: str) -> dict[int, int]:
        """The shards of a member, and the claims that it has on them."""
        return {n: shard.claim for n, shard in self.shards.items() if shard.owner == member}


class Observer:
    """What a member makes of the document each time that it reads it."""

    def __init__(self, member: str) -> None:
        self.member = member
        self._seen: dict[str, tuple[int, float]] = {}  # by member: its beat, and since when it is that
        self._looked_s: float | None = None
        self._beat = 0

    def step(self, roster: Roster, shards: int, now_s: float, releasing: set[int]) -> set[int]:
        """Change the document as this member wants it: its beat, who is dead, what it takes and what it leaves
        (``releasing``: shards that it has stopped reading). Returns shards that it should stop reading, to leave them
        the next time. Nothing of it holds before it is written."""
        me = self.member
        self._look(roster, now_s)
        for n in range(shards):
            roster.shards.setdefault(n, Shard())
        for n in [n for n in roster.shards if n >= shards]:
            del roster.shards[n]
        self._beat += 1  # never one that it had before, also when it was taken out meanwhile
        roster.members[me] = self._beat
        dead = [name for name, (_, since_s) in self._seen.items() if name != me and now_s - since_s > DEAD_S]
        for name in dead:
            roster.members.pop(name, None)
        for n, shard in roster.shards.items():
            if shard.owner not in roster.members or (shard.owner == me and n in releasing):
                shard.owner = ""
        share = -(-shards // len(roster.members))
        mine = sorted(roster.of(me))
        for n, shard in sorted(roster.shards.items()):
            if not shard.owner and n not in releasing and len(mine) < share:
                shard.owner, shard.claim = me, shard.claim + 1
                mine.append(n)
        return set(mine[share:])

    def _look(self, roster: Roster, now_s: float) -> None:
        blind = self._looked_s is None or now_s - self._looked_s > _BLIND_S
        self._looked_s = now_s
        seen = {} if blind else self._seen
        self._seen = {
            name: seen[name] if name in seen and seen[name][0] == beat else (beat, now_s)
            for name, beat in roster.members.items()
        }

    def leave(self, roster: Roster) -> None:
        """Take this member out, and let go of all that it has."""
        roster.members.pop(self.member, None)
        for shard in roster.shards.values():
            if shard.owner == self.member:
                shard.owner = ""
