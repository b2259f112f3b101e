"""Where things stand in a frame of the ring (linux/if_packet.h, TPACKET_V2) and in the packet inside.

With PACKET_RESERVE and PACKET_VNET_HDR every IP header begins at the same place, whatever link it came over::

    0         32             52      ..-10     ..        100    120    128
    | header  | sockaddr_ll  |       | virtio  | link    | IPv4 | UDP  | payload
    | tpacket2|              |       | header  | header  | IPv6        | UDP (140) | payload (148)
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ALL", "COPIED", "FRAME_BYTES", "IPV4", "IPV6", "LINK_BYTES", "NET", "PARTIAL", "READY", "RESERVE_BYTES", "VALID",
    "VNET_BYTES", "IpVersion",
]  # fmt: skip

from dataclasses import dataclass

# an odd number of cache lines, so that columns use all of the cache; 832 bytes of payload fit: 20 ms of L16/16000, 100
# ms of G.711. Larger ones would be fewer; what is longer waits in the socket's queue
FRAME_BYTES: Final = 960
RESERVE_BYTES: Final = 10  # so that payloads behind IPv4 begin with a cache line
VNET_BYTES: Final = 10
LINK_BYTES: Final = 14  # Ethernet's and loopback's header
NET: Final = 80 + RESERVE_BYTES + VNET_BYTES  # where IP begins

ALL: Final = 0x0003  # ETH_P_ALL

# bits of a frame's status
READY: Final = 0x1
COPIED: Final = 0x2  # it did not fit, and waits whole in the socket's queue
PARTIAL: Final = 0x8  # its checksum is not computed yet: it never left this machine
VALID: Final = 0x80  # its checksum is right


@dataclass(frozen=True, slots=True)
class IpVersion:
    """What differs between the two: the EtherType, the first byte of a header without options, where the addresses are
    in the header and how long they are, where UDP's header begins in a frame."""

    number: int
    ethertype: int
    source: int
    destination: int
    address_bytes: int
    udp: int

    @property
    def payload(self) -> int:
        """Where the payload begins in a frame without options."""
        return self.udp + 8


IPV4: Final = IpVersion(4, 0x0800, 12, 16, 4, NET + 20)
IPV6: Final = IpVersion(6, 0x86DD, 8, 24, 16, NET + 40)
