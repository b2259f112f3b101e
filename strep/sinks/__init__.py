"""Sinks: what becomes of received audio. Floor 4."""

from ._bank import FrameBatch
from ._base import BaseSink, Sink
from .array import ArraySink, ArrayView
from .callback import BatchCallbackSink, CallbackSink
from .frames import FrameSink
from .level import LevelMeter, Levels
from .speech import SpeechMeter
from .wav import WavSink

__all__ = [
    "ArraySink",
    "ArrayView",
    "BaseSink",
    "BatchCallbackSink",
    "CallbackSink",
    "FrameBatch",
    "FrameSink",
    "LevelMeter",
    "Levels",
    "Sink",
    "SpeechMeter",
    "WavSink",
]
