"""What is heard on a call besides the other party, what waits for that, and what it is made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Clip", "Content", "Item", "Named", "Playlist", "Remote", "Source", "Speech"]

_NEVER_NS: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Speech:
    """A text, or SSML, to be spoken."""

    text: str
    voice: str = "female"
    language: str = "en-US"
    ssml: bool = False


@dataclass(frozen=True, slots=True)
class Remote:
    """A WAV or MP3 file somewhere else. ``kept``: it need not be fetched again."""

    url: str
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A file that was uploaded before."""

    name: str


@dataclass(frozen=True, slots=True)
class Content:
    """A WAV or MP3 file."""

    data: bytes = field(repr=False)


Source = Speech | Remote | Named | Content


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Sound in packets, int16 (packets, values a packet); the last one ends with silence. One object, however often it
    is played."""

    samples: npt.NDArray[np.int16]
    duration_ns: int


@dataclass(slots=True, eq=False)
class Item:
    """Something to be heard on a call. ``clip``: None while it is not there; ``failed`` when it never will be."""

    number: int
    source: Source
    loops: int | None = 1
    overlay: bool = False
    clip: Clip | None = None
    failed: bool = False
    started_ns: int | None = None

    @property
    def kind(self) -> str:
        """As events name it."""
        return "speak" if isinstance(self.source, Speech) else "playback"

    @property
    def ends_ns(self) -> int:
        """When it ends by itself."""
        if self.clip is None or self.started_ns is None or self.loops is None:
            return _NEVER_NS
        return self.started_ns + self.loops * self.clip.duration_ns

    def told(self) -> dict[str, Any]:
        """What its events tell of it."""
        if isinstance(self.source, Speech):
            return {}
        told: dict[str, Any] = {"overlay": self.overlay}
        if isinstance(self.source, Remote):
            told["media_url"] = self.source.url
        elif isinstance(self.source, Named):
            told["media_name"] = self.source.name
        return told


@dataclass(slots=True)
class Playlist:
    """``current`` is heard, with ``overlays`` mixed into it; ``queue`` waits."""

    current: Item | None = None
    queue: list[Item] = field(default_factory=list)
    overlays: list[Item] = field(default_factory=list)

    @property
    def heard(self) -> list[Item]:
        """What has started and not ended; what was mixed in last."""
        mixed = [item for item in self.overlays if item.started_ns is not None]
        return mixed if self.current is None else [self.current, *mixed]

    @property
    def next_ns(self) -> int:
        """When the next of them ends by itself."""
        return min((item.ends_ns for item in self.heard), default=_NEVER_NS)
