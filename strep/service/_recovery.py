"""What a process that was killed left behind: files without an end are completed, and told of in ``leg.json``.

A thread does it while new calls are recorded into other files: whoever finds a name taken uses the next one. Files that
are older than this process's lock on the directory have no owner any more, for only one process may write there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ..sinks.wav.file import WavFormat
from ..sinks.wav.leftovers import complete_files
from ._json_files import write_json

__all__ = ["Recovery"]

log = logging.getLogger("strep.service")

_PART: Final = ".part.wav"
_SCRAP: Final = re.compile(r"\..*\.\d+\.part")  # what was to become a JSON file
_STEM: Final = re.compile(r"(?P<leg>[ab])(-(?P<direction>inbound|outbound))?(-\d+)?")
_BOTH: Final = ("inbound", "outbound")
_STEP_S: Final = 1.0  # by more than this the wall clock was set: then nobody knows what is older
_NAMES_SHOWN: Final = 1000

OnLeg = Callable[[Path, dict[str, Any]], object]


class Recovery:
    """``since_ns``: what was written before is a dead process's. ``calls``: what is known of the legs that it was
    recording, their directories are looked at first; ``on_leg`` hears, in the thread, of each file that tells of a leg.
    """

    def __init__(
        self, directory: Path, since_ns: int, calls: Mapping[uuid.UUID, dict[str, Any]], on_leg: OnLeg
    ) -> None:
        self._directory = directory
        self._since_ns = since_ns
        self._calls = {str(leg): dict(known) for leg, known in calls.items()}
        self._on_leg = on_leg
        self._stop = False
        self._ahead_s = time.time() - time.monotonic()
        self._thread = threading.Thread(target=self._run, name="strep-recovery", daemon=True)
        self.done = False
        self.files: list[str] = []  # the last of those that were completed
        self.completed = self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Leave the rest to the next one. Blocks until the file that is being completed is."""
        self._stop = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def figures(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"done": self.done, "files": self.completed, "failed": self.failed, "names": list(self.files)}

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            for folder in self._folders():
                if self._stop or not self._knows_what_is_older():
                    return
                self._look(folder)
            self.done = True
        except Exception:
            log.exception("what was left in %s is not all completed", self._directory)
        if self.completed or self.failed:
            log.warning(
                "%d files that a process left behind when it was killed are completed%s", self.completed,
                f", {self.failed} could not be" if self.failed else "",
            )  # fmt: skip

    def _knows_what_is_older(self) -> bool:
        return abs(time.time() - time.monotonic() - self._ahead_s) < _STEP_S

    def _folders(self) -> Iterator[Path]:
        self._tidy(self._directory)
        for name in self._calls:
            if (self._directory / name).is_dir() and not (self._directory / name).is_symlink():
                yield self._directory / name
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name not in self._calls and entry.is_dir(follow_symlinks=False):
                    yield self._directory / entry.name

    def _look(self, folder: Path) -> None:
        names = []
        for part in self._tidy(folder):
            (name,) = complete_files(self._directory, {0: [part]})[0] or (None,)
            if name is None:
                continue  # nothing stood in it
            if name.endswith(_PART):
                self.failed += 1
                continue
            self.completed += 1
            names.append(name)
            self.files = [*self.files[1 - _NAMES_SHOWN :], name]
        if names:
            self._tell(folder, names)

    def _tidy(self, folder: Path) -> list[Path]:
        """The unfinished files of a dead process, in order; its scraps are removed."""
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    scrap = _SCRAP.fullmatch(entry.name) is not None
                    if not scrap and not entry.name.endswith(_PART):
                        continue
                    if not entry.is_file(follow_symlinks=False) or entry.stat().st_mtime_ns >= self._since_ns:
                        continue
                    if scrap:
                        with contextlib.suppress(OSError):
                            os.unlink(entry.path)
                    else:
                        found.append(Path(entry.path))
        except OSError as error:
            log.warning("%s cannot be looked through: %s", folder, error)
        return sorted(found)

    def _tell(self, folder: Path, names: list[str]) -> None:
        """What is known of a leg whose recording ended with its process."""
        try:
            leg = uuid.UUID(folder.name)
        except ValueError:
            return  # a session's, or of a stream that had no name: the summary tells of it
        known = self._calls.get(folder.name) or {"call_leg_id": str(leg)}
        streams = [entry for name in names for entry in self._entries(name)]
        found = {"schema": 1, **known, "recovered": True, "streams": streams}
        try:
            path = write_json(folder, "leg", found)
        except OSError as error:
            log.warning("the file of leg %s cannot be written: %s", leg, error)
            return
        self._on_leg(path, found)

    def _entries(self, name: str) -> Iterator[dict[str, Any]]:
        """A file as the streams that it holds: what it says itself, as nobody counted what came."""
        path = self._directory / name
        with path.open("rb") as file:
            format_ = WavFormat.of_header(file.read(80))
            size = os.fstat(file.fileno()).st_size
        frames = 0 if format_ is None else max(0, size - format_.header_bytes) // format_.frame_bytes
        stem = _STEM.fullmatch(path.name.removesuffix(".wav"))
        direction = None if stem is None else stem["direction"]
        for each in [direction] if direction is not None else _BOTH:
            yield {
                "leg": None if stem is None else stem["leg"],
                "direction": each,
                "sample_rate": None if format_ is None else format_.rate,
                "channels": None if format_ is None else 1,
                "duration_s": 0.0 if format_ is None else round(frames / format_.rate, 6),
                "packets_lost": None,
                "end": "killed",
                "files": [name],
            }
