"""Receivers of the workload "pairs": ``python -m strep.bench._pairs_listen KIND CALLS MODE PATH``.

They speak like ``strep capture --json``: a line when they listen, a summary at SIGTERM.

``KIND``  "pairs": a pair of ports for each call, one behind the other; "target": one port for all.
``MODE``  "monitor": no sink; "wav": a file of each stream below PATH; "iterate": every stream in 20 ms frames, latency
          0, and when each came goes to PATH.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .._model.exceptions import BindError
from .._receiver.receiver import Receiver
from .._workers.event_loop import loop_factory
from ..simulate.load import call_leg_id_of
from ..sinks import WavSink
from ..sinks.base import Sink
from ._listen import Arrivals, iterate, say_listening

__all__ = ["main"]

_FIRST_PORTS: Final = (20_000, 24_100, 28_200, 12_000)  # below those that the system gives away
_KIB_A_PAGE: Final = 4
_FINISH_S: Final = 20.0  # for thousands of files, whoever else uses the disk


async def _listen(
    kind: str, calls: int, sinks: Callable[[], list[Sink]], **options: Any
) -> tuple[Receiver, list[str], float]:
    """A receiver that listens, its addresses, and how many KiB each pair took. ``sinks`` makes sinks: a receiver that
    finds no ports closes its own."""
    if kind == "target":
        receiver = Receiver("127.0.0.1:0", sinks=sinks(), **options)
        await receiver.start()
        return receiver, [socket.address for socket in receiver.sockets], 0.0
    problem: BindError | None = None
    for first in _FIRST_PORTS:
        receiver = Receiver(pairs=f"udp:127.0.0.1:{first}-{first + 2 * calls - 1}", sinks=sinks(), **options)
        await receiver.start()
        before = _resident_kib()
        try:
            for call in range(calls):
                await receiver.open_pair(call_leg_id_of(2 * call))
        except BindError as error:  # one of the ports is somebody's
            problem = error
            await receiver.stop()
            continue
        memory = (_resident_kib() - before) / calls
        return receiver, [socket.address for socket in receiver.sockets], memory
    raise BindError(f"no {2 * calls} free ports in a row") from problem


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _KIB_A_PAGE


async def _run(kind: str, calls: int, mode: str, path: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    arrivals = Arrivals()
    options: dict[str, Any] = {"latency_ms": 0.0} if mode == "iterate" else {}
    receiver, addresses, memory = await _listen(
        kind, calls, lambda: [WavSink(path)] if mode == "wav" else [], **options
    )
    async with asyncio.TaskGroup() as tasks:
        if mode == "iterate":
            tasks.create_task(iterate(receiver, arrivals))
        say_listening(addresses[:1])
        await stop.wait()
        await receiver.stop(_FINISH_S)
    if mode == "iterate":
        arrivals.save(path)
    print(json.dumps({"event": "summary", **receiver.summary(), "kib_a_pair": memory}))
    return 0


def main(arguments: list[str] | None = None) -> int:
    kind, calls, mode, path = sys.argv[1:] if arguments is None else arguments
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(kind, int(calls), mode, path))


if __name__ == "__main__":
    sys.exit(main())
