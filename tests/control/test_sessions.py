"""Fork sessions against the stand-in: in virtual time, and some over real HTTP and real UDP; faults.md 42."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import check_truth, port_of
from sessions_world import MODES, Mode, until, virtual_world, virtually, world

import strep
from strep._model.exceptions import ConfigurationError
from strep.control import (
    CallControl,
    CallEndedError,
    Fork,
    ForkEvent,
    ForkLimits,
    ForkPhase,
    UnprocessableEntityError,
)
from strep.control.events import parse_event
from strep.sinks import ArraySink, WavSink
from strep.standin import Call, WebhookFaults
from strep.standin._answers import Problem, Refusal

pytestmark = pytest.mark.realtime

AGAIN = ForkLimits(no_media_s=0.4, stall_s=0.3, backoff_s=0.1, idle_s=30, stop_s=4)


async def media(fork: Fork) -> None:
    await until(lambda: fork.diagnosis().facts.inbound > 4 and fork.diagnosis().facts.outbound > 4)


@pytest.mark.sockets
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("announced_only", [False, True])
async def test_a_fork_gives_both_directions_whole_and_is_stopped(mode: Mode, announced_only: bool) -> None:
    told: list[ForkEvent] = []
    samples: dict[strep.Direction, int] = {}

    async def consume(stream: strep.Stream) -> None:
        samples[stream.direction] = sum([len(block.samples) async for block in stream.blocks()])

    async with world(receiver={"announced_only": announced_only}) as w:
        (call,) = w.api.calls
        leg = call.call_leg_id if mode == "rx_tx" else None
        async with asyncio.TaskGroup() as group:
            async with w.fork(call, mode, call_leg_id=leg, on_event=told.append) as fork:
                assert fork.phase in (ForkPhase.STARTED, ForkPhase.MEDIA)

                async def iterate() -> None:
                    async for stream in fork:
                        assert stream.call_leg_id == call.call_leg_id
                        group.create_task(consume(stream))

                group.create_task(iterate())
                await until(lambda: fork.diagnosis().facts.inbound > 30)
                assert fork.call_leg_id == call.call_leg_id
                assert fork.phase is ForkPhase.MEDIA
            assert fork.phase is ForkPhase.STOPPED
        w.check_left_nothing()
        truth = w.api.truth(call.call_leg_id)
        reports = {r.stream.direction: r for r in w.receiver.reports()}
        for one in truth:
            check_truth(one, reports[one.direction])
            assert reports[one.direction].end == "stopped"
            assert samples[one.direction] == one.expected * 160
        assert (w.commands("fork_start"), w.commands("fork_stop")) == (1, 1)
        assert [e.kind for e in told] == ["fork_started", "fork_media", "fork_stopped"]
        assert told[-1].as_dict()["inbound_packets"] == truth[0].packets
        with pytest.raises(ConfigurationError, match="before"):
            await fork.__aenter__()


@pytest.mark.sockets
@pytest.mark.parametrize("mode", MODES)
async def test_fifty_calls_at_once(mode: Mode, tmp_path: Path) -> None:
    async with world(50, sinks=[WavSink(tmp_path)], receiver={"announced_only": True}) as w:

        async def record(call: Call) -> None:
            async with w.fork(call, mode, call_leg_id=call.call_leg_id) as fork:
                await until(lambda: fork.diagnosis().facts.inbound > 40)

        await asyncio.gather(*(record(call) for call in w.api.calls))
        w.check_left_nothing()
        reports = {(r.stream.call_leg_id, r.stream.direction): r for r in w.receiver.reports()}
        assert len(reports) == len(w.receiver.reports()) == 100
        for call in w.api.calls:
            for one in w.api.truth(call.call_leg_id):
                check_truth(one, reports[call.call_leg_id, one.direction])
        assert (w.commands("fork_start"), w.commands("fork_stop")) == (50, 50)
        totals = w.receiver.totals()
        assert (totals.unaccounted, totals.streams_ended, totals.kernel_dropped) == (0, 100, 0)
    files = await asyncio.to_thread(lambda: list(tmp_path.rglob("*.wav")))
    assert len(files) == 100


class Boom(Exception):
    pass


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_an_error_in_the_body_stops_the_fork_and_goes_on_its_way(mode: Mode) -> None:
    async with virtual_world() as w:
        (call,) = w.api.calls
        fork = w.fork(call, mode)

        async def body() -> None:
            async with fork:
                await media(fork)
                raise Boom

        with pytest.raises(Boom):
            await body()
        w.check_left_nothing()
        assert w.commands("fork_stop") == 1
        assert "Boom" in str(fork.state.leaving)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("again", [0, 3])
@virtually
async def test_cancellation_stops_the_fork_however_often_it_comes(mode: Mode, again: int) -> None:
    async with virtual_world() as w:
        (call,) = w.api.calls
        entered = asyncio.Event()

        async def body() -> None:
            async with w.fork(call, mode) as fork:
                await media(fork)
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await asyncio.wait_for(entered.wait(), 120)
        task.cancel()
        for _ in range(again):
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        w.check_left_nothing()
        assert w.commands("fork_stop") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turns", [1, 2, 5, 20, 60])
@virtually
async def test_cancellation_while_it_starts_leaves_nothing(mode: Mode, turns: int) -> None:
    async with virtual_world() as w:
        (call,) = w.api.calls
        task = asyncio.create_task(w.fork(call, mode).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            fork = await task
            await fork.stop()
        w.check_left_nothing()
        assert w.commands("fork_stop") == w.commands("fork_start")


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_a_hang_up_ends_the_streams_and_closes_the_files(mode: Mode, tmp_path: Path) -> None:
    async with virtual_world(sinks=[WavSink(tmp_path)], receiver={"announced_only": True}) as w:
        (call,) = w.api.calls
        async with w.fork(call, mode, call_leg_id=call.call_leg_id) as fork:
            await media(fork)
            await w.control.hangup(call.call_control_id)
            streams = [stream async for stream in fork]  # it ends
            assert all(stream.ended for stream in streams)
            assert fork.phase is ForkPhase.STOPPED
            assert "hang-up" in str(fork.state.leaving)
            assert [r.end for r in w.receiver.reports()] == ["stopped", "stopped"]
        assert w.commands("fork_stop") == 0
        w.check_left_nothing()


@virtually
async def test_a_hang_up_that_nobody_tells_of_is_found_out_by_the_next_start() -> None:
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        async with w.fork(call, limits=AGAIN) as fork:
            await media(fork)
            await w.control.hangup(call.call_control_id)
            await asyncio.wait_for(fork.wait(), 120)
            assert fork.state.call_ended
        assert w.commands("fork_stop") == 0
        w.check_left_nothing()


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_a_fork_that_falls_silent_is_started_again(mode: Mode) -> None:
    told: list[str] = []
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        leg = call.call_leg_id
        async with w.fork(call, mode, call_leg_id=leg, limits=AGAIN, on_event=lambda e: told.append(e.kind)) as fork:
            await media(fork)
            await w.control.fork_stop(call.call_control_id)  # by somebody else
            await until(lambda: "fork_resumed" in told)
        assert told == [
            "fork_started", "fork_media", "fork_stalled", "fork_restarting", "fork_resumed", "fork_stopped",
        ]  # fmt: skip
        w.check_left_nothing()
        assert w.commands("fork_start") == 2
        assert {r.stream.call_leg_id for r in w.receiver.reports()} == {leg}
        assert len(w.receiver.reports()) == 2  # the streams went on


@virtually
async def test_row_42_a_stop_that_is_never_told_is_reaped_when_nothing_comes_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No webhook, no media, and the API knows nothing: an orphan."""

    def unknown(*arguments: Any) -> Any:
        raise Refusal(400, Problem("10000", "Bad request", "Nobody can tell."))

    limits = ForkLimits(
        no_media_s=0.2, stall_s=0.2, max_restarts=0, backoff_s=0.1, idle_s=0.8, stop_s=2, unknown_s=20,
    )  # fmt: skip
    async with virtual_world(hooks=False, receiver={"idle_timeout_s": 1}) as w:
        (call,) = w.api.calls
        monkeypatch.setattr(w.api._calls, "retrieve", unknown)
        async with w.fork(call, call_leg_id=call.call_leg_id, limits=limits) as fork:
            await media(fork)
            last = asyncio.get_running_loop().time()
            await w.control.fork_stop(call.call_control_id)
            await asyncio.wait_for(fork.wait(), 120)
            assert "idle" in str(fork.state.leaving)
            assert fork.state.media_s is not None
            assert fork.state.media_s >= last - 0.2
            assert fork.phase is ForkPhase.STOPPED
        assert w.receiver.live_streams == 0
        w.check_left_nothing()


@pytest.mark.parametrize("hooks", [False, True])
@virtually
async def test_a_hold_of_half_an_hour_is_gone_through(hooks: bool) -> None:
    """Nothing comes in either direction, while the API says that the call lives: what comes then is heard."""
    told: list[str] = []
    async with virtual_world(hooks=hooks, receiver={"idle_timeout_s": 30}) as w:
        (call,) = w.api.calls
        async with w.fork(call, on_event=lambda e: told.append(e.kind)) as fork:
            await media(fork)
            with pytest.MonkeyPatch.context() as held:
                held.setattr(w.api.media, "start", lambda *arguments: None)
                w.api.media.stop(call.fork)  # type: ignore[arg-type]
                await asyncio.sleep(1800)
            assert fork.phase is ForkPhase.STALLED
            await until(lambda: "fork_resumed" in told)
            assert fork.phase is ForkPhase.MEDIA
            assert not call.ended_ns
        assert told.count("fork_stalled") == 1
        assert told[-2:] == ["fork_resumed", "fork_stopped"]
        assert w.commands("fork_stop") == 1
        w.check_left_nothing()


@virtually
async def test_a_hold_during_which_the_call_ends_untold_is_over() -> None:
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        async with w.fork(call, limits=ForkLimits(max_restarts=0)) as fork:
            await media(fork)
            await w.control.hangup(call.call_control_id)
            await asyncio.wait_for(fork.wait(), 120)
            assert fork.state.call_ended
        assert w.commands("fork_stop") == 0
        w.check_left_nothing()


@virtually
async def test_a_fork_that_somebody_else_stops_stays_stopped() -> None:
    """Told by the webhook; and nothing of it sounds like an alarm."""
    told: list[str] = []
    async with virtual_world() as w:
        (call,) = w.api.calls
        async with w.fork(call, on_event=lambda e: told.append(e.kind)) as fork:
            await media(fork)
            await w.control.fork_stop(call.call_control_id)
            await asyncio.wait_for(fork.wait(), 10)
            assert "has stopped" in str(fork.state.leaving)
            await asyncio.sleep(120)
            assert call.fork is None
            assert not call.ended_ns
        assert told == ["fork_started", "fork_media", "fork_stopped"]
        assert (w.commands("fork_start"), w.commands("fork_stop")) == (1, 1)
        w.check_left_nothing()


@virtually
async def test_a_hang_up_tells_of_no_stall() -> None:
    told: list[str] = []
    async with virtual_world() as w:
        (call,) = w.api.calls
        async with w.fork(call, on_event=lambda e: told.append(e.kind)) as fork:
            await media(fork)
            await w.control.hangup(call.call_control_id)
            await asyncio.wait_for(fork.wait(), 120)
        assert told == ["fork_started", "fork_media", "fork_stopped"]


@virtually
async def test_the_leg_is_learned_from_webhooks_where_the_api_does_not_tell() -> None:
    async with virtual_world(receiver={"announced_only": True}) as w:
        (call,) = w.api.calls
        await until(lambda: w.control.forks.leg_of(call.call_control_id))
        async with w.fork(call) as fork:  # call.initiated told it
            assert fork.call_leg_id == call.call_leg_id
            await media(fork)
        w.check_left_nothing()
        reports = {r.stream.direction: r for r in w.receiver.reports()}
        for one in w.api.truth(call.call_leg_id):
            check_truth(one, reports[one.direction])


@virtually
async def test_media_that_comes_before_the_leg_is_known_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with virtual_world(hooks=False, receiver={"announced_only": True}) as w:
        (call,) = w.api.calls
        known = asyncio.Event()
        ask = w.control.retrieve_call

        async def late(call_control_id: str) -> Any:
            await known.wait()
            return await ask(call_control_id)

        monkeypatch.setattr(w.control, "retrieve_call", late)
        async with w.fork(call) as fork:
            await until(lambda: w.receiver.totals().buffered > 60)
            assert (fork.call_leg_id, w.receiver.live_streams) == (None, 0)
            known.set()
            await media(fork)
        w.check_left_nothing()
        reports = {r.stream.direction: r for r in w.receiver.reports()}
        for one in w.api.truth(call.call_leg_id):
            check_truth(one, reports[one.direction])


@virtually
async def test_calls_that_cannot_be_forked() -> None:
    async with virtual_world(2) as w:
        call, other = w.api.calls
        with pytest.raises(UnprocessableEntityError, match="90015"):
            async with w.control.fork("v3:none", w.receiver, mode="rx_tx"):
                raise AssertionError
        await w.control.hangup(call.call_control_id)
        with pytest.raises(CallEndedError):
            async with w.fork(call):
                raise AssertionError
        async with w.fork(other):
            with pytest.raises(ConfigurationError, match="already"):
                async with w.fork(other):
                    raise AssertionError
        w.check_left_nothing()
        assert w.commands("fork_stop") == 1


@virtually
async def test_a_start_whose_answer_never_comes_is_stopped_all_the_same() -> None:
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        w.api.fail_next("hang")
        fork = w.fork(call, call_leg_id=call.call_leg_id, limits=ForkLimits(stop_s=0.6))
        entering = asyncio.create_task(fork.__aenter__())
        await until(lambda: call.fork is not None)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        w.check_left_nothing()
        assert w.commands("fork_stop") == 1


@virtually
async def test_an_api_that_is_gone_does_not_hold_anybody_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "strep.control")
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        told: list[str] = []
        limits = ForkLimits(stop_s=0.5)
        async with w.fork(call, "rx_tx", limits=limits, on_event=lambda e: told.append(e.kind)) as fork:
            await media(fork)
            w.api.fail_next(*["hang"] * 5)
        assert fork.phase is ForkPhase.STOPPED
        assert told[-2:] == ["fork_stop_failed", "fork_stopped"]
        assert w.receiver.pairs == []
    assert "given up" in caplog.text


@virtually
async def test_no_media_is_diagnosed_once(caplog: pytest.LogCaptureFixture) -> None:
    told: list[ForkEvent] = []
    async with virtual_world(webhook_faults=WebhookFaults(drop=0.0)) as w:
        (call,) = w.api.calls
        limits = ForkLimits(no_media_s=0.3, max_restarts=0)
        with caplog.at_level(logging.INFO, "strep.control"):
            async with w.fork(call, advertise="127.0.0.1:9", limits=limits, on_event=told.append) as fork:
                await until(lambda: any(e.kind == "no_media" for e in told))
                await asyncio.sleep(0.1)
        found = fork.diagnosis()
        assert not found.media
        assert found.codes == ("nothing",)
        assert caplog.text.count("no media: nothing of this call") == 1
        (event,) = [e for e in told if e.kind == "no_media"]
        assert event.as_dict()["findings"][0]["code"] == "nothing"
        w.check_left_nothing()


@virtually
async def test_a_receiver_that_stops_first_is_no_trouble() -> None:
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        async with w.fork(call, "rx_tx") as fork:
            await media(fork)
            await w.receiver.stop()
        assert fork.phase is ForkPhase.STOPPED
        assert len(w.control.forks) == 0
        with pytest.raises(ConfigurationError, match="not running"):
            async with w.fork(call):
                raise AssertionError


@virtually
async def test_all_forks_can_be_stopped_from_outside() -> None:
    async with virtual_world(4) as w:
        forks = [w.fork(call, MODES[n % 2]) for n, call in enumerate(w.api.calls)]
        for fork in forks:
            await fork.__aenter__()
        assert {fork.call_control_id for fork in w.control.forks} == {c.call_control_id for c in w.api.calls}
        await w.control.forks.stop_all()
        w.check_left_nothing()
        assert all(fork.phase is ForkPhase.STOPPED for fork in forks)
        assert w.commands("fork_stop") == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "both"}, "mode"),
        ({"stream_type": "decrypted"}, "rx_tx"),
        ({"advertise": "0.0.0.0:9000"}, "advertise"),
        ({"advertise": "example.com:9000"}, "IP"),
        ({"call_leg_id": "nonsense"}, "UUID"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_once(options: dict[str, Any], reason: str) -> None:
    async with CallControl("KEY", base_url="http://127.0.0.1:1/v2") as control:
        receiver = strep.Receiver("udp:127.0.0.1:0")
        with pytest.raises(ConfigurationError, match=reason):
            control.fork("v3:a", receiver, **options)


@pytest.mark.sockets
async def test_a_receiver_on_all_addresses_needs_to_be_told_which_is_reached() -> None:
    async with (
        CallControl("KEY", base_url="http://127.0.0.1:1/v2") as control,
        strep.Receiver("udp:0.0.0.0:0") as receiver,
    ):
        for mode in MODES:
            with pytest.raises(ConfigurationError, match="advertise"):
                async with control.fork("v3:a", receiver, mode=mode, call_leg_id=uuid.uuid4()):
                    raise AssertionError
        assert (receiver.pairs, len(control.forks)) == ([], 0)
        fork = control.fork("v3:a", receiver, advertise="203.0.113.7", call_leg_id=uuid.uuid4())
        await fork._prepare()
        assert fork.addresses == {"target": f"udp:203.0.113.7:{port_of(receiver)}"}


@virtually
async def test_arrays_and_forks_go_together() -> None:
    sink = ArraySink(seconds=2)
    async with virtual_world(sinks=[sink]) as w:
        (call,) = w.api.calls
        async with w.fork(call) as fork:
            await media(fork)
            streams = []
            async for stream in fork:
                streams.append(stream)
                if len(streams) == 2:
                    break
            assert {s.direction for s in streams} == set(strep.Direction)
            assert np.isfinite([s.report().jitter_ms_mean for s in streams]).all()
        w.check_left_nothing()


@virtually
async def test_the_receiver_hears_of_it_when_media_may_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told are webhooks after which another server may send, and each start; nothing else."""
    moved: list[uuid.UUID | str] = []
    monkeypatch.setattr(strep.Receiver, "expect_source", lambda self, leg, within_s=5.0: moved.append(leg))
    async with virtual_world(hooks=False) as w:
        (call,) = w.api.calls
        ids = {"call_control_id": call.call_control_id, "call_leg_id": str(call.call_leg_id)}

        def tell(event_type: str) -> int:
            moved.clear()
            w.control.forks.webhook(parse_event({"data": {"event_type": event_type, "payload": ids}}))
            return len(moved)

        async with w.fork(call, call_leg_id=call.call_leg_id, limits=AGAIN) as fork:
            await media(fork)
            assert moved == [call.call_leg_id]  # what came before the start was nobody's of ours
            assert tell("call.bridged") == tell("call.answered") == tell("call.fork.started") == 1
            assert tell("conference.participant.joined") == tell("call.refer.completed") == 1
            assert tell("call.initiated") == tell("call.dtmf.received") == tell("call.playback.ended") == 0
            assert tell("call.fork.stopped") == 1
            await asyncio.sleep(AGAIN.backoff_s)  # media goes on: it was moved
            moved.clear()
            w.api.media.stop(w.api._calls.by_leg(call.call_leg_id).fork)  # type: ignore[union-attr,arg-type]
            await until(lambda: fork.state.starts == 2 and fork.state.sending is None)
            assert moved == [call.call_leg_id] * 2  # when it is asked for, and when it is granted
        assert tell("call.bridged") == 0  # of a fork that is over
        w.check_left_nothing()
