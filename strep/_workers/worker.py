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
from typing import Any, Final

from .._edge.udp import UdpAddress, UdpSocket, open_socket
from .._model.exceptions import StrepError
from .._model.types import StreamInfo
from .._receiver.receiver import Receiver
from .._receiver.settings import Settings
from .._threads.incidents import Incident
from ..sinks.base import Sink, as_sink
from .board import Board
from .event_loop import loop_factory
from .ledger import Ledger
from .messages import Post, PostedLogs
from .spec import WorkerSpec

__all__ = ["main"]

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
