"""Receives forked call media: STREP-encapsulated or plain RTP, to WAV files, numpy arrays and async iterators.

The names below are the public interface, with those of :mod:`strep.sinks` and :mod:`strep.simulate`; modules with a
leading underscore are not.
"""

import logging

from . import sinks
from ._delivery.call_leg import CallLeg
from ._delivery.framer import Frame
from ._delivery.leg_aligner import LegFrame
from ._delivery.stream import Stream
from ._model.blocks import Block, BlockBatch
from ._model.exceptions import (
    AddressError,
    BindError,
    CaptureFileError,
    ConfigurationError,
    MissingExtraError,
    ParseError,
    SinkError,
    StrepError,
)
from ._model.report import StreamReport, Totals
from ._model.types import Codec, DatagramKind, Direction, Gap, GapCause, Leg, Mask, StreamEvent, StreamInfo
from ._parser import Packet, Status, build_datagram, parse_datagram
from ._receiver.receiver import Receiver, SocketStatus
from ._receiver.replay import Replay, replay
from ._receiver.until_stopped import run_until_stopped
from ._speech.utterance import Ending, SpeechStarted, SpeechStopped, Utterance
from ._threads.incidents import Incident
from ._version import __version__
from ._workers.supervisor import Supervisor, WorkerStatus
from .resample import Resampler

__all__ = [
    "AddressError",
    "BindError",
    "Block",
    "BlockBatch",
    "CallLeg",
    "CaptureFileError",
    "Codec",
    "ConfigurationError",
    "DatagramKind",
    "Direction",
    "Ending",
    "Frame",
    "Gap",
    "GapCause",
    "Incident",
    "Leg",
    "LegFrame",
    "Mask",
    "MissingExtraError",
    "Packet",
    "ParseError",
    "Receiver",
    "Replay",
    "Resampler",
    "SinkError",
    "SocketStatus",
    "SpeechStarted",
    "SpeechStopped",
    "Status",
    "Stream",
    "StreamEvent",
    "StreamInfo",
    "StreamReport",
    "StrepError",
    "Supervisor",
    "Totals",
    "Utterance",
    "WorkerStatus",
    "__version__",
    "build_datagram",
    "parse_datagram",
    "replay",
    "run_until_stopped",
    "sinks",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
