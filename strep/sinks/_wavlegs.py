"""WAV files that several streams share, each with a channel of its own, aligned on the receiver's clock. Floor 4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._wavfile import WavFormat
from ._wavtrack import Track
from ._wavtree import WavFile, WavTree

if TYPE_CHECKING:
    from .._types import Leg, StreamInfo

__all__ = ["LegFiles"]

_SHIFT_LIMIT_S: Final = 10.0


class _SharedFile:
    """A file and the streams that write into it."""

    def __init__(self, file: WavFile, origin_ns: int) -> None:
        self.file = file
        self.origin_ns = origin_ns
        self.tracks: dict[int, Track] = {}  # live ones, by serial
        self.ever: list[int] = []


class LegFiles:
    """A two-channel file per call leg: inbound left, outbound right."""

    def __init__(self, tree: WavTree, rate: int | None) -> None:
        self._tree = tree
        self._rate = rate
        self._shared: dict[tuple[str, Leg], _SharedFile] = {}

    def begin(self, stream: StreamInfo) -> Track:
        """A stream's track, at ``rate``, or that of the file's first stream. Raises OSError."""
        shared = self._shared.get(stream.pair)
        if shared is None:
            format_ = WavFormat("pcm16", self._rate or stream.sample_rate, 2)
            file = self._tree.create(stream.leg_name, stream.leg.label, format_)
            shared = self._shared[stream.pair] = _SharedFile(file, stream.origin_ns)
        rate = shared.file.format.rate
        offset = round((stream.origin_ns - shared.origin_ns) * rate / 1e9)
        if offset < 0:
            # the stream began before the first one's first packet: all begin with it
            if -offset <= _SHIFT_LIMIT_S * rate:
                self._tree.shift(shared.file, -offset)
                shared.origin_ns = stream.origin_ns
                for track in shared.tracks.values():
                    track.offset -= offset
            offset = 0
        track = Track(self._tree, shared.file, stream, offset=offset, channel=int(stream.direction))
        shared.tracks[stream.serial] = track
        shared.ever.append(stream.serial)
        return track

    def end(self, stream: StreamInfo) -> list[int] | None:
        """The serials of all who wrote into the stream's file, when it was the last of them; otherwise None."""
        shared = self._shared[stream.pair]
        shared.tracks.pop(stream.serial, None)
        if shared.tracks:
            return None
        del self._shared[stream.pair]
        return shared.ever
