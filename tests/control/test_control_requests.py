"""What the client sends is what the contract says; what cannot work is refused before it is sent."""

from __future__ import annotations

import ast
import copy
import json
import math
import os
import shutil
import socket
import subprocess
import time
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import places
import pytest
from api import CALL, KEY
from hypothesis import given
from hypothesis import strategies as st
from lazily import Lazily

import strep.control
from strep import AddressError, ConfigurationError
from strep.control import APIStatusError, RetryPolicy, SyncCallControl
from strep.control._retry import Failure, retry_after_s, retry_delay_s

openapi_core = Lazily("openapi_core")
openapi_errors = Lazily("openapi_core.exceptions")
openapi_testing = Lazily("openapi_core.testing")

CONTRACT = json.loads(places.CONTRACT.read_text())
LEG = "428c31b6-7af4-4bcb-b7f5-5013ef9657c1"
PUBLIC, OTHER = "8.8.4.4", "[2001:4860:4860::8844]"

STATES: list[dict[str, Any]] = [
    {},
    {"client_state": b"\x00\xff"},
    {"client_state": "aGF2ZQ==", "command_id": uuid.UUID(LEG)},
]
EVERY: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *(("fork_start", (CALL,), {"target": f"udp:{ip}:9000", **s}) for s in STATES for ip in (PUBLIC, OTHER)),
    *(
        ("fork_start", (CALL,), {"rx": f"{udp}{PUBLIC}:1", "tx": f"{udp}{PUBLIC}:65535", "stream_type": kind, **s})
        for kind in ("raw", "decrypted", None)
        for udp in ("", "udp:")
        for s in STATES
    ),
    ("fork_start", (CALL,), {"rx": f"udp:{PUBLIC}:9000"}),
    ("fork_start", (CALL,), {"tx": f"udp:{PUBLIC}:9000", "stream_type": "raw"}),
    *(("fork_stop", (CALL,), s) for s in STATES),
    *(("fork_stop", (CALL,), {"stream_type": kind}) for kind in ("raw", "decrypted")),
    *(("hangup", (CALL,), s) for s in STATES),
    *(("answer", (CALL,), s) for s in STATES),
    ("answer", (CALL,), {"webhook_url": "https://a.example/", "webhook_url_method": "GET", "billing_group_id": LEG}),
    *(("dial", (), {"connection_id": "7", "to": "+18005550100", "from_": "+18005550101", **s}) for s in STATES),
    (
        "dial",
        (),
        {
            "connection_id": "7", "to": "sip:a@example.com", "from_": "+18005550101", "from_display_name": "A",
            "timeout_secs": 5, "time_limit_secs": 60, "link_to": CALL, "audio_url": "https://a.example/a.wav",
            "webhook_url": "https://a.example/", "webhook_url_method": "POST",
            "extra": {"custom_headers": [{"name": "a", "value": "b"}], "sip_auth_username": "u"},
        },
    ),
    *(("speak", (CALL, "Say this"), s) for s in STATES),
    *(
        ("speak", (CALL, "Sag das"), {"voice": voice, "language": "de-DE", "payload_type": kind, "stop": stop})
        for voice, kind, stop in (("male", "text", "current"), ("female", "ssml", "all"))
    ),
    ("speak", (CALL, "x" * 5000), {"service_level": "basic", "language": "en-US", "payload_type": "text"}),
    ("speak", (CALL, "<speak>x</speak>"), {"service_level": "premium", "payload_type": "ssml"}),
    ("speak", (CALL, "x"), {"extra": {"target_legs": "both", "loop": 2}}),
    *(("playback_start", (CALL,), {"audio_url": "https://a.example/a.wav", **s}) for s in STATES),
    *(("playback_start", (CALL,), {"media_name": "greeting", "loop": loop}) for loop in (1, 100, "infinity")),
    ("playback_start", (CALL,), {"audio_url": "http://a.example/a.mp3", "overlay": True, "target_legs": "self"}),
    *(
        ("playback_start", (CALL,), {"media_name": "a", "overlay": False, "target_legs": legs, "stop": stop})
        for legs, stop in (("opposite", "current"), ("both", "all"))
    ),
    ("playback_start", (CALL,), {"playback_content": b"RIFF", "audio_type": "wav", "cache_audio": True}),
    *(("playback_stop", (CALL,), s) for s in STATES),
    *(("playback_stop", (CALL,), {"stop": stop, "overlay": True}) for stop in ("current", "all")),
    ("retrieve_call", (CALL,), {}),
    ("call_events", (), {}),
    (
        "call_events",
        (),
        {
            "call_leg_id": LEG, "call_session_id": uuid.UUID(LEG), "kind": "webhook", "status": "delivered",
            "after": datetime(2025, 8, 15, tzinfo=UTC), "before": datetime(2025, 8, 16, tzinfo=UTC), "page_number": 1,
            "page_size": 250,
        },
    ),
]  # fmt: skip


TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
LEGS = {"type": "string", "enum": ["self", "opposite", "both"]}
NEWER: dict[str, dict[str, Any]] = {  # as the SDK of today has them
    "StopForkingRequest": {"stream_type": {"type": "string", "enum": ["raw", "decrypted"]}},
    "SpeakRequest": {"target_legs": LEGS, "loop": {"$ref": "#/components/schemas/Loopcount"}},
    "PlayAudioUrlRequest": {"playback_content": TEXT, "audio_type": TEXT, "cache_audio": FLAG},
    "PlaybackStopRequest": {"overlay": FLAG},
}


def strict_contract() -> openapi_core.OpenAPI:
    """The contract, with nothing beside what it names and what only the newer API has."""
    contract = copy.deepcopy(CONTRACT)
    schemas = contract["components"]["schemas"]
    del schemas["SpeakRequest"]["properties"]["stop"]["default"]  # null, which OpenAPI 3.0 has for no string
    for name, more in NEWER.items():
        schemas[name]["properties"] |= more
    for name in (*NEWER, "StartForkingRequest", "AnswerRequest", "HangupRequest", "CallRequest"):
        schemas[name]["additionalProperties"] = False
    return openapi_core.OpenAPI.from_dict(contract)


def sent_by(operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> httpx.Request:
    """The request of a command, as it would leave for the real API."""
    seen: list[httpx.Request] = []
    answers = {"dial": "call", "retrieve_call": "call", "call_events": "list"}
    example = {
        "call_control_id": CALL,
        "call_leg_id": LEG,
        "call_session_id": LEG,
        "is_alive": True,
        "record_type": "call",
    }
    data = {"call": example, "list": [], "": {"result": "ok"}}[answers.get(operation, "")]

    def take(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"data": data})

    with httpx.Client(transport=httpx.MockTransport(take)) as client:
        getattr(SyncCallControl(KEY, base_url="https://api.telnyx.com/v2", client=client), operation)(
            *arguments, **keywords
        )
    assert len(seen) == 1
    return seen[0]


def as_contract_request(request: httpx.Request) -> openapi_testing.MockRequest:
    parts = urlsplit(str(request.url))
    return openapi_testing.MockRequest(
        f"{parts.scheme}://{parts.netloc}", request.method, unquote(parts.path), args=dict(parse_qsl(parts.query)),
        headers=dict(request.headers), data=request.content, content_type=request.headers.get("content-type", ""),
    )  # fmt: skip


def test_every_request_is_the_contracts() -> None:
    contract = strict_contract()
    for operation, arguments, keywords in EVERY:
        request = sent_by(operation, arguments, keywords)
        contract.validate_request(as_contract_request(request))
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert str(request.url).startswith("https://api.telnyx.com/v2/call")
        if request.method == "POST":
            assert uuid.UUID(json.loads(request.content)["command_id"]).version in (1, 4)
    assert {operation for operation, _, _ in EVERY} == {
        name for name in vars(SyncCallControl) if not name.startswith("_") and name != "close"
    }


def test_the_contract_would_object() -> None:
    """The check above can fail: a field too many, a wrong value, a field too few, a filter that does not exist."""
    contract = strict_contract()
    start = as_contract_request(sent_by("fork_start", (CALL,), {"target": f"udp:{PUBLIC}:1"}))
    for body in (b'{"tarjet": "udp:8.8.8.8:1"}', b'{"stream_type": "cooked"}', b'{"rx": 1}'):
        start.body = body
        with pytest.raises(openapi_errors.OpenAPIError):
            contract.validate_request(start)
    speak = as_contract_request(sent_by("speak", (CALL, "x"), {}))
    for body in (b'{"payload": "x"}', b'{"payload": "x", "voice": "deep", "language": "en-US"}'):
        speak.body = body
        with pytest.raises(openapi_errors.OpenAPIError):
            contract.validate_request(speak)
    dial = as_contract_request(sent_by(*EVERY[-4]))
    dial.body = b'{"to": "a", "from": "b"}'
    with pytest.raises(openapi_errors.OpenAPIError):
        contract.validate_request(dial)


def test_the_same_for_both_clients() -> None:
    import inspect

    for name in {operation for operation, _, _ in EVERY}:
        ours, theirs = getattr(strep.control.CallControl, name), getattr(SyncCallControl, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__
        assert ours.__doc__


def test_prism_accepts_every_request(tmp_path: Path) -> None:
    """Prism, serving the contract, answers 2xx to all of them; its answers are parsed."""
    prism = os.environ.get("STREP_PRISM") or shutil.which("prism")
    if prism is None:
        pytest.skip("prism is missing (npm install -g @stoplight/prism-cli, or STREP_PRISM)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    contract = tmp_path / "contract.json"
    strict = copy.deepcopy(CONTRACT)
    strict["components"]["schemas"]["StartForkingRequest"]["additionalProperties"] = False
    contract.write_text(json.dumps(strict))
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([prism, "mock", "--errors", "-p", str(port), str(contract)], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 100
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until, (tmp_path / "log").read_text()
                time.sleep(0.05)
        policy = RetryPolicy(max_retries=0)
        with SyncCallControl(KEY, base_url=f"http://127.0.0.1:{port}", policy=policy) as control:
            for operation, arguments, keywords in EVERY:
                assert getattr(control, operation)(*arguments, **keywords)
            request = strep.control._requests.Request(
                "bad", "POST", f"/calls/{CALL}/actions/fork_start", str, {"rx": 1}
            )
            with pytest.raises(APIStatusError):  # and it would refuse
                control._run(request)
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({}, "no address to fork to"),
        ({"target": f"udp:{PUBLIC}:1", "rx": f"udp:{PUBLIC}:1"}, "target and rx exclude"),
        ({"target": f"udp:{PUBLIC}:1", "rx": f"{PUBLIC}:1", "tx": f"{PUBLIC}:1"}, "target and rx and tx exclude"),
        ({"target": f"udp:{PUBLIC}:1", "stream_type": "decrypted"}, "needs both"),
        ({"rx": f"udp:{PUBLIC}:1", "stream_type": "decrypted"}, "needs both"),
        ({"tx": f"udp:{PUBLIC}:1", "stream_type": "decrypted"}, "needs both"),
        ({"target": f"udp:{PUBLIC}:1", "stream_type": "cooked"}, "'raw' and 'decrypted'"),
        ({"target": f"udp:{PUBLIC}:1", "client_state": "not base64"}, "give bytes"),
        ({"target": f"udp:{PUBLIC}:1", "client_state": "YQ"}, "give bytes"),
        ({"target": f"udp:{PUBLIC}:1", "client_state": "ä"}, "give bytes"),
        ({"target": f"udp:{PUBLIC}:1", "command_id": ""}, "command_id"),
        ({"target": f"{PUBLIC}:1"}, "udp:IP:PORT"),
        ({"target": f"tcp:{PUBLIC}:1"}, "udp:IP:PORT"),
        ({"target": f"udp:{PUBLIC}"}, "udp:IP:PORT"),
        ({"target": f"udp:{PUBLIC}:"}, "udp:IP:PORT"),
        ({"target": f" udp:{PUBLIC}:1"}, "udp:IP:PORT"),
        ({"target": f"udp:{PUBLIC}:1\n"}, "udp:IP:PORT"),
        ({"target": f"udp:{PUBLIC}:-1"}, "udp:IP:PORT"),
        ({"target": f"udp:{PUBLIC}:٩"}, "udp:IP:PORT"),
        ({"target": ""}, "udp:IP:PORT"),
        ({"target": 9000}, "udp:IP:PORT"),
        ({"target": "udp:media.example.com:9000"}, "looks up no names"),
        ({"target": "udp:2001:4860::1:9000"}, "udp:IP:PORT"),
        ({"target": "udp:[8.8.8.8]:9000"}, "not an IP address"),
        ({"target": "udp:8.8.8:9000"}, "not an IP address"),
        ({"target": f"udp:{PUBLIC}:0"}, "1 to 65535"),
        ({"rx": f"udp:{PUBLIC}:65536", "tx": f"udp:{PUBLIC}:1"}, "1 to 65535"),
        ({"target": "udp:0.0.0.0:9000"}, "where to listen"),
        ({"target": "udp:[::]:9000"}, "where to listen"),
        ({"target": "udp:224.1.2.3:9000"}, "multicast"),
        ({"target": "udp:127.0.0.1:9000"}, "loopback"),
        ({"target": "udp:[::1]:9000"}, "loopback"),
        *(
            ({"rx": f"udp:{PUBLIC}:1", "tx": f"udp:{ip}:9000"}, "private or reserved")
            for ip in ("10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "[fd00::1]", "[fe80::1]",
                       "[::ffff:10.0.0.1]", "198.51.100.1", "240.0.0.1")
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_reason(keywords: dict[str, Any], reason: str) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was sent")

    with httpx.Client(transport=httpx.MockTransport(never)) as client:
        control = SyncCallControl(KEY, base_url="https://api.telnyx.com/v2", client=client)
        with pytest.raises(ConfigurationError, match=reason):
            control.fork_start(CALL, **keywords)


def test_private_addresses_are_fine_where_they_can_be_reached() -> None:
    def take(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": {"result": "ok"}})

    private: dict[str, Any] = {"target": "udp:10.0.0.1:9000"}
    with httpx.Client(transport=httpx.MockTransport(take)) as client:
        assert SyncCallControl(KEY, base_url="https://api.example.com", client=client).fork_start(CALL, **private)
        real = SyncCallControl(KEY, base_url="https://API.telnyx.com./v2", client=client)
        assert real.fork_start(CALL, **private, allow_private=True)
        with pytest.raises(AddressError):
            real.fork_start(CALL, **private)
        open_ = SyncCallControl(KEY, base_url="https://api.telnyx.com/v2", client=client, allow_private=True)
        assert open_.fork_start(CALL, **private)
        with pytest.raises(AddressError):
            open_.fork_start(CALL, **private, allow_private=False)
        with pytest.raises(AddressError):
            open_.fork_start(CALL, target="udp:0.0.0.0:9000")


@pytest.mark.parametrize(
    ("operation", "arguments", "keywords"),
    [
        ("fork_stop", ("",), {}),
        ("fork_stop", ("..",), {}),
        ("fork_stop", ("a b",), {}),
        ("fork_stop", ("a\n",), {}),
        ("fork_stop", (None,), {}),
        ("fork_stop", (CALL,), {"stream_type": "x"}),
        ("dial", (), {"connection_id": "", "to": "a", "from_": "b"}),
        ("dial", (), {"connection_id": "7", "to": "a", "from_": "b", "timeout_secs": 4}),
        ("dial", (), {"connection_id": "7", "to": "a", "from_": "b", "extra": {"to": "c"}}),
        ("call_events", (), {"call_leg_id": "x"}),
        ("call_events", (), {"page_size": 251}),
        ("call_events", (), {"page_number": 0}),
        ("call_events", (), {"kind": "x"}),
        ("call_events", (), {"status": "x"}),
        ("call_events", (), {"after": datetime(2025, 1, 1)}),
    ],
)
def test_other_arguments_are_checked_too(operation: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    with SyncCallControl(KEY) as control, pytest.raises(ConfigurationError):
        getattr(control, operation)(*arguments, **keywords)


@given(
    st.text(st.characters(min_codepoint=33, exclude_categories=("C", "Z")), min_size=1).filter(
        lambda t: t not in (".", "..")
    )
)
def test_an_id_stays_one_segment_of_the_path(call_control_id: str) -> None:
    request = strep.control._requests.retrieve_call(strep.control._requests.Site(), call_control_id)
    assert request.path.startswith("/calls/")
    assert request.path.count("/") == 2
    assert not set(request.path) & set("?#\\ ")
    assert unquote(request.path[7:]) == call_control_id


@pytest.mark.parametrize(
    "url",
    ["http://api.telnyx.com/v2", "http://10.0.0.1", "ftp://a", "api.telnyx.com", "https://", "https://u:p@a", "https://a?b",
     "https://a:port", "http://localhost.example.com", "https://[::1", "http://127.0.0.1.example.com"],
)  # fmt: skip
def test_base_urls_that_would_not_do(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SyncCallControl(KEY, base_url=url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v2", "http://localhost:1", "http://[::1]:1/", "https://a.example"])
def test_base_urls_that_do(url: str) -> None:
    SyncCallControl(KEY, base_url=url).close()


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELNYX_API_KEY", raising=False)
    monkeypatch.delenv("TELNYX_BASE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="TELNYX_API_KEY"):
        SyncCallControl()
    with SyncCallControl(KEY) as control:
        assert control.base_url == "https://api.telnyx.com/v2"
    monkeypatch.setenv("TELNYX_API_KEY", KEY)
    monkeypatch.setenv("TELNYX_BASE_URL", "https://a.example/v2")
    with SyncCallControl() as control:
        assert control.base_url == "https://a.example/v2"
    with SyncCallControl(base_url="https://b.example") as control:
        assert control.base_url == "https://b.example"
    monkeypatch.setenv("TELNYX_API_KEY", "")
    with pytest.raises(ConfigurationError, match="empty"):
        SyncCallControl()


NOW = 1_700_000_000.0


def date(offset: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + offset, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": date(20)}, 20.0),
        ({"retry-after": date(-20)}, 0.0),
        ({"retry-after": date(3620), "date": date(3600)}, 20.0),  # this machine's clock is an hour slow
        ({"retry-after": date(20), "date": "nonsense"}, 20.0),
        *(({"retry-after": text}, None) for text in ("", "soon", "-1", "1e3", "nan", "inf", "٣", "1.2.3", "9" * 400)),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@given(st.text(), st.text())
def test_no_retry_after_raises(after: str, when: str) -> None:
    seconds = retry_after_s({"retry-after": after, "date": when}, NOW)
    assert seconds is None or 0 <= seconds < math.inf


@given(
    st.integers(1, 8), st.floats(0, 60), st.floats(0, 1, exclude_max=True),
    st.one_of(st.sampled_from(["connection", "timeout"]), st.integers(300, 599)),
    st.one_of(st.none(), st.integers(0, 100)),
)  # fmt: skip
def test_when_it_is_sent_again(attempt: int, elapsed: float, random: float, what: str | int, after: int | None) -> None:
    policy = RetryPolicy(max_retries=6, base_s=0.5, cap_s=8, deadline_s=55)
    headers = {} if after is None else {"retry-after": str(after)}
    failure = Failure("status", what, headers) if isinstance(what, int) else Failure(what)  # type: ignore[arg-type]
    delay = retry_delay_s(policy, attempt, failure, elapsed_s=elapsed, now=NOW, random=lambda: random)
    retried = what in ("connection", "timeout", 408, 409, 429) or (isinstance(what, int) and what >= 500)
    backoff = random * min(8, 0.5 * 2 ** (attempt - 1))
    expected = max(backoff, after or 0) if isinstance(what, int) else backoff
    if not retried or attempt > 6 or elapsed + expected >= 55:
        assert delay is None
    else:
        assert delay == expected


def test_a_policy_stays_within_the_window_in_which_commands_are_known_again() -> None:
    for wrong in (
        {"deadline_s": 60},
        {"deadline_s": 0},
        {"timeout_s": 0},
        {"max_retries": -1},
        {"base_s": 9},
        {"cap_s": math.inf},
    ):
        with pytest.raises(ConfigurationError):
            RetryPolicy(**wrong)  # type: ignore[arg-type]


def test_what_is_pure_knows_no_clock_and_no_network() -> None:
    package = Path(strep.control.__file__).parent
    impure = {
        "_client.py",
        "_fork_streams.py",
        "_forks.py",
        "asgi.py",
        "_fork.py",
        "_fork_commands.py",
        "_fork_machine.py",
        "__init__.py",
    }
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            outer = {n.partition(".")[0] for n in names} & {
                "asyncio",
                "httpx",
                "os",
                "socket",
                "time",
                "threading",
                "random",
            }
            assert path.name in impure or not outer, (path.name, outer)


def test_the_public_names() -> None:
    import strep.control.asgi
    import strep.control.webhooks

    assert strep.control.__all__ == sorted(strep.control.__all__, key=lambda name: (not name.startswith("API"), name))
    for module in (strep.control, strep.control.asgi, strep.control.webhooks):
        for name in module.__all__:
            thing = getattr(module, name)
            assert not callable(thing) or thing.__doc__, name
