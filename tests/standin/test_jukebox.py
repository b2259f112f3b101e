"""What is spoken and played on the stand-in's calls, in virtual time: queues, stops, and the events of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract import errors_of, event_schema, refusal
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import MS, T0

from strep.standin._answers import OK
from strep.standin._audio_requests import parse_playback_start, parse_playback_stop, parse_speak
from strep.standin._call import NEVER_NS, AudioLoad, AudioStart, AudioStop, Call, Effect, Webhook
from strep.standin._calls import Calls
from strep.standin._playlist import Clip, Content, Item, Named, Remote, Speech
from strep.standin._requests import parse_command, parse_fork_start

SECOND = 1_000 * MS
SAY = {"payload": "Good day", "voice": "female", "language": "en-GB"}


def clip(seconds: float) -> Clip:
    packets = round(seconds * 50)
    return Clip(np.zeros((packets, 160), np.int16), packets * 20 * MS)


class World:
    """Calls whose sounds are there ``loading_s`` after they are asked for. ``log``: when what happened to which."""

    def __init__(self, calls: int = 1, loading_s: float = 0.0, **options: Any) -> None:
        self.calls = Calls(calls=calls, now_ns=T0, seed=1, **options)
        self.now_ns = T0
        self.loading_ns = round(loading_s * SECOND)
        self.length_s: dict[int, float | None] = {}  # by item; None: it cannot be played. Default 1 s
        self.arriving: list[tuple[int, Call, Item]] = []
        self.log: list[tuple[float, int, str, str | None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.heard: dict[int, list[Item]] = {}
        self.take(self.calls.advance(T0))
        self.log.clear()
        self.bodies.clear()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case AudioLoad(call, item):
                    self.arriving.append((self.now_ns + self.loading_ns, call, item))
                case AudioStart(call, item, at_ns):
                    assert at_ns <= self.now_ns
                    self.heard.setdefault(call.number, []).append(item)
                case AudioStop(call, item, _):
                    self.heard[call.number].remove(item)
                case Webhook(call, event_type, body):
                    assert errors_of(body, event_schema(event_type)) == []
                    payload = body["data"]["payload"]
                    self.bodies.append(payload)
                    self.log.append(((self.now_ns - T0) / SECOND, call.number, event_type, payload.get("status")))

    def until(self, seconds: float) -> None:
        """Let time pass; things happen when they are due."""
        end_ns = T0 + round(seconds * SECOND)
        while (due := min([self.calls.next_ns() or NEVER_NS, *(when for when, _, _ in self.arriving)])) <= end_ns:
            self.now_ns = max(due, self.now_ns)
            self.take(self.calls.advance(self.now_ns))
            for entry in [one for one in self.arriving if one[0] <= self.now_ns]:
                self.arriving.remove(entry)
                _, call, item = entry
                length = self.length_s.get(item.number, 1.0)
                self.take(self.calls.loaded(call, item, None if length is None else clip(length), self.now_ns))
        self.now_ns = end_ns

    def do(self, name: str, call: int = 0, **body: Any) -> None:
        self.take(self.calls.advance(self.now_ns))
        control_id = self.calls.all[call].call_control_id
        if name == "speak":
            answer, effects = self.calls.play(control_id, name, parse_speak(SAY | body), self.now_ns)
        elif name == "playback_start":
            answer, effects = self.calls.play(control_id, name, parse_playback_start(body), self.now_ns)
        else:
            answer, effects = self.calls.playback_stop(control_id, parse_playback_stop(body), self.now_ns)
        assert answer == OK
        self.take(effects)
        self.until((self.now_ns - T0) / SECOND)


URL = {"audio_url": "http://example.com/message.wav"}


def test_speeches_queue_and_follow_one_another():
    world = World()
    world.length_s = {0: 2.0, 1: 0.5}
    world.do("speak")
    world.do("speak")
    world.until(1)
    world.do("playback_start", **URL, overlay=False)
    world.until(9)
    assert world.log == [
        (0, 0, "call.speak.started", None), (2, 0, "call.speak.ended", "completed"),
        (2, 0, "call.speak.started", None), (2.5, 0, "call.speak.ended", "completed"),
        (2.5, 0, "call.playback.started", None), (3.5, 0, "call.playback.ended", "valid"),
    ]  # fmt: skip
    assert world.bodies[-1]["media_url"] == URL["audio_url"]
    assert world.bodies[-1]["overlay"] is False
    assert world.heard == {0: []}


def test_what_is_not_there_yet_is_waited_for_and_what_cannot_be_played_is_told():
    world = World(loading_s=0.25)
    world.length_s = {1: None}
    for _ in range(3):
        world.do("playback_start", media_name="a")
    world.until(9)
    assert world.log == [
        (0.25, 0, "call.playback.started", None), (1.25, 0, "call.playback.ended", "valid"),
        (1.25, 0, "call.playback.ended", "invalid"),
        (1.25, 0, "call.playback.started", None), (2.25, 0, "call.playback.ended", "valid"),
    ]  # fmt: skip
    assert {body["media_name"] for body in world.bodies} == {"a"}


@pytest.mark.parametrize(("stop", "follows"), [("current", True), ("all", False), (None, False)])
def test_a_stop_ends_what_is_heard_and_all_of_it_the_queue_too(stop: str | None, follows: bool):
    world = World()
    world.do("speak")
    world.do("playback_start", **URL)
    world.until(0.5)
    world.do("playback_stop", **({} if stop is None else {"stop": stop}))
    world.until(9)
    after = [(0.5, 0, "call.playback.started", None), (1.5, 0, "call.playback.ended", "valid")]
    assert world.log == [
        (0, 0, "call.speak.started", None), (0.5, 0, "call.speak.ended", "completed"), *(after if follows else []),
    ]  # fmt: skip


@pytest.mark.parametrize(("stop", "numbers"), [(None, [0, 1, 2]), ("current", [0, 1, 2]), ("all", [0, 2])])
@pytest.mark.parametrize("name", ["speak", "playback_start"])
def test_a_start_may_stop_what_is_before_it(name: str, stop: str | None, numbers: list[int]):
    world = World()
    for _ in range(2):
        world.do("speak")
    world.until(0.5)
    world.do(name, **(URL if name == "playback_start" else {}), **({} if stop is None else {"stop": stop}))
    kind = "playback" if name == "playback_start" else "speak"
    world.until(9)
    starts = [when for when, _, event, _ in world.log if event.endswith("started")]
    first_s = 1.0 if stop is None else 0.5
    assert starts == [0, first_s, first_s + 1][: len(numbers)]
    assert [event for *_, event, _ in world.log if event.endswith("started")][-1] == f"call.{kind}.started"


def test_loops_and_an_endless_one_that_is_stopped():
    world = World()
    world.do("playback_start", **URL, loop=3)
    world.do("playback_start", **URL, loop="infinity")
    world.until(3600)
    world.do("playback_stop")
    times = [(when, event) for when, _, event, _ in world.log]
    assert times == [
        (0, "call.playback.started"), (3, "call.playback.ended"), (3, "call.playback.started"),
        (3600, "call.playback.ended"),
    ]  # fmt: skip


def test_an_overlay_is_mixed_into_what_is_played_and_queues_nothing():
    world = World()
    body = {"audio_url": "http://example.com/b.wav", "overlay": True}
    control_id = world.calls.all[0].call_control_id
    none_yet = refusal(world.calls.play, control_id, "playback_start", parse_playback_start(body), T0)
    assert none_yet == (422, [("10015", {"pointer": "/overlay"})])
    world.length_s = {0: 5.0, 2: 1.0}
    world.do("playback_start", **URL)
    world.do("playback_start", **body)
    world.until(0.5)
    world.do("playback_start", **body, loop="infinity")
    assert [item.overlay for item in world.heard[0]] == [False, True, True]
    world.until(2)
    world.do("playback_stop", overlay=True)
    world.until(9)
    assert [(when, event) for when, _, event, _ in world.log] == [
        (0, "call.playback.started"), (0, "call.playback.started"), (0.5, "call.playback.started"),
        (1, "call.playback.ended"), (2, "call.playback.ended"), (5, "call.playback.ended"),
    ]  # fmt: skip
    assert [body["overlay"] for body in world.bodies] == [False, True, True, True, True, False]


def test_legs():
    world = World(calls=2, bridged=True)
    world.do("playback_start", call=0, **URL, target_legs="opposite")
    world.do("playback_start", call=1, **URL, target_legs="both")
    world.until(9)
    assert [(leg, when, event[14:]) for when, leg, event, _ in sorted(world.log, key=lambda entry: entry[1])] == [
        (0, 0, "started"), (0, 1, "ended"),
        (1, 0, "started"), (1, 1, "ended"), (1, 1, "started"), (1, 2, "ended"),
    ]  # fmt: skip
    alone = World()
    alone.do("playback_start", **URL, target_legs="both")
    assert [leg for _, leg, _, _ in alone.log] == [0]
    opposite = parse_playback_start(URL | {"target_legs": "opposite"})
    control_id = alone.calls.all[0].call_control_id
    assert refusal(alone.calls.play, control_id, "playback_start", opposite, T0) == (
        422, [("10015", {"pointer": "/target_legs"})],
    )  # fmt: skip


def test_a_call_that_ends_ends_what_is_heard_on_it():
    world = World(calls=2, length_ns=SECOND // 2, loading_s=0.0)
    for call in (0, 1):
        for _ in range(2):
            world.do("speak", call=call)
    world.do("playback_start", call=1, **URL, overlay=True)
    control_id = world.calls.all[0].call_control_id
    world.calls.fork_start(control_id, parse_fork_start({"target": "udp:127.0.0.1:9"}), world.now_ns)
    world.until(0.25)
    world.do("playback_stop", call=1)
    world.until(9)
    assert [(when, leg, event, status) for when, leg, event, status in world.log if leg == 0] == [
        (0, 0, "call.speak.started", None), (0.5, 0, "call.speak.ended", "call_hangup"),
        (0.5, 0, "call.fork.stopped", None), (0.5, 0, "call.hangup", None),
    ]  # fmt: skip
    assert [event for _, leg, event, _ in world.log if leg == 1] == [
        "call.speak.started", "call.playback.started", "call.playback.ended", "call.speak.ended", "call.hangup",
    ]  # fmt: skip
    for name, request in (("speak", parse_speak(SAY)), ("playback_start", parse_playback_start(URL))):
        assert refusal(world.calls.play, control_id, name, request, world.now_ns) == (422, [("90018", None)])
    assert refusal(world.calls.playback_stop, control_id, parse_playback_stop({}), world.now_ns) == (
        422, [("90018", None)],
    )  # fmt: skip


def test_what_comes_when_the_call_has_ended_is_not_heard():
    world = World(length_ns=SECOND, loading_s=2.0)
    world.do("speak")
    world.until(9)
    assert [event for _, _, event, _ in world.log] == ["call.hangup"]
    assert world.heard == {}


def test_only_calls_that_are_answered_hear_anything():
    calls = Calls(calls=1, now_ns=T0, ring_ns=None, seed=1)
    calls.advance(T0)
    (call,) = calls.all
    for work, request in (("speak", parse_speak(SAY)), ("playback_start", parse_playback_start(URL))):
        assert refusal(calls.play, call.call_control_id, work, request, T0) == (422, [("90034", None)])
    assert refusal(calls.playback_stop, call.call_control_id, parse_playback_stop({}), T0)[1] == [("90034", None)]


def test_a_repeated_command_is_heard_once_and_states_come_back():
    world = World()
    for _ in range(3):
        world.do("speak", command_id="a", client_state="YQ==")
    world.until(9)
    assert [event for _, _, event, _ in world.log] == ["call.speak.started", "call.speak.ended"]
    assert [body["client_state"] for body in world.bodies] == ["YQ==", "YQ=="]
    assert "from" not in world.bodies[0]
    world.do("playback_stop")  # nothing is heard: fine


def test_the_queue_is_bounded():
    world = World()
    for _ in range(1001):
        world.do("speak")
    control_id = world.calls.all[0].call_control_id
    assert refusal(world.calls.play, control_id, "speak", parse_speak(SAY), T0)[0] == 422
    _, effects = world.calls.hangup(control_id, parse_command({}), world.now_ns)
    assert [e.event_type for e in effects if isinstance(e, Webhook)] == ["call.speak.ended", "call.hangup"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["payload", "voice", "language"]),
        (SAY | {"payload": ""}, ["payload"]),
        (SAY | {"payload": "x" * 5001}, ["payload"]),
        (SAY | {"voice": "deep"}, ["voice"]),
        (SAY | {"voice": 7}, ["voice"]),
        (SAY | {"language": "en"}, ["language"]),
        (SAY | {"service_level": "basic"}, ["language"]),
        (SAY | {"service_level": "basic", "language": "en-US", "payload_type": "ssml"}, ["payload_type"]),
        (SAY | {"payload_type": "x", "service_level": "y", "stop": "z"}, ["payload_type", "service_level", "stop"]),
        (SAY | {"client_state": "?", "loop": 0}, ["client_state", "loop"]),
    ],
)
def test_what_speak_refuses(body: dict[str, Any], pointers: list[str]):
    status, problems = refusal(parse_speak, body)
    assert (status, [source["pointer"] for _, source in problems]) == (422, [f"/{name}" for name in pointers])


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["audio_url"]),
        (URL | {"media_name": "a"}, ["media_name"]),
        (URL | {"playback_content": "UklGRg=="}, ["playback_content"]),
        ({"audio_url": "file:///etc/passwd"}, ["audio_url"]),
        ({"audio_url": "http://[::1"}, ["audio_url"]),
        ({"playback_content": "?"}, ["playback_content"]),
        *((URL | {"loop": loop}, ["loop"]) for loop in (0, 101, "twice", 1.5, True, [])),
        (URL | {"overlay": "yes"}, ["overlay"]),
        (URL | {"overlay": True, "target_legs": "both"}, ["target_legs"]),
        (URL | {"target_legs": "A", "stop": "x", "audio_type": "ogg"}, ["stop", "target_legs", "audio_type"]),
    ],
)
def test_what_playback_start_refuses(body: dict[str, Any], pointers: list[str]):
    status, problems = refusal(parse_playback_start, body)
    assert (status, [source["pointer"] for _, source in problems]) == (422, [f"/{name}" for name in pointers])


def test_what_is_asked_for():
    assert parse_speak(SAY | {"payload_type": "ssml", "loop": "infinity", "target_legs": "both"}).source == Speech(
        "Good day", "female", "en-GB", ssml=True
    )
    assert parse_speak({"payload": "x", "voice": "AWS.Polly.Joanna"}).source == Speech("x", "AWS.Polly.Joanna")
    assert parse_playback_start(URL | {"loop": "7"}).loops == 7
    assert parse_playback_start(URL | {"cache_audio": True}).source == Remote(URL["audio_url"], kept=True)
    assert parse_playback_start({"media_name": "a"}).source == Named("a")
    assert parse_playback_start({"playback_content": "UklGRg=="}).source == Content(b"RIFF")
    assert refusal(parse_playback_stop, {"stop": "x", "overlay": 1})[0] == 422


COMMANDS = st.tuples(
    st.integers(0, 40),  # tenths of a second since the one before
    st.integers(0, 1),  # call
    st.sampled_from(["speak", "playback_start", "playback_stop"]),
    st.sampled_from([None, "current", "all"]),
    st.sampled_from([None, 0.1, 0.5, 3.0]),  # how long it lasts
)


@given(st.lists(COMMANDS, max_size=25), st.sampled_from([0.0, 0.2]))
@settings(max_examples=usual_or_slow(60, 600), deadline=None)
def test_whatever_is_asked_for_one_is_heard_at_a_time_in_the_order_of_commands(
    commands: list[tuple[int, int, str, str | None, float | None]], loading_s: float
):
    """The oracle: a queue that is worked off in steps of 0.1 s, in which everything happens."""
    world = World(calls=2, loading_s=loading_s)
    number, now = 0, 0
    waits: dict[int, list[tuple[int, int]]] = {0: [], 1: []}  # of each call: item, and when it is there
    plays: dict[int, tuple[int, int] | None] = {0: None, 1: None}  # item, and when it ends
    starts: list[tuple[int, int, int]] = []

    def step(tick: int) -> None:
        for call in (0, 1):
            playing = plays[call]
            if playing is not None and playing[1] <= tick:
                plays[call] = None
            queue = waits[call]
            while plays[call] is None and queue and queue[0][1] <= tick:
                item, _ = queue.pop(0)
                length = world.length_s[item]
                if length is not None:
                    plays[call] = item, tick + round(length * 10)
                    starts.append((tick, call, item))

    for pause, call, name, stop, length in commands:
        for tick in range(now, now + pause + 1):
            step(tick)
        now += pause
        world.until(now / 10)
        body = {} if stop is None else {"stop": stop}
        what = stop or ("all" if name == "playback_stop" else None)
        if what is not None:
            plays[call] = None
            if what == "all":
                waits[call].clear()
            step(now)
        if name != "playback_stop":
            world.length_s[number] = length
            waits[call].append((number, now + round(loading_s * 10)))
            number += 1
        world.do(name, call=call, **(URL if name == "playback_start" else {}), **body)
        step(now)
        for heard in world.heard.values():
            assert len(heard) <= 1
    for tick in range(now, now + 1000):
        step(tick)
    world.until(now / 10 + 100)
    began = [(round(when * 10), leg) for when, leg, event, _ in world.log if event.endswith("started")]
    assert sorted(began) == sorted((tick, call) for tick, call, _ in starts)
    for call in (0, 1):
        heard = None
        for _, leg, event, _ in world.log:
            if leg == call and event.endswith("started"):
                assert heard is None
                heard = event
            elif leg == call and heard is not None:  # otherwise one that could not be played
                assert event == heard.replace("started", "ended")
                heard = None
        assert heard is None
    assert not any(world.heard.values())
