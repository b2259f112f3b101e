"""The third edge: a ring of frames that the kernel and this process share (AF_PACKET, TPACKET_V2)."""

from .packet_socket import ring_problem
from .reader import RingReader

__all__ = ["RingReader", "ring_problem"]
