"""A worker's own life: a receiver on sockets that the parent holds, and its figures told while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import traceback
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._edge.ring.making import lent_sockets
from .._edge.udp.address import UdpAddress
from .._edge.udp.edge import Edge
from .._model.exceptions import StrepError
from .._model.types import StreamInfo
from .._receiver.hooks import Hooks, Interior
from .._receiver.receiver import Receiver
from ..sinks.base import as_sink
from .board import Board
from .event_loop import loop_factory
from .ledger import Ledger
from .messages import Post, PostedLogs
from .spec import WorkerSpec
from .steering import workers_of

__all__ = ["edge_on", "main"]

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_PUBLISH_S: Final = 0.1  # between two publications of figures
_STOP_S: Final = 1.8  # the parent has 2 s for everything
_SEND_S: Final = 5.0  # for sending the last messages
_STALLED_S: Final = 5.0  # media wait and nothing is read: another process does better
_SEND_STALLED_S: Final = 0.5  # for sending why, then
_SWITCH_INTERVAL_S: Final = 0.0005  # threads that write files give the interpreter back sooner (default: 5 ms)


def main(spec: WorkerSpec, index: int, generation: int, fds: list[int]) -> int:
    """Run until told to stop, or until the parent has gone; returns the exit code. ``fds``: channel, board, sockets."""
    channel = socket.socket(fileno=fds[0])
    post = Post(channel)
    logging.basicConfig(handlers=[PostedLogs(post)], level=spec.log_level, force=True)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        worker = _Worker(spec, index, generation, channel, post, fds[1:])
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(worker.run())
        code = 0
    except StrepError as error:
        post.put("failed", str(error))
        code = 2
    except BaseException as error:
        post.put("failed", f"{type(error).__name__}: {error}")
        post.put("log", "strep", logging.ERROR, traceback.format_exc())
        code = 1
    post.close(_SEND_S)
    return code


class _Worker:
    def __init__(
        self, spec: WorkerSpec, index: int, generation: int, channel: socket.socket, post: Post, fds: list[int]
    ) -> None:
        self._generation = generation
        self._channel = channel
        self._post = post
        self._board = Board(spec.rows, fds[0])
        made = spec.make_sinks(index, lambda event: post.put("event", event))
        self._sinks = [as_sink(sink) for sink in made]
        self._ledger = Ledger(self._board.read(), self._beginning)
        settings = spec.settings_of(index, generation, sinks=bool(self._sinks))
        self._ring = settings.ring
        self._receiver = Receiver.of(
            settings,
            [*self._sinks, self._ledger],
            edge=edge_on(fds[1:], index, len(spec.settings), ring=settings.ring),
            hooks=Hooks(
                started=self._on_start,
                received_all=self._publish,  # once more, for the process that goes on from here
                incident=lambda incident: post.put("incident", incident),
                stalled=self._give_up,
                stalled_after_s=_STALLED_S,
            ),
        )
        self._stop = asyncio.Event()

    def _on_start(self, interior: Interior) -> None:
        self._state = interior.engine.state
        self._dispatcher = interior.dispatcher

    def _beginning(self, stream: StreamInfo) -> tuple[tuple[int, int, int], int]:
        """A stream's key, and its first sequence number, extended."""
        return self._state.table.key(stream.index), int(self._state.reception.base_ext[stream.index])

    def _give_up(self, why: str) -> None:
        """It cannot go on, and perhaps cannot even end in order: whoever takes over has the sockets."""
        self._post.put("failed", why)
        self._post.close(_SEND_STALLED_S)
        os._exit(1)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(self._channel.fileno(), self._read_channel)
        await self._receiver.start()
        roots = [str(root) for sink in self._sinks for root in sink.recording_directories()]
        self._post.put("ready", os.getpid(), roots)
        while not self._stop.is_set():
            try:
                self._publish()
            except Exception as error:  # the parent kills a worker that does not publish for some seconds
                self._dispatcher.incidents.fault("publish", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _PUBLISH_S)
        self._post.put("stopping")
        await self._receiver.stop(_STOP_S)
        ended, later = self._ledger.take_all(self._dispatcher)
        figures = json.loads(json.dumps(self._figures(), default=str))  # sinks may report what cannot be pickled
        self._post.put("final", {**figures, "ended": ended, "later": later})
        loop.remove_reader(self._channel.fileno())

    def _read_channel(self) -> None:
        """The parent has but one thing to say: stop. When it has gone it means the same."""
        with contextlib.suppress(BlockingIOError):
            self._channel.recv(64, socket.MSG_DONTWAIT)
            self._stop.set()
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _publish(self) -> None:
        started, ended, later = self._ledger.take(self._dispatcher)
        for kind, news in (("started", started), ("ended", ended), ("later", later)):
            if news:
                self._post.put(kind, news)
        rows = self._state.table.live()
        columns = self._state.columns(rows)
        columns["hi"], columns["lo"], columns["tag"] = self._state.table.keys(rows)
        columns.update(self._ledger.columns(rows))
        self._board.publish(self._generation, self._figures(), columns)

    def _figures(self) -> dict[str, Any]:
        return {
            "totals": self._receiver.totals().as_dict(),
            "sinks": [r for r in self._receiver.sink_reports() if r["kind"] != Ledger.kind],
            "live": self._receiver.live_streams,
            "restart_gap": self._ledger.restart_gap,
            "problems": self._receiver.problems() if self._receiver.running else [],
            "last_read_age_s": self._receiver.last_read_age_s,
            "skipped": self._skipped(),
        }

    def _skipped(self) -> dict[str, int]:
        return next((s.skipped for s in self._receiver.sockets if s.role == "ring"), {}) if self._ring else {}


def edge_on(fds: list[int], index: int, workers: int, *, ring: bool) -> Edge:
    """What reads what the parent has opened: sockets; or the states of rings, and packet sockets among them."""
    states, numbers = (fds[0], fds[1:]) if ring else (None, fds)
    sockets = [socket.socket(fileno=number) for number in numbers]
    packets = [sock for sock in sockets if sock.family not in (socket.AF_INET, socket.AF_INET6)]
    bound = {UdpAddress(*sock.getsockname()[:2]): sock for sock in sockets if sock not in packets}
    if states is None:
        return Edge(bound=bound)

    def mine(data: U8, at: I64, length: I64) -> Mask:
        own: Mask = workers_of(data, at, length, workers) == index
        return own

    return Edge(bound=bound, lent=lent_sockets(packets, states, index, mine if workers > 1 else None))
