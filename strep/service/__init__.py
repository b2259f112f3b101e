"""The daemon behind ``strep serve``: webhooks come in, calls are forked to this receiver, recorded and told of."""

from ._app import ADMIN, HEALTH, METRICS, Router, told_by
from ._book import CallBook, RecordLegs
from ._health import Health
from ._legs import LegStreams, LegWriter
from ._owner import CallOwners
from ._recorder import CallRecorder, OpenFork

__all__ = [
    "ADMIN",
    "HEALTH",
    "METRICS",
    "CallBook",
    "CallOwners",
    "CallRecorder",
    "Health",
    "LegStreams",
    "LegWriter",
    "OpenFork",
    "RecordLegs",
    "Router",
    "told_by",
]
