"""What workers and parent say to each other: pickles behind their length, over a socket pair."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
from typing import Any, Final

from .._threads.worker_queue import WorkerQueue

__all__ = ["Post", "next_message", "pack", "post_event"]

Message = tuple[Any, ...]  # what it is, then what belongs to it

_LENGTH: Final = struct.Struct("!I")
_PATIENCE_S: Final = 3600.0  # with a parent that does not read


def pack(message: Message) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


async def next_message(reader: asyncio.StreamReader) -> Message | None:
    """None: whoever wrote has gone, in the middle of a message or not."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        message: Message = pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError):
        return None
    return message


class Post:
    """Sends messages in order from a thread of its own: a parent that is busy holds up nobody's packets."""

    current: Post | None = None  # this process's way to the parent, if it is a worker

    def __init__(self, channel: socket.socket) -> None:
        # an event loop that watches the channel makes it one that does not block; with a timeout, sendall waits itself
        channel.settimeout(_PATIENCE_S)
        self._channel = channel
        self._queue: WorkerQueue[Message] = WorkerQueue(self._send, name="strep-post")

    def put(self, *message: Any) -> None:
        self._queue.put(message)

    def _send(self, message: Message) -> None:
        try:
            data = pack(message)
        except Exception:
            logging.getLogger("strep").exception("a worker's %s cannot be sent to its parent", message[0])
            return
        try:
            self._channel.sendall(data)
        except OSError:  # the parent has gone, or reads no more: nobody listens
            self._queue.abandon()

    def close(self, timeout_s: float) -> None:
        """Wait until all is sent, but no longer than ``timeout_s``."""
        self._queue.close(timeout_s)


class PostedLogs(logging.Handler):
    """What a worker logs is the parent's to show."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        self._post.put("log", record.name, record.levelno, self.format(record))


def post_event(event: dict[str, Any]) -> None:
    """From a worker, by a sink: give the parent's ``on_event`` something."""
    if Post.current is not None:
        Post.current.put("event", event)
