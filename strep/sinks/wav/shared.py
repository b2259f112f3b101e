"""WAV files that several streams share, each with a channel of its own, aligned on the receiver's clock.

stereo     DIR/<call_leg_id>/<leg>.wav     inbound │ outbound
session    DIR/<session>/session.wav       A inbound │ A outbound │ B inbound │ B outbound │ ...
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..._model.exceptions import ConfigurationError
from .file import WavFile, WavFormat
from .track import WavTrack
from .tree import WavTree

if TYPE_CHECKING:
    from ..._model.types import Leg, StreamInfo

__all__ = ["LegFiles", "SessionOf", "Sessions", "parse_sessions"]

# the most by which existing audio is shifted for a stream that began earlier; beyond it the stream is written at 0,
# misaligned
_MAX_SHIFT_S: Final = 10.0
_MAX_DELAY_NS: Final = 1_000_000_000  # of a first packet in the network, as far as timestamps are believed
_MAX_SESSION_LEGS: Final = 64

Sessions = Mapping[uuid.UUID, str] | Mapping[str, str] | Callable[["StreamInfo"], str | None]


@dataclass(frozen=True, slots=True)
class _Seat:
    """A leg's place in a session: number ``index`` of ``legs``. None: by its L bit, or where there is room."""

    session: str
    index: int | None
    legs: int


SessionOf = Callable[["StreamInfo"], _Seat | None]


def parse_sessions(sessions: Sessions) -> SessionOf:
    """A function that returns a stream's place in a session. Raises ConfigurationError.

    In a mapping of call_leg_ids to names, the ids with one name are its legs, in this order; a single id has two legs,
    by STREP's L bit. A session that a function names has two legs: by the L bit, or in the order in which they come if
    it says A for both.
    """
    if not isinstance(sessions, Mapping):
        told = sessions
        return lambda stream: _Seat(name, None, 2) if (name := told(stream)) else None
    members: dict[str, list[uuid.UUID]] = {}
    for key, name in sessions.items():
        try:
            leg = key if isinstance(key, uuid.UUID) else uuid.UUID(key)
        except (ValueError, AttributeError, TypeError) as error:
            raise ConfigurationError(f"sessions: {key!r} is no call_leg_id: give UUIDs and names") from error
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"sessions: {name!r} is no name for the session of {leg}")
        if leg not in members.setdefault(name, []):
            members[name].append(leg)
    seats: dict[uuid.UUID, _Seat] = {}
    for name, legs in members.items():
        if len(legs) > _MAX_SESSION_LEGS:
            raise ConfigurationError(f"session {name!r} has {len(legs)} call legs: at most {_MAX_SESSION_LEGS}")
        for index, leg in enumerate(legs):
            seats[leg] = _Seat(name, index if len(legs) > 1 else None, max(len(legs), 2))
    return lambda stream: seats.get(stream.call_leg_id) if stream.call_leg_id else None


class _SharedFile:
    """A file, and the streams that write into it or may do so later."""

    def __init__(self, directory: str, stem: str, format_: WavFormat) -> None:
        self.directory = directory
        self.stem = stem
        self.format = format_
        self.file: WavFile | None = None  # made when the first of them has lasted
        self.origin_ns = 0
        self.present: set[int] = set()  # serials of streams that have not ended
        self.tracks: dict[int, WavTrack] = {}  # of those that write now
        self.ever: list[int] = []  # serials of all that ever wrote
        self.legs: dict[tuple[str, Leg], int] = {}  # which legs have which pair of channels

    def index_of(self, pair: tuple[str, Leg], seat: _Seat) -> int | None:
        """The leg's pair of channels; None: there is none left for it."""
        index = self.legs.get(pair)
        if index is None:
            free = [i for i in range(seat.legs) if i not in self.legs.values()]
            index = int(pair[1]) if seat.index is None else seat.index
            if index not in free:
                if seat.index is not None or not free:
                    return None
                index = free[0]
            self.legs[pair] = index
        return index


class LegFiles:
    """A two-channel file per call leg: inbound left, outbound right; or one of all legs of a session.

    ``rate``       of the files; None: that of a file's first stream
    ``corrected``  streams are kept on the receiver's clock
    ``sessions``   by :func:`parse_sessions`; legs without a session are written as stereo

    A stream's first block decides its file and channel (:meth:`meet`); it begins to write when it has lasted.
    """

    def __init__(self, tree: WavTree, rate: int | None, *, corrected: bool, sessions: SessionOf | None = None) -> None:
        self._tree = tree
        self._rate = rate
        self._corrected = corrected
        self._session_of = sessions
        self._shared: dict[tuple[str, Leg | None], _SharedFile] = {}
        self._place: dict[int, tuple[tuple[str, Leg | None], int]] = {}  # by serial: file, channel

    def meet(self, stream: StreamInfo) -> None:
        """A stream's first block has come."""
        if stream.serial in self._place:
            return
        seat = None if self._session_of is None else self._session_of(stream)
        if seat is not None:
            key: tuple[str, Leg | None] = seat.session, None
            shared = self._shared_file(key, stream, seat.session, "session", 2 * seat.legs)
            index = shared.index_of(stream.pair, seat)
            if index is not None:
                self._seat(key, shared, stream, 2 * index + int(stream.direction))
                return
        key = stream.pair
        shared = self._shared_file(key, stream, stream.leg_name, stream.leg.label, 2)
        self._seat(key, shared, stream, int(stream.direction))

    def _shared_file(
        self, key: tuple[str, Leg | None], stream: StreamInfo, directory: str, stem: str, channels: int
    ) -> _SharedFile:
        shared = self._shared.get(key)
        if shared is None:
            format_ = WavFormat.of("pcm16", self._rate or stream.sample_rate, channels)
            shared = self._shared[key] = _SharedFile(directory, stem, format_)
        return shared

    def _seat(self, key: tuple[str, Leg | None], shared: _SharedFile, stream: StreamInfo, channel: int) -> None:
        self._place[stream.serial] = key, channel
        shared.present.add(stream.serial)

    def begin(self, stream: StreamInfo, arrival_ns: int) -> WavTrack:
        """The track of a stream that was met, and whose first packet with audio came at ``arrival_ns``. Raises
        OSError."""
        key, channel = self._place[stream.serial]
        shared = self._shared[key]
        rate, origin_ns = shared.format.rate, _believed_origin_ns(stream, arrival_ns)
        if shared.file is None:
            shared.file = self._tree.create(shared.directory, shared.stem, shared.format)
            shared.origin_ns = origin_ns
        offset = round((origin_ns - shared.origin_ns) * rate / 1e9)
        if offset < 0:
            # the stream began before the first packet of the first one: everything moves behind its beginning
            if -offset <= _MAX_SHIFT_S * rate:
                self._tree.shift(shared.file, -offset)
                shared.origin_ns = origin_ns
                for other in shared.tracks.values():
                    other.offset -= offset
            offset = 0
        track = WavTrack(
            self._tree, shared.file, stream, offset=offset, channel=channel,
            origin_ns=origin_ns if self._corrected else None,
        )  # fmt: skip
        shared.tracks[stream.serial] = track
        shared.ever.append(stream.serial)
        return track

    def end(self, stream: StreamInfo) -> tuple[WavFile, list[int]] | None:
        """The stream writes no more, or never did. If it was the last of its file: the file, and the serials of all
        streams that wrote into it. Otherwise None."""
        place = self._place.pop(stream.serial, None)
        if place is None:
            return None
        shared = self._shared[place[0]]
        shared.present.discard(stream.serial)
        shared.tracks.pop(stream.serial, None)
        if shared.present:
            return None
        del self._shared[place[0]]
        return None if shared.file is None else (shared.file, shared.ever)


def _believed_origin_ns(stream: StreamInfo, arrival_ns: int) -> int:
    """When the stream's first frame arrived, or would have without delay, in UTC nanoseconds. Nothing waits in a
    network for more than a second: timestamps that say so are not believed. The result is never after the first
    audio's arrival."""
    first_ns = stream.first_arrival_ns
    return min(stream.origin_ns if stream.origin_ns >= first_ns - _MAX_DELAY_NS else first_ns, arrival_ns)
