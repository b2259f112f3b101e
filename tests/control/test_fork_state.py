"""A fork's state machine: what it does in which order, and in any order (hypothesis stateful), in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from depth import usual_or_slow
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from strep._model.exceptions import ConfigurationError
from strep.control._fork_state import ForkLimits, ForkPhase, ForkState, step
from strep.control._fork_words import (
    Action,
    AskCall,
    AskFailed,
    Begin,
    CallEnded,
    CallLives,
    CancelCommand,
    Event,
    Finish,
    HookStarted,
    HookStopped,
    Leave,
    Media,
    SendStart,
    SendStop,
    StartFailed,
    StartOk,
    StopDone,
    Tell,
    Tick,
)

LIMITS = ForkLimits(
    no_media_s=5, stall_s=10, max_restarts=3, backoff_s=2, backoff_max_s=5, idle_s=60, stop_s=8, unknown_s=600
)  # fmt: skip


class Run:
    """A machine with a clock, and what it asked for."""

    def __init__(self, limits: ForkLimits = LIMITS) -> None:
        self.state = ForkState(limits)
        self.now = 100.0
        self.actions: list[Action] = []

    def feed(self, *events: Event) -> list[Action]:
        new: list[Action] = []
        for event in events:
            self.state, actions = step(self.state, event, self.now)
            new += actions
        self.actions += new
        return new

    def wait(self) -> list[Action]:
        """Until its deadline."""
        assert math.isfinite(self.state.deadline_s)
        assert self.state.deadline_s >= self.now
        self.now = self.state.deadline_s
        return self.feed(Tick())

    @property
    def phase(self) -> ForkPhase:
        return self.state.phase


def kinds(actions: list[Action]) -> list[Any]:
    return [action.kind if isinstance(action, Tell) else type(action) for action in actions]


def forked(limits: ForkLimits = LIMITS, media: bool = True) -> Run:
    run = Run(limits)
    run.feed(Begin(), StartOk())
    if media:
        run.now += 0.1
        run.feed(Media(run.now))
    return run


def test_a_fork_from_beginning_to_end() -> None:
    run = Run()
    assert run.feed(Begin()) == [SendStart(0)]
    assert kinds(run.feed(StartOk())) == ["started"]
    assert (run.phase, run.state.deadline_s) == (ForkPhase.STARTED, 105)
    assert run.feed(HookStarted()) == []
    run.now = 101
    assert kinds(run.feed(Media(101))) == ["media"]
    assert (run.phase, run.state.deadline_s) == (ForkPhase.MEDIA, 111)
    assert run.feed(Media(108.0)) == []
    assert run.state.deadline_s == 118
    assert run.feed(Leave("left")) == [SendStop()]
    assert run.feed(Leave("again"), Begin(), Media(109)) == []
    assert run.feed(StopDone()) == [Finish("left")]
    assert run.phase is ForkPhase.STOPPED
    assert run.feed(Leave(), Tick(), StartOk(), CallEnded(), HookStopped()) == []


def test_media_that_comes_before_the_apis_answer() -> None:
    run = Run()
    run.feed(Begin(), Media(100.0))
    assert run.phase is ForkPhase.STARTING
    assert kinds(run.feed(StartOk())) == ["started", "media"]
    assert run.phase is ForkPhase.MEDIA


def test_no_media_is_told_once_and_a_call_that_nobody_knows_of_ends() -> None:
    run = forked(media=False)
    assert kinds(run.wait()) == ["no_media"]
    assert run.now == 105
    asked = []
    while kinds(run.wait()) == [AskCall]:
        asked.append(run.now)
        assert run.feed(AskFailed()) == []
    assert asked == [160 + 60 * k for k in range(9)]
    assert run.now == 700  # 600 s after the API last said anything
    assert run.actions[-1] == SendStop()
    assert run.feed(StopDone()) == [Finish(run.state.leaving or "")]
    assert "idle" in str(run.state.leaving)


def test_an_api_that_never_answers_whether_the_call_lives_holds_up_nothing() -> None:
    run = forked(media=False)
    run.wait()
    assert kinds(run.wait()) == [AskCall]
    assert kinds(run.wait()) == [SendStop]
    assert run.now == 700
    assert run.feed(CallLives(), AskFailed()) == []
    assert run.wait() == [CancelCommand()]


@pytest.mark.parametrize("media", [False, True])
def test_a_call_of_which_the_api_says_that_it_is_over_ends(media: bool) -> None:
    run = forked(media=media)
    while kinds(run.wait()) != [AskCall]:
        if run.state.sending is not None:
            run.feed(StartOk())
    assert run.feed(CallEnded("the API says so")) == [Finish("the API says so")]
    assert SendStop() not in run.actions


@pytest.mark.parametrize("minutes", [3, 30, 239])
def test_a_hold_may_last_as_long_as_the_call(minutes: int) -> None:
    """Both directions are silent: the API is asked, and the fork started again, about once a minute; then media."""
    run = forked(ForkLimits())
    until = run.now + 60 * minutes
    while run.state.deadline_s < until:
        todo = run.wait()
        while todo:
            answer = {SendStart: [StartOk()], AskCall: [CallLives()]}
            todo += run.feed(*answer.get(type(todo.pop()), []))
    run.now = until
    assert kinds(run.feed(Media(run.now))) == ["resumed"]
    assert (run.phase, run.state.restarts) == (ForkPhase.MEDIA, 0)
    counts = Counter(map(type, run.actions))
    assert 0.9 * minutes - 3 <= counts[AskCall] <= minutes
    assert minutes - 3 <= counts[SendStart] <= minutes + 6
    assert (counts[SendStop], counts[Finish]) == (0, 0)


def test_who_wants_no_restarts_gets_none_however_long_the_hold() -> None:
    run = forked(ForkLimits(max_restarts=0))
    for _ in range(30):
        for action in run.wait():
            run.feed(*[CallLives()] * isinstance(action, AskCall))
    assert Counter(map(type, run.actions))[SendStart] == 1
    assert run.phase is ForkPhase.STALLED


def test_a_fork_that_stalls_is_started_again_further_and_further_apart() -> None:
    run = forked()
    starts = []
    assert kinds(run.wait()) == ["stalled"]
    assert run.now == 110.1
    for _ in range(LIMITS.max_restarts):
        assert kinds(run.wait()) == ["restarting", SendStart]
        starts.append(round(run.now, 1))
        assert run.feed(StartOk()) == []
        assert run.phase is ForkPhase.STALLED
    assert starts == [112.1, 116.1, 121.1]  # 2, 4, 5 s
    assert kinds(run.wait()) == [AskCall]  # 60 s after the API last said that it lives
    assert round(run.now, 1) == 181.1
    assert kinds(run.feed(CallLives())) == ["restarting", SendStart]
    run.feed(StartFailed("503"))
    assert kinds(run.wait()) == [AskCall]
    assert round(run.now, 1) == 241.1


def test_media_that_comes_again_gives_all_restarts_back() -> None:
    run = forked()
    run.wait()
    run.wait()
    run.feed(StartOk())
    run.now += 0.5
    assert kinds(run.feed(Media(run.now))) == ["resumed"]
    assert (run.phase, run.state.restarts) == (ForkPhase.MEDIA, 0)
    assert Counter(map(type, run.actions))[SendStart] == 2


def test_a_hold_that_ends_by_itself_needs_no_command() -> None:
    run = forked()
    run.wait()
    run.now += 1
    assert kinds(run.feed(Media(run.now))) == ["resumed"]
    assert SendStart(1) not in run.actions


def test_a_restart_that_finds_the_call_gone_is_the_end() -> None:
    run = forked()
    run.wait()
    run.wait()
    assert run.feed(StartFailed("gone", call_ended=True)) == [Finish("the call has ended")]
    assert (run.phase, SendStop() in run.actions) == (ForkPhase.STOPPED, False)


def test_a_restart_that_fails_leaves_the_fork_to_be_stopped() -> None:
    run = forked()
    run.wait()
    run.wait()
    assert kinds(run.feed(StartFailed("503"))) == ["restart_failed"]
    assert run.phase is ForkPhase.STALLED
    assert run.feed(Leave()) == [SendStop()]


def test_a_stop_that_the_platform_tells_of_is_told_to_nobody_when_the_hang_up_follows() -> None:
    run = forked()
    run.now = 103
    assert run.feed(HookStopped(50)) == []
    assert run.feed(Media(102.9)) == []  # from before
    run.now = 104.9
    assert run.feed(CallEnded("hang-up")) == [Finish("hang-up")]


def test_a_fork_that_somebody_stopped_stays_stopped() -> None:
    for media in (True, False):
        run = forked(media=media)
        run.feed(HookStarted(40))
        run.now = 103
        assert run.feed(HookStopped(50), *[Media(103.1)] * media) == []  # which was on its way
        (finish,) = run.wait()
        assert run.now == 105
        assert isinstance(finish, Finish)
        assert finish.error is None
        assert "has stopped" in finish.why
        assert (run.phase, run.state.stop_sent) == (ForkPhase.STOPPED, False)


@pytest.mark.parametrize("times", [(50.0, 50.0), (50.0, 49.5), (None, None), (None, 49.0)])
def test_a_fork_that_was_moved_goes_on(times: tuple[float | None, float | None]) -> None:
    """Its stop is told too: it occurred before the start, or at the same time; and it may come after it."""
    started_s, stopped_s = times
    run = forked()
    run.now = 103
    hooks: list[Event] = [HookStarted(started_s), HookStopped(stopped_s)]
    run.feed(*(hooks if started_s is not None else hooks[::-1]))
    if started_s is None:  # who does not say when leaves it to the media
        run.now = 104.5
        run.feed(Media(104.5))
    assert kinds(run.wait()) == ["stalled"]
    assert run.now in (110.1, 114.5)


def test_a_stop_before_a_start_of_ours_was_granted_does_not_count() -> None:
    run = forked()
    run.wait()
    run.wait()
    run.feed(HookStopped(50), StartOk())
    run.now += 3
    assert kinds(run.feed(Media(run.now))) == ["resumed"]


@pytest.mark.parametrize(
    ("failed", "then"),
    [
        (StartFailed("403"), [Finish("403", "403")]),
        (StartFailed("no answer", perhaps=True), [SendStop()]),
        (StartFailed("90018", call_ended=True), [Finish("the call has ended", "90018")]),
    ],
)
def test_starts_that_fail(failed: StartFailed, then: list[Action]) -> None:
    run = Run()
    run.feed(Begin())
    assert run.feed(failed) == then
    run.feed(StopDone())
    assert run.phase is ForkPhase.FAILED


def test_leaving_while_the_start_is_under_way_waits_for_it_but_not_for_ever() -> None:
    run = Run()
    run.feed(Begin())
    assert run.feed(Leave()) == []
    assert run.feed(StartOk()) == [SendStop()]
    run = Run()
    run.feed(Begin(), Leave())
    assert run.wait() == [CancelCommand()]
    assert run.now == 104
    assert run.feed(StartFailed("given up", perhaps=True)) == [SendStop()]
    assert run.wait() == [CancelCommand()]
    assert run.now == 112
    assert kinds(run.feed(StopDone("given up"))) == ["stop_failed", Finish]


def test_limits_that_cannot_be() -> None:
    for wrong in ({"stall_s": 0.0}, {"idle_s": math.inf}, {"max_restarts": -1}, {"stop_s": math.nan}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            ForkLimits(**wrong)  # type: ignore[arg-type]


class AnyOrder(RuleBasedStateMachine):
    """The world around a fork does what it likes: answers, media, webhooks, silence, who leaves when."""

    def __init__(self) -> None:
        super().__init__()
        self.run_ = Run()
        self.under_way: str | None = None
        self.stops = 0
        self.perhaps_forked = False  # as far as the world's answers tell
        self.told_ended = False
        self.never_stop = False  # the call was known to be over before a stop was sent
        self.cancelling = False
        self.finished = 0
        self.left_at: float | None = None
        self.asked = False
        self.told_stopped = False
        self.feed(Begin())

    def feed(self, event: Event) -> None:
        over = self.run_.state.over
        for action in self.run_.feed(event):
            assert not over
            assert not self.finished
            if isinstance(action, SendStart | SendStop):
                assert self.under_way is None  # one at a time
                self.under_way = "start" if isinstance(action, SendStart) else "stop"
                assert isinstance(action, SendStop) or self.left_at is None
                self.stops += isinstance(action, SendStop)
            elif isinstance(action, AskCall):
                assert not self.asked
                assert self.left_at is None
                self.asked = True
            elif isinstance(action, CancelCommand):
                assert self.under_way is not None
                assert not self.cancelling
                self.cancelling = True
            elif isinstance(action, Finish):
                self.finished += 1

    def answer(self, *, ok: bool, perhaps: bool, ended: bool) -> None:
        command, self.under_way, self.cancelling = self.under_way, None, False
        if command == "start":
            self.perhaps_forked |= ok or perhaps
            self.told_ended |= ended and not ok
            self.feed(StartOk() if ok else StartFailed("no", perhaps=perhaps and not ended, call_ended=ended))
        else:
            self.feed(StopDone(None if ok else "no"))

    @precondition(lambda self: self.under_way is not None)
    @rule(what=st.sampled_from(["ok", "ok", "no", "perhaps", "ended"]), later=st.floats(0, 3))
    def the_api_answers(self, what: str, later: float) -> None:
        self.pass_time(later)
        if self.under_way is not None:
            self.answer(ok=what == "ok", perhaps=what == "perhaps", ended=what == "ended")

    @precondition(lambda self: self.cancelling)
    @rule()
    def a_cancelled_command_ends(self) -> None:
        self.answer(ok=False, perhaps=True, ended=False)

    @precondition(lambda self: math.isfinite(self.run_.state.deadline_s))
    @rule()
    def its_deadline_comes(self) -> None:
        self.pass_time(self.run_.state.deadline_s - self.run_.now + 1e-9)

    @rule(seconds=st.floats(0, 200))
    def pass_time(self, seconds: float) -> None:
        if self.cancelling:  # which takes no time
            self.a_cancelled_command_ends()
        until = self.run_.now + seconds
        for _ in range(1000):
            if self.run_.state.deadline_s > until:
                break
            self.run_.now = max(self.run_.now, self.run_.state.deadline_s)
            self.feed(Tick())
            if self.cancelling:
                self.a_cancelled_command_ends()
        else:
            raise AssertionError("it never comes to rest")
        self.run_.now = until

    @rule(ago=st.floats(0, 20))
    def media(self, ago: float) -> None:
        self.feed(Media(self.run_.now - ago))

    @precondition(lambda self: self.asked)
    @rule(event=st.sampled_from([CallLives(), AskFailed(), CallEnded()]))
    def it_answers_whether_the_call_lives(self, event: Event) -> None:
        self.asked = False
        if isinstance(event, CallEnded):
            self.the_call_ends()
        else:
            self.feed(event)

    @rule(at_s=st.sampled_from([None, 1.0, 2.0, 3.0]), kind=st.sampled_from([HookStarted, HookStopped]))
    def a_fork_webhook(self, at_s: float | None, kind: type[HookStarted | HookStopped]) -> None:
        before = self.run_.state.hook_stopped
        self.feed(kind(at_s))
        self.told_stopped |= not before and self.run_.state.hook_stopped

    @rule(event=st.sampled_from([Tick(), Begin()]))
    def something(self, event: Event) -> None:
        self.feed(event)

    @rule()
    def the_call_ends(self) -> None:
        self.told_ended = True
        self.never_stop |= not self.stops
        if self.left_at is None:
            self.left_at = self.run_.now
        self.feed(CallEnded())

    @rule()
    def who_wanted_it_leaves(self) -> None:
        if self.left_at is None:
            self.left_at = self.run_.now
        self.feed(Leave())

    @invariant()
    def it_stops_once_and_only_what_may_be_there(self) -> None:
        assert self.stops <= 1
        if self.finished:
            assert self.run_.state.over
            assert self.under_way is None
            assert not (self.never_stop and self.stops)
            assert self.stops or self.told_ended or self.told_stopped or not self.perhaps_forked
            assert self.perhaps_forked or not self.stops
        else:
            assert not self.run_.state.over
        if self.left_at is not None and not self.finished:  # bounded, whatever the API does
            assert self.run_.now <= self.left_at + 1.5 * LIMITS.stop_s + 1e-6

    @invariant()
    def it_is_never_left_without_anything_to_wait_for(self) -> None:
        state = self.run_.state
        assert state.over or self.under_way is not None or math.isfinite(state.deadline_s)

    def teardown(self) -> None:
        self.who_wanted_it_leaves()
        self.pass_time(2 * LIMITS.stop_s)
        assert self.finished == 1


def test_any_order_of_answers_media_webhooks_and_leaving() -> None:
    examples = usual_or_slow(120, 400)
    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None))
