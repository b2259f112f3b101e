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

from .._edge.udp import UdpAddress, UdpSocket, open_socket
from .._engine.engine import Engine
from .._model.exceptions import ConfigurationError, StrepError
from .._model.types import StreamInfo
from .._receiver.receiver import Receiver
from .._threads.incidents import Incident
from ..sinks.base import BaseSink, Sink, as_sink
from .board import Board
from .ledger import Ledger
from .messages import Post, PostedLogs

__all__ = ["AdoptingReceiver", "Spec", "loop_factory", "main", "recording_of"]

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


class AdoptingReceiver(Receiver):
    """A receiver on sockets that are bound already, which keeps a ledger."""

    bound: dict[tuple[str, int], socket.socket]
    publish: Callable[[], None]

    def _open_socket(self, address: UdpAddress) -> UdpSocket:
        return open_socket(
            address,
            transport=self._transport,
            receive_buffer=self._receive_buffer,
            clock=self._clock,
            bound=self.bound[(address.host, address.port)],
        )

    def keep(self, ledger: Ledger) -> None:
        self._sinks.append(ledger)

    def _shut(self, sockets: Sequence[UdpSocket]) -> None:
        """The sockets are the parent's: it shuts them at the very end. If only this worker ends, another goes on."""

    def _count_unread(self) -> int:
        """What waits in them is the parent's, or the successor's."""
        return sum(socket.held_back for socket, _ in self._sockets)

    def listen_to_incidents(self, listener: Callable[[Incident], object]) -> None:
        self._incidents.listen(listener)

    def contain(self, place: str, error: Exception) -> None:
        self._incidents.fault(place, error)

    def when_stalled(self, seconds: float, give_up: Callable[[str], object]) -> None:
        """Call ``give_up``, in a thread, when media have waited for so long and nothing was read."""
        self._watchdog.limit_s, self._watchdog.give_up = seconds, give_up

    def _received_all(self) -> None:
        self.publish()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("before the start there is no engine")
        return self._engine

    def files(self, stream: StreamInfo) -> list[str]:
        return self._dispatcher.files(stream) if self._dispatcher else []

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        return self._dispatcher.figures(stream) if self._dispatcher else {}


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
        self._receiver = AdoptingReceiver(
            **dict(spec.ports[index]),  # type: ignore[arg-type]
            sinks=self._sinks,
            pcap=None if spec.pcap is None else recording_of(spec.pcap, index, generation),
            **spec.options,
        )
        sockets = [socket.socket(fileno=fd) for fd in fds[1:]]
        self._receiver.bound = {sock.getsockname()[:2]: sock for sock in sockets}
        self._ledger = Ledger(self._receiver, self._board.read())
        self._receiver.keep(self._ledger)
        self._receiver.listen_to_incidents(lambda incident: post.put("incident", incident))
        self._receiver.when_stalled(_STALLED_S, self._give_up)
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
                self._receiver.contain("publish", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _PUBLISH_S)
        self._post.put("stopping")
        self._receiver.publish = self._publish  # once more, for who goes on from here
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
        state = self._receiver.engine.state
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
