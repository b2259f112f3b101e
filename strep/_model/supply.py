"""When a sender is starved: it sends less than a second of audio for each second that passes."""

from __future__ import annotations

from typing import Final

__all__ = ["PAUSE_NS", "SILENT_CODECS", "STARVED_RATIO"]

PAUSE_NS: Final = 90_000_000  # between two packets; what is longer is silence suppression, or a hold
STARVED_RATIO: Final = 0.8  # who sends less of it is starved
# of these, pauses are silence suppression however many there are
SILENT_CODECS: Final = frozenset(("AMR", "AMR-WB", "EVS", "OPUS", "G729", "G723", "SPEEX", "SILK"))
