"""WAV files: one per stream, or one stereo file per call leg. Written by a thread, never by the event loop."""

from __future__ import annotations

import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..._model.exceptions import ConfigurationError
from ..._threads.incidents import Incidents
from ...resample import prepare
from ..base import BaseSink
from ..muter import key_muter
from .disk import DiskState
from .pending import PendingStreams
from .shared import LegFiles, Sessions, parse_sessions
from .thread import WriterThread
from .treatment import Treatment
from .tree import WavTree, descriptor_budget
from .writer import WavWriter

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamInfo

__all__ = ["WavSink"]

_PENDING_DIVISOR: Final = 4  # a fourth of the queue's bytes is for streams without files


class WavSink(BaseSink):
    """Writes what is received to ``DIR/<call_leg_id>/<leg>-<direction>.wav``; with layout "stereo" both directions of a
    leg to ``DIR/<call_leg_id>/<leg>.wav``, inbound left, outbound right; with layout "session" all legs of a session to
    ``DIR/<session>/session.wav``: A inbound, A outbound, B inbound, B outbound.

    ``directory``     DIR; it is made when the first file is
    ``layout``        "split", "stereo" or "session"
    ``encoding``      "pcm16", or "native": G.711 bytes as they came (split only). Other codecs are written as pcm16
                      then, and what a G.711 stream brings in another codec is encoded in that of its file
    ``rate``          Hz: resample to this rate (pcm16 only); None: each stream's own
    ``conceal``       short gaps are filled so that they are not heard (pcm16 only); False: they are silent
    ``sessions``      with layout "session": a mapping of call_leg_ids to names, whose legs stand in this order; or a
                      function of StreamInfo that returns a name, or None. A single id has two legs, by STREP's L bit.
                      Legs without a session are written as stereo
    ``drift_correction``  of files that directions share: keep them aligned on the receiver's clock, to within 20 ms for
                      as long as the call lasts, by frames put in or left out, in silence if there is some. Split files
                      are never corrected: they are the streams' RTP time spans, to the sample
    ``queue_bytes``   bytes of audio that may wait for a slow disk (default 512 MiB). Beyond that, blocks are dropped;
                      they are counted, and silent in the file
    ``max_open_files``  how many files are open at a time; None: as many as the process may open, less 256 for others.
                      With more streams than that, files are closed and opened again, which costs time
    ``mute_keys``     silence instead of DTMF digits (pcm16 only): the tones of card numbers and PINs are not written.
                      Files are 0.1 s later then
    ``shortest_s``    seconds: a stream gets its directory and file when it has lasted that long, by the arrival of its
                      packets or by its audio, and nothing of it is missing then; or when it ends for another reason
                      than falling silent. Streams that fall silent sooner leave no file, and are counted. 0: every
                      stream has a file at once
    ``file_mode``, ``directory_mode``  permissions of what is made, less the process's umask

    Blocks come in the event loop's thread, which only queues them; a thread of this sink's own writes.

    Unfinished files are named ``….part.wav``; they are valid at any moment, and if the process is killed, at most the
    last second is missing. Nothing is ever overwritten: a further file of the same name gets a number. Symlinks below
    the directory are not followed. A file's silence is never longer than the time that its stream was there, or than
    its audio, and 2 s, whatever its timestamps say. Disk errors never reach the receiver: :meth:`report` has them, and
    there are incidents "disk_paused" and "disk_resumed". Raises ConfigurationError for wrong arguments, and for
    combinations that make no sense.
    """

    kind = "wav"
    inline = True  # only queues
    prompt = False

    def __init__(
        self,
        directory: str | PathLike[str],
        *,
        layout: Literal["split", "stereo", "session"] = "split",
        encoding: Literal["pcm16", "native"] = "pcm16",
        rate: int | None = None,
        conceal: bool = False,
        sessions: Sessions | None = None,
        drift_correction: bool = True,
        queue_bytes: int = 512 << 20,
        max_open_files: int | None = None,
        mute_keys: bool = False,
        shortest_s: float = 0.5,
        file_mode: int = 0o640,
        directory_mode: int = 0o750,
    ) -> None:
        _check(layout, encoding, rate, conceal, sessions, mute_keys, shortest_s, file_mode, directory_mode)
        session_of = None if sessions is None else parse_sessions(sessions)
        if rate is not None or layout != "split":
            prepare()
        if conceal:
            self.concealment = "later"  # in the thread that writes
        self._incidents = Incidents(time.time_ns)
        self._tree = WavTree(
            Path(directory), max_open_files or descriptor_budget(), file_mode=file_mode, directory_mode=directory_mode
        )
        self._disk = DiskState(lambda kind, text, data: self._incidents.tell(kind, text, **data))
        self._pending = PendingStreams(shortest_s, queue_bytes // _PENDING_DIVISOR)
        self._muter = key_muter() if mute_keys else None
        legs = None
        if layout != "split":
            legs = LegFiles(self._tree, rate, corrected=drift_correction, sessions=session_of)
        self._unsettled: set[int] = set()  # serials of streams that have ended, but not their files
        self._writer = WavWriter(
            self._tree,
            self._disk,
            self._pending,
            Treatment(self._muter, conceal, fault=self._fault, lost=self._disk.lost),
            native=encoding == "native",
            rate=rate,
            legs=legs,
            fault=self._fault,
            settled=self._unsettled.discard,
        )
        self._last_report: dict[str, Any] | None = None  # once the thread is given up
        self._thread = WriterThread(
            self._writer, self._disk, self._pending, queue_bytes=queue_bytes, fault=lambda error: self._fault(error)
        )

    def _fault(self, error: Exception, stream: StreamInfo | None = None) -> None:
        self._incidents.fault("wav", error, stream=stream)

    @property
    def directory(self) -> Path:
        """The directory that files go to."""
        return self._tree.root

    # --- called by the receiver -----------------------------------------------------------------------------------

    def report_to(self, incidents: Incidents) -> None:
        self._incidents = incidents
        if self._muter is not None:
            self._muter.aside.incidents = incidents

    def blocks(self, batch: BlockBatch) -> None:
        self._thread.put_blocks(batch)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        self._unsettled.add(stream.serial)
        self._thread.put_end(stream, report)

    def wait_for_room(self) -> None:
        """Block until the queue is at most half full (replays, which may wait)."""
        self._thread.wait_for_room()

    def close(self, timeout_s: float) -> None:
        """Write what waits and complete all files, those first whose streams have lasted longest, in no more than
        ``timeout_s``. What was not written then counts as dropped, to the frame."""
        if not self._thread.close(timeout_s):
            self._last_report = self.report()

    def report(self) -> dict[str, Any]:
        """Figures so far. ``problem``: what is wrong with the disk now, ``paused``: whether something is; ``failed``
        is final. ``errors`` counts by errno. ``short_streams`` fell silent before they had a file, and ``short_frames``
        are theirs; ``refused_streams`` could not be given one. ``names_taken`` counts directories that got another
        name, because a symlink or a file has theirs."""
        if self._last_report is not None:
            return self._last_report
        files = self._writer.files
        return {
            "kind": self.kind,
            "failed": self._thread.failed,
            "problem": self._disk.problem,
            "paused": self._disk.problem is not None,
            "dropped_frames": self.dropped_frames,
            "refused_streams": files.refused_streams,
            "short_streams": files.short_streams,
            "short_frames": files.short_frames,
            "files": self._tree.files,
            "names_taken": self._tree.folders.blocked,
            "errors": dict(self._disk.errors),
            **({"drift": dict(files.drift_sums)} if files.drift_sums else {}),
        }

    @property
    def dropped_frames(self) -> int:
        """Sample frames that are in no file, although they should be."""
        return self._disk.dropped_frames + self._thread.dropped_frames

    def files(self, stream: StreamInfo) -> list[str]:
        return self._writer.files.names.get(stream.serial) or []

    def recording_directories(self) -> list[Path]:
        return [self.directory]

    def settled(self, stream: StreamInfo) -> bool:
        """Whether the files of a stream that has ended are complete, those too that it shares with others."""
        return stream.serial not in self._unsettled or not self._thread.alive

    def figures(self, stream: StreamInfo) -> dict[str, Any]:
        """Of streams that are kept on the receiver's clock: what that took, in frames."""
        drift = self._writer.files.drift.get(stream.serial)
        return {} if drift is None else {"drift": drift}


def _check(
    layout: str,
    encoding: str,
    rate: int | None,
    conceal: bool,
    sessions: Sessions | None,
    mute_keys: bool,
    shortest_s: float,
    file_mode: int,
    directory_mode: int,
) -> None:
    """Raises ConfigurationError for options that are wrong, or make no sense together."""
    if layout not in ("split", "stereo", "session"):
        raise ConfigurationError(f'layout {layout!r}: "split", "stereo" or "session"')
    if (layout == "session") != (sessions is not None):
        raise ConfigurationError('layout "session" and sessions belong together: give both, or neither')
    if encoding not in ("pcm16", "native"):
        raise ConfigurationError(f'encoding {encoding!r}: "pcm16" or "native"')
    if encoding == "native" and layout != "split":
        raise ConfigurationError(
            'encoding "native" keeps each stream\'s bytes, which may differ by direction: use layout "split"'
        )
    if encoding == "native" and rate is not None:
        raise ConfigurationError('encoding "native" cannot be resampled: leave the rate out, or use "pcm16"')
    if encoding == "native" and mute_keys:
        raise ConfigurationError('encoding "native" keeps the bytes as they came: use "pcm16" to mute keys')
    if encoding == "native" and conceal:
        raise ConfigurationError(
            'encoding "native" keeps the bytes that came, and of gaps none did: leave conceal out, or use "pcm16"'
        )
    if rate is not None and not 4000 <= rate <= 192_000:
        raise ConfigurationError(f"rate {rate}: choose 4000 to 192000 Hz, for example 16000")
    if not 0 <= shortest_s <= 60:
        raise ConfigurationError(f"shortest_s {shortest_s:g}: 0 to 60 s")
    for name, mode in (("file_mode", file_mode), ("directory_mode", directory_mode)):
        if not 0 <= mode <= 0o777:
            raise ConfigurationError(f"{name} {mode:#o}: permissions like 0o640")
