"""All cores: worker processes behind one port, and who looks after them."""

from .messages import post_event
from .steering import steering_problem
from .supervisor import Supervisor, WorkerStatus

__all__ = ["Supervisor", "WorkerStatus", "post_event", "steering_problem"]
