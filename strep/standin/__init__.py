"""A local server that behaves like the call-control API: calls, forks with real media, signed webhooks."""

from ._call import Call
from ._faults import Fault, Faults, WebhookFaults
from ._standin import StandIn

__all__ = ["Call", "Fault", "Faults", "StandIn", "WebhookFaults"]
