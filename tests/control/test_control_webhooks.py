"""faults.md 41: what is forged, replayed, stale or flipped is refused. Witnesses: PyNaCl and the official SDK."""

from __future__ import annotations

import asyncio
import base64
import builtins
import dataclasses
import json
import logging
import random
import re
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import nacl.exceptions
import nacl.signing
import places
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from lazily import Lazily

from strep import ConfigurationError, MissingExtraError
from strep._model.extras import install
from strep.control.asgi import WebhookApp, webhook_app
from strep.control.webhooks import (
    CallAnswered,
    CallBridged,
    CallHangup,
    CallInitiated,
    ForgedWebhookError,
    ForkStarted,
    ForkStopped,
    MalformedWebhookError,
    PlaybackEnded,
    PlaybackStarted,
    PublicKey,
    ReplayMemory,
    SpeakEnded,
    SpeakStarted,
    StaleWebhookError,
    WebhookError,
    WebhookEvent,
    verify_and_parse,
)

telnyx = Lazily("telnyx")
verification = Lazily("telnyx.lib.webhook_verification")

NOW = 1_700_000_000.0
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
LEG = uuid.UUID("428c31b6-7af4-4bcb-b7f5-5013ef9657c1")
CONTRACT = json.loads(places.CONTRACT.read_text())
AUDIO = (SpeakStarted, SpeakEnded, PlaybackStarted, PlaybackEnded)
KINDS = (CallInitiated, CallAnswered, CallBridged, CallHangup, ForkStarted, ForkStopped, *AUDIO)
L = 2**252 + 27742317777372353535851937790883648493  # the group's order: RFC 8032, 5.1


def signed(body: bytes, at: float = NOW) -> dict[str, str]:
    signature = PRIVATE.sign(f"{at:.0f}|".encode() + body)
    return {"Telnyx-Timestamp": f"{at:.0f}", "Telnyx-Signature-Ed25519": base64.b64encode(signature).decode()}


def event_body(event_type: str = "call.answered", event_id: str | None = "e1", **payload: Any) -> bytes:
    data = {"record_type": "event", "event_type": event_type, "id": event_id, "payload": payload}
    return json.dumps({"data": data}).encode()


# --- what is accepted, and what it says


def test_the_contracts_examples_are_parsed() -> None:
    schemas = CONTRACT["components"]["schemas"]
    names = [kind.__name__ if kind.__name__.startswith("Call") else f"Call{kind.__name__}" for kind in KINDS]
    for name, kind in zip(names, KINDS, strict=True):
        example = schemas[name]["example"]
        body = json.dumps({"data": example}).encode()
        event = verify_and_parse(body, signed(body), KEY, NOW)
        payload = example["payload"]
        assert type(event) is kind
        assert (event.event_type, event.id) == (example["event_type"], example["id"])
        assert event.occurred_at == datetime.fromisoformat(example["occurred_at"])
        assert (event.call_leg_id, event.payload) == (uuid.UUID(payload["call_leg_id"]), payload)
        # every field of the contract has an attribute
        properties = schemas[name]["properties"]["payload"]["properties"]
        for field in properties.keys() & payload.keys():
            value = getattr(event, {"from": "from_"}.get(field, field))
            assert value is not None, field
            if isinstance(value, str | bool):
                assert value == payload[field]
        assert kind not in AUDIO or {field.name for field in dataclasses.fields(event)} >= properties.keys()
    assert isinstance(event, PlaybackEnded)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "x"  # type: ignore[misc]


def test_what_is_unknown_is_kept() -> None:
    body = event_body("call.dtmf.received", digit="5", call_leg_id=str(LEG), client_state="aGk=")
    event = verify_and_parse(body, signed(body), KEY, NOW)
    assert type(event) is WebhookEvent
    assert (event.event_type, event.payload["digit"], event.call_leg_id, event.client_state) == (
        "call.dtmf.received", "5", LEG, b"hi",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_can_be_missing(kind: type[WebhookEvent]) -> None:
    for data in ({}, {"payload": None}, {"payload": []}, {"payload": {}, "id": None, "occurred_at": "soon"}):
        body = json.dumps({"data": {"event_type": kind.EVENT_TYPE, **data}}).encode()
        event = verify_and_parse(body, signed(body), KEY, NOW)
        assert type(event) is kind
        values = dataclasses.asdict(event)
        assert {name for name, value in values.items() if value not in (None, {})} == {"event_type"}


def test_what_the_newer_api_tells_of_a_playback() -> None:
    """As the SDK of today describes it."""
    told = {"status": "failed", "status_detail": "no such host", "overlay": True, "media_url": "https://a.example/"}
    body = event_body("call.playback.ended", **told)
    event = verify_and_parse(body, signed(body), KEY, NOW)
    assert isinstance(event, PlaybackEnded)
    assert {name: getattr(event, name) for name in told} == told
    with telnyx.Telnyx(api_key="x", public_key=KEY) as sdk:
        theirs = sdk.webhooks.unsafe_unwrap(body.decode()).data
    assert (type(theirs).__name__, theirs.payload.status_detail) == ("CallPlaybackEnded", "no such host")
    wrong = event_body("call.playback.ended", **dict.fromkeys(told, 1.5))
    event = verify_and_parse(wrong, signed(wrong), KEY, NOW)
    assert isinstance(event, PlaybackEnded)
    assert [getattr(event, name) for name in told] == [None] * 4


NAMES = ["data", "event_type", "id", "payload", "call_leg_id", "client_state", "occurred_at", "from"]
SCALARS = st.none() | st.booleans() | st.integers() | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda t: st.lists(t) | st.dictionaries(st.sampled_from(NAMES), t))


@given(DOCUMENTS)
@settings(max_examples=usual_or_slow(30, 100))
def test_any_signed_json_is_an_event_or_malformed(document: Any) -> None:
    body = json.dumps(document).encode()
    try:
        assert isinstance(verify_and_parse(body, signed(body), KEY, NOW), WebhookEvent)
    except MalformedWebhookError:
        assert not (isinstance(document, dict) and isinstance(document.get("data"), dict))


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'{"data": []}', b"\xff", b"[" * 100_000])
def test_signed_nonsense_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedWebhookError):
        verify_and_parse(body, signed(body), KEY, NOW)


BODY = event_body(call_leg_id=str(LEG))


def test_headers_in_any_form() -> None:
    headers = signed(BODY)
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    for form in (headers, {name.upper(): value for name, value in headers.items()}, pairs, list(headers.items()),
                 httpx.Headers(headers)):  # fmt: skip
        for key in (KEY, f" {KEY}\n", base64.b64decode(KEY), PublicKey(KEY)):
            assert verify_and_parse(BODY, form, key, NOW).id == "e1"


@pytest.mark.parametrize("offset", [-300, -299.5, 0, 299.5, 300])
def test_within_the_tolerance(offset: float) -> None:
    assert verify_and_parse(BODY, signed(BODY), KEY, NOW + offset).id == "e1"


# --- what is not


@pytest.mark.parametrize("offset", [-1e9, -301, -300.001, 300.001, 301, 1e9])
def test_beyond_it(offset: float) -> None:
    with pytest.raises(StaleWebhookError):
        verify_and_parse(BODY, signed(BODY), KEY, NOW + offset)


def altered(**changes: str | None) -> dict[str, str]:
    headers = signed(BODY) | {name.replace("_", "-"): value or "" for name, value in changes.items()}
    return {name: value for name, value in headers.items() if value}


GOOD = signed(BODY)["Telnyx-Signature-Ed25519"]
TIMES = ["now", "-1", f"+{NOW:.0f}", f" {NOW:.0f}", "1_700_000_000", "1e9", "١٧", "9" * 13, f"{NOW}"]
ZEROS = base64.b64encode(bytes(64)).decode()
SIGNATURES = ["x", "é", GOOD[:-4], GOOD[:-1], f"{GOOD}AAAA", f"{GOOD} ", GOOD.rstrip("="), ZEROS, GOOD.swapcase()]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        altered(Telnyx_Timestamp=None),
        altered(Telnyx_Signature_Ed25519=None),
        *(altered(Telnyx_Timestamp=text) for text in TIMES),
        *(altered(Telnyx_Signature_Ed25519=text) for text in SIGNATURES),
        [*signed(BODY).items(), ("telnyx-signature-ed25519", GOOD)],
        [*signed(BODY).items(), ("telnyx-timestamp", "1")],
        altered(Telnyx_Timestamp=f"{NOW + 1:.0f}"),
        altered(Telnyx_Timestamp=f"0{NOW:.0f}"),
    ],
)
def test_forged(headers: Any) -> None:
    with pytest.raises(ForgedWebhookError):
        verify_and_parse(BODY, headers, KEY, NOW)


@given(
    st.binary(max_size=200),
    st.lists(st.tuples(st.sampled_from(["telnyx-timestamp", "telnyx-signature-ed25519", "x"]), st.text())),
)
def test_nothing_a_stranger_sends_raises_anything_else(body: bytes, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(WebhookError):
        verify_and_parse(body, headers, KEY, NOW)


@pytest.mark.parametrize("key", ["", "x", KEY[:-4], base64.b64encode(bytes(31)).decode(), b"", bytes(33), "é" * 44])
def test_a_public_key_that_is_none(key: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes"):
        PublicKey(key)


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return genuine(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=re.escape(install("serve"))):
        PublicKey(KEY)


MUTATIONS = usual_or_slow(10_000, 100_000)


def test_pynacl_agrees_on_mutated_signatures() -> None:
    """Bits flipped anywhere, parts swapped or random, S + L (malleability): neither accepts any."""
    generator = random.Random(41)
    signature, message = base64.b64decode(GOOD), f"{NOW:.0f}|".encode() + BODY
    raw_key = base64.b64decode(KEY)
    ours, theirs = PublicKey(KEY), nacl.signing.VerifyKey(raw_key)

    def nacl_accepts(key: nacl.signing.VerifyKey, mutated: bytes, text: bytes) -> bool:
        try:
            key.verify(text, mutated)
        except nacl.exceptions.BadSignatureError:
            return False
        return True

    def flip(text: bytes) -> bytes:
        flipped = bytearray(text)
        for _ in range(generator.choice((1, 1, 1, 2, 8))):
            flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
        return bytes(flipped)

    more: list[Callable[[], tuple[bytes, bytes]]] = [
        lambda: (flip(signature), message),
        lambda: (signature, flip(message)),
        lambda: (flip(signature), flip(message)),
        lambda: (signature[:32] + generator.randbytes(32), message),
        lambda: (generator.randbytes(32) + signature[32:], message),
        lambda: (signature[32:] + signature[:32], message),
        lambda: (signature, message[: generator.randrange(len(message))]),
        lambda: (signature[:32] + (int.from_bytes(signature[32:], "little") + L).to_bytes(32, "little"), message),
    ]
    assert ours.accepts(signature, message)
    assert nacl_accepts(theirs, signature, message)
    accepted = 0
    for number in range(MUTATIONS):
        mutated, text = more[number % len(more)]()
        if (mutated, text) == (signature, message):
            continue
        verdict = ours.accepts(mutated, text)
        assert verdict == nacl_accepts(theirs, mutated, text)
        accepted += verdict
    assert accepted == 0
    for _ in range(200):  # another key
        key = flip(raw_key)
        try:
            other = nacl.signing.VerifyKey(key)
            assert PublicKey(key).accepts(signature, message) == nacl_accepts(other, signature, message) is False
        except nacl.exceptions.CryptoError:
            pass


def test_the_sdk_accepts_what_we_accept() -> None:
    """Both ways that the SDK verifies; its clock is the real one."""
    body = event_body("call.answered", call_leg_id=str(LEG), **{"from": "+1"})
    with telnyx.Telnyx(api_key="x", public_key=KEY) as sdk:  # which is imported here: that takes seconds
        verification.verify_webhook_signature(body, signed(body, time.time()), KEY)
        now = time.time()
        headers = signed(body, now)
        assert sdk.webhooks.unwrap(body.decode(), headers=headers).data.event_type == "call.answered"  # type: ignore[union-attr]
        verification.verify_webhook_signature(body, headers, KEY)
        assert verify_and_parse(body, headers, KEY, now).id == "e1"
        wrong = [
            (body + b" ", headers), (body, signed(body, now - 302)), (body, signed(body, now + 302)),
            (body, headers | {"Telnyx-Timestamp": f"{now + 1:.0f}"}), (body, {}),
            (body, headers | {"Telnyx-Signature-Ed25519": "AAAA"}),
        ]  # fmt: skip
        for other, other_headers in wrong:
            with pytest.raises(WebhookError):
                verify_and_parse(other, other_headers, KEY, now)
            with pytest.raises(verification.WebhookVerificationError):
                verification.verify_webhook_signature(other, other_headers, KEY)
            with pytest.raises(
                (ValueError, verification.WebhookVerificationError)
            ):  # which of them depends on its version
                sdk.webhooks.unwrap(other.decode(), headers=other_headers)


def test_we_accept_what_is_signed_as_for_the_sdk() -> None:
    """As the SDK's own tests sign: PyNaCl, "timestamp|payload"."""
    key = nacl.signing.SigningKey.generate()
    for event_type in [kind.EVENT_TYPE for kind in KINDS]:
        payload = event_body(event_type).decode()
        signature = base64.b64encode(key.sign(f"{NOW:.0f}|{payload}".encode()).signature).decode()
        headers = {"telnyx-signature-ed25519": signature, "telnyx-timestamp": f"{NOW:.0f}"}
        public = base64.b64encode(bytes(key.verify_key)).decode()
        assert verify_and_parse(payload.encode(), headers, public, NOW).event_type == event_type


def test_what_was_taken_is_remembered_by_id_and_by_signature() -> None:
    memory = ReplayMemory(size=3)
    events = [WebhookEvent(id=f"e{number}") for number in range(5)]
    for number, event in enumerate(events[:3]):
        assert not memory.known(event, bytes([number]))
        memory.remember(event, bytes([number]))
        memory.remember(event, bytes([number]))
    assert memory.known(events[0], b"other")  # redelivered: signed anew
    assert memory.known(WebhookEvent(id=None), b"\x00")  # replayed
    assert not memory.known(WebhookEvent(id=None), b"other")
    for number, event in enumerate(events[3:]):
        memory.remember(event, bytes([3 + number]))
    assert len(memory) == 6
    assert [memory.known(event, b"") for event in events] == [False, False, True, True, True]
    with pytest.raises(ConfigurationError):
        ReplayMemory(size=0)


# --- the application


class Sink:
    def __init__(self) -> None:
        self.events: list[WebhookEvent] = []

    async def __call__(self, event: WebhookEvent) -> None:
        self.events.append(event)


async def post(
    app: WebhookApp, body: bytes, headers: dict[str, str] | None = None, method: str = "POST", path: str = "/"
) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        return await client.request(method, path, content=body, headers=signed(body) if headers is None else headers)


async def test_what_the_application_answers() -> None:
    taken = Sink()
    app = webhook_app(KEY, taken, path="/hooks", max_body=1000, now=lambda: NOW)
    assert (await post(app, BODY, path="/hooks")).json() == {"ok": True, "reason": "taken"}
    assert (await post(app, BODY, path="/hooks")).json() == {"ok": True, "reason": "taken before"}
    assert (await post(app, BODY, signed(BODY, NOW + 1), path="/hooks")).status_code == 200  # redelivered
    cases = [
        ("POST", "/hooks", BODY + b" ", signed(BODY), 403),
        ("POST", "/hooks", BODY, {}, 403),
        ("POST", "/hooks", BODY, signed(BODY, NOW - 301), 403),
        ("POST", "/hooks", b"{}", signed(b"{}"), 400),
        ("POST", "/hooks", b"x" * 1001, {}, 413),
        ("POST", "/", BODY, None, 404),
        *((method, "/hooks", b"", {}, 405) for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD")),
    ]
    for method, path, body, headers, status in cases:
        answer = await post(app, body, headers, method, path)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert await app.drain()
    assert [event.id for event in taken.events] == ["e1"]
    counts = {name: count for name, count in dataclasses.asdict(app.counts).items() if count}
    assert counts == {
        "accepted": 1, "duplicate": 2, "forged": 2, "stale": 1, "malformed": 1, "too_large": 1, "wrong_path": 1,
        "wrong_method": 5,
    }  # fmt: skip


async def call(app: WebhookApp, messages: list[dict[str, Any]], **scope: Any) -> list[dict[str, Any]]:
    """Speak ASGI by hand."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/", "headers": [], **scope}, receive, send)
    return sent


async def test_bodies_in_pieces_and_senders_that_go_away() -> None:
    taken = Sink()
    app = webhook_app(KEY, taken, max_body=len(BODY), now=lambda: NOW)
    headers = [(name.encode(), value.encode()) for name, value in signed(BODY).items()]
    pieces = [{"type": "http.request", "body": BODY[k : k + 7], "more_body": True} for k in range(0, len(BODY), 7)]
    assert (await call(app, [*pieces, {"type": "http.request"}], headers=headers))[0]["status"] == 200
    assert await call(app, [*pieces[:3], {"type": "http.disconnect"}], headers=headers) == []
    endless = [{"type": "http.request", "body": b"x" * 100, "more_body": True}] * 99
    assert (await call(app, endless))[0]["status"] == 413
    assert len(endless) > 95  # the rest is not read
    assert (await call(app, [], headers=[(b"Content-Length", b"999999")]))[0]["status"] == 413
    silent = webhook_app(KEY, taken, body_timeout_s=0.01, now=lambda: NOW)
    never = asyncio.Event()

    async def stalled() -> dict[str, Any]:
        await never.wait()
        return {}

    sent: list[Any] = []
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}

    async def keep(message: Any) -> None:
        sent.append(message)

    await silent(scope, stalled, keep)
    assert (sent[0]["status"], silent.counts.too_slow) == (408, 1)
    mounted = webhook_app(KEY, taken, path="/x", now=lambda: NOW)
    for place in ({"path": "/a/x", "root_path": "/a"}, {"path": "/x", "root_path": "/a"}, {"path": "/x"}):
        sent = await call(mounted, [{"type": "http.request"}], **place)
        assert sent[0]["status"] == 403, place
    sent = await call(app, [{"type": "websocket.connect"}], type="websocket")
    assert sent == [{"type": "websocket.close", "code": 1000}]
    await app.drain()
    assert len(taken.events) == 1


async def test_answers_do_not_wait_for_the_handler_and_its_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    go = asyncio.Event()
    handled: list[str | None] = []

    async def slow(event: WebhookEvent) -> None:
        await go.wait()
        handled.append(event.id)
        if event.id == "e1":
            raise RuntimeError("mine")

    app = webhook_app(KEY, slow, max_waiting=3, now=lambda: NOW)
    for number in range(5):
        body = event_body(event_id=f"e{number}", call_leg_id=str(LEG))
        answer = await post(app, body)
        assert answer.status_code == (200 if number < 3 else 503)
        assert ("retry-after" in answer.headers) == (number >= 3)
    assert (handled, app.waiting) == ([], 3)
    go.set()
    assert await app.drain()
    assert (handled, app.waiting, app.counts.failed) == (["e0", "e1", "e2"], 0, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "RuntimeError: mine" in caplog.text
    body = event_body(event_id="e3", call_leg_id=str(LEG))
    assert (await post(app, body)).json()["reason"] == "taken"  # what was not taken is no duplicate when it comes again
    await app.drain()
    assert handled[-1] == "e3"


async def test_a_calls_events_wait_for_each_other_and_not_for_other_calls() -> None:
    running: list[uuid.UUID | None] = []
    most = 0
    order: dict[uuid.UUID | None, list[str | None]] = {}

    async def handler(event: WebhookEvent) -> None:
        nonlocal most
        assert event.call_leg_id is None or event.call_leg_id not in running
        running.append(event.call_leg_id)
        most = max(most, len(running))
        for _ in range(3):
            await asyncio.sleep(0)
        running.remove(event.call_leg_id)
        order.setdefault(event.call_leg_id, []).append(event.id)

    app = webhook_app(KEY, handler, concurrency=4, now=lambda: NOW)
    bodies = [
        event_body(event_id=f"{leg}-{n}", call_leg_id=str(uuid.UUID(int=leg))) for n in range(5) for leg in range(10)
    ]
    for body in [*bodies, event_body(event_id=None)]:
        assert (await post(app, body)).status_code == 200
    assert await app.drain()
    assert most <= 4
    assert order.pop(None) == [None]
    assert list(order.values()) == [[f"{leg.int}-{n}" for n in range(5)] for leg in order if leg]
    assert (len(order), app._queues, app._tasks) == (10, {}, set())


async def test_a_handler_that_is_not_async_and_one_that_never_ends(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str | None] = []
    app = webhook_app(KEY, lambda event: seen.append(event.id), now=lambda: NOW)
    await post(app, BODY)
    await app.drain()
    assert seen == ["e1"]
    app = webhook_app(KEY, lambda event: asyncio.Event().wait(), now=lambda: NOW)
    await post(app, BODY)
    assert not await app.drain(timeout_s=0.01)
    assert (app.waiting, len(caplog.records)) == (0, 1)


async def test_strangers_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    app = webhook_app(KEY, Sink(), now=lambda: NOW)
    for _ in range(50):
        await post(app, BODY, {})
        await post(app, BODY, signed(BODY, NOW - 999))
    assert (app.counts.forged, app.counts.stale, len(caplog.records)) == (50, 50, 2)


def test_the_application_wants_sense() -> None:
    for wrong in ({"max_body": 0}, {"body_timeout_s": 0}, {"max_waiting": 0}, {"concurrency": 0}):
        with pytest.raises(ConfigurationError):
            webhook_app(KEY, print, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        webhook_app("x", print)


async def test_it_runs_in_uvicorn() -> None:
    """Real HTTP, real time; stopping the server hands over what was taken."""
    taken = Sink()
    app = webhook_app(KEY, taken)
    config = uvicorn.Config(app, port=0, log_level=logging.ERROR, ws="none", lifespan="on")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", verify=False) as client:
        bodies = [event_body(event_id=f"e{number}") for number in range(20)]
        answers = await asyncio.gather(
            *(client.post("/", content=b, headers=signed(b, time.time())) for b in bodies * 2)
        )
        assert {answer.status_code for answer in answers} == {200}
        assert (await client.get("/")).status_code == 405
        assert (await client.post("/", content=b"x" * 300_000)).status_code == 413
    server.should_exit = True
    await serving
    assert sorted(str(event.id) for event in taken.events) == sorted(f"e{number}" for number in range(20))
    assert app.counts.duplicate == 20


@pytest.mark.parametrize("step_s", [-3600.0, -400.0, 400.0, 3600.0])
async def test_a_step_of_the_wall_clock_makes_no_webhook_stale(step_s: float) -> None:
    """faults.md 35: whether the step was wrong or put a wrong clock right, the time is one of the two; after
    ten minutes it is the one that stands."""
    wall, steady = [NOW], [50.0]
    app = webhook_app(KEY, lambda event: None, now=lambda: wall[0], steady=lambda: steady[0])

    async def sent(number: int, at: float) -> int:
        body = event_body(event_id=f"e{number}")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return (await client.post("/", content=body, headers=signed(body, at))).status_code

    assert await sent(0, NOW) == 200
    wall[0] += 10 + step_s
    steady[0] += 10
    assert await sent(1, NOW + 10) == 200
    assert await sent(2, NOW + 10 + step_s) == 200
    assert await sent(4, NOW + 10 + 2 * step_s) == 403
    assert await sent(5, NOW + 10 - step_s) == 403
    wall[0] += 601
    steady[0] += 601
    assert await sent(6, NOW + 611) == 403
    assert await sent(7, NOW + 611 + step_s) == 200
    assert app.counts.accepted == 4
