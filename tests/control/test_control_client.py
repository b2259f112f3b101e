"""faults.md 37 to 39 and 47: an API that refuses, limits, hangs, resets, over real HTTP; the key, never shown."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import places
import pytest
from api import CALL, FAST, KEY, ApiServer, Reply, Time, errors_body, run, serving
from lazily import Lazily
from live import until

import strep.cli
from strep.control import (
    APIConnectionError,
    APIError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    Call,
    CallControl,
    CallEndedError,
    InternalServerError,
    RateLimitError,
    RetryPolicy,
    SyncCallControl,
    UnprocessableEntityError,
)
from strep.control._errors import parse_errors, status_error
from strep.control._secret import Secret

pytestmark = pytest.mark.realtime

telnyx = Lazily("telnyx")

TARGET = "udp:10.0.0.7:9000"
BOTH = pytest.mark.parametrize("kind", ["async", "sync"])
SHORT = {"policy": RetryPolicy(timeout_s=0.1)}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with serving() as server:
        yield server


def start(kind: str, api: ApiServer, time: Time | None = None, **keywords: Any) -> Any:
    options = {"base_url": api.url, **keywords.pop("client_options", {})}
    return run(kind, "fork_start", CALL, time=time, target=TARGET, client_options=options, **keywords)


# --- what comes back


@BOTH
def test_a_command_is_one_request(kind: str, api: ApiServer) -> None:
    result = start(kind, api, client_state=b"hello")
    assert (result.result, result.already_ended, result.attempts, result.request_id) == ("ok", False, 1, "req-1")
    assert uuid.UUID(result.command_id).version == 4
    (seen,) = api.seen
    assert seen.path == f"/v2/calls/{CALL}/actions/fork_start"
    assert seen.body == {"target": TARGET, "client_state": "aGVsbG8=", "command_id": result.command_id}
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["user-agent"].startswith("strep/")


@BOTH
def test_calls_and_events_are_parsed(kind: str, api: ApiServer) -> None:
    contract = json.loads(places.CONTRACT.read_text())
    example = contract["components"]["schemas"]["Call"]["example"]
    event = contract["components"]["schemas"]["CallEvent"]["example"]
    page = {
        "data": [event, "nonsense"],
        "meta": {"page_number": 2, "page_size": 25, "total_pages": 3, "total_results": "?"},
    }
    api.script = [Reply(body=json.dumps(body).encode()) for body in ({"data": example}, {"data": example}, page, {})]
    options = {"client_options": {"base_url": api.url}}
    call = run(kind, "retrieve_call", CALL, **options)
    assert isinstance(call, Call)
    assert (call.call_control_id, call.is_alive, call.raw) == (example["call_control_id"], False, example)
    dialled = run(kind, "dial", connection_id="7", to="+1", from_="+2", **options)
    assert dialled.call_leg_id == example["call_leg_id"]
    assert dialled.command_id == api.seen[1].body["command_id"]  # type: ignore[index]
    events = run(kind, "call_events", **options)
    assert [e.name for e in events.events] == ["call.hangup"]
    assert events.events[0].event_timestamp == datetime(2025, 8, 15, 13, 52, 20, 333000, UTC)
    assert (events.page_number, events.total_pages, events.total_results) == (2, 3, None)
    assert run(kind, "call_events", **options).events == ()


@BOTH
@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_yes_that_is_no_json_is_none(kind: str, api: ApiServer, body: bytes) -> None:
    api.script = [Reply(body=body)]
    with pytest.raises(APIResponseValidationError, match="base URL"):
        start(kind, api)
    assert len(api.seen) == 1


@BOTH
@pytest.mark.parametrize("body", [b"{}", b'{"data": null}', b'{"data": {"call_leg_id": "x"}}'])
def test_a_call_without_its_ids_is_none(kind: str, api: ApiServer, body: bytes) -> None:
    api.script = [Reply(body=body)]
    with pytest.raises(APIResponseValidationError):
        run(kind, "retrieve_call", CALL, client_options={"base_url": api.url})


@pytest.mark.parametrize("body", [b"{}", b'{"data": null}', b'{"data": {}}', b'{"data": {"result": "ok", "more": 1}}'])
def test_a_command_needs_nothing_in_its_data(api: ApiServer, body: bytes) -> None:
    api.script = [Reply(body=body)]
    assert start("sync", api).attempts == 1


# --- row 37, 38: refused


@BOTH
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 415, 422, 451, 301, 307])
def test_a_refusal_is_one_request_and_a_typed_error(kind: str, api: ApiServer, status: int) -> None:
    api.script = [
        Reply(status, {"location": "/elsewhere"}, errors_body("10009", detail="no", source={"pointer": "/a"}))
    ]
    time = Time()
    with pytest.raises(APIStatusError) as caught:
        start(kind, api, time)
    error = caught.value
    assert (len(api.seen), time.slept, api.effects.total()) == (1, [], 0)
    assert (error.status_code, error.codes, error.request_id, error.attempts) == (status, ("10009",), "req-1", 1)
    assert (error.errors[0].detail, error.errors[0].pointer, error.operation) == ("no", "/a", "fork_start")
    assert error.command_id == api.seen[0].body["command_id"]  # type: ignore[index]
    for part in ("fork_start", str(status), "10009", "title 10009", "/a", "req-1"):
        assert part in str(error)


def test_classes_are_the_sdks() -> None:
    sdk = telnyx.Telnyx(api_key="x")
    for status in [*range(300, 309), *range(400, 600)]:
        response = httpx.Response(status, request=httpx.Request("POST", "https://a"))
        theirs = type(sdk._make_status_error("", body=None, response=response))
        ours = type(status_error(status, "", operation="x"))
        assert ours.__name__ == theirs.__name__, status
        bases = [base.__name__ for base in theirs.__mro__ if base.__module__.startswith("telnyx")]
        assert [base.__name__ for base in ours.__mro__ if base.__module__ == ours.__module__] == bases[
            : bases.index("APIError") + 1
        ]
    assert [base.__name__ for base in APITimeoutError.__mro__[:3]] == [
        "APITimeoutError",
        "APIConnectionError",
        "APIError",
    ]
    assert [base.__name__ for base in telnyx.APITimeoutError.__mro__[:3]] == [
        "APITimeoutError",
        "APIConnectionError",
        "APIError",
    ]
    assert issubclass(APIError, strep.StrepError)
    sdk.close()


@BOTH
def test_a_call_that_has_ended(kind: str, api: ApiServer) -> None:
    body = errors_body("90018", detail="Call has already ended")
    options = {"client_options": {"base_url": api.url}}
    for operation in ("fork_stop", "hangup"):
        api.script = [Reply(422, body=body)]
        result = run(kind, operation, CALL, **options)
        assert (result.already_ended, result.result, result.attempts) == (True, "", 1)
    for operation, keywords in (("fork_start", {"target": TARGET}), ("answer", {})):
        api.script = [Reply(422, body=body)]
        with pytest.raises(CallEndedError) as caught:
            run(kind, operation, CALL, **keywords, **options)
        assert isinstance(caught.value, UnprocessableEntityError)
    api.script = [Reply(422, body=errors_body("90015"))]
    with pytest.raises(UnprocessableEntityError) as other:
        run(kind, "fork_stop", CALL, **options)
    assert type(other.value) is UnprocessableEntityError
    assert other.value.codes == ("90015",)
    assert len(api.seen) == 5


@pytest.mark.parametrize(
    ("body", "codes"),
    [
        ("", ()), ("<html>", ()), ("null", ()), ("[]", ()), ('{"errors": {}}', ()), ('{"errors": [1, null, []]}', ()),
        ('{"errors": [{}]}', ("",)), ('{"errors": [{"code": 10009}]}', ("10009",)), ("[" * 100_000, ()),
        ('{"errors": [{"code": "1", "title": "t", "source": [], "meta": 1}, {"code": "2"}]}', ("1", "2")),
    ],
)  # fmt: skip
def test_bodies_of_any_form(body: str, codes: tuple[str, ...]) -> None:
    assert tuple(error.code for error in parse_errors(body)) == codes
    error = status_error(599, body, operation="x")
    assert type(error) is InternalServerError
    assert len(str(error)) < 300
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# --- row 39: one command_id, one effect


@BOTH
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 520])
def test_what_may_pass_is_sent_again(kind: str, api: ApiServer, status: int) -> None:
    api.script = [Reply(status, body=b"busy"), Reply(status, body=b"busy")]
    time = Time(random=0.5)
    result = start(kind, api, time)
    assert (result.attempts, len(api.seen), time.slept) == (3, 3, [0.25, 0.5])
    assert len({seen.body["command_id"] for seen in api.seen}) == 1  # type: ignore[index]
    assert dict(api.effects) == {result.command_id: 1}


@BOTH
@pytest.mark.parametrize("how", ["reset", "half", "garbage"])
@pytest.mark.parametrize("effect", [True, False])
def test_connections_that_break_have_one_effect(kind: str, api: ApiServer, how: Any, effect: bool) -> None:
    """Whether the command was carried out before the connection broke or not."""
    api.script = [Reply(how=how, effect=effect) for _ in range(3)]
    time = Time()
    result = start(kind, api, time)
    assert (result.attempts, len(api.seen), len(time.slept)) == (4, 4, 3)
    assert dict(api.effects) == {result.command_id: 1}


@BOTH
def test_a_server_that_hangs_is_given_up_and_asked_again(kind: str, api: ApiServer) -> None:
    api.script = [Reply(how="hang"), Reply(how="hang")]
    result = start(kind, api, client_options=SHORT)
    assert result.attempts >= 3  # a slow machine may give up more of them
    assert {seen.body["command_id"] for seen in api.seen} == {result.command_id}  # type: ignore[index]
    assert dict(api.effects) == {result.command_id: 1}


@BOTH
def test_a_server_that_always_hangs_is_a_timeout(kind: str, api: ApiServer) -> None:
    api.script = [Reply(how="hang")] * 9
    policy = RetryPolicy(timeout_s=0.2, max_retries=2)
    with pytest.raises(APITimeoutError, match="3 attempts") as caught:
        start(kind, api, client_options={"policy": policy})
    assert caught.value.attempts == 3
    assert len(api.seen) <= 3  # a slow machine may give one up before it has been sent
    assert len({seen.body["command_id"] for seen in api.seen}) == 1  # type: ignore[index]


@BOTH
@pytest.mark.parametrize(
    ("how", "waits"),
    [("seconds", [7.0]), ("date", [30.0]), ("beyond", []), ("past", [0.25]), ("nonsense", [0.25])],
)
def test_retry_after_is_obeyed(kind: str, api: ApiServer, how: str, waits: list[float]) -> None:
    time = Time()
    wall = 1.7e9 + time.now
    after = {
        "seconds": "7", "beyond": "56", "nonsense": "soon",
        "date": format_datetime(datetime.fromtimestamp(wall + 30, UTC), usegmt=True),
        "past": format_datetime(datetime.fromtimestamp(wall - 30, UTC), usegmt=True),
    }[how]  # fmt: skip
    sent = format_datetime(datetime.fromtimestamp(wall, UTC), usegmt=True)
    api.script = [Reply(429, {"retry-after": after, "Date": sent}, errors_body("10011"))]
    if how == "beyond":  # waiting as long as asked would pass the deadline: tell at once
        with pytest.raises(RateLimitError) as caught:
            start(kind, api, time)
        assert (caught.value.retry_after_s, caught.value.codes) == (56.0, ("10011",))
    else:
        assert start(kind, api, time).attempts == 2
    assert time.slept == waits
    assert len(api.seen) == len(waits) + 1


@BOTH
def test_all_ends_before_commands_are_forgotten(kind: str, api: ApiServer) -> None:
    """However long it fails: the last request leaves within the deadline, so it is known again."""
    api.script = [Reply(503)] * 100
    for random in (0.0, 0.5, 0.999):
        time, before = Time(random), len(api.seen)
        with pytest.raises(InternalServerError) as caught:
            start(kind, api, time, client_options={"policy": RetryPolicy(max_retries=50)})
        assert time.now - 1000 < 55
        assert caught.value.attempts == len(api.seen) - before == len(time.slept) + 1
    api.script = [Reply(503)] * 100
    before = len(api.seen)
    with pytest.raises(InternalServerError, match="7 attempts"):
        start(kind, api)
    assert len(api.seen) - before == 7
    assert api.effects.total() == 0


@BOTH
def test_nobody_listens(kind: str) -> None:
    with serving() as gone:
        url = gone.url
    time = Time()
    with pytest.raises(APIConnectionError) as caught:
        run(kind, "fork_stop", CALL, time=time, client_options={"base_url": url})
    assert type(caught.value) is APIConnectionError
    assert (caught.value.attempts, len(time.slept)) == (7, 6)


@BOTH
def test_an_answer_that_does_not_end_is_cut_off(kind: str, api: ApiServer) -> None:
    api.script = [Reply(500, body=b"x" * (6 << 20))]
    policy = RetryPolicy(max_retries=0)
    with pytest.raises(InternalServerError) as caught:
        start(kind, api, client_options={"policy": policy})
    assert len(caught.value.body) == 2000


def test_drops_do_not_prolong_an_answer() -> None:
    """A byte now and then keeps every read within its limit, but not the whole."""

    class Drops(httpx.AsyncByteStream, httpx.SyncByteStream):
        def __init__(self, time: Time) -> None:
            self.time = time

        def __iter__(self) -> Iterator[bytes]:
            for _ in range(100):
                self.time.now += 1
                yield b" "

        async def __aiter__(self) -> Any:
            await asyncio.Event().wait()
            yield b""

    time = Time()
    policy = RetryPolicy(timeout_s=10, max_retries=0)
    with httpx.Client(transport=httpx.MockTransport(lambda r: httpx.Response(200, stream=Drops(time)))) as client:
        control = SyncCallControl(KEY, client=client, policy=policy, **time.arguments(asynchronous=False))
        with pytest.raises(APITimeoutError):
            control.retrieve_call(CALL)
        assert time.now == 1011

    async def main() -> None:
        transport = httpx.MockTransport(lambda r: httpx.Response(200, stream=Drops(time)))
        async with httpx.AsyncClient(transport=transport) as client:
            control = CallControl(KEY, client=client, policy=RetryPolicy(timeout_s=0.05, max_retries=0))
            with pytest.raises(APITimeoutError):
                await control.retrieve_call(CALL)

    asyncio.run(main())


def test_a_client_of_the_users_is_used_and_left_open(api: ApiServer) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(headers={"x-mine": "1"}, follow_redirects=True) as client:
            api.script = [Reply(307, {"location": f"{api.url}/elsewhere"}), Reply()]
            async with CallControl(KEY, base_url=api.url, client=client) as control:
                with pytest.raises(APIStatusError, match="redirection"):
                    await control.fork_stop(CALL)
                await control.fork_stop(CALL)
            assert not client.is_closed
        async with CallControl(KEY, base_url=api.url) as control:
            pass
        with pytest.raises(APIConnectionError, match="the client has been closed"):
            await control.fork_stop(CALL)

    asyncio.run(main())
    assert [seen.headers["x-mine"] for seen in api.seen] == ["1", "1"]


# --- row 47: the key


def shown(error: BaseException) -> str:
    """All that anybody would print of an exception: with locals, causes, attributes."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    chain: list[BaseException | None] = [error]
    for link in chain:
        if link is not None:
            chain += [link.__cause__, link.__context__]
    texts = ["".join(told.format(chain=True)), *traceback.format_exception(error)]
    for link in chain:
        if link is not None:
            told = traceback.TracebackException.from_exception(link, capture_locals=True)
            texts += ["".join(told.format()), repr(link), str(link), repr(vars(link)), repr(link.args)]
    return "".join(texts)


class _Broken:
    """Stands for a transport that fails in an unforeseen way, with the request in its locals."""

    def __init__(self, kind: type[Exception] = ValueError) -> None:
        self.kind = kind

    def __call__(self, request: httpx.Request) -> httpx.Response:
        raw = request.headers.raw
        assert raw
        raise self.kind("unforeseen")


SCRIPTS: dict[str, list[Reply]] = {
    "echoed": [Reply(401, body=errors_body("10009", detail=f"the key {KEY} is unknown"))],
    "echoed as text": [Reply(403, body=f"Authorization: Bearer {KEY}".encode())],
    "echoed in a yes": [Reply(body=f"<html>{KEY}".encode())],
    "reset": [Reply(how="reset")] * 9,
    "garbage": [Reply(how="garbage")] * 9,
    "half": [Reply(how="half")] * 9,
    "hang": [Reply(how="hang")] * 9,
    "limited": [Reply(429, {"retry-after": "99"})],
    "down": [Reply(500)] * 9,
}


@BOTH
@pytest.mark.parametrize("case", SCRIPTS)
def test_the_key_is_never_shown(kind: str, case: str, api: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api.script = list(SCRIPTS[case])
    options = {"policy": RetryPolicy(timeout_s=0.2 if case == "hang" else 5.0, max_retries=1)}
    with pytest.raises(APIError) as caught:
        start(kind, api, client_options=options)
    assert api.seen[0].headers["authorization"] == f"Bearer {KEY}"
    text = shown(caught.value)
    assert KEY not in text
    assert "fork_start" in text
    assert KEY not in caplog.text
    assert not any(KEY in repr(vars(record)) for record in caplog.records)
    assert any(record.name.startswith("httpcore") for record in caplog.records)  # nothing was left out


def test_the_key_is_not_shown_when_a_command_is_cancelled_or_breaks(api: ApiServer) -> None:
    async def main() -> None:
        api.script = [Reply(how="hang")]
        async with CallControl(KEY, base_url=api.url) as control:
            task = asyncio.create_task(control.fork_start(CALL, target=TARGET))
            while not api.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert KEY not in shown(caught.value)
        async with httpx.AsyncClient(transport=httpx.MockTransport(_Broken())) as client:
            control = CallControl(KEY, client=client)
            with pytest.raises(ValueError, match="unforeseen") as broken:
                await control.fork_stop(CALL)
            assert KEY not in shown(broken.value)

    asyncio.run(main())
    with httpx.Client(transport=httpx.MockTransport(_Broken())) as client:
        control = SyncCallControl(KEY, client=client)
        with pytest.raises(ValueError, match="unforeseen") as broken:
            control.fork_stop(CALL)
        assert KEY not in shown(broken.value)
    once = RetryPolicy(max_retries=0)
    with httpx.Client(transport=httpx.MockTransport(_Broken(httpx.WriteError))) as client:
        control = SyncCallControl(KEY, client=client, policy=once)
        with pytest.raises(APIConnectionError, match="WriteError: unforeseen") as unwritten:
            control.fork_stop(CALL)
        assert KEY not in shown(unwritten.value)


@pytest.mark.parametrize("how", ["argument", "environment"])
@pytest.mark.parametrize("client", [CallControl, SyncCallControl])
def test_the_key_is_in_no_repr_copy_or_refusal(client: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncCallControl(KEY) as control:
        secret = control._secret
        texts = [
            repr(control),
            str(control),
            repr(vars(control)),
            repr(secret),
            str(secret),
            f"{secret} {secret!r}",
            f"{[secret]}",
        ]
        assert not any(KEY in text for text in texts)
        assert secret.reveal() == KEY
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                take(secret)
        for take in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                take(control)
    # arguments that are wrong, with the key beside them: the frames of ours do not show it
    for wrong in ({"base_url": "http://api.telnyx.com"}, {"base_url": "nonsense"}):
        assert_refused(client, how, KEY, wrong, monkeypatch)
    for bad in (f"{KEY} ", f"{KEY}\n", f"{KEY}ä", ""):
        assert_refused(client, how, bad, {}, monkeypatch)


def assert_refused(client: Any, how: str, value: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [value] if how == "argument" else []
    if how == "environment":
        monkeypatch.setenv("TELNYX_API_KEY", value)
    with pytest.raises(strep.ConfigurationError) as caught:
        client(*arguments, **options)
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # this frame has the key in its arguments
    assert KEY not in shown(error)


def test_a_short_key_does_not_blot_out_text() -> None:
    assert Secret("a").redact("a banana") == "a banana"
    assert Secret(KEY).redact(f"<{KEY}>") == "<[redacted]>"


def test_the_command_line(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fork start and stop: what is printed where, exit codes, and the key in none of it."""
    outputs: list[str] = []

    def strep_fork(*arguments: str, key: str = KEY) -> tuple[int, str, str]:
        monkeypatch.setenv("TELNYX_API_KEY", key)
        monkeypatch.setenv("TELNYX_BASE_URL", api.url)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["strep", "fork", *arguments])
        with pytest.raises(SystemExit) as ended:
            strep.cli.main()
        told = capsys.readouterr()
        outputs.extend(told)
        return int(ended.value.code or 0), told.out, told.err

    code, out, _ = strep_fork(
        "start", CALL, "--target", TARGET, "--client-state", "hi", "--command-id", "one", "--json"
    )
    assert (code, json.loads(out)["command_id"]) == (0, "one")
    assert api.seen[-1].body == {"target": TARGET, "client_state": "aGk=", "command_id": "one"}
    code, out, err = strep_fork("start", CALL, "--rx", TARGET, "--tx", TARGET, "--stream-type", "decrypted")
    assert (code, out, err) == (0, "", f"forking {CALL} to rx {TARGET} and tx {TARGET}\n")
    api.script = [Reply(422, body=errors_body("90018"))]
    code, out, err = strep_fork("stop", CALL, "--stream-type", "raw", "--json")
    assert (code, json.loads(out)["already_ended"]) == (0, True)
    assert "already ended" in err
    assert api.seen[-1].body["stream_type"] == "raw"  # type: ignore[index]
    api.script = [Reply(401, body=errors_body("10009", detail=f"{KEY}?"))]
    code, out, err = strep_fork("start", CALL, "--target", TARGET, "--json")
    told = json.loads(out)
    assert (code, told["error"], told["errors"][0]["code"]) == (5, "AuthenticationError", "10009")
    assert err.startswith("strep: fork_start: 401")
    api.script = [Reply(404)]
    code, out, err = strep_fork("stop", CALL)
    assert (code, out) == (5, "")
    requests = len(api.seen)
    assert strep_fork("start", CALL) == (2, "", "strep: no address to fork to: give --target, or --rx and --tx\n")
    code, out, err = strep_fork("stop", CALL, key=f"{KEY} ")
    assert code == 2
    assert "API key" in err
    assert len(api.seen) == requests
    assert not any(KEY in text for text in outputs)
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_command_line_as_a_process(api: ApiServer, tmp_path: Path) -> None:
    """With everything logged: Python's own development mode, and a server that resets once."""
    api.script = [Reply(how="reset")]
    environment = {
        **os.environ,
        "TELNYX_API_KEY": KEY,
        "TELNYX_BASE_URL": api.url,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-X", "dev", "-m", "strep", "fork", "stop", CALL, "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120, check=False
    )
    assert (done.returncode, json.loads(done.stdout)["attempts"]) == (0, 2)
    assert KEY not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_policy_of_these_tests_is_the_default_but_for_its_timeout() -> None:
    assert (FAST.max_retries, FAST.deadline_s) == (RetryPolicy().max_retries, RetryPolicy().deadline_s)


def test_no_more_than_fifty_requests_are_under_way_at_once() -> None:
    """httpx's pool looks at every connection for every request that waits in it: a thousand would stop the loop."""
    now = most = 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        now -= 1
        return httpx.Response(200, json={"data": {"result": "ok"}})

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
            control = CallControl(KEY, base_url="http://127.0.0.1:9/v2", client=client)
            results = await asyncio.gather(*(control.fork_stop(f"v3:{k}") for k in range(500)))
            assert all(result.result == "ok" for result in results)

    asyncio.run(main())
    assert most == 50


async def test_a_client_that_is_closed_ends_its_commands_quietly(api: ApiServer) -> None:
    """Those under way, those that wait for their next attempt, and those that come later."""
    api.script = [Reply(how="hang"), Reply(status=503, headers={"retry-after": "0.3"})]
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await closed.wait()

    control = CallControl(KEY, base_url=api.url, policy=RetryPolicy(timeout_s=50.0), sleep=sleep)
    commands = [asyncio.create_task(control.fork_stop(CALL)) for _ in range(2)]
    await until(lambda: len(api.seen) == 2)
    await asyncio.wait_for(waiting.wait(), 120)
    await control.aclose()
    closed.set()
    for outcome in await asyncio.gather(*commands, return_exceptions=True):
        assert isinstance(outcome, APIConnectionError)
    with pytest.raises(APIConnectionError, match="the client has been closed"):
        await control.fork_stop(CALL)
    with SyncCallControl(KEY, base_url=api.url) as plain:
        pass
    with pytest.raises(APIConnectionError, match="the client has been closed"):
        plain.fork_stop(CALL)
    assert len(api.seen) == 2
