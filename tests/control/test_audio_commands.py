"""``speak``, ``playback_start`` and ``playback_stop``: what is refused before it is sent, and what the SDK sends."""

from __future__ import annotations

import base64
import json
import typing
from typing import Any

import httpx
import pytest
from api import CALL, KEY, ApiServer, Reply, errors_body, run, serving
from contract import CONTRACT
from hypothesis import given
from hypothesis import strategies as st
from lazily import Lazily

from strep import ConfigurationError, StrepError
from strep.control import CallEndedError, SyncCallControl, UnprocessableEntityError
from strep.control._audio_requests import LANGUAGES, LONGEST_SPEECH, playback_start, playback_stop, speak
from strep.control._requests import Site

telnyx = Lazily("telnyx")

SAY = (CALL, "Good day")
URL = "https://a.example/a.wav"
WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("speak", (CALL, ""), {}, "nothing in it"),
    ("speak", (CALL, " \n"), {}, "nothing in it"),
    ("speak", (CALL, b"x"), {}, "give the text"),
    ("speak", (CALL, "x" * 5001), {}, "5001 characters, 5000 at most"),
    ("speak", SAY, {"voice": "deep"}, "'male' and 'female'"),
    ("speak", SAY, {"voice": ""}, "'male' and 'female'"),
    ("speak", SAY, {"voice": ".Joanna"}, "'male' and 'female'"),
    ("speak", SAY, {"voice": "AWS."}, "'male' and 'female'"),
    ("speak", SAY, {"voice": None}, "'male' and 'female'"),
    ("speak", SAY, {"language": "en"}, "speaks arb"),
    ("speak", SAY, {"language": ""}, "speaks arb"),
    ("speak", SAY, {"voice": "Soniox.tts.Emma", "language": " "}, "like 'en-US'"),
    ("speak", SAY, {"payload_type": "xml"}, "'text' and 'ssml'"),
    ("speak", SAY, {"service_level": "best"}, "'basic' and 'premium'"),
    ("speak", SAY, {"service_level": "basic", "language": "de-DE"}, "en-US only, not de-DE"),
    ("speak", SAY, {"service_level": "basic", "payload_type": "ssml"}, "no SSML"),
    ("speak", SAY, {"stop": "now"}, "'current' and 'all'"),
    ("speak", SAY, {"client_state": "not base64"}, "give bytes"),
    ("speak", SAY, {"command_id": ""}, "command_id"),
    ("speak", SAY, {"extra": {"voice": "x"}}, "extra has voice"),
    ("speak", SAY, {"extra": {"command_id": "x"}}, "extra has command_id"),
    ("speak", ("", "x"), {}, "call_control_id"),
    ("playback_start", (CALL,), {}, "nothing to play"),
    ("playback_start", (CALL,), {"audio_url": URL, "media_name": "a"}, "audio_url and media_name exclude"),
    ("playback_start", (CALL,), {"media_name": "a", "playback_content": b"R"}, "exclude each other"),
    *(
        ("playback_start", (CALL,), {"audio_url": url}, "give a URL")
        for url in ("", "a.wav", "file:///etc/passwd", "ftp://a.example/", "https://", "http://[::1", "https://a b", 7)
    ),
    ("playback_start", (CALL,), {"media_name": " "}, "was uploaded"),
    ("playback_start", (CALL,), {"playback_content": b""}, "nothing in it"),
    ("playback_start", (CALL,), {"playback_content": ""}, "nothing in it"),
    ("playback_start", (CALL,), {"playback_content": "RIFF…"}, "not base64"),
    *(
        ("playback_start", (CALL,), {"media_name": "a", "loop": n}, "from 1 to 100")
        for n in (0, 101, -1, "2", 1.5, True)
    ),
    ("playback_start", (CALL,), {"media_name": "a", "overlay": "yes"}, "True or False"),
    ("playback_start", (CALL,), {"media_name": "a", "cache_audio": 1}, "True or False"),
    ("playback_start", (CALL,), {"media_name": "a", "overlay": True, "target_legs": "both"}, "on the leg itself only"),
    ("playback_start", (CALL,), {"media_name": "a", "overlay": True, "target_legs": "opposite"}, "the leg itself only"),
    ("playback_start", (CALL,), {"media_name": "a", "target_legs": "A"}, "'self' and 'opposite' and 'both'"),
    ("playback_start", (CALL,), {"media_name": "a", "audio_type": "ogg"}, "'wav' and 'mp3'"),
    ("playback_start", (CALL,), {"media_name": "a", "stop": ""}, "'current' and 'all'"),
    ("playback_start", (CALL,), {"media_name": "a", "extra": {"loop": 1}}, "extra has loop"),
    ("playback_stop", (CALL,), {"stop": "the music"}, "'current' and 'all'"),
    ("playback_stop", (CALL,), {"overlay": 0}, "True or False"),
    ("playback_stop", ("..",), {}, "call_control_id"),
]


@pytest.mark.parametrize(("operation", "arguments", "keywords", "reason"), WRONG)
def test_what_cannot_be_meant_is_refused_with_the_reason(
    operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any], reason: str
) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    with httpx.Client(transport=httpx.MockTransport(never)) as client:
        control = SyncCallControl(KEY, client=client)
        with pytest.raises(ConfigurationError, match=reason):
            getattr(control, operation)(*arguments, **keywords)


def test_limits_and_languages_are_the_contracts() -> None:
    fields = CONTRACT["components"]["schemas"]["SpeakRequest"]["properties"]
    assert set(fields["language"]["enum"]) == LANGUAGES
    assert f"{LONGEST_SPEECH:,} character limit" in fields["payload"]["description"]
    for language in LANGUAGES:
        assert (speak(Site(), *SAY, language=language).body or {})["language"] == language
    assert (speak(Site(), *SAY).body or {})["language"] == "en-US"
    assert "language" not in (speak(Site(), *SAY, voice="AWS.Polly.Joanna").body or {})


ANYTHING = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.sampled_from(["all", "self", "a.b"])


@given(st.data())
def test_a_request_is_made_or_refused_whatever_is_given(data: st.DataObject) -> None:
    build = data.draw(st.sampled_from([speak, playback_start, playback_stop]))
    names = [name for name in build.__annotations__ if name not in ("site", "call_control_id", "return", "extra")]
    arguments = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, ANYTHING)))
    arguments.setdefault("payload", "x") if build is speak else None
    try:
        request = build(Site(), CALL, **arguments)
    except StrepError:
        return
    assert json.loads(json.dumps(request.body)).keys() <= {*names, "command_id"}


@pytest.fixture
def api() -> typing.Iterator[ApiServer]:
    with serving() as server:
        yield server


def command(kind: str, api: ApiServer, operation: str, *arguments: Any, **keywords: Any) -> Any:
    return run(kind, operation, *arguments, client_options={"base_url": api.url}, **keywords)


SAME: list[tuple[str, str, dict[str, Any]]] = [
    ("speak", "speak", {"payload": "Good day", "voice": "male", "language": "en-GB", "payload_type": "ssml",
                        "service_level": "premium", "stop": "all"}),
    ("speak", "speak", {"payload": "Good day", "voice": "Telnyx.KokoroTTS.af"}),
    ("playback_start", "start_playback", {"audio_url": URL, "loop": "infinity", "overlay": True, "target_legs": "self",
                                          "stop": "current", "audio_type": "wav", "cache_audio": False}),
    ("playback_start", "start_playback", {"media_name": "greeting", "loop": 3, "target_legs": "both"}),
    ("playback_start", "start_playback", {"playback_content": base64.b64encode(b"RIFF").decode()}),
    ("playback_stop", "stop_playback", {"stop": "current", "overlay": False}),
    ("playback_stop", "stop_playback", {}),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_official_sdk_sends_the_same(kind: str, api: ApiServer) -> None:
    with telnyx.Telnyx(api_key=KEY, base_url=api.url) as sdk:
        for ours, theirs, fields in SAME:
            both = {**fields, "client_state": "aGk=", "command_id": "891510ac-f3e4-11e8-af5b-de00688a4901"}
            command(kind, api, ours, CALL, **both)
            getattr(sdk.calls.actions, theirs)(CALL, **both)
            one, other = api.seen[-2:]
            assert one.body == other.body == both
            assert (one.method, one.path) == (other.method, other.path.replace("%3A", ":"))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_call_that_has_ended_has_nothing_left_to_stop(kind: str, api: ApiServer) -> None:
    ended = Reply(422, body=errors_body("90018"))
    api.script = [ended]
    assert command(kind, api, "playback_stop", CALL).already_ended
    for operation, arguments in (("speak", {"payload": "x"}), ("playback_start", {"media_name": "a"})):
        api.script = [ended]
        with pytest.raises(CallEndedError):
            command(kind, api, operation, CALL, **arguments)
        api.script = [Reply(422, body=errors_body("90015"))]
        with pytest.raises(UnprocessableEntityError):
            command(kind, api, operation, CALL, **arguments)


@pytest.mark.parametrize("operation", ["speak", "playback_start"])
def test_it_is_said_once_however_often_it_is_sent(operation: str, api: ApiServer) -> None:
    api.script = [Reply(how="half"), Reply(503), Reply(how="reset")]
    arguments = {"payload": "x"} if operation == "speak" else {"media_name": "a"}
    result = command("async", api, operation, CALL, **arguments)
    assert (result.result, result.attempts) == ("ok", 4)
    assert list(api.effects.values()) == [1]
    assert len({str(seen.body) for seen in api.seen}) == 1
