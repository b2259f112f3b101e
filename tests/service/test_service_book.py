"""Which calls are wanted, whatever order webhooks come in; what a leg's file tells; health."""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import listening, send_paced, until
from support import LEG, packet

import strep
from strep._model.exceptions import BindError
from strep.control import APIConnectionError, CallEndedError, InternalServerError, UnprocessableEntityError
from strep.control._fork_state import ForkState
from strep.control.calls import CallState
from strep.control.events import WebhookEvent, parse_event
from strep.service import CallBook, CallRecorder, Health, LegStreams, LegWriter
from strep.service._journal import Journal
from strep.service._json_files import write_json
from strep.sinks import WavSink
from strep.standin._call import iso
from strep.standin._calls import Calls

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def webhook(event_type: str, at_s: float = 0, *, call: str = "v3:a", leg: uuid.UUID | None = LEG, **more: Any) -> Any:
    payload = {"call_control_id": call, "call_leg_id": leg and str(leg), "call_session_id": "s1", **more}
    return parse_event(
        {
            "data": {
                "event_type": event_type,
                "id": str(uuid.uuid4()),
                "occurred_at": (T0 + timedelta(seconds=at_s)).isoformat(),
                "payload": {key: value for key, value in payload.items() if value is not None},
            }
        }
    )


def wants(book: CallBook, *events: WebhookEvent) -> list[bool]:
    found = []
    for event in events:
        state = book.take(event, 0.0)
        found.append(state is not None and book.wants(state))
    return found


INITIATED = webhook("call.initiated", 0, direction="incoming")
ANSWERED = webhook("call.answered", 1)
HANGUP = webhook("call.hangup", 9)


def test_a_call_is_wanted_from_its_beginning_or_its_answer_until_it_ends() -> None:
    assert wants(CallBook(only_answered=True), INITIATED, ANSWERED, HANGUP) == [False, True, False]
    assert wants(CallBook(only_answered=False), INITIATED, ANSWERED, HANGUP) == [True, True, False]
    assert wants(CallBook(), HANGUP, ANSWERED, INITIATED) == [False] * 3
    # one that was answered before this program began, and one that it forked before it was started again
    assert wants(CallBook(), webhook("call.bridged", 2)) == [True]
    assert wants(CallBook(), webhook("call.fork.started", 2)) == [True]
    assert wants(CallBook(), webhook("call.fork.stopped", 2)) == [False]


def test_an_event_without_call_control_id_is_its_legs() -> None:
    book = CallBook()
    bare = webhook("call.fork.started", 2, call=None)  # type: ignore[arg-type]
    assert book.take(bare, 0.0) is None
    state = book.take(INITIATED, 0.0)
    assert state is not None
    assert state.forked
    again = book.take(webhook("call.fork.stopped", 3, call=None), 0.0)  # type: ignore[arg-type]
    assert again is not None
    assert (again.call_control_id, again.forked) == ("v3:a", False)
    assert book.take(webhook("call.answered", call=None, leg=None), 0.0) is None  # type: ignore[arg-type]


B_LEG = uuid.UUID(int=LEG.int + 1)


def of_b(event_type: str, at_s: float, **more: Any) -> WebhookEvent:
    return webhook(event_type, at_s, call="v3:b", leg=B_LEG, **more)


PAIR = [
    INITIATED, ANSWERED, of_b("call.initiated", 0.5, direction="outgoing"), of_b("call.answered", 2),
]  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_which_leg_is_a_does_not_hang_on_the_order(order: tuple[int, ...]) -> None:
    for which, wanted in (("a", [True, False]), ("b", [False, True]), ("both", [True, True])):
        book = CallBook(record_legs=which)  # type: ignore[arg-type]
        for i in order:
            book.take(PAIR[i], 0.0)
        states = [book.get("v3:a"), book.get("v3:b")]
        assert [state is not None and book.wants(state) for state in states] == wanted
        assert all(state is not None and book.is_sure_of_leg(state) for state in states)


def test_a_leg_that_was_dialled_may_be_b_as_long_as_it_is_alone() -> None:
    book = CallBook(record_legs="a")
    state = book.take(of_b("call.answered", 2, direction="outgoing"), 0.0)
    assert state is not None
    assert book.wants(state)
    assert not book.is_sure_of_leg(state)
    book.take(INITIATED, 0.0)
    assert not book.wants(state)
    assert book.is_sure_of_leg(state)


@given(st.permutations(list(range(5))), st.lists(st.integers(0, 4), max_size=6))
def test_one_final_wish_for_all_orders_and_repetitions(order: list[int], again: list[int]) -> None:
    events = [INITIATED, ANSWERED, webhook("call.bridged", 2), webhook("call.fork.started", 1), HANGUP]
    book = CallBook(only_answered=True)
    for i in [*order, *again]:
        book.take(events[i], 0.0)
    state = book.by_leg(LEG)
    assert state is not None
    assert not book.wants(state)
    assert state.answered_at == T0 + timedelta(seconds=1)


def test_the_stand_ins_pairs_are_a_and_b() -> None:
    calls = Calls(calls=2, now_ns=10**18, bridged=True, seed=1, webhook_url="http://x/")
    book = CallBook()
    for effect in calls.advance(2 * 10**18):
        book.take(parse_event(effect.body), 0.0)  # type: ignore[union-attr]
    found = [book.leg_of(book.get(call.call_control_id)).label for call in calls.all]  # type: ignore[arg-type]
    assert found == ["a", "b"]
    assert iso(10**18).startswith("2001-09-09")


def test_what_has_ended_long_ago_is_forgotten() -> None:
    book = CallBook()
    for k in range(100):
        leg = uuid.UUID(int=LEG.int + k)
        book.take(webhook("call.hangup", call=f"v3:{k}", leg=leg, call_session_id=f"s{k}"), float(k))
    assert len(book) == 100
    book.take(ANSWERED, 3700.0)
    assert len(book) == 1
    assert book.by_leg(uuid.UUID(int=LEG.int + 5)) is None


TEXT = st.text(st.characters(exclude_categories=()), max_size=300)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [
    "call_control_id",
    "call_leg_id",
    "call_session_id",
    "connection_id",
    "client_state",
    "from",
    "to",
    "direction",
]
KINDS = ["call.initiated", "call.answered", "call.bridged", "call.fork.started", "call.fork.stopped", "call.hangup"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS) | ANYTHING, ANYTHING, st.dictionaries(st.sampled_from(FIELDS), ANYTHING)),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_whatever_webhooks_say_is_noted_and_read_again(told: list[tuple[Any, Any, dict[str, Any]]]) -> None:
    """Names and texts of the public telephone network, also such as no file could be named or written with."""
    book = CallBook()
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        for number, (kind, at, payload) in enumerate(told):
            payload = {"call_control_id": "v3:x", "call_leg_id": str(uuid.UUID(int=number % 2 + 1)), **payload}
            body = json.dumps({"data": {"event_type": kind, "occurred_at": at, "payload": payload}})
            state = book.take(parse_event(json.loads(body)), 0.0)
            if state is None or not book.wants(state):
                continue
            journal.note(state)
            other = CallState()
            for event in journal.read():
                other = other.after(event) if event.call_control_id == state.call_control_id else other
            for name in ("call_control_id", "call_leg_id", "call_session_id", "from_", "to", "direction", "answered"):
                assert getattr(other, name) == getattr(state, name), name
            assert book.wants(other)
            book.leg_of(state)
            write_json(Path(folder), "leg", {"from": state.from_, "session": state.call_session_id})
            journal.strike(str(state.call_control_id))
        assert list(Path(folder, ".calls").glob("*")) == []


# --- legs -------------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_a_legs_file_is_written_when_its_files_are_complete(tmp_path: Path) -> None:
    streams, written = LegStreams(), []
    receiver = strep.Receiver("127.0.0.1:0", sinks=[WavSink(tmp_path, layout="stereo"), streams], idle_timeout_s=1)
    now = [0.0]
    async with receiver:
        writer = LegWriter(tmp_path, receiver, streams, lambda path, found: written.append(path), clock=lambda: now[0])
        data = [packet(k, direction=d) for k in range(60) for d in (0, 1)]
        await send_paced(listening(receiver), data)
        await until(lambda: receiver.totals().datagrams == len(data))
        writer.over(LEG, lambda: {"call_leg_id": str(LEG), "from": "+1"})
        await writer.look()
        assert written == []  # it has live streams
        await until(lambda: not streams.live(LEG))
        await until(lambda: all(receiver.settled(r.stream) for r in streams.ended(LEG)))
        await writer.look()
        assert written == [tmp_path / str(LEG) / "leg.json"]
        assert (writer.waiting, streams.ended(LEG)) == (0, [])
        found = json.loads(written[0].read_text())
        assert [s["direction"] for s in found["streams"]] == ["inbound", "outbound"]
        assert {file for s in found["streams"] for file in s["files"]} == {f"{LEG}/a.wav"}
        assert found["from"] == "+1"
        assert (tmp_path / str(LEG) / "a.wav").exists()


@pytest.mark.sockets
async def test_a_leg_that_takes_long_is_told_of_twice_and_never_overwrites_anothers(tmp_path: Path) -> None:
    streams, written = LegStreams(), []
    folder = tmp_path / str(LEG)
    folder.mkdir()
    (folder / "leg.json").write_text("another run's")
    receiver = strep.Receiver("127.0.0.1:0", sinks=[streams])
    now = [0.0]
    async with receiver:
        writer = LegWriter(tmp_path, receiver, streams, lambda path, found: written.append(path), clock=lambda: now[0])
        await send_paced(listening(receiver), [packet(k) for k in range(60)])
        await until(lambda: receiver.live_streams == 1)
        writer.over(LEG, dict)
        now[0] = 6.0
        await writer.look()
        assert written == [folder / "leg-2.json"]
        assert json.loads(written[0].read_text())["streams"] == []
    await writer.look(last=True)
    assert written == [folder / "leg-2.json"]
    assert len(json.loads(written[0].read_text())["streams"]) == 1
    assert (folder / "leg.json").read_text() == "another run's"
    assert writer.waiting == 0


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    assert write_json(tmp_path, "leg", {"a": 1}) == tmp_path / "leg.json"
    (tmp_path / "leg.json").chmod(0o444)
    with pytest.raises(TypeError):
        write_json(tmp_path, "leg", {"a": object()}, tmp_path / "leg.json")
    assert json.loads((tmp_path / "leg.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["leg.json"]


# --- what is in the way ----------------------------------------------------------------------------------------------


class Attempts:
    """Forks whose starts raise these, one after the other; then they start, and last until they are stopped."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.tries = 0
        self.over = asyncio.Event()
        self.state = ForkState()
        self.call_leg_id = None
        self.addresses: dict[str, str] = {}

    def __call__(self, state: CallState, on_event: Any, command_id: str | None) -> Any:
        return self

    async def __aenter__(self) -> Any:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.over.set()

    async def wait(self) -> None:
        await self.over.wait()

    async def stop(self) -> None:
        self.over.set()


REFUSED = UnprocessableEntityError("no such call", status_code=422)


@pytest.mark.sockets
@pytest.mark.parametrize(
    ("error", "tries", "outcome"),
    [
        (APIConnectionError("fork_start: no answer"), 3, "no_media"),
        (InternalServerError("fork_start: 503", status_code=503), 3, "no_media"),
        (BindError(98, "all ports are in use"), 3, "no_media"),
        (OSError(24, "Too many open files"), 3, "no_media"),
        (REFUSED, 1, "failed"),
    ],
)
async def test_what_may_pass_is_tried_again_as_long_as_the_call_lives(
    tmp_path: Path, error: Exception, tries: int, outcome: str
) -> None:
    attempts, told = Attempts(error, error), []
    async with strep.Receiver("127.0.0.1:0") as receiver:
        recorder = CallRecorder(receiver, LegStreams(), CallBook(), tmp_path, attempts, tell=told.append)
        await recorder.start()
        recorder.on_event(ANSWERED)
        for number in range(tries):
            await until(lambda number=number: attempts.tries > number)
            await asyncio.sleep(0.05)
            if recorder.active:
                recorder.on_event(webhook("call.bridged", 2 + number))
        if outcome == "no_media":
            assert list((tmp_path / ".calls").iterdir())
            recorder.on_event(HANGUP)
        await until(lambda: not recorder.active)
        await recorder.stop(1.0)
        await recorder.finish()
    assert attempts.tries == tries
    assert {name for name, count in recorder.outcomes.items() if count} == {outcome}
    assert [event["event"] for event in told if event["event"] == "call_failed"] == ["call_failed"] * (tries == 1)
    assert list((tmp_path / ".calls").iterdir()) == []


@pytest.mark.sockets
async def test_a_call_that_is_over_is_missed_once_however_many_webhooks_come_late(tmp_path: Path) -> None:
    over = CallEndedError("the call has ended", status_code=422)
    attempts = Attempts(over, over, over)
    async with strep.Receiver("127.0.0.1:0") as receiver:
        recorder = CallRecorder(receiver, LegStreams(), CallBook(), tmp_path, attempts)
        await recorder.start()
        for number in range(3):
            recorder.on_event(webhook("call.bridged", 2 + number))
            await until(lambda: not recorder.active)
        await recorder.stop(1.0)
        await recorder.finish()
    assert attempts.tries == 3
    assert recorder.outcomes["missed"] == sum(recorder.outcomes.values()) == 1


@pytest.mark.sockets
async def test_a_call_whose_fork_somebody_stopped_is_left_alone_until_it_ends(tmp_path: Path) -> None:
    """Whatever webhooks come, and by the next process too."""
    attempts = Attempts()
    attempts.state = ForkState(stopped_elsewhere=True)
    attempts.over.set()
    async with strep.Receiver("127.0.0.1:0") as receiver:
        for number in range(2):
            recorder = CallRecorder(receiver, LegStreams(), CallBook(), tmp_path, attempts)
            await recorder.start()
            for event in (ANSWERED, webhook("call.bridged", 2), webhook("call.fork.stopped", 3)):
                recorder.on_event(event)
                await until(lambda recorder=recorder: not recorder.active)
            assert attempts.tries == 1
            assert len(list((tmp_path / ".calls").iterdir())) == 1
            if number:
                recorder.on_event(HANGUP)
            await recorder.stop(1.0)
            await recorder.finish()
    assert list((tmp_path / ".calls").iterdir()) == []


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.sockets
async def test_health(tmp_path: Path) -> None:
    now = [0.0]
    async with strep.Receiver("127.0.0.1:0") as receiver:
        health = Health(receiver, tmp_path, lambda: {"media": 2}, min_free_bytes=1, clock=lambda: now[0])
        assert health.check()[0] == 503
        health.serving = True
        health.beat()
        status, told = health.check()
        assert (status, told["problems"], told["forks"]) == (200, [], {"media": 2})
        assert told["receiver"]["last_datagram"] is None
        await send_paced(listening(receiver), [packet(0)])
        await until(lambda: receiver.last_datagram_ns is not None)
        assert str(health.check()[1]["receiver"]["last_datagram"]).startswith("20")
        now[0] = 16.0
        assert health.check()[0] == 503  # nobody has looked at the disk
        health.beat()
        assert health.check()[0] == 200
        full = Health(receiver, tmp_path, dict, min_free_bytes=1 << 62, clock=lambda: now[0])
        full.serving = True
        full.beat()
        assert "MiB free" in full.check()[1]["problems"][0]
        gone = Health(receiver, tmp_path / "gone", dict, min_free_bytes=1, clock=lambda: now[0])
        gone.serving = True
        gone.beat()
        assert gone.check()[1]["problems"] == ["disk: No such file or directory"]
