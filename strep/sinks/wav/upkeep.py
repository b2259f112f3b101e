"""The state of files between blocks: headers that lag behind, files that cannot be written, files that were deleted.

Used by the thread that writes. A file's header on disk is rewritten

    with a block, if it is HEADER_INTERVAL_S old      :meth:`FileUpkeep.wrote`; ``WavLanes.write`` does it more often,
                                                      because there samples wait for a block to be full
    every HEADER_INTERVAL_S while the thread is busy, sooner when it is idle: whatever lags
                                                      :meth:`FileUpkeep.look_after`; a lane's sooner: ``catch_up``
    when the file begins, is made again after it was deleted, is completed, or is abandoned unfinished
                                                      ``WavTree.begin``, ``make_again``, ``finish``, ``abandon``

So it lags behind the samples by 1 s at most.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from .disk import DISK, NEW_FILES, DiskState
from .file import HEADER_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..._model.types import StreamInfo
    from .file import WavFile
    from .lanes import WavLanes
    from .tree import WavTree

__all__ = ["FileUpkeep"]

_CATCH_UP_S: Final = 0.1  # between two looks for samples that have waited long enough
_CHECKED_FILES: Final = 64  # that are looked for in one turn, in case somebody has deleted them


class _Track(Protocol):
    """A stream that writes into a file: a WavTrack."""

    @property
    def file(self) -> WavFile: ...

    @property
    def stream(self) -> StreamInfo: ...


class FileUpkeep:
    """``tracks``: of the streams that write, by serial. ``lanes``: None if there are none."""

    def __init__(self, tree: WavTree, disk: DiskState, lanes: WavLanes | None, tracks: Mapping[int, _Track]) -> None:
        self._tree = tree
        self._disk = disk
        self._lanes = lanes
        self._tracks = tracks
        self._lagging: dict[int, WavFile] = {}  # by id(): files whose header does not speak of all that was written
        self._unwritable: dict[int, WavFile] = {}  # likewise: files for which a write failed
        self._next_checked = 0  # of the tracks, as they stand
        self._lanes_left = False  # there are more files than may be open, and no lanes any more
        self._caught_up_s = self._looked_s = 0.0  # when look_after did its work last, monotonic

    @property
    def lags(self) -> bool:
        """Whether some header on disk does not speak of all that was written."""
        return bool(self._lagging) or (self._lanes is not None and self._lanes.lagging)

    def wrote(self, file: WavFile, now: float) -> None:
        """A block was written. Raises OSError if the header is due and cannot be."""
        self.works(file)
        if now - file.header_written_at >= HEADER_INTERVAL_S:
            self._tree.write_header(file, now)
            self._lagging.pop(id(file), None)
        else:
            self._lagging[id(file)] = file

    def failed(self, file: WavFile, error: OSError, now: float) -> None:
        """A file could not be written: for a second nothing is written to it."""
        file.retry_at = self._disk.failed(id(file), error, f"{self._tree.root}/{file.folder}/{file.part}", now)
        self._unwritable[id(file)] = file

    def works(self, file: WavFile) -> None:
        """A file could be written."""
        if file.retry_at:
            file.retry_at = 0.0
            self._unwritable.pop(id(file), None)
            self._disk.works(id(file))
            self._disk.works(DISK)

    def completed(self, file: WavFile) -> None:
        """Nothing more is written to a file."""
        self._unwritable.pop(id(file), None)
        self._disk.works(id(file))
        self._lagging.pop(id(file), None)

    def write_header(self, file: WavFile, now: float, *, again: bool = False) -> bool:
        """Bring a header up to date, or try to: False if it is not to be tried now, or failed. ``again``: write it
        even if it is up to date."""
        if now < max(file.retry_at, self._disk.paused_until):
            return False
        try:
            self._tree.write_header(file, now, again=again)
        except OSError as error:
            self.failed(file, error, now)
            return False
        self.works(file)
        return True

    def write_first_header(self, file: WavFile, now: float) -> None:
        """Write the header of a file whose waiting audio was just written."""
        self._lagging[id(file)] = file
        self.write_header(file, now)

    def look_after(self, now: float, *, idle: bool, stuck: bool) -> None:
        """Bring headers up to date, and see whether what did not work does again. ``idle``: the thread has nothing else
        to do. ``stuck``: files that could not be made or named will be tried again anyway."""
        if idle or now - self._caught_up_s >= _CATCH_UP_S:
            self._caught_up_s = now
            self._catch_up_lanes(now, idle)
        if not idle and now - self._looked_s < HEADER_INTERVAL_S:
            return
        self._looked_s = now
        self._lagging = {key: file for key, file in self._lagging.items() if not self.write_header(file, now)}
        self._remake_deleted(now)
        if self._disk.problem is not None:
            self._try_again(now, stuck)
            self._disk.look(now)

    def _catch_up_lanes(self, now: float, idle: bool) -> None:
        if self._lanes is None:
            return
        if not self._tree.evicted:
            try:
                self._lanes.catch_up(now, idle=idle)
            except OSError as error:
                self._disk.failed(DISK, error, str(self._tree.root), now)
        elif not self._lanes_left:
            # a lane's descriptor may be another file's by now
            self._lanes_left = True
            for track in self._tracks.values():
                self._lanes.release(track.stream.index, track.file)
                if track.file.lags:
                    self._lagging[id(track.file)] = track.file

    def _try_again(self, now: float, stuck: bool) -> None:
        for file in list(self._unwritable.values()):
            self.write_header(file, now, again=True)
        for what in (DISK, NEW_FILES):
            if self._disk.has(what) and self._disk.is_due(what, now) and not stuck:
                try:
                    self._tree.folders.probe()
                except OSError as error:
                    self._disk.failed(what, error, str(self._tree.root), now)
                else:
                    self._disk.works(what)

    def _remake_deleted(self, now: float) -> None:
        """Look for some of the files; make those again that somebody has deleted."""
        serials = list(self._tracks)[self._next_checked : self._next_checked + _CHECKED_FILES]
        self._next_checked = self._next_checked + _CHECKED_FILES if len(serials) == _CHECKED_FILES else 0
        for track in [self._tracks[serial] for serial in serials]:
            file, stream = track.file, track.stream
            if self._lanes is not None:
                self._lanes.tell(stream.index, file)
            try:
                if file.retry_at or not self._tree.is_gone(file):
                    continue
                if self._lanes is not None:
                    self._lanes.release(stream.index, file)
                lost = (file.end - file.checked) // file.format.frame_bytes
                gone = FileNotFoundError(errno.ENOENT, "somebody has deleted a file that was being written")
                self.failed(file, gone, now)
                self._disk.lost(lost)
                self._tree.make_again(file)
                self.works(file)
            except OSError as error:
                self.failed(file, error, now)
