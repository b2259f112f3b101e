"""Sinks: what becomes of received audio."""

from .analysis.dtmf import DtmfDetector
from .analysis.frame_batch import FrameBatch
from .analysis.level import LevelMeter, Levels
from .analysis.quality import QualityMeter
from .analysis.spectrum import Spectrogram, Spectrum
from .analysis.speech import SpeechMeter
from .analysis.tones import ToneDetector
from .array import ArraySink, ArrayView
from .base import BaseSink, Sink
from .callback import BatchCallbackSink, CallbackSink
from .frames import FrameSink
from .muted import MutedSink
from .nats.sink import NatsSink
from .voices import VoiceBatch, VoiceSink
from .wav.sink import WavSink

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
    "NatsSink",
    "QualityMeter",
    "Sink",
    "Spectrogram",
    "Spectrum",
    "SpeechMeter",
    "ToneDetector",
    "VoiceBatch",
    "VoiceSink",
    "WavSink",
]
