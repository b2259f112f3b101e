"""Receives forked call media: STREP-encapsulated or plain RTP, to WAV files, numpy arrays and async iterators.

The names below are the public interface; modules with a leading underscore are not.
"""
from ._parser import build_datagram, parse_datagram, Packet, Status
from ._types import Direction, Leg
