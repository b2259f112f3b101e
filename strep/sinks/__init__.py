"""Sinks: what becomes of received audio. Floor 4."""

from ._base import BaseSink, Sink
from .wav import WavSink

__all__ = ["BaseSink", "Sink", "WavSink"]
