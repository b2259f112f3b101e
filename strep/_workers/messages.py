"""Messages of workers to their parent: pickles behind their length, over a socket pair."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
from typing import Any, Final

from .._threads.worker_queue import WorkerQueue

__all__ = ["Post", "PostedLogs", "next_message", "pack"]

Message = tuple[Any, ...]  # its kind, then what belongs to it

_LENGTH: Final = struct.Struct("!I")
_SEND_TIMEOUT_S: Final = 3600.0  # if the parent does not read


def pack(message: Message) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


async def next_message(reader: asyncio.StreamReader) -> Message | None:
    """None: the writer has gone, in the middle of a message or not."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        message: Message = pickle.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, OSError):
        return None
    return message


class Post:
    """Sends messages in order, from a thread of its own: a busy parent does not hold up the receiver."""

    def __init__(self, channel: socket.socket) -> None:
        # an event loop that watches the channel makes it one that does not block; with a timeout, sendall waits itself
        channel.settimeout(_SEND_TIMEOUT_S)
        self._channel = channel
        self._queue: WorkerQueue[Message] = WorkerQueue(self._send, name="strep-post")

    def put(self, *message: Any) -> None:
        """Returns at once; may be called from any thread."""
        self._queue.put(message)

    def _send(self, message: Message) -> None:
        try:
            data = pack(message)
        except Exception:
            logging.getLogger("strep").exception("a worker's %s cannot be sent to its parent", message[0])
            return
        try:
            self._channel.sendall(data)
        except OSError:  # the parent has gone, or reads no more
            self._queue.abandon()

    def close(self, timeout_s: float) -> None:
        """Wait until everything is sent, for at most ``timeout_s``."""
        self._queue.close(timeout_s)


class PostedLogs(logging.Handler):
    """Sends what a worker logs to the parent, which shows it."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        self._post.put("log", record.name, record.levelno, self.format(record))
