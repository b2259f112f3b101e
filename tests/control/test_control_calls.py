"""faults.md 40: however a call's webhooks are duplicated and ordered, they end in one state."""

from __future__ import annotations

import base64
import functools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from depth import usual_or_slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from strep.control import CallPhase, CallState
from strep.control.events import CallHangup, ForkStarted, WebhookEvent, parse_event

LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
T0 = datetime(2025, 8, 15, 13, 52, 20, tzinfo=UTC)


def webhook(event_type: str, second: float | None, **payload: Any) -> WebhookEvent:
    at = None if second is None else (T0 + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    data = {"event_type": event_type, "id": f"{event_type}@{second}", "occurred_at": at}
    return parse_event({"data": {**data, "payload": {"call_leg_id": LEG, **payload}}})


def state64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CALL = [
    webhook("call.initiated", 0, call_control_id="v2:a", direction="incoming", to="+2", **{"from": "+1"}),
    webhook("call.answered", 2, call_control_id="v2:a", client_state=state64("one")),
    webhook("call.fork.started", 3, stream_type="raw"),
    webhook("call.fork.stopped", 5, stream_type="raw"),
    webhook("call.fork.started", 6, stream_type="decrypted", client_state=state64("two")),
    webhook("call.bridged", 7),
    webhook("call.fork.stopped", 9, stream_type="decrypted"),
    webhook("call.dtmf.received", 8, client_state=state64("three")),
    webhook("call.hangup", 10, hangup_cause="normal_clearing", hangup_source="caller"),
    webhook("call.hangup", 10.5, hangup_cause="timeout"),
]  # fmt: skip


def fold(events: list[WebhookEvent]) -> CallState:
    state = CallState()
    for event in events:
        state = state.after(event)
    return state


def test_a_call_from_beginning_to_end() -> None:
    states = [fold(CALL[:count]) for count in range(len(CALL) + 1)]
    assert [state.phase.name for state in states] == [
        "UNKNOWN", "INITIATED", *["ANSWERED"] * 4, *["BRIDGED"] * 3, *["ENDED"] * 2,
    ]  # fmt: skip
    assert [state.forked for state in states] == [False] * 3 + [True, False, True, True, False, False, False, False]
    end = states[-1]
    assert (end.call_control_id, end.call_leg_id, end.direction, end.from_, end.to) == (
        "v2:a", uuid.UUID(LEG), "incoming", "+1", "+2",
    )  # fmt: skip
    assert (end.hangup_cause, end.hangup_source, end.client_state) == ("normal_clearing", "caller", b"three")
    times = (end.initiated_at, end.answered_at, end.bridged_at, end.ended_at)
    assert times == tuple(T0 + timedelta(seconds=s) for s in (0, 2, 7, 10))
    assert (end.answered, end.ended, end.fork_stream_type) == (True, True, "decrypted")
    assert (end.call_session_id, end.connection_id) == (None, None)
    assert end.after(CALL[0]) is end


@functools.cache
def in_order(numbers: frozenset[int]) -> CallState:
    """The state after these of CALL, delivered once and in order."""
    return fold([CALL[number] for number in sorted(numbers)])


class Delivery(RuleBasedStateMachine):
    """Webhooks of one call, any of them, any number of times."""

    @initialize(count=st.integers(1, len(CALL)))
    def begin(self, count: int) -> None:
        self.call = CALL[:count]
        self.expected = in_order(frozenset(range(count)))
        self.state = CallState()
        self.delivered: set[int] = set()
        self.phases = [CallPhase.UNKNOWN]

    @rule(number=st.integers(0, len(CALL) - 1), times=st.integers(1, 3))
    def deliver(self, number: int, times: int) -> None:
        number %= len(self.call)
        for _ in range(times):
            self.state = self.state.after(self.call[number])
        self.delivered.add(number)
        self.phases.append(self.state.phase)

    @rule(order=st.permutations(range(len(CALL))))
    def deliver_the_rest(self, order: list[int]) -> None:
        for number in order:
            if number < len(self.call):
                self.state = self.state.after(self.call[number])
        self.delivered = set(range(len(self.call)))
        assert self.state == self.expected

    @invariant()
    def what_counts_is_what_came_not_how(self) -> None:
        if hasattr(self, "state"):
            assert self.state == in_order(frozenset(self.delivered))
            assert self.phases == sorted(self.phases)

    def teardown(self) -> None:
        if hasattr(self, "state"):
            for number in {*range(len(self.call))} - self.delivered:
                self.state = self.state.after(self.call[number])
            assert self.state == self.expected


def test_any_order_of_duplicated_webhooks_ends_in_one_state() -> None:
    many = settings(
        max_examples=usual_or_slow(200, 1000),
        stateful_step_count=5,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Delivery, settings=many)


KINDS = [
    "call.initiated",
    "call.answered",
    "call.bridged",
    "call.hangup",
    "call.fork.started",
    "call.fork.stopped",
    "x",
]
ANY = st.builds(
    lambda kind, second, cause, state: webhook(kind, second, hangup_cause=cause, client_state=state, to=cause),
    st.sampled_from(KINDS), st.none() | st.sampled_from([0, 1, 2]), st.none() | st.sampled_from(["a", "b"]),
    st.none() | st.sampled_from([state64("a"), state64("b")]),
)  # fmt: skip


@given(st.lists(ANY, max_size=8).flatmap(lambda events: st.tuples(st.just(events), st.permutations(events * 2))))
def test_any_events_at_equal_times_or_at_none(case: tuple[list[WebhookEvent], list[WebhookEvent]]) -> None:
    events, shuffled = case
    assert fold(events) == fold(shuffled)


def test_a_call_that_was_bridged_was_answered_also_when_it_has_ended() -> None:
    """The webhook of the answer may be lost."""
    events = [webhook("call.initiated", 0), webhook("call.bridged", 2), webhook("call.hangup", 4)]
    assert [fold(events[:count]).answered for count in range(4)] == [False, False, True, True]
    assert not fold([events[0], events[2]]).answered


def test_a_stop_at_the_time_of_the_start_is_the_last_word() -> None:
    for second in (3, None):
        pair = [webhook("call.fork.started", second), webhook("call.fork.stopped", second)]
        assert not fold(pair).forked
        assert not fold(pair[::-1]).forked
    assert fold([ForkStarted()]).forked
    assert fold([CallHangup(), ForkStarted()]).phase is CallPhase.ENDED
    assert not fold([CallHangup(), ForkStarted()]).forked
