"""The third edge: a ring of frames that the kernel and this process share (AF_PACKET, TPACKET_V2)."""
