"""A process of one thread that has imported everything and does nothing but fork workers, in a few ms each.

Forking the parent itself would copy its event loop and the locks that its threads hold; starting an interpreter takes
most of a second. multiprocessing's fork server does the same, but it runs the user's main module again in every worker,
takes its environment from the parent at a moment that we cannot choose, and is one for the whole program.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
from typing import Any, Final

from .._model.exceptions import ConfigurationError
from .messages import pack

__all__ = ["Nursery", "inside_nursery", "main"]

_REQUEST: Final = struct.Struct("!II")  # index, generation; with file descriptors
_LENGTH: Final = struct.Struct("!I")
_MAX_FDS: Final = 16
# SIGINT reaches all processes of the terminal's group; the parent decides what it means
_START: Final = """\
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)
import json, sys; sys.path[:] = json.loads(sys.argv[1])
from strep._workers.nursery import main; main(int(sys.argv[2]))
"""
_inside = False


def inside_nursery() -> bool:
    """Whether this is a nursery or a worker, which may import the user's main module."""
    return _inside


class Nursery:
    """The parent's end. ``spec`` is what all workers are told; it is pickled. Raises ConfigurationError if it cannot
    be."""

    def __init__(self, spec: Any) -> None:
        try:
            self._spec = pickle.dumps((_main_module(spec), pickle.dumps(spec)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigurationError(
                f"sinks must be something that can be pickled, a function of a module or an instance of a class "
                f"there, no lambda and no inner function: {error}"
            ) from error
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Blocks for a few ms; what it has to import it imports meanwhile."""
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}  # threads do not survive a fork
            command = [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment
            )
        self._control = ours
        ours.sendall(_LENGTH.pack(len(self._spec)) + self._spec)

    def fork(self, index: int, generation: int, fds: list[int]) -> None:
        """Start a worker, which gets duplicates of ``fds``, its channel to us first. It speaks for itself from then."""
        for last in (False, True):
            try:
                if self._control is None:
                    raise BrokenPipeError
                socket.send_fds(self._control, [_REQUEST.pack(index, generation)], fds)
                return
            except OSError:
                if last:
                    raise
                self.start()  # it has been ended

    def close(self) -> None:
        """The nursery ends when its control socket is closed; workers go on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _main_module(spec: Any) -> dict[str, Any]:
    """How to find the user's main module again, where ``spec`` needs it."""
    if b"__main__" not in pickle.dumps(spec):
        return {}
    from multiprocessing import spawn

    data = spawn.get_preparation_data("strep")
    return {key: data[key] for key in ("sys_argv", "init_main_from_name", "init_main_from_path") if key in data}


def main(control_fd: int) -> None:
    """The nursery's own life, until the parent closes its end."""
    global _inside
    _inside = True
    with socket.socket(fileno=control_fd) as control:
        spec, problem = _load(control)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ends of workers show on their channels; none becomes a zombie
        gc.collect()
        gc.freeze()  # not to be looked through, and so not copied, in any worker
        while True:
            request, fds, _, _ = socket.recv_fds(control, _REQUEST.size, _MAX_FDS)
            if not request:
                return
            if problem is None and os.fork() == 0:
                control.detach()
                os.close(control_fd)
                index, generation = _REQUEST.unpack(request)
                _become_worker(spec, index, generation, fds)
            if problem is not None:
                with socket.socket(fileno=fds.pop(0)) as channel:
                    channel.sendall(pack(("failed", problem)))
            for fd in fds:
                os.close(fd)


def _load(control: socket.socket) -> tuple[Any, str | None]:
    """What workers are told; or why that cannot be read."""
    from . import event_loop, worker  # noqa: F401  # all that workers need is imported here, once

    event_loop.loop_factory()
    (length,) = _LENGTH.unpack(control.recv(_LENGTH.size, socket.MSG_WAITALL))
    main_module, spec = pickle.loads(control.recv(length, socket.MSG_WAITALL))
    try:
        if main_module:
            from multiprocessing import spawn

            spawn.prepare(main_module)
        return pickle.loads(spec), None
    except Exception as error:
        return None, f"sinks cannot be made in another process: {type(error).__name__}: {error}"


def _become_worker(spec: Any, index: int, generation: int, fds: list[int]) -> None:
    """Never returns."""
    from . import worker

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = worker.main(spec, index, generation, fds)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
