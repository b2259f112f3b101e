"""The stand-in as a whole: calls, media, webhooks and the HTTP server, on one event loop."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self

import httpx

from .._edge.http import HttpLimits, HttpServer
from .._model.exceptions import ConfigurationError
from .._model.types import Codec
from ..simulate._sendmmsg import ScatterSender
from ..simulate.impair import Impairments
from ..simulate.packets import wire_codec
from ..simulate.speech import read_voices
from ..simulate.truth import StreamTruth
from ._app import App
from ._call import AudioLoad, AudioStart, AudioStop, Call, Effect, MediaStart, MediaStop, Webhook
from ._calls import Calls
from ._faults import Fault, Faults, Misfortune, WebhookFaults
from ._media import MediaPlan
from ._outbox import Outbox
from ._playlist import Item
from ._sender import DatagramSender, MediaSender
from ._sounds import Sounds, SpeechBy
from ._webhooks import Signer

__all__ = ["StandIn"]

_IN_PROCESS: Final = "http://127.0.0.1"  # clients take http for this machine only
_LIMITS: Final = HttpLimits(connections=1024, per_address=1024)  # of those who test with it
_DRAIN_S: Final = 1.0


class StandIn:
    """A local call-control API with simulated two-way calls that can be forked: ``async with StandIn(...) as api``.

    ``host``, ``port``: where it is served over HTTP; port 0 is any free one, None none at all: then drive ``api.app``
    with ``httpx.ASGITransport``. ``calls`` arrive ``arrive_s`` apart, are answered after ``ring_s`` (None: only by a
    command) and hung up after ``seconds`` (None: 4 hours). ``bridged``: calls are pairs of legs with one session.
    ``webhook``: URL that hears of everything. Media as :func:`strep.simulate.simulate` makes it: ``codec``,
    ``ptime_ms``, ``file``, ``impairments``, ``drift_ppm``. ``on_event`` is called with dicts: ``serving``, ``call``
    when one arrives, ``fork_started``, ``fork_stopped`` with what was sent, ``audio_started``, ``audio_stopped``,
    ``webhook`` with its outcome. The same ``seed`` makes the same calls, keys, packets and troubles, except for what
    depends on when commands come. What ``speak`` and ``playback_start`` ask for is heard outbound, in place of the
    other party. ``speech``: spoken by "espeak" (espeak-ng), a "tone" for each text, or "auto": the former if it is
    installed. ``media``: files by media_name. URLs are fetched within 10 s, 16 MiB at most; ``media_transport`` is how,
    for tests. For tests in virtual time: ``clock`` gives ns, UTC, as fast as the event loop's time goes;
    ``open_sender`` makes what sends datagrams to the addresses of one family.

    Raises ConfigurationError, BindError; MissingExtraError without the extra ``serve``.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = 0,
        calls: int = 3,
        arrive_s: float = 0.0,
        ring_s: float | None = 0.0,
        seconds: float | None = None,
        bridged: bool = False,
        webhook: str | None = None,
        api_key: str = "KEYstandin",
        codec: str | Codec = "PCMU",
        ptime_ms: float = 20,
        file: str | PathLike[str] | None = None,
        impairments: Impairments | None = None,
        drift_ppm: float = 0.0,
        faults: Faults | None = None,
        webhook_faults: WebhookFaults | None = None,
        webhook_transport: httpx.AsyncBaseTransport | None = None,
        media: Mapping[str, str | PathLike[str]] | None = None,
        speech: SpeechBy = "auto",
        media_transport: httpx.AsyncBaseTransport | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        seed: int | None = None,
        clock: Callable[[], int] | None = None,
        open_sender: Callable[[socket.AddressFamily], DatagramSender] = ScatterSender,
    ) -> None:
        if seed is not None and seed < 0:
            raise ConfigurationError(f"seed {seed}: 0 or more")
        if not api_key or not api_key.isascii() or not api_key.isprintable():
            raise ConfigurationError("api_key: printable ASCII characters, at least one")
        if webhook is not None and not webhook.startswith(("http://", "https://")):
            raise ConfigurationError(f"webhook {webhook!r}: a URL that begins with http:// or https://")
        self._address = host, port
        self._clock = clock or _steady_clock()
        self._open_sender = open_sender
        voices = None if file is None else read_voices(file, wire_codec(codec).sample_rate)
        self._plan = MediaPlan(
            codec=codec, ptime_ms=ptime_ms, voices=voices, impairments=impairments, drift_ppm=drift_ppm, seed=seed
        )
        self._sounds = Sounds(
            self._plan.codec, self._plan.frames, media=media, speech=speech, transport=media_transport
        )
        self._numbers: dict[str, Any] = {
            "calls": calls,
            "arrive_ns": round(arrive_s * 1e9),
            "ring_ns": None if ring_s is None else round(ring_s * 1e9),
            "length_ns": None if seconds is None else round(seconds * 1e9),
            "bridged": bridged,
            "webhook_url": webhook,
            "seed": seed,
        }
        self._calls = Calls(now_ns=self._clock(), **self._numbers)  # what is wrong is told here
        self._signer = Signer.from_number(seed)
        self._misfortune = Misfortune(faults or Faults(), seed)
        self._webhook_faults = webhook_faults or WebhookFaults()
        self._transport = webhook_transport
        self._seed = seed
        self._tell = on_event
        self.api_key = api_key
        self._tasks: list[asyncio.Task[None]] = []
        self._loading: set[asyncio.Task[None]] = set()
        self._server: HttpServer | None = None

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """What a client takes for ``TELNYX_BASE_URL``."""
        if self._server is None:
            return _IN_PROCESS + "/v2"
        host = self._address[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}/v2"

    @property
    def public_key(self) -> str:
        """Base64 of the key that webhooks verify with: ``TELNYX_PUBLIC_KEY``."""
        return self._signer.public_key

    @property
    def calls(self) -> list[Call]:
        """All calls, also those that have not arrived or have ended; the list is the caller's, the calls are not."""
        return list(self._calls.all)

    @property
    def media(self) -> MediaSender:
        """Figures of what was sent: ``datagrams``, ``refused``, ``behind_ns``."""
        return self._media

    @property
    def outbox(self) -> Outbox:
        """Figures of webhooks: ``delivered``, ``failed``, ``dropped``; ``drain`` waits for them."""
        return self._outbox

    def truth(self, call_leg_id: uuid.UUID | str) -> list[StreamTruth]:
        """What was sent of a leg so far: inbound and outbound of each of its forks, in the order they were started.

        Raises ConfigurationError for a leg that is not one of these calls.
        """
        leg = call_leg_id if isinstance(call_leg_id, uuid.UUID) else uuid.UUID(call_leg_id)
        call = self._calls.by_leg(leg)
        if call is None:
            raise ConfigurationError(f"call_leg_id {leg}: none of these calls")
        return self._plan.truth(call.number)

    def fail_next(self, *faults: Fault | str | None) -> None:
        """What the next requests meet: "429", "503", "500" (done all the same), "cut", "hang"; None: nothing."""
        self._misfortune.fail_next(*faults)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._tasks:
            raise ConfigurationError("this stand-in has been started: make another one")
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._calls = Calls(now_ns=self._clock(), **self._numbers)  # the first calls arrive now
        self._media = MediaSender(self._plan, self._clock, self._open_sender)
        self._outbox = Outbox(
            self._signer,
            self._webhook_faults,
            clock=self._clock,
            seed=self._seed,
            tell=self._tell,
            transport=self._transport,
        )
        self.app = App(
            self._calls,
            api_key=self.api_key,
            clock=self._clock,
            perform=self._perform,
            misfortune=self._misfortune,
            closing=self._closing,
        )
        host, port = self._address
        if port is not None:
            self._server = HttpServer(self.app, host, port, limits=_LIMITS)
            await self._server.start()
        if self._tell is not None:
            keys = {"base_url": self.base_url, "api_key": self.api_key, "public_key": self.public_key}
            self._tell({"event": "serving", **keys})
        self._perform(self._calls.advance(self._clock()))
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._media.run()), loop.create_task(self._live())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        tasks = [*self._tasks, *self._loading]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if self._server is not None:
                await self._server.stop()
            for call in self._calls.all:
                if call.fork is not None:
                    self._media.stop(call.fork)
            if kind is None:
                await self._outbox.drain(_DRAIN_S)
        finally:
            await self._outbox.aclose()
            self._media.close()

    async def wait(self) -> None:
        """Until all calls have ended; those that are dialled meanwhile too."""
        while any(call.state != "hangup" for call in self._calls.all):
            self._changed.clear()
            await self._changed.wait()

    async def _live(self) -> None:
        """Calls arrive, are answered and end, whether commands come or not."""
        while True:
            due_ns = self._calls.next_ns()
            self._changed.clear()
            pause_s = None if due_ns is None else max(due_ns - self._clock(), 0) / 1e9
            try:
                # not wait_for: before Python 3.12 it forgets a cancellation that comes with the event
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                self._perform(self._calls.advance(self._clock()))

    async def _load(self, call: Call, item: Item) -> None:
        clip = await self._sounds.load(item.source)
        now_ns = self._clock()
        self._perform([*self._calls.advance(now_ns), *self._calls.loaded(call, item, clip, now_ns)])

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case MediaStart(fork):
                    self._media.start(fork)
                    to = str(fork.target or f"rx {fork.rx}, tx {fork.tx}")
                    self._say("fork_started", fork.call, stream_type=fork.stream_type, to=to)
                case MediaStop(fork):
                    streams = self._media.stop(fork)
                    sent = {t.direction.label: {"packets": t.packets, "lost": t.lost} for t in streams}
                    self._say("fork_stopped", fork.call, **sent)
                case AudioLoad(call, item):
                    task = asyncio.get_running_loop().create_task(self._load(call, item))
                    self._loading.add(task)
                    task.add_done_callback(self._loading.discard)
                case AudioStart(call, item, at_ns):
                    self._plan.play(call, item, at_ns)
                    self._say("audio_started", call, number=item.number, kind=item.kind)
                case AudioStop(call, item, at_ns):
                    self._plan.silence(call, item, at_ns)
                    self._say("audio_stopped", call, number=item.number, kind=item.kind)
                case Webhook():
                    if effect.event_type == "call.initiated":
                        keys = {"public_key": self.public_key, "base_url": self.base_url}
                        self._say("call", effect.call, call_session_id=str(effect.call.call_session_id), **keys)
                    self._outbox.put(effect)
        if effects:
            self._changed.set()

    def _say(self, event: str, call: Call, **more: Any) -> None:
        if self._tell is not None:
            ids = {"call_control_id": call.call_control_id, "call_leg_id": str(call.call_leg_id)}
            self._tell({"event": event, **ids, **more})


def _steady_clock() -> Callable[[], int]:
    """UTC in ns as it is now, carried on by a clock that never steps."""
    ahead_ns = time.time_ns() - time.monotonic_ns()
    return lambda: ahead_ns + time.monotonic_ns()
