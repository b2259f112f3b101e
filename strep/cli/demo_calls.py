"""What strep demo does: calls of the stand-in API, forked by our client when a webhook says that they are answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .._model.exceptions import StrepError
from ..simulate import Impairments

if TYPE_CHECKING:
    from ..control.events import WebhookEvent

__all__ = ["fork_calls"]

_TIMEOUT_S: Final = 30.0  # until all forks have started, or stopped
_PROGRESS_S: Final = 0.05  # between two steps of the progress bar
_POLL_S: Final = 0.01  # between two looks whether the webhooks have come


async def fork_calls(
    address: str,
    *,
    calls: int,
    seconds: float,
    impairments: Impairments,
    seed: int | None,
    tell: Callable[[str], None],
    progress: Callable[[float], None],
) -> int:
    """fork_start → webhook → media for so many seconds → fork_stop → webhook; returns how many packets were
    deliberately not sent.

    Raises MissingExtraError without the extra ``serve``, before anything is done.
    """
    from .._edge.http import HttpServer
    from ..control import CallControl
    from ..control.asgi import WebhookApp, webhook_app
    from ..control.events import CallAnswered, ForkStarted, ForkStopped
    from ..standin import StandIn

    started: set[str | None] = set()
    stopped: set[str | None] = set()
    failed: list[BaseException] = []
    hooks: WebhookApp | None = None

    async def take(scope: Any, receive: Any, send: Any) -> None:
        if hooks is not None:
            await hooks(scope, receive, send)

    server = HttpServer(take, "127.0.0.1", 0)
    try:
        standin = StandIn(
            calls=calls, impairments=impairments, webhook=f"http://127.0.0.1:{server.port}/webhooks", seed=seed
        )
        await server.start()
        async with standin as api, CallControl(api.api_key, base_url=api.base_url) as control:

            async def on_event(event: WebhookEvent) -> None:
                if isinstance(event, CallAnswered):
                    try:
                        await control.fork_start(str(event.call_control_id), target=f"udp:{address}")
                    except StrepError as error:
                        failed.append(error)
                elif isinstance(event, ForkStarted):
                    started.add(event.call_control_id)
                elif isinstance(event, ForkStopped):
                    stopped.add(event.call_control_id)

            tell(f"stand-in API at {api.base_url}: each call is forked when its webhook says call.answered")
            hooks = webhook_app(api.public_key, on_event)
            await _until(lambda: len(started) == calls or failed, "call.fork.started")
            begin = time.monotonic()
            while not failed and (elapsed := time.monotonic() - begin) < seconds:
                progress(elapsed / seconds)
                await asyncio.sleep(min(_PROGRESS_S, seconds - elapsed))
            progress(1.0)
            if failed:
                raise failed[0]
            await asyncio.gather(*(control.fork_stop(call.call_control_id) for call in api.calls))
            await _until(lambda: len(stopped) == calls, "call.fork.stopped")
            await hooks.drain()
            return sum(t.lost for call in api.calls for t in api.truth(call.call_leg_id))
    finally:
        await server.stop()


async def _until(condition: Callable[[], object], event: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise StrepError(f"no {event} webhook within {_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)
