"""Runs a program on an event loop until it is done, or somebody tells it to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from .._model.exceptions import ConfigurationError

__all__ = ["run_until_stopped"]

T = TypeVar("T")


def run_until_stopped(
    main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T | None:
    """Run a coroutine as ``asyncio.run`` does, and end it well on Ctrl-C, SIGTERM and SIGHUP (a terminal that was
    closed).

    Then it is cancelled, once: ``async with`` blocks are left, receivers stop, files are closed. What it returns is
    returned; None when it was stopped and did not return by itself. Its exceptions are passed on, also those that it
    raises while it ends. A second signal ends the program at once: KeyboardInterrupt for Ctrl-C, otherwise the system's
    way. Under nohup, which ignores SIGHUP, that stays so. In another thread than the main one signals are not taken.
    Raises ConfigurationError where a loop runs already. ``loop_factory``: makes the loop, like
    ``uvloop.new_event_loop``.
    """

    if asyncio._get_running_loop() is not None:
        main.close()
        raise ConfigurationError("run_until_stopped: an event loop runs here already; await the coroutine instead")
    told = False

    async def stoppable() -> T | None:
        task = asyncio.current_task()

        def tell() -> None:
            nonlocal told
            told = True
            if task is not None:
                task.cancel()

        with _on_first_signal(tell):
            try:
                return await main
            except asyncio.CancelledError:
                if not told:
                    raise
                return None

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(stoppable())
    except KeyboardInterrupt:
        if sys.platform == "win32":
            return None
        raise
    finally:
        main.close()  # it may never have begun


@contextlib.contextmanager
def _on_first_signal(tell: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    taken: list[signal.Signals] = []

    def release() -> None:
        while taken:
            loop.remove_signal_handler(taken.pop())

    def on_signal() -> None:
        release()
        tell()

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels the run instead
                loop.add_signal_handler(number, on_signal)
                taken.append(number)
    try:
        yield
    finally:
        release()
