"""The whole loop without an account: the stand-in speaks and plays, a fork hears it, and programs answer what they hear."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from lazily import Lazily
from live import port_of, until
from places import ROOT

import strep
from strep._codecs.g711 import encode
from strep.control import CallControl
from strep.control.asgi import webhook_app
from strep.control.webhooks import PlaybackEnded, PlaybackStarted, SpeakEnded, SpeakStarted, WebhookEvent
from strep.resample import resample
from strep.simulate import make_traffic, play
from strep.simulate.packets import wire_codec
from strep.sinks import ArraySink
from strep.standin import StandIn
from strep.standin._waves import tone_of

EXAMPLES = ROOT / "examples"
PCMU = wire_codec("PCMU")
RATE = 8000

pytestmark = [pytest.mark.realtime, pytest.mark.sockets]

telnyx = Lazily("telnyx")
needs_speech = pytest.mark.skipif(
    shutil.which("espeak-ng") is None or not EXAMPLES.is_dir(), reason="espeak-ng is missing (Debian: espeak-ng)"
)


def write_wav(path: Path, *channels: np.ndarray[Any, Any]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.stack(channels, axis=1).astype("<i2").tobytes())
    return path


class Hooks:
    """Takes the stand-in's webhooks, verified and parsed."""

    def __init__(self) -> None:
        self.events: list[WebhookEvent] = []
        self.app: Any = None

    def options(self) -> dict[str, Any]:
        async def ask(scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

        return {"webhook": "http://hooks/", "webhook_transport": httpx.ASGITransport(ask)}

    def serve(self, api: StandIn) -> None:
        self.app = webhook_app(api.public_key, self.events.append)

    def audio(self) -> list[WebhookEvent]:
        kinds = SpeakStarted | SpeakEnded | PlaybackStarted | PlaybackEnded
        return [event for event in self.events if isinstance(event, kinds)]

    async def wait(self, number: int) -> None:
        await until(lambda: len(self.audio()) >= number)


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[tuple[StandIn, strep.Receiver, ArraySink, Hooks]]:
    hooks, kept = Hooks(), ArraySink()
    async with (
        StandIn(calls=1, seed=1, speech="tone", **hooks.options(), **options) as api,
        strep.Receiver("127.0.0.1:0", sinks=[kept]) as receiver,
    ):
        hooks.serve(api)
        yield api, receiver, kept, hooks


async def test_what_is_spoken_and_played_is_heard_outbound_bit_exact(tmp_path: Path) -> None:
    """The official SDK asks; our receiver hears; both agree with what was sent."""
    greeting = np.rint(7000 * np.sin(2 * np.pi * 700 * np.arange(RATE // 4) / RATE)).astype(np.int16)
    path = write_wav(tmp_path / "a.wav", greeting)

    def remote(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=path.read_bytes())

    text = "Good day to you"
    async with world(media_transport=httpx.MockTransport(remote), media={"greeting": path}) as (
        api, receiver, kept, hooks,
    ), telnyx.AsyncTelnyx(api_key=api.api_key, base_url=api.base_url) as sdk:  # fmt: skip
        (call,) = api.calls
        actions, control_id = sdk.calls.actions, call.call_control_id
        await actions.start_forking(control_id, extra_body={"target": f"udp:127.0.0.1:{port_of(receiver)}"})
        await asyncio.sleep(0.1)
        answer = await actions.speak(control_id, payload=text, voice="female", language="en-US", client_state="YQ==")
        assert answer.data.result == "ok"
        await actions.start_playback(control_id, audio_url="http://a.example/a.wav")
        await actions.start_playback(control_id, media_name="greeting", loop=2)
        await actions.start_playback(control_id, media_name="unknown")
        await hooks.wait(7)
        await asyncio.sleep(0.1)
        await actions.stop_forking(control_id)
        truths = {truth.direction: truth for truth in api.truth(call.call_leg_id)}
        await until(lambda: receiver.totals().datagrams == api.media.datagrams)
        heard = {view.stream.direction: view.samples for view in map(kept.get, (r.stream for r in receiver.reports()))}
    for direction, truth in truths.items():
        assert heard[direction].tobytes() == truth.samples.tobytes()
    payloads = truths[strep.Direction.OUTBOUND].payloads.tobytes()
    pieces = [encode(PCMU, piece).tobytes() for piece in (tone_of(text, RATE), greeting)]
    places = [payloads.find(pieces[0]), *(match.start() for match in re.finditer(re.escape(pieces[1]), payloads))]
    assert len(places) == 4
    assert places == sorted(places)
    assert places[0] > 0
    # whole packets of each, one behind the other; a packet may be the other party's while the next one is looked for
    lengths = [-(-len(pieces[0]) // 160) * 160, *[-(-len(pieces[1]) // 160) * 160] * 2]
    for before, after, length in zip(places, places[1:], lengths, strict=False):
        assert after - before - length in (0, 160)
    events = hooks.audio()
    assert [type(event).__name__ for event in events] == [
        "SpeakStarted", "SpeakEnded", "PlaybackStarted", "PlaybackEnded", "PlaybackStarted", "PlaybackEnded",
        "PlaybackEnded",
    ]  # fmt: skip
    assert [getattr(event, "status", None) for event in events] == [
        None, "completed", None, "valid", None, "valid", "invalid",
    ]  # fmt: skip
    assert {event.client_state for event in events} == {b"a"}
    assert {event.call_leg_id for event in events} == {call.call_leg_id}
    (first, second) = (event for event in events if isinstance(event, PlaybackStarted))
    assert (first.media_url, first.media_name, first.overlay) == ("http://a.example/a.wav", None, False)
    assert (second.media_url, second.media_name) == (None, "greeting")
    took = [(b.occurred_at - a.occurred_at).total_seconds() for a, b in zip(events[:6:2], events[1:6:2], strict=True)]
    assert np.allclose(took, [0.9, 0.26, 0.52], atol=0.011)


async def test_our_client_stops_what_it_began_and_a_hangup_ends_the_rest() -> None:
    async with world() as (api, receiver, _, hooks), CallControl(api.api_key, base_url=api.base_url) as control:
        (call,) = api.calls
        control_id = call.call_control_id
        await control.fork_start(control_id, target=f"udp:127.0.0.1:{port_of(receiver)}")
        for text in ("a" * 500, "b" * 500, "c" * 500):
            assert (await control.speak(control_id, text)).result == "ok"
        await hooks.wait(1)
        assert (await control.playback_stop(control_id, stop="current")).result == "ok"
        await hooks.wait(3)
        await control.playback_stop(control_id)
        await hooks.wait(4)
        assert (await control.playback_stop(control_id)).result == "ok"  # nothing is left: fine
        await control.speak(control_id, "d" * 500)
        await hooks.wait(5)
        await control.hangup(control_id)
        await hooks.wait(6)
        assert (await control.playback_stop(control_id)).already_ended
        outbound = api.truth(call.call_leg_id)[1]
    kinds = [type(event) for event in hooks.audio()]
    assert kinds == [SpeakStarted, SpeakEnded] * 3
    ends = [event.status for event in hooks.audio() if isinstance(event, SpeakEnded)]
    assert ends == ["completed", "completed", "call_hangup"]
    payloads = outbound.payloads.tobytes()
    for letter in "abd":
        assert encode(PCMU, tone_of(letter * 500, RATE)[:480]).tobytes() in payloads
    assert encode(PCMU, tone_of("c" * 500, RATE)[:160]).tobytes() not in payloads


# --- the examples


def spoken(text: str) -> np.ndarray[Any, Any]:
    """What espeak-ng says, int16 at 8 kHz."""
    command = ["espeak-ng", "-v", "en-us+f3", "-s", "140", "-b", "1", "--stdin", "--stdout"]
    data = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(1 << 22), np.int16)
        return np.asarray(resample(samples, file.getframerate(), RATE), np.int16)


def laid_out(seconds: float, said: dict[float, str]) -> np.ndarray[Any, Any]:
    """Silence with speech in it, each text where it shall begin: at its first sample that is loud."""
    track = np.zeros(round(seconds * RATE), np.int16)
    for begin_s, text in said.items():
        samples = spoken(text)
        samples = samples[np.flatnonzero(np.abs(samples.astype(int)) > 500)[0] :]
        at = round(begin_s * RATE)
        track[at : at + len(samples)] = samples
    return track


async def start(example: str, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / example), *arguments, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


async def ended(process: asyncio.subprocess.Process, number: signal.Signals = signal.SIGTERM) -> str:
    """Told to stop, it ends well; what it printed since."""
    try:
        process.send_signal(number)
        out, err = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


QUESTION_S, INTERRUPTION_S, PERIOD_S = 1.0, 4.5, 7.0
LATEST_S = 0.2


@needs_speech
async def test_the_voice_agent_answers_and_is_interrupted_within_200_ms(tmp_path: Path, record_property: Any) -> None:
    pytest.importorskip("pocketsphinx")
    said = {QUESTION_S: "opening hours", INTERRUPTION_S: "operator"}
    caller = laid_out(PERIOD_S, said)
    file = write_wav(tmp_path / "caller.wav", caller, np.zeros_like(caller))
    hooks = Hooks()
    async with StandIn(calls=1, seed=1, file=file, **hooks.options()) as api:
        hooks.serve(api)
        (call,) = api.calls
        agent = await start(
            "voice_agent.py", call.call_control_id, "127.0.0.1", "udp:127.0.0.1:0",
            TELNYX_API_KEY=api.api_key, TELNYX_BASE_URL=api.base_url,
        )  # fmt: skip
        assert agent.stdout is not None
        try:
            cut: list[float] = []
            while not cut:
                await hooks.wait(len(hooks.audio()) + 1)
                cut = [
                    late
                    for event in hooks.audio()
                    if isinstance(event, SpeakEnded) and (late := since_speech(api, event)) is not None
                ]
        finally:
            out = await ended(agent)
        assert call.fork is None  # it has stopped the fork
    assert "heard: opening hours" in out
    first = next(event for event in hooks.audio())
    assert isinstance(first, SpeakStarted)
    record_property("barge_in_ms", round(1000 * cut[0]))
    print(f"barge-in: playback_stop {1000 * cut[0]:.0f} ms after the first sound of speech")
    assert cut[0] <= LATEST_S


def since_speech(api: StandIn, event: SpeakEnded) -> float | None:
    """Seconds from the arrival of the interruption's first packet to the stop; None: it was another one's end."""
    (call,) = api.calls
    assert event.occurred_at is not None
    at_ns = event.occurred_at.timestamp() * 1e9
    epoch_ns = int(api._plan._epoch_ns(call)[0])
    packet = int(INTERRUPTION_S * 50)  # sent at its time, and on loopback there at once
    rounds = (at_ns - epoch_ns - packet * 20e6) / (PERIOD_S * 1e9)
    late_s = (rounds % 1) * PERIOD_S
    return late_s if rounds >= 0 and late_s < 1.0 else None


@needs_speech
async def test_the_fraud_alarm_watches_many_calls_at_once(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    bad = laid_out(5.5, {0.3: "tell me your password", 3.0: "what is your account number"})
    good = laid_out(5.5, {0.3: "good morning", 3.0: "thank you very much"})
    alarm = await start("fraud_alarm.py", "udp:127.0.0.1:0", "60")
    assert alarm.stdout is not None
    try:
        first = (await asyncio.wait_for(alarm.stdout.readline(), 100)).decode()
        assert first.startswith("listening on"), (await alarm.communicate())[1].decode()
        to = f"udp:127.0.0.1:{first.rpartition(':')[2].strip()}"
        traffics = {
            name: make_traffic(calls=2, duration_s=5.5, seed=seed, file=write_wav(tmp_path / f"{name}.wav", *voices))
            for name, seed, voices in (("bad", 1, (bad, good)), ("good", 2, (good, good)))
        }
        lines: list[str] = []

        async def read() -> None:
            while len([line for line in lines if not line.startswith("ALARM")]) < 16:
                assert alarm.stdout is not None
                lines.append((await asyncio.wait_for(alarm.stdout.readline(), 100)).decode().strip())

        await asyncio.gather(read(), *(play(traffic, to) for traffic in traffics.values()))
    finally:
        lines += (await ended(alarm, signal.SIGINT)).splitlines()
    alarmed = Counter(line.split()[1].rstrip(":") for line in lines if line.startswith("ALARM"))
    legs = {str(truth.call_leg_id) for truth in traffics["bad"].streams}
    assert len(legs) == 2
    assert alarmed == Counter(legs)
    heard = Counter(line.rpartition(": ")[2] for line in lines if not line.startswith("ALARM"))
    assert heard["tell me your password"] == heard["what is your account number"] == 2
    assert heard["good morning"] == heard["thank you very much"] == 6


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not here")
@pytest.mark.parametrize("example", ["voice_agent.py", "fraud_alarm.py"])
async def test_what_is_missing_is_said(example: str, tmp_path: Path) -> None:
    (tmp_path / "pocketsphinx.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    process = await start(example, "v3:x", "127.0.0.1", PYTHONPATH=path, TELNYX_API_KEY="x")
    out, err = await asyncio.wait_for(process.communicate(), 100)
    assert (process.returncode, out) == (1, b"")
    assert err.decode() == "this example recognizes speech with pocketsphinx: pip install pocketsphinx\n"


def test_the_voice_agent_is_short() -> None:
    assert len((EXAMPLES / "voice_agent.py").read_text().splitlines()) < 80
