"""The stand-in's calls in virtual time: commands, their answers, and what follows from them."""

from __future__ import annotations

import base64
import datetime
import uuid
from collections import Counter
from typing import Any

import numpy as np
import pytest
from contract import errors_of, event_schema, refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0

from strep import Direction, Leg, parse_datagram
from strep._model.exceptions import ConfigurationError
from strep.simulate import Impairments
from strep.standin import Faults, WebhookFaults
from strep.standin._answers import Answer, Refusal
from strep.standin._call import Call, Effect, MediaFork, MediaStart, MediaStop, Webhook, iso
from strep.standin._calls import Calls
from strep.standin._faults import Fault, Misfortune
from strep.standin._media import MediaPlan
from strep.standin._requests import parse_command, parse_dial, parse_fork_start, parse_page

SECOND = 1_000 * MS
TARGET = {"target": "udp:127.0.0.1:9000"}


def calls_of(number: int = 1, **options: Any) -> Calls:
    calls = Calls(calls=number, now_ns=T0, seed=1, **options)
    calls.advance(T0)
    return calls


def kinds(effects: list[Effect]) -> list[str]:
    return [e.event_type if isinstance(e, Webhook) else type(e).__name__ for e in effects]


def start(calls: Calls, call: Call, now_ns: int, **body: Any) -> tuple[Answer, list[Effect]]:
    return calls.fork_start(call.call_control_id, parse_fork_start(TARGET | body), now_ns)


# --- a call's life ---------------------------------------------------------------------------------------------------


def test_calls_arrive_are_answered_and_end_in_the_order_of_time():
    calls = Calls(calls=2, now_ns=T0, arrive_ns=2 * SECOND, ring_ns=SECOND, length_ns=3 * SECOND, seed=1)
    seen = []
    while (due := calls.next_ns()) is not None:
        for effect in calls.advance(due):
            assert isinstance(effect, Webhook)
            seen.append(((due - T0) / SECOND, effect.call.number, effect.event_type))
    assert seen == [
        (0, 0, "call.initiated"),
        (1, 0, "call.answered"),
        (2, 1, "call.initiated"),
        (3, 1, "call.answered"),
        (4, 0, "call.hangup"),
        (6, 1, "call.hangup"),
    ]


def test_a_look_that_comes_late_finds_the_same():
    def all_of(step_ns: int) -> list[dict[str, Any]]:
        calls = Calls(calls=4, now_ns=T0, arrive_ns=SECOND, ring_ns=SECOND, length_ns=SECOND, bridged=True, seed=1)
        looks = [calls.advance(T0 + at) for at in range(0, 20 * SECOND + 1, step_ns)]
        return [effect.body for effects in looks for effect in effects if isinstance(effect, Webhook)]

    assert all_of(SECOND // 5) == all_of(10 * SECOND)
    assert len(all_of(SECOND)) == 4 * 4


def test_bridged_legs_share_a_session_and_end_together():
    calls = Calls(calls=2, now_ns=T0, bridged=True, seed=1)
    assert kinds(calls.advance(T0)) == [
        "call.initiated", "call.initiated", "call.answered", "call.answered", "call.bridged", "call.bridged",
    ]  # fmt: skip
    a, b = calls.all
    assert a.call_session_id == b.call_session_id
    assert a.call_leg_id != b.call_leg_id
    assert (a.leg, b.leg) == (Leg.A, Leg.B)
    _, effects = calls.hangup(b.call_control_id, parse_command({}), T0 + SECOND)
    assert kinds(effects) == ["call.hangup", "call.hangup"]
    assert [c.state for c in calls.all] == ["hangup", "hangup"]


def test_ids_look_like_the_real_ones():
    calls = calls_of(100)
    for call in calls.all:
        assert call.call_control_id.startswith("v3:")
        assert len(base64.urlsafe_b64decode(call.call_control_id[3:])) == 42
        assert call.call_leg_id.version == 1
        assert call.call_leg_id.variant == uuid.RFC_4122
        created = datetime.datetime(1582, 10, 15) + datetime.timedelta(microseconds=call.call_leg_id.time // 10)
        assert created == datetime.datetime(2023, 11, 14, 22, 13, 20)  # T0
    assert len({c.call_leg_id for c in calls.all} | {c.call_session_id for c in calls.all}) == 200


def test_a_call_that_waits_is_answered_by_the_command_only():
    calls = calls_of(ring_ns=None)
    (call,) = calls.all
    assert calls.advance(T0 + 3600 * SECOND) == []
    assert refusal(start, calls, call, T0) == (422, [("90034", None)])
    _, effects = calls.answer(call.call_control_id, parse_command({"client_state": "YQ=="}), T0 + SECOND)
    assert kinds(effects) == ["call.answered"]
    assert calls.answer(call.call_control_id, parse_command({}), T0 + 2 * SECOND)[1] == []
    assert kinds(start(calls, call, T0 + 3 * SECOND)[1]) == ["MediaStart", "call.fork.started"]


def test_dialled_calls_are_calls():
    calls = calls_of(0)
    body = {"connection_id": "7", "to": "+15550100001", "from": "+15550100002", "client_state": "YQ=="}
    answer, effects = calls.dial(parse_dial(body | {"command_id": "x", "time_limit_secs": 5}), T0)
    assert errors_of(answer.body, "responses/RetrieveCallStatusResponse/content/application~1json/schema") == []
    assert answer.body["data"]["is_alive"] is False
    assert kinds(effects) == ["call.initiated", "call.answered"]
    again, effects = calls.dial(parse_dial(body | {"command_id": "x"}), T0 + SECOND)
    assert (again, effects, len(calls.all)) == (answer, [], 1)
    linked, _ = calls.dial(parse_dial(body | {"link_to": calls.all[0].call_control_id}), T0 + SECOND)
    assert linked.body["data"]["call_session_id"] == answer.body["data"]["call_session_id"]
    assert kinds(calls.advance(T0 + 5 * SECOND)) == ["call.hangup"]
    assert refusal(parse_dial, {}) == (
        422, [("10004", {"pointer": f"/{name}"}) for name in ("connection_id", "to", "from")],
    )  # fmt: skip


def test_the_status_of_a_call_is_there_for_ten_minutes_after_its_end():
    calls = calls_of(length_ns=SECOND)
    (call,) = calls.all
    alive = calls.retrieve(call.call_control_id, T0).body["data"]["is_alive"]
    calls.advance(T0 + SECOND)
    dead = calls.retrieve(call.call_control_id, T0 + 601 * SECOND).body["data"]["is_alive"]
    assert (alive, dead) == (True, False)
    assert refusal(calls.retrieve, call.call_control_id, T0 + 602 * SECOND) == (404, [("10005", None)])
    assert refusal(calls.retrieve, "v3:unknown", T0) == (404, [("10005", None)])


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_same_command_within_60_s_does_nothing_twice():
    calls = calls_of()
    (call,) = calls.all
    effects = [start(calls, call, T0 + at, command_id="x")[1] for at in (0, 1, 60 * SECOND - 1)]
    assert list(map(kinds, effects)) == [["MediaStart", "call.fork.started"], [], []]
    assert kinds(start(calls, call, T0 + 60 * SECOND, command_id="x")[1])[:2] == ["MediaStop", "call.fork.stopped"]
    # of another call it is another command
    other = calls_of(2).all[1]
    assert calls_of(2).fork_start(other.call_control_id, parse_fork_start(TARGET | {"command_id": "x"}), T0)[1]


def test_a_command_that_was_refused_may_come_again():
    calls = calls_of(ring_ns=SECOND)
    (call,) = calls.all
    refusal(lambda: start(calls, call, T0, command_id="x", client_state="YQ=="))
    assert call.client_state is None
    calls.advance(T0 + SECOND)
    assert kinds(start(calls, call, T0 + SECOND, command_id="x")[1]) == ["MediaStart", "call.fork.started"]


def test_a_repeated_hangup_is_fine_and_any_other_command_is_told():
    calls = calls_of()
    (call,) = calls.all
    stop = parse_command({"command_id": "end"})
    assert len(calls.hangup(call.call_control_id, stop, T0)[1]) == 1
    answer, effects = calls.hangup(call.call_control_id, stop, T0 + 1)
    assert (answer.status, effects) == (200, [])
    assert refusal(start, calls, call, T0) == (422, [("90018", None)])
    assert refusal(calls.fork_stop, call.call_control_id, parse_command({}), T0) == (422, [("90018", None)])
    unknown = refusal(calls.fork_stop, "v3:unknown", parse_command({}), T0)
    assert unknown == (422, [("90015", {"pointer": "/call_control_id"})])


def test_hanging_up_stops_the_fork_first():
    calls = calls_of(length_ns=SECOND)
    start(calls, calls.all[0], T0)
    assert kinds(calls.advance(T0 + SECOND)) == ["MediaStop", "call.fork.stopped", "call.hangup"]


def test_the_type_of_stream_must_be_the_one_that_was_started():
    calls = calls_of()
    (call,) = calls.all
    body = {"rx": "127.0.0.1:1", "tx": "udp:127.0.0.1:2", "stream_type": "decrypted"}
    _, (_, started) = calls.fork_start(call.call_control_id, parse_fork_start(body), T0)
    assert isinstance(started, Webhook)
    assert started.body["data"]["payload"]["stream_type"] == "decrypted"
    wrong = refusal(calls.fork_stop, call.call_control_id, parse_command({"stream_type": "raw"}), T0)
    assert wrong == (422, [("10015", {"pointer": "/stream_type"})])
    right = calls.fork_stop(call.call_control_id, parse_command({"stream_type": "decrypted"}), T0)
    assert kinds(right[1]) == ["MediaStop", "call.fork.stopped"]


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("10004", "/target")]),
        ({"rx": "192.0.2.1:9000"}, [("10004", "/tx")]),
        ({"tx": "192.0.2.1:9000"}, [("10004", "/rx")]),
        (TARGET | {"rx": "192.0.2.1:9000"}, [("10015", "/target")]),
        (TARGET | {"rx": "192.0.2.1:9000", "tx": "192.0.2.1:9001"}, [("10015", "/target")]),
        (TARGET | {"stream_type": "decrypted"}, [("10015", "/stream_type")]),
        (TARGET | {"stream_type": "encrypted"}, [("10032", "/stream_type")]),
        ({"target": "192.0.2.1:9000"}, [("10015", "/target")]),
        ({"target": "udp:example.com:9000"}, [("10015", "/target")]),
        ({"target": "udp:localhost:9000"}, [("10015", "/target")]),
        ({"target": "udp::9000"}, [("10015", "/target")]),
        ({"target": "udp:192.0.2.1:0"}, [("10015", "/target")]),
        ({"target": "udp:192.0.2.1:65536"}, [("10015", "/target")]),
        ({"target": "udp:192.0.2.1"}, [("10015", "/target")]),
        ({"target": "tcp:192.0.2.1:9000"}, [("10015", "/target")]),
        ({"target": "udp:0.0.0.0:9000"}, [("10015", "/target")]),
        ({"target": 9000}, [("10015", "/target")]),
        ({"rx": "a", "tx": "b"}, [("10015", "/rx"), ("10015", "/tx")]),
        (TARGET | {"client_state": "not base64!"}, [("10015", "/client_state")]),
        (TARGET | {"client_state": "YQ="}, [("10015", "/client_state")]),
        (TARGET | {"command_id": 7}, [("10015", "/command_id")]),
        ([], [("10015", "")]),
    ],
)
def test_what_is_impossible_is_refused_and_said_where(body: Any, errors: list[tuple[str, str]]):
    status, found = refusal(parse_fork_start, body)
    assert found == [(code, {"pointer": pointer}) for code, pointer in errors]
    assert status == (422 if isinstance(body, dict) else 400)


@pytest.mark.parametrize("target", ["udp:192.0.2.1:9000", "udp:[2001:db8::1]:9000"])
def test_what_is_possible_is_taken(target: str):
    assert f"udp:{parse_fork_start({'target': target}).target}" == target


def test_webhooks_have_the_form_of_the_contract_and_the_state_that_was_given():
    calls = Calls(calls=2, now_ns=T0, length_ns=SECOND, bridged=True, seed=1)
    effects = calls.advance(T0)
    effects += start(calls, calls.all[0], T0, client_state="aGVsbG8=")[1]
    effects += calls.advance(T0 + SECOND)
    hooks = [e for e in effects if isinstance(e, Webhook)]
    assert {h.event_type for h in hooks} == {
        "call.initiated", "call.answered", "call.bridged", "call.fork.started", "call.fork.stopped", "call.hangup",
    }  # fmt: skip
    for hook in hooks:
        assert errors_of(hook.body, event_schema(hook.event_type)) == []
        payload = hook.body["data"]["payload"]
        assert {k: payload[k] for k in hook.call.ids()} == hook.call.ids()
        late = hook.call is calls.all[0] and hook.event_type.startswith(("call.fork", "call.hangup"))
        assert payload.get("client_state") == ("aGVsbG8=" if late else None)
    assert len({h.body["data"]["id"] for h in hooks}) == len(hooks)
    assert iso(T0 + 123 * MS) == "2023-11-14T22:13:20.123Z"


def test_call_events_are_filtered_and_come_in_pages():
    calls = calls_of(3)
    for k, call in enumerate(calls.all):
        start(calls, call, T0 + k * SECOND)
    schema = "responses/ListCallEventsResponse/content/application~1json/schema"

    def names(*query: tuple[str, str]) -> list[str]:
        answer = calls.events(parse_page(list(query)))
        assert errors_of(answer.body, schema) == []
        return [e["name"] for e in answer.body["data"]]

    assert Counter(names()) == {
        "call.initiated": 3, "call.answered": 3, "fork_start": 3, "call.fork.started": 3,
    }  # fmt: skip
    leg = str(calls.all[1].call_leg_id)
    assert Counter(names(("filter[call_leg_id]", leg), ("filter[type]", "command"))) == {"fork_start": 1}
    late = ("filter[event_timestamp][gt]", iso(T0 + SECOND))
    assert Counter(names(late)) == {"fork_start": 1, "call.fork.started": 1}
    assert len(names(("page[size]", "5"), ("page[number]", "3"))) == 2
    page = calls.events(parse_page([("page[size]", "5")])).body["meta"]
    assert page == {"page_number": 1, "page_size": 5, "total_pages": 3, "total_results": 12}
    assert refusal(parse_page, [("page[size]", "251")]) == (422, [("10015", {"parameter": "page[size]"})])
    wrong = parse_page([("filter[colour]", "red")])
    assert refusal(calls.events, wrong) == (422, [("10015", {"parameter": "filter[colour]"})])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "stop", "hangup", "answer", "wait"]),
            st.integers(0, 3),
            st.sampled_from([None, "a", "b"]),
            st.integers(0, 40),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_whatever_is_commanded_forks_start_and_stop_in_turn(commands: list[Any], bridged: bool):
    calls = Calls(calls=4, now_ns=T0, ring_ns=SECOND, length_ns=90 * SECOND, bridged=bridged, seed=1)
    now, effects, refusals = T0, calls.advance(T0), []
    for name, number, command_id, wait_s in commands:
        now += wait_s * SECOND
        effects += calls.advance(now)
        body = {} if command_id is None else {"command_id": command_id}
        control_id = calls.all[number].call_control_id
        try:
            if name == "start":
                effects += calls.fork_start(control_id, parse_fork_start(TARGET | body), now)[1]
            elif name != "wait":
                command = {"stop": calls.fork_stop, "hangup": calls.hangup, "answer": calls.answer}[name]
                effects += command(control_id, parse_command(body), now)[1]
        except Refusal as refused:
            refusals.append(refused.answer.status)
    effects += calls.advance(now + 1000 * SECOND)
    assert set(refusals) <= {422}
    assert all(call.state == "hangup" and call.fork is None for call in calls.all)
    for call in calls.all:
        own = [e.event_type for e in effects if isinstance(e, Webhook) and e.call is call]
        forks = [e for e in effects if isinstance(e, MediaStart | MediaStop) and e.fork.call is call]
        assert [type(f) for f in forks] == [MediaStart, MediaStop] * (len(forks) // 2)
        assert [f.fork.number for f in forks[::2]] == [f.fork.number for f in forks[1::2]]
        told = [e for e in own if e.startswith("call.fork")]
        assert told == ["call.fork.started", "call.fork.stopped"] * (len(forks) // 2)
        assert own[0] == "call.initiated"
        assert own[-1] == "call.hangup"
        assert Counter(own)["call.answered"] <= 1


@pytest.mark.parametrize(
    "wrong",
    [{"calls": -1}, {"calls": 1, "bridged": True}, {"calls": 1, "length_ns": 0}, {"calls": 1, "ring_ns": -1}],
)
def test_calls_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        Calls(now_ns=T0, **wrong)


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_trouble_comes_as_often_as_asked_for_and_the_same_by_seed():
    faults = Faults(rate_429=0.1, rate_5xx=0.2, rate_hang=0.05)
    one, two = ([m.draw() for _ in range(10_000)] for m in (Misfortune(faults, 1), Misfortune(faults, 1)))
    assert one == two
    share = {fault: count / 10_000 for fault, count in Counter(one).items()}
    wanted = {Fault.TOO_MANY: 0.1, Fault.UNAVAILABLE: 0.1, Fault.LOST: 0.1, Fault.HANG: 0.05, None: 0.65}
    assert share.keys() == wanted.keys()
    assert all(abs(share[f] - wanted[f]) < 0.015 for f in wanted)


def test_what_is_said_to_fail_next_does():
    misfortune = Misfortune(Faults(), 1)
    misfortune.fail_next("429", None, "hang")
    assert [misfortune.draw() for _ in range(4)] == [Fault.TOO_MANY, None, Fault.HANG, None]


@pytest.mark.parametrize("wrong", [{"rate_429": -0.1}, {"rate_5xx": 0.6, "rate_hang": 0.6}, {"latency_ms": -1}])
def test_rates_that_cannot_be_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigurationError):
        Faults(**wrong)


@pytest.mark.parametrize("wrong", [{"drop": 1.1}, {"duplicate": -1}, {"retries": -1}])
def test_webhook_troubles_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        WebhookFaults(**wrong)


# --- media -----------------------------------------------------------------------------------------------------------


def fork_of(calls: Calls, number: int, now_ns: int) -> MediaFork:
    _, effects = start(calls, calls.all[number], now_ns)
    return next(e.fork for e in effects if isinstance(e, MediaStart))


def play(plan: MediaPlan, begin_ns: int, end_ns: int, step_ns: int) -> list[bytes]:
    """All datagrams that are due from begin to end, when it is looked every so often."""
    out: list[bytes] = []
    for now in range(begin_ns, end_ns + 1, step_ns):
        due = plan.due(now)
        strep, _ = plan.to(due)
        assert strep.all()
        out += [row.tobytes() for row in plan.datagrams(due, strep=True)]
    return out


TROUBLE = Impairments(loss=0.05, duplicate=0.05, reorder=0.05, jitter_ms=5)


@pytest.mark.parametrize("trouble", [Impairments(), TROUBLE])
@pytest.mark.parametrize("step_ns", [MS, 7 * MS, 900 * MS])
def test_truth_is_what_left(trouble: Impairments, step_ns: int):
    calls = calls_of(2, bridged=True)
    plan = MediaPlan(impairments=trouble, seed=3)
    forks = [fork_of(calls, 0, T0 + 5 * SECOND), fork_of(calls, 1, T0 + 5 * SECOND)]
    for fork in forks:
        plan.start(fork)
    end = T0 + 5 * SECOND + 14_400 * MS  # several chunks
    packets = [parse_datagram(data) for data in play(plan, T0 + 5 * SECOND, end, step_ns)]
    for fork in forks:
        truths = plan.stop(fork)
        assert [t.key for t in truths] == [(fork.call.call_leg_id, fork.call.leg, Direction(d)) for d in (0, 1)]
        for t in truths:
            own = [p for p in packets if (p.call_leg_id, p.leg, p.direction) == t.key]
            number = [(p.sequence_number - t.first_sequence) & 0xFFFF for p in own]
            assert sorted(set(number)) == np.flatnonzero(t.sent).tolist()
            assert len(number) - len(set(number)) == t.duplicates
            assert 690 <= t.expected <= 721
            assert {p.ssrc for p in own} == {t.ssrc}
            assert all(p.rtp_timestamp == (t.first_timestamp + 160 * n) & 0xFFFF_FFFF
                       for p, n in zip(own, number, strict=True))  # fmt: skip
            seen, highest, reordered = set(), -1, 0
            for n in number:
                reordered += n < highest and n not in seen
                highest = max(highest, n)
                seen.add(n)
            assert t.reordered == reordered
    assert plan.active == 0
    assert plan.next_ns is None
    assert len(packets) > 2500


def test_the_same_seed_makes_the_same_datagrams():
    def all_of(seed: int) -> list[bytes]:
        calls = calls_of(2)
        plan = MediaPlan(impairments=TROUBLE, seed=seed)
        for number in (0, 1):
            plan.start(fork_of(calls, number, T0 + SECOND))
        return play(plan, T0 + SECOND, T0 + 3 * SECOND, 5 * MS)

    assert all_of(1) == all_of(1)
    assert all_of(1) != all_of(2)


def test_what_one_leg_is_sent_the_other_leg_said():
    calls = calls_of(2, bridged=True)
    plan = MediaPlan(seed=3)
    forks = [fork_of(calls, n, T0) for n in (0, 1)]
    for fork in forks:
        plan.start(fork)
    play(plan, T0, T0 + 2 * SECOND, 10 * MS)
    (a_in, a_out), (b_in, b_out) = (plan.truth(n) for n in (0, 1))
    n = 160 * 90
    assert a_out.samples[:n].tolist() == b_in.samples[:n].tolist()
    assert a_in.samples[:n].tolist() == b_out.samples[:n].tolist()
    assert a_in.samples[:n].tolist() != a_out.samples[:n].tolist()


def test_a_second_fork_goes_on_where_the_call_is():
    calls = calls_of()
    plan = MediaPlan(seed=3)
    for at in (0, 10):
        fork = fork_of(calls, 0, T0 + at * SECOND)
        plan.start(fork)
        play(plan, T0 + at * SECOND, T0 + (at + 1) * SECOND, 20 * MS)
        plan.stop(fork)
    first, _, second, _ = plan.truth(0)
    assert (second.first_sequence - first.first_sequence) & 0xFFFF == 500
    assert second.ssrc == first.ssrc
    assert abs(second.packets - 50) <= 1


@pytest.mark.parametrize("codec", ["PCMU", "PCMA", "L16"])
def test_rows_are_used_again_and_more_are_made(codec: str):
    calls = calls_of(100)
    plan = MediaPlan(codec=codec, seed=3)
    for _ in range(3):
        forks = [fork_of(calls, n, T0) for n in range(100)]
        for fork in forks:
            plan.start(fork)
        packets = [parse_datagram(data) for data in play(plan, T0, T0 + 100 * MS, 20 * MS)]
        assert len({(p.call_leg_id, p.direction) for p in packets}) == 200
        assert all(sum(t.packets for t in plan.stop(fork)) for fork in forks)


@pytest.mark.parametrize("wrong", [{"ptime_ms": 0.01}, {"ptime_ms": 300}, {"drift_ppm": 1e6}, {"codec": "MP3"}])
def test_media_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        MediaPlan(**wrong)
