"""Audio and events of many streams as messages, for other machines: documented, versioned, read without copies.

:class:`WireWriter` makes messages of what sinks are given. :class:`WireReader` makes that again of messages, in order,
each once, with what is missing told as gaps. :func:`unpack` reads a single one. ``docs/design/wire.md`` has the layout.
"""

from .._model.exceptions import WireError
from .layout import MAJOR, MINOR
from .message import Message, unpack
from .nouns import event_as_json, event_as_told
from .reader import ReaderFigures, WireReader
from .writer import WireMessage, WireWriter, shard_of

__all__ = [
    "MAJOR",
    "MINOR",
    "Message",
    "ReaderFigures",
    "WireError",
    "WireMessage",
    "WireReader",
    "WireWriter",
    "event_as_json",
    "event_as_told",
    "shard_of",
    "unpack",
]
