"""Sinks: what becomes of received audio. Floor 4."""

from ._base import BaseSink, Sink
from .analyzers import LevelMeter, Levels
from .array import ArraySink, ArrayView
from .callback import BatchCallbackSink, CallbackSink
from .dtmf import DtmfDetector
from .tones import ToneDetector
from .wav import WavSink

__all__ = [
    "ArraySink",
    "ArrayView",
    "BaseSink",
    "BatchCallbackSink",
    "CallbackSink",
    "DtmfDetector",
    "LevelMeter",
    "Levels",
    "Sink",
    "ToneDetector",
    "WavSink",
]
