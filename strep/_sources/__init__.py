"""Which packets belong to which stream's present source: probation, admission, pinning, takeovers. Floor 3."""

from .pinning import PIN_MODES, SourcePins
from .sources import Sources

__all__ = ["PIN_MODES", "SourcePins", "Sources"]
