"""Who reads which shard, in virtual time: never two, and soon somebody."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from depth import usual_or_slow

from strep.remote.roster import DEAD_S, LEASE_S, RENEW_S, Observer, Roster

SHARDS = 16


@dataclass
class Member:
    """As a lease is driven: it reads while its last write is younger than a lease. ``paused`` and ``cut``: the process
    stands still, or the broker cannot be reached."""

    name: str
    observer: Observer = field(init=False)
    next_s: float = 0.0
    until_s: float = -1.0
    mine: dict[int, int] = field(default_factory=dict)
    releasing: set[int] = field(default_factory=set)
    paused_until_s: float = 0.0
    cut_until_s: float = 0.0
    dead: bool = False

    def __post_init__(self) -> None:
        self.observer = Observer(self.name)

    def reads(self, now_s: float) -> set[int]:
        return set(self.mine) if not self.dead and now_s < self.until_s and now_s >= self.paused_until_s else set()


class World:
    """The document, and members with steps of 10 ms."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.text: bytes | None = None
        self.members: list[Member] = []
        self.now_s = 0.0
        self.unread_since_s = dict.fromkeys(range(SHARDS), 0.0)
        self.longest_s = 0.0
        self.claims: dict[int, int] = {}

    def join(self) -> Member:
        member = Member(f"m{len(self.members)}", next_s=self.now_s)
        self.members.append(member)
        return member

    def step(self) -> None:
        self.now_s += 0.01
        for member in self.members:
            up = not member.dead and self.now_s >= max(member.paused_until_s, member.next_s)
            if up and self.now_s >= member.cut_until_s:
                member.next_s = self.now_s + RENEW_S
                self.renew(member)
        readers: dict[int, list[str]] = {n: [] for n in range(SHARDS)}
        for member in self.members:
            for n in member.reads(self.now_s):
                readers[n].append(member.name)
        for n, names in readers.items():
            assert len(names) <= 1, f"{names} read shard {n} at {self.now_s}"
            if names:
                self.unread_since_s[n] = self.now_s
            self.longest_s = max(self.longest_s, self.now_s - self.unread_since_s[n])

    def renew(self, member: Member) -> None:
        roster = Roster.parse(self.text)
        leaving = member.observer.step(roster, SHARDS, self.now_s, member.releasing)
        self.text = roster.text()
        for n, shard in roster.shards.items():
            assert shard.claim >= self.claims.get(n, 0)
            self.claims[n] = shard.claim
        member.mine = {n: claim for n, claim in roster.of(member.name).items() if n not in leaving}
        member.releasing = leaving
        member.until_s = self.now_s + LEASE_S

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.step()


def test_one_has_all_two_have_half_each_and_a_dead_one_is_replaced_within_five_seconds() -> None:
    world = World(1)
    first = world.join()
    world.run(1)
    assert len(first.mine) == SHARDS
    second = world.join()
    world.run(3)
    assert (len(first.mine), len(second.mine)) == (SHARDS // 2, SHARDS // 2)
    assert world.longest_s < 1.5
    second.dead = True
    world.longest_s = 0.0
    world.run(10)
    assert len(first.mine) == SHARDS
    assert LEASE_S - RENEW_S < world.longest_s < DEAD_S + 2 * RENEW_S < 5


def test_a_broker_that_is_gone_for_all_moves_nothing() -> None:
    world = World(2)
    members = [world.join() for _ in range(3)]
    world.run(5)
    before = [dict(member.mine) for member in members]
    for member in members:
        member.cut_until_s = world.now_s + 20 + member.next_s % 0.3
    world.run(19)
    assert not any(member.reads(world.now_s) for member in members)
    world.run(10)
    assert [member.mine for member in members] == before


@pytest.mark.parametrize("seed", range(usual_or_slow(12, 100)))
def test_no_shard_is_ever_read_by_two_whatever_happens(seed: int) -> None:
    """Members come, die, stand still (stopped processes, slow machines) and lose the broker, at any time."""
    world = World(seed)
    rng = world.rng
    world.join()
    for _ in range(usual_or_slow(25, 60)):
        chance, member = rng.random(), world.members[int(rng.integers(len(world.members)))]
        if chance < 0.2 and len(world.members) < 8:
            world.join()
        elif chance < 0.3:
            member.dead = True
        elif chance < 0.5:
            member.paused_until_s = world.now_s + rng.exponential(3)
        elif chance < 0.7:
            member.cut_until_s = world.now_s + rng.exponential(3)
        world.run(float(rng.exponential(1)))
    last = world.join()
    for member in world.members:
        member.paused_until_s = member.cut_until_s = 0
    world.run(DEAD_S + 4)
    living = [member for member in world.members if not member.dead]
    assert last in living
    assert sum(len(member.mine) for member in living) == SHARDS
    assert max(len(member.mine) for member in living) <= -(-SHARDS // len(living))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"members":3}', b'{"members":{},"shards":{"x":1}}', b"\xff", None]
)
def test_a_document_that_is_none_is_an_empty_one(text: bytes | None) -> None:
    assert Roster.parse(text) == Roster()
