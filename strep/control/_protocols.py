"""What a fork needs of others: the client of the API, the receiver, and the register of forks. Types only."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

from .._delivery.stream import Stream
from .._model.report import StreamReport, Totals
from .._model.types import StreamInfo
from .._receiver.pairs import PortPair
from ._answers import Call, CommandResult

__all__ = ["BoundSocket", "ForkApi", "ForkRegister", "MediaReceiver", "StreamWatcher"]

StreamType = Literal["raw", "decrypted"]


class ForkApi(Protocol):
    """The API's client: :class:`strep.control.CallControl`."""

    @property
    def loopback(self) -> bool:
        """Whether the API is on this machine."""

    @property
    def forks(self) -> ForkRegister:
        """Where its forks are entered."""

    async def fork_start(
        self,
        call_control_id: str,
        *,
        target: str | None = None,
        rx: str | None = None,
        tx: str | None = None,
        stream_type: StreamType | None = None,
        client_state: bytes | str | None = None,
        command_id: str | None = None,
    ) -> CommandResult: ...

    async def fork_stop(
        self,
        call_control_id: str,
        *,
        stream_type: StreamType | None = None,
        client_state: bytes | str | None = None,
    ) -> CommandResult: ...

    async def retrieve_call(self, call_control_id: str) -> Call: ...


class ForkRegister(Protocol):
    """Where forks are entered while they are under way: :class:`strep.control.ForkRegistry`."""

    def add(self, fork: Any) -> None: ...

    def remove(self, fork: Any) -> None: ...

    def leg_of(self, call_control_id: str) -> uuid.UUID | None: ...


class StreamWatcher(Protocol):
    """Hears of streams as they begin and end, in the midst of the receiver's work: it must not call the receiver."""

    def stream_started(self, stream: StreamInfo) -> None: ...

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None: ...


class BoundSocket(Protocol):
    """A socket of the receiver's: "listen", "rx", "tx" or "rx+tx", and the address that it is bound to."""

    @property
    def role(self) -> str: ...

    @property
    def address(self) -> str: ...


class MediaReceiver(Protocol):
    """The receiver of this process that the media comes to: :class:`strep.Receiver`, which says what each does."""

    @property
    def running(self) -> bool: ...

    @property
    def now_ns(self) -> int: ...

    @property
    def idle_timeout_s(self) -> float: ...

    @property
    def sinks(self) -> Sequence[object]: ...

    @property
    def sockets(self) -> Sequence[BoundSocket]: ...

    # --- legs and ports

    def announce(self, call_leg_id: uuid.UUID | str) -> None: ...

    def forget(self, call_leg_id: uuid.UUID | str) -> None: ...

    def expect_source(self, call_leg_id: uuid.UUID | str) -> None: ...

    def end(self, call_leg_id: uuid.UUID | str, *, linger_s: float = 2.0) -> int: ...

    async def open_pair(self, call_leg_id: uuid.UUID | str | None = None) -> PortPair: ...

    def end_strangers(self, pair: PortPair) -> int: ...

    def close_pair(self, pair: PortPair) -> int: ...

    # --- streams and figures

    def watch(self, key: uuid.UUID | int, watcher: StreamWatcher) -> list[StreamInfo]: ...

    def unwatch(self, key: uuid.UUID | int, watcher: StreamWatcher) -> None: ...

    def want_audio(self) -> None: ...

    def stream(self, info: StreamInfo) -> Stream: ...

    def last_arrival_of(self, streams: Iterable[StreamInfo]) -> int: ...

    def report(self, info: StreamInfo) -> StreamReport: ...

    def totals(self) -> Totals: ...
