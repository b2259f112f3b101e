"""The third edge: a ring of frames that the kernel and this process share (AF_PACKET, TPACKET_V2)."""

from .guard import GuardPort
from .packet_socket import ring_problem
from .rings import Rings

__all__ = ["GuardPort", "Rings", "ring_problem"]
