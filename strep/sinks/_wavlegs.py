"""WAV files that several streams share, each with a channel of its own, aligned on the receiver's clock. Floor 4.

stereo     DIR/<call_leg_id>/<leg>.wav     inbound │ outbound
session    DIR/<session>/session.wav       A inbound │ A outbound │ B inbound │ B outbound │ ...
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._exceptions import ConfigurationError
from ._wavfile import WavFormat
from ._wavtrack import Track
from ._wavtree import WavFile, WavTree

if TYPE_CHECKING:
    from .._types import Leg, StreamInfo

__all__ = ["LegFiles", "SessionOf", "Sessions", "parse_sessions"]

_SHIFT_LIMIT_S: Final = 10.0
_LEGS_MOST: Final = 64  # of a session

Sessions = Mapping[uuid.UUID, str] | Mapping[str, str] | Callable[["StreamInfo"], str | None]


@dataclass(frozen=True, slots=True)
class _Seat:
    """Where a leg stands in a session: ``index`` among ``legs``; None: by its L bit, or else where there is room."""

    session: str
    index: int | None
    legs: int


SessionOf = Callable[["StreamInfo"], _Seat | None]


def parse_sessions(sessions: Sessions) -> SessionOf:
    """What tells a stream's session. Raises ConfigurationError.

    Of a mapping of call_leg_ids to names, the ids of a name are its legs, in this order; a single id has two legs, by
    STREP's L bit. Who is told by a function has two legs: as the L bit says, or as they come, when it says A of both.
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
        if len(legs) > _LEGS_MOST:
            raise ConfigurationError(f"session {name!r} has {len(legs)} call legs: at most {_LEGS_MOST}")
        for index, leg in enumerate(legs):
            seats[leg] = _Seat(name, index if len(legs) > 1 else None, max(len(legs), 2))
    return lambda stream: seats.get(stream.call_leg_id) if stream.call_leg_id else None


class _SharedFile:
    """A file and the streams that write into it."""

    def __init__(self, file: WavFile, origin_ns: int) -> None:
        self.file = file
        self.origin_ns = origin_ns
        self.tracks: dict[int, Track] = {}  # live ones, by serial
        self.ever: list[int] = []
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

    ``rate``: of the files; None: that of a file's first stream. ``sessions``: by :func:`parse_sessions`; who has none
    is written as stereo. ``corrected``: streams are kept on the receiver's clock.
    """

    def __init__(self, tree: WavTree, rate: int | None, *, corrected: bool, sessions: SessionOf | None = None) -> None:
        self._tree = tree
        self._rate = rate
        self._corrected = corrected
        self._session_of = sessions
        self._shared: dict[tuple[str, Leg | None], _SharedFile] = {}
        self._key: dict[int, tuple[str, Leg | None]] = {}  # by serial

    def begin(self, stream: StreamInfo) -> Track:
        """A stream's track. Raises OSError."""
        seat = None if self._session_of is None else self._session_of(stream)
        if seat is not None:
            key: tuple[str, Leg | None] = seat.session, None
            shared = self._shared.get(key) or self._open(key, stream, seat.session, "session", 2 * seat.legs)
            index = shared.index_of(stream.pair, seat)
            if index is not None:
                return self._join(key, shared, stream, 2 * index + int(stream.direction))
        key = stream.pair
        shared = self._shared.get(key) or self._open(key, stream, stream.leg_name, stream.leg.label, 2)
        return self._join(key, shared, stream, int(stream.direction))

    def _open(
        self, key: tuple[str, Leg | None], stream: StreamInfo, directory: str, stem: str, channels: int
    ) -> _SharedFile:
        file = self._tree.create(directory, stem, WavFormat("pcm16", self._rate or stream.sample_rate, channels))
        shared = self._shared[key] = _SharedFile(file, stream.origin_ns)
        return shared

    def _join(self, key: tuple[str, Leg | None], shared: _SharedFile, stream: StreamInfo, channel: int) -> Track:
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
        track = Track(self._tree, shared.file, stream, offset=offset, channel=channel, corrected=self._corrected)
        shared.tracks[stream.serial] = track
        shared.ever.append(stream.serial)
        self._key[stream.serial] = key
        return track

    def end(self, stream: StreamInfo) -> list[int] | None:
        """The serials of all who wrote into the stream's file, when it was the last of them; otherwise None."""
        key = self._key.pop(stream.serial)
        shared = self._shared[key]
        shared.tracks.pop(stream.serial, None)
        if shared.tracks:
            return None
        del self._shared[key]
        return shared.ever
