"""Errors that a user can cause. What strangers send never raises: it is counted.

StrepError
├── ConfigurationError (also ValueError)   an argument is wrong; says what would be right
│   └── AddressError                       "udp:HOST:PORT" that is not one
├── ParseError (also ValueError)           parse_datagram: carries .status
├── BindError (also OSError)               a socket cannot be bound or set up
├── CaptureFileError (also ValueError)     no capture file, or an unusable one
├── MissingExtraError (also ImportError)   names the extra that installs what is missing
├── WireError (also ValueError)            bytes that are no message of strep.wire, or of a version not known here
└── SinkError                              raised by sinks: they cannot go on
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "BindError",
    "CaptureFileError",
    "ConfigurationError",
    "MissingExtraError",
    "ParseError",
    "SinkError",
    "StrepError",
    "WireError",
]


class StrepError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(StrepError, ValueError):
    """An argument is wrong. The message says what is wrong and what would be right."""


class AddressError(ConfigurationError):
    """An address that is not ``udp:HOST:PORT`` or ``HOST:PORT``."""


class ParseError(StrepError, ValueError):
    """``parse_datagram`` was given bytes that are no STREP or RTP packet.

    ``status`` is the :class:`strep.Status` the vectorized parser gives the same bytes.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class BindError(StrepError, OSError):
    """A socket cannot be bound (port taken, no such address, not permitted)."""


class CaptureFileError(StrepError, ValueError):
    """A file is no capture, cannot be read or unpacked, or holds no audio."""


class MissingExtraError(StrepError, ImportError):
    """A feature needs an optional dependency; the message has the install command."""


class WireError(StrepError, ValueError):
    """Bytes are no message of :mod:`strep.wire`, or one of a version that is not known here."""


class SinkError(StrepError):
    """A sink cannot go on, whatever stream it is given. Sinks raise it in ``blocks``: they are quarantined at once, get
    no more calls and are reported as failed, for the reason that it was raised from."""
