"""A stand-in, a client, a receiver and forks: over real HTTP and UDP, or all in memory and in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np
import numpy.typing as npt
import virtual
from virtual import MemoryEdge, run_virtually

import strep
from strep._edge.http import HttpServer
from strep._edge.udp import UdpAddress
from strep._receiver.settings import Settings
from strep.control import CallControl, Fork, ForkLimits, RetryPolicy
from strep.control.asgi import webhook_app
from strep.standin import Call, StandIn

__all__ = ["MODES", "Mode", "World", "memory_sender", "until", "virtual_world", "virtually", "world"]

Mode = Literal["target", "rx_tx"]
MODES: list[Mode] = ["target", "rx_tx"]
# real time is the machine's: where it is slow, nothing is given up or begun again that a test does not give up
PATIENT = ForkLimits(no_media_s=120, stall_s=120, idle_s=120, stop_s=120)
SOURCE = ("127.0.0.1", 5004)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something, in the loop's time, real or not; as long as a slow machine needs."""
    await virtual.until(condition, 120)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:
        run_virtually(test(*arguments, **keywords))

    return run


@dataclass
class World:
    api: StandIn
    control: CallControl
    receiver: strep.Receiver
    limits: ForkLimits | None = None

    def fork(self, call: Call, mode: Mode = "target", **options: Any) -> Fork:
        return self.control.fork(call.call_control_id, self.receiver, mode=mode, **{"limits": self.limits, **options})

    def check_left_nothing(self) -> None:
        assert len(self.control.forks) == 0
        assert self.receiver.pairs == []
        assert all(call.fork is None for call in self.api.calls)

    def commands(self, name: str) -> int:
        """How many commands had an effect. A request that is sent again, because its answer took too long, has none."""
        ids = [record.command_id for record in self.api._calls.records if record.name == name]
        assert None not in ids
        assert len(set(ids)) == len(ids)
        return len(ids)


class _Hooks:
    """The application that hears of the calls, as soon as there is one."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@contextlib.asynccontextmanager
async def _leaves_no_task() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    await until(lambda: not [t for t in asyncio.all_tasks() - before if "strep" in repr(t.get_coro())])


@contextlib.asynccontextmanager
async def world(
    calls: int = 1, *, hooks: bool = True, sinks: Any = (), receiver: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[World]:
    """A stand-in, a client, a receiver, and an application that gives webhooks to the client's forks."""
    taking = _Hooks()
    server = HttpServer(taking, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.port}/" if hooks else None
    standin = StandIn(calls=calls, webhook=url, seed=7, **options)
    await server.start()
    try:
        async with (
            standin as api,
            CallControl(api.api_key, base_url=api.base_url, policy=RetryPolicy(timeout_s=30)) as control,
            strep.Receiver(
                "udp:127.0.0.1:0", **({"pairs": "udp:127.0.0.1:0", "sinks": sinks} | (receiver or {}))
            ) as one,
        ):
            taking.app = webhook_app(api.public_key, control.forks.webhook)
            async with _leaves_no_task():
                yield World(api, control, one, PATIENT)
    finally:
        await server.stop()


class _MemorySender:
    """As ScatterSender: sends to the sockets of an edge in memory."""

    def __init__(self, edge: MemoryEdge) -> None:
        self._edge = edge
        self._to: list[tuple[str, int]] = []

    def add(self, address: UdpAddress) -> int:
        self._to.append((address.host, address.port))
        return len(self._to) - 1

    def send(
        self, slab: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer], to: npt.NDArray[np.integer] | None
    ) -> int:
        assert to is not None
        return sum(
            self._edge.send(self._to[number], row[:length].tobytes(), source=SOURCE)
            for row, length, number in zip(slab, lengths.tolist(), to.tolist(), strict=True)
        )

    def close(self) -> None:
        self._to.clear()


def memory_sender(edge: MemoryEdge) -> dict[str, Any]:
    """Options of a StandIn that sends its media to this edge, and lives in its time."""
    return {"clock": edge.now_ns, "open_sender": lambda family: _MemorySender(edge)}


@contextlib.asynccontextmanager
async def virtual_world(
    calls: int = 1, *, hooks: bool = True, sinks: Any = (), receiver: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[World]:
    """As :func:`world`, without any socket, in the time of the running loop."""
    loop, edge, taking = asyncio.get_running_loop(), MemoryEdge(), _Hooks()
    settings = Settings("udp:127.0.0.1:0", **({"pairs": "udp:127.0.0.1:0"} | (receiver or {})))
    options = {"webhook_transport": httpx.ASGITransport(taking), **memory_sender(edge), **options}
    async with (
        StandIn(port=None, calls=calls, webhook="http://hooks/" if hooks else None, seed=7, **options) as api,
        httpx.AsyncClient(transport=httpx.ASGITransport(api.app)) as client,
        CallControl(
            api.api_key, base_url=api.base_url, client=client, policy=RetryPolicy(timeout_s=2), clock=loop.time
        ) as control,
        strep.Receiver.of(settings, sinks, edge=edge) as one,
    ):
        taking.app = webhook_app(
            api.public_key, control.forks.webhook, now=lambda: edge.now_ns() / 1e9, steady=loop.time
        )
        async with _leaves_no_task():
            yield World(api, control, one)
