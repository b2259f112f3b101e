"""How a command runs: on an event loop, until a signal ends it. What it says to people goes to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console

from .._workers.event_loop import loop_factory

__all__ = ["console", "favor_receiving", "run_async", "stop_on_signals"]

_SAME_SIGNAL_S: Final = 0.1  # shells, and those who wrap commands, pass on a Ctrl-C that the terminal has sent too
_SWITCH_INTERVAL_S: Final = 0.0005  # Python's default: 5 ms

# in numpy's wheels, in Debian's numpy
_BLAS_SETTERS: Final = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")

_T = TypeVar("_T")


def console(*, stderr: bool = True, file_columns: int | None = None) -> Console:
    """All that is for people goes to stderr, except results. rich heeds NO_COLOR, and whether that is a terminal.

    What is printed is text as it stands: addresses, paths and names hold brackets and colons, which are no markup and
    no emoji. Colours are styles: ``print(text, style="red")``. file_columns: the width where it is no terminal.
    """
    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if file_columns is not None and not made.is_terminal:
        made.width = file_columns
    return made


def favor_receiving() -> None:
    """For commands that receive for long. Threads that write files give the interpreter back sooner when datagrams
    wait; and what has been imported stays, so garbage collections need not look through it."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    _one_blas_thread()
    gc.freeze()


def _one_blas_thread() -> None:
    """Matrix products of analyzers are small. OpenBLAS would divide each among threads that wait for one another in
    busy loops, which takes the cores from the event loop and costs ten times the work. ``OPENBLAS_NUM_THREADS``, where
    somebody has set it, holds."""
    if "OPENBLAS_NUM_THREADS" in os.environ or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text().splitlines()
        for path in {line.split(maxsplit=5)[5] for line in maps if "openblas" in line}:
            library = ctypes.CDLL(path)
            for name in _BLAS_SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(1)


def run_async(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run on uvloop if it is installed."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main())


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT, SIGTERM and SIGHUP (a terminal that was closed) set, for the running loop. A second one
    ends the process at once, whatever it does: files stay as they are (valid, as ….part), and there is no summary.
    Under nohup, which ignores SIGHUP, that stays so."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def on_first() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
        first_s = time.monotonic()

        def on_second(number: int, frame: object) -> None:
            if time.monotonic() - first_s > _SAME_SIGNAL_S:
                os.write(2, b"ended at once: what is open stays as it is\n")
                os._exit(128 + number)

        for number in numbers:
            signal.signal(number, on_second)  # not the loop's: it may be busy

    for number in numbers:
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels the run instead
            loop.add_signal_handler(number, on_first)
    return stop
