"""Sinks: what becomes of received audio. Floor 4."""

from ._bank import FrameBatch
from ._base import BaseSink, Sink
from .array import ArraySink, ArrayView
from .callback import BatchCallbackSink, CallbackSink
from .dtmf import DtmfDetector
from .frames import FrameSink
from .level import LevelMeter, Levels
from .muted import MutedSink
from .quality import QualityMeter
from .spectrum import Spectrogram, Spectrum
from .speech import SpeechMeter
from .tones import ToneDetector
from .wav import WavSink

__all__ = [
    "ArraySink",
    "ArrayView",
    "BaseSink",
    "BatchCallbackSink",
    "CallbackSink",
    "DtmfDetector",
    "FrameBatch",
    "FrameSink",
    "LevelMeter",
    "Levels",
    "MutedSink",
    "QualityMeter",
    "Sink",
    "Spectrogram",
    "Spectrum",
    "SpeechMeter",
    "ToneDetector",
    "WavSink",
]
