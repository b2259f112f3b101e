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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .._edge.udp import UdpAddress
from .._edge.udp.edge import Edge
from .._model.exceptions import ConfigurationError, StrepError
from .._receiver.hooks import Hooks, Interior
from .._receiver.receiver import Receiver
from .._receiver.settings import Settings
from ..sinks.base import BaseSink, Sink, as_sink
from .board import Board
from .ledger import Ledger
from .messages import Post, PostedLogs

__all__ = ["Spec", "loop_factory", "main", "recording_of"]

_PUBLISH_S: Final = 0.1
_STOP_S: Final = 1.8  # the parent has 2 s for everything
_SAID_S: Final = 5.0
_STALLED_S: Final = 5.0  # media wait and nothing is read: another one does better
_LAST_WORD_S: Final = 0.5


@dataclass(frozen=True)
class Spec:
    """What all workers are told."""

    ports: list[list[tuple[str, str]]]  # of each worker, in the order of its sockets: "listen", "rx" or "tx"; address
    options: dict[str, Any]  # the receiver's
    sinks: Callable[[int], Sequence[Sink]] | None
    pcap: Path | None
    rows: int  # streams that a board has room for
    log_level: int = logging.WARNING


def main(spec: Spec, index: int, generation: int, fds: list[int]) -> int:
    """Run until told to stop, or until the parent has gone; returns the exit code. ``fds``: channel, board, sockets."""
    channel = socket.socket(fileno=fds[0])
    post = Post.current = Post(channel)
    handler = PostedLogs(post)
    logging.basicConfig(handlers=[handler], level=spec.log_level, force=True)
    sys.setswitchinterval(0.0005)  # threads that write files give the interpreter back sooner (default: 5 ms)
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
    post.close(_SAID_S)
    return code


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Worker:
    def __init__(
        self, spec: Spec, index: int, generation: int, channel: socket.socket, post: Post, fds: list[int]
    ) -> None:
        self._spec = spec
        self._index = index
        self._generation = generation
        self._channel = channel
        self._post = post
        self._board = Board(spec.rows, fds[0])
        self._sinks = self._make_sinks()
        self._interior: Interior | None = None
        sockets = [socket.socket(fileno=fd) for fd in fds[1:]]
        bound = {UdpAddress(*sock.getsockname()[:2]): sock for sock in sockets}
        self._ledger = Ledger(self, self._board.read())
        settings = Settings(
            **dict(spec.ports[index]),  # type: ignore[arg-type]
            pcap=None if spec.pcap is None else recording_of(spec.pcap, index, generation),
            **spec.options,
        )
        self._receiver = Receiver.of(
            settings,
            [*self._sinks, self._ledger],
            edge=Edge(bound=bound),
            hooks=Hooks(
                started=self._started,
                received_all=self._received_all,
                incident=lambda incident: post.put("incident", incident),
                stalled=self._give_up,
                stalled_after_s=_STALLED_S,
            ),
        )
        self._stop = asyncio.Event()

    def _make_sinks(self) -> list[BaseSink]:
        if self._spec.sinks is None:
            return []
        try:
            return [as_sink(sink) for sink in self._spec.sinks(self._index)]
        except StrepError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"sinks failed in worker {self._index}: {type(error).__name__}: {error}"
            ) from error

    def _started(self, interior: Interior) -> None:
        self._interior = interior

    def _received_all(self) -> None:
        """Once more, for who goes on from here."""
        if self._stop.is_set():
            self._publish()

    @property
    def interior(self) -> Interior:
        """What is inside the receiver, from its start on."""
        if self._interior is None:
            raise RuntimeError("before the start there is no engine")
        return self._interior

    def _give_up(self, why: str) -> None:
        """It cannot go on, and perhaps cannot even end in order: whoever takes over has the sockets."""
        self._post.put("failed", why)
        self._post.close(_LAST_WORD_S)
        os._exit(1)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(self._channel.fileno(), self._hear)
        await self._receiver.start()
        roots = [str(root) for sink in self._sinks for root in sink.recording_directories()]
        self._post.put("ready", os.getpid(), roots)
        while not self._stop.is_set():
            try:
                self._publish()
            except Exception as error:  # the parent ends who does not publish for some seconds
                self.interior.dispatcher.incidents.fault("publish", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _PUBLISH_S)
        self._post.put("stopping")
        await self._receiver.stop(_STOP_S)
        ended, later = self._ledger.take_all()
        figures = json.loads(json.dumps(self._figures(), default=str))  # sinks may report what cannot be pickled
        self._post.put("final", {**figures, "ended": ended, "later": later})
        loop.remove_reader(self._channel.fileno())

    def _hear(self) -> None:
        """The parent says but one thing: stop. When it has gone it means the same."""
        with contextlib.suppress(BlockingIOError):
            self._channel.recv(64, socket.MSG_DONTWAIT)
            self._stop.set()
            asyncio.get_running_loop().remove_reader(self._channel.fileno())

    def _publish(self) -> None:
        started, ended, later = self._ledger.take()
        if started:
            self._post.put("started", started)
        if ended:
            self._post.put("ended", ended)
        if later:
            self._post.put("later", later)
        state = self.interior.engine.state
        rows = state.table.live()
        columns = state.columns(rows)
        columns["hi"], columns["lo"], columns["tag"] = state.table.keys(rows)
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
        }


def recording_of(path: Path, index: int, generation: int) -> Path:
    """FILE-stem.INDEX.pcap; who succeeds a dead worker takes the next free name."""
    own = path.with_name(f"{path.stem}.{index}{path.suffix}")
    number = 2
    while generation > 1 and own.exists():
        own = path.with_name(f"{path.stem}.{index}-{number}{path.suffix}")
        number += 1
    return own
