"""The call-control API's clients, asynchronous and synchronous.

The pure modules beside this one decide what is sent, whether it is sent again and what comes of it; here is only the
network. Frames of httpx and h11 hold the key in their locals, so none of them outlives ``_attempt``: an exception of
httpx's becomes text, and any other one is passed on without its frames.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, Final, Literal, ParamSpec, Self, TypeVar

import httpx

from .._model.exceptions import ConfigurationError
from .._version import __version__
from . import _audio_requests, _requests
from ._answers import Answer
from ._exchange import Broken, Exchange, Received
from ._figures import RequestFigures
from ._fork import Fork
from ._fork_event import ForkEvent
from ._fork_state import ForkLimits
from ._forks import ForkRegistry
from ._protocols import MediaReceiver
from ._requests import DEFAULT_BASE_URL, Request, Site
from ._retry import RetryPolicy
from ._secret import Secret

__all__ = ["CallControl", "SyncCallControl"]

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST_ANSWER_BYTES: Final = 4 << 20  # a page of 250 events takes a tenth of it
_REQUESTS_AT_ONCE: Final = 50  # httpx's pool does more for each request, the more of them wait in it
_USER_AGENT: Final = f"strep/{__version__}"


class _Bearer(httpx.Auth):
    """Puts the key in when a request leaves: no argument or attribute of ours ever holds the header."""

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._secret.reveal()}"
        yield request


def _describe(function: Callable[..., Any], build: Callable[..., Any], owner: str) -> None:
    """Give a method its builder's signature and documentation, ``self`` instead of the site."""
    parts = inspect.signature(build, eval_str=True)
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    returns = parts.return_annotation.__args__[0]
    parameters = [me, *list(parts.parameters.values())[1:]]
    function.__name__, function.__doc__ = build.__name__, build.__doc__
    function.__qualname__ = f"{owner}.{build.__name__}"
    function.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]


def _asynchronous(
    build: Callable[Concatenate[Site, P], Request[R]],
) -> Callable[Concatenate[CallControl, P], Coroutine[Any, Any, R]]:
    async def command(self: CallControl, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(build(self._site, *args, **kwargs))

    _describe(command, build, "CallControl")
    return command


def _synchronous(
    build: Callable[Concatenate[Site, P], Request[R]],
) -> Callable[Concatenate[SyncCallControl, P], R]:
    def command(self: SyncCallControl, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(build(self._site, *args, **kwargs))

    _describe(command, build, "SyncCallControl")
    return command


class _Client:
    """What both clients share: the key, whom requests go to, the clock, and the figures."""

    def __init__(
        self,
        api_key: str | Secret | None,
        base_url: str | None,
        allow_private: bool,
        policy: RetryPolicy | None,
        clock: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        if api_key is None:
            api_key = _key_of_environment()
        if not isinstance(api_key, Secret):
            api_key = Secret(api_key)  # the name no longer holds the key, should a traceback show locals
        api_key.check()
        self._secret = api_key
        self._auth = _Bearer(api_key)
        self._site = Site(base_url or os.environ.get("TELNYX_BASE_URL") or DEFAULT_BASE_URL, allow_private)
        self._policy = policy or RetryPolicy()
        self._clock, self._wall, self._random = clock, wall, random
        self.figures = RequestFigures()

    @property
    def base_url(self) -> str:
        """Where requests go."""
        return self._site.base_url

    @property
    def loopback(self) -> bool:
        """Whether the API is on this machine: a stand-in."""
        return self._site.loopback

    def check_fork(self, **addresses: Any) -> None:
        """Raise now what ``fork_start`` would refuse before it sends anything; ``addresses`` are its arguments."""
        _requests.fork_start(self._site, "any", **addresses)

    def __repr__(self) -> str:
        site = getattr(self, "_site", None)  # none yet when a traceback shows a constructor that raised
        return f"{type(self).__name__}(base_url={site.base_url!r})" if site else f"<{type(self).__name__}>"

    def _arguments(self, request: Request[Any], timeout_s: float) -> dict[str, Any]:
        """What httpx is to send; without the key."""
        return {
            "method": request.method,
            "url": self._site.url(request.path),
            "params": request.query or None,
            "json": request.body,
            "headers": {"Accept": "application/json", "User-Agent": _USER_AGENT},
            "auth": self._auth,
            "follow_redirects": False,
            "timeout": httpx.Timeout(timeout_s),
        }

    def _settle(self, exchange: Exchange, outcome: Received | Broken) -> float | Answer:
        return exchange.settle(outcome, now_s=self._clock(), wall_s=self._wall(), random=self._random)


class CallControl(_Client):
    """The call-control API, asynchronous (asyncio).

    ::

        async with CallControl() as control:  # the key from TELNYX_API_KEY
            await control.fork_start(call_control_id, target="udp:203.0.113.7:9000")

    api_key: default TELNYX_API_KEY. base_url: default TELNYX_BASE_URL, else https://api.telnyx.com/v2; https, except to
    this machine. client: an httpx.AsyncClient of yours, for proxies or certificates; it is not closed. allow_private:
    whether private addresses may be forked to through the real API. policy: timeouts and retries. clock (monotonic),
    wall (Unix time), sleep (seconds) and random (uniform in [0, 1)) are for tests.

    Every command has one command_id, the same in each retry, and ends within ``policy.deadline_s``. Retried are
    connection errors, timeouts, 408, 409, 429 and 5xx. 50 requests at most are under way at once. Raises
    ConfigurationError, before anything is sent, for what cannot work, and APIError as in ``strep.control``.
    ``figures`` counts requests by outcome, and their latencies.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        *,
        base_url: str | None = None,
        client: httpx.AsyncClient | None = None,
        allow_private: bool = False,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(api_key, str):
            api_key = Secret(api_key)
        super().__init__(api_key, base_url, allow_private, policy, clock, wall, random)
        self._sleep = sleep
        self._owned = client is None
        self._forks = ForkRegistry()
        self._slots = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        # a proxy of the environment's is not asked for what is on this machine
        self._client = client or httpx.AsyncClient(trust_env=not self._site.loopback)

    fork_start = _asynchronous(_requests.fork_start)
    fork_stop = _asynchronous(_requests.fork_stop)
    dial = _asynchronous(_requests.dial)
    answer = _asynchronous(_requests.answer)
    hangup = _asynchronous(_requests.hangup)
    speak = _asynchronous(_audio_requests.speak)
    playback_start = _asynchronous(_audio_requests.playback_start)
    playback_stop = _asynchronous(_audio_requests.playback_stop)
    retrieve_call = _asynchronous(_requests.retrieve_call)
    call_events = _asynchronous(_requests.call_events)

    @property
    def forks(self) -> ForkRegistry:
        """The forks that :meth:`fork` has under way; its ``webhook`` takes the events that concern them."""
        return self._forks

    def fork(
        self,
        call_control_id: str,
        receiver: MediaReceiver,
        *,
        call_leg_id: uuid.UUID | str | None = None,
        advertise: str | None = None,
        mode: Literal["target", "rx_tx"] = "target",
        stream_type: Literal["raw", "decrypted"] | None = None,
        client_state: bytes | str | None = None,
        command_id: str | None = None,
        limits: ForkLimits | None = None,
        registry: ForkRegistry | None = None,
        on_event: Callable[[ForkEvent], object] | None = None,
    ) -> Fork:
        """A session: fork a call to a receiver of this process, and stop that in the end.

        receiver: a running :class:`strep.Receiver`. advertise: "IP" or "IP:PORT" as the platform reaches the receiver
        (default: the address it is bound to); in mode "rx_tx" the ports are those of the pair, and a PORT is not used.
        command_id: of the first fork_start, where others may send the same command.
        limits: how long to wait for what, and how often to start again. registry: instead of ``forks``. on_event: is
        told what happens, and must not block; with it the log says so as information, without it what is wrong is a
        warning.
        See :class:`strep.control.session.Fork`.
        """
        return Fork(
            self, call_control_id, receiver, call_leg_id=call_leg_id, advertise=advertise, mode=mode,
            stream_type=stream_type, client_state=client_state, command_id=command_id, limits=limits,
            registry=registry, on_event=on_event,
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close the connections; not those of a client that was passed in. Commands that are under way, and
        later ones, end with APIConnectionError; the former may have had their effect."""
        if self._owned:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, request: Request[R]) -> R:
        exchange = Exchange(request, self._policy, self._secret, self.figures, self._clock())
        while True:
            async with self._slots:
                if self._client.is_closed:
                    raise exchange.closed()
                outcome = await self._attempt(request, exchange.budget_s(self._clock()))
            step = self._settle(exchange, outcome)
            if isinstance(step, Answer):
                return request.parse(step)
            await self._sleep(step)

    async def _attempt(self, request: Request[Any], timeout_s: float) -> Received | Broken:
        try:
            async with asyncio.timeout(timeout_s):  # httpx's is for each read: an answer may come in drops
                return await self._send(request, timeout_s)
        except (httpx.HTTPError, TimeoutError) as error:
            return _broken(error, timeout_s)
        except BaseException as error:
            raise _bare(error) from None

    async def _send(self, request: Request[Any], timeout_s: float) -> Received:
        async with self._client.stream(**self._arguments(request, timeout_s)) as response:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _LARGEST_ANSWER_BYTES:
                    break
            return _received(response, body)


class SyncCallControl(_Client):
    """The call-control API, synchronous: like :class:`CallControl`, with an httpx.Client. Its methods block."""

    def __init__(
        self,
        api_key: str | Secret | None = None,
        *,
        base_url: str | None = None,
        client: httpx.Client | None = None,
        allow_private: bool = False,
        policy: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], object] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(api_key, str):
            api_key = Secret(api_key)
        super().__init__(api_key, base_url, allow_private, policy, clock, wall, random)
        self._sleep = sleep
        self._owned = client is None
        self._client = client or httpx.Client(trust_env=not self._site.loopback)

    fork_start = _synchronous(_requests.fork_start)
    fork_stop = _synchronous(_requests.fork_stop)
    dial = _synchronous(_requests.dial)
    answer = _synchronous(_requests.answer)
    hangup = _synchronous(_requests.hangup)
    speak = _synchronous(_audio_requests.speak)
    playback_start = _synchronous(_audio_requests.playback_start)
    playback_stop = _synchronous(_audio_requests.playback_stop)
    retrieve_call = _synchronous(_requests.retrieve_call)
    call_events = _synchronous(_requests.call_events)

    def close(self) -> None:
        """As :meth:`CallControl.aclose`."""
        if self._owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, request: Request[R]) -> R:
        exchange = Exchange(request, self._policy, self._secret, self.figures, self._clock())
        while True:
            if self._client.is_closed:
                raise exchange.closed()
            outcome = self._attempt(request, exchange.budget_s(self._clock()))
            step = self._settle(exchange, outcome)
            if isinstance(step, Answer):
                return request.parse(step)
            self._sleep(step)

    def _attempt(self, request: Request[Any], timeout_s: float) -> Received | Broken:
        try:
            return self._send(request, timeout_s)
        except (httpx.HTTPError, TimeoutError) as error:
            return _broken(error, timeout_s)
        except BaseException as error:
            raise _bare(error) from None

    def _send(self, request: Request[Any], timeout_s: float) -> Received:
        until = self._clock() + timeout_s
        with self._client.stream(**self._arguments(request, timeout_s)) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _LARGEST_ANSWER_BYTES:
                    break
                if self._clock() > until:
                    raise TimeoutError
            return _received(response, body)


def _key_of_environment() -> Secret:
    if "TELNYX_API_KEY" not in os.environ:
        raise ConfigurationError("no API key: give api_key= or set TELNYX_API_KEY")
    return Secret(os.environ["TELNYX_API_KEY"])


def _received(response: httpx.Response, body: bytearray) -> Received:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Received(response.status_code, headers, bytes(body))


def _broken(error: Exception, timeout_s: float) -> Broken:
    """In words: the exception itself would keep frames that hold the key."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return Broken(f"none within {timeout_s:.3g} s ({type(error).__name__})", timeout=True)
    return Broken(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, timeout=False)


def _bare(error: BaseException) -> BaseException:
    """The exception without the frames and causes below here."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
