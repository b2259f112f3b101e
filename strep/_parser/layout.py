"""Where things stand in a datagram, and the names of what can be wrong with one.

STREP version 1, 24 bytes between the UDP header and the RTP header:

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |1 1|Version|L|D|   HeaderLen   |            reserved           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                            reserved                           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                                                               |
    |                    call_leg_id  (16 bytes)                    |
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

RTP, RFC 3550 section 5.1:

    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                           timestamp                           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                             SSRC                              |
    +=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
    |                CC × CSRC, then the extension:                 |
    |      profile (16 bits)        |   length in 32-bit words      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

The first two bits tell STREP (11) from RTP and RTCP (10), SIP (01: an ASCII capital) and the rest (00), which RFC 7983
splits by the first byte: 0 to 3 STUN, 16 to 19 ZRTP, 20 to 63 DTLS. T.38 UDPTL begins with a sequence number, so with
any byte: STUN and ZRTP are told from it by the magic cookie in their second word. RFC 5761 section 4 tells RTCP from
RTP by the second byte.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

__all__ = ["RTP_FIXED", "RTP_VERSION", "STREP_LENGTH", "STREP_VERSION", "Status"]

STREP_LENGTH: Final = 24  # bytes, as RTP_FIXED
STREP_VERSION: Final = 1
RTP_FIXED: Final = 12
RTP_VERSION: Final = 2
RTCP_FIRST: Final = 192  # RFC 5761: packet types of RTCP, second byte
RTCP_LAST: Final = 223
DTLS_FIRST: Final = 20  # RFC 7983
DTLS_LAST: Final = 63
STUN_LAST: Final = 3
STUN_COOKIE: Final = 0x2112_A442
STUN_HEADER: Final = 20
ZRTP_FIRST: Final = 16
ZRTP_LAST: Final = 19
ZRTP_COOKIE: Final = 0x5A52_5450
ZRTP_HEADER: Final = 12
KEEPALIVE_LONGEST: Final = 4  # bytes; the shortest UDPTL packet has more
KEEPALIVE_BYTES: Final = b"\r\n\0"


class Status(enum.IntEnum):
    """What the parser found, per datagram. The first that applies, in this order."""

    OK = 0
    TRUNCATED = 1  # longer than the slab is wide: the end is missing
    KIND_RTCP = 2  # also RTCP behind a STREP header
    KIND_SIP = 3
    KIND_T38 = 4
    KIND_DTLS = 5
    KIND_STUN = 6
    KIND_ZRTP = 7
    KIND_KEEPALIVE = 8  # also empty datagrams
    KIND_OTHER = 9
    STREP_SHORT = 10  # ends inside the STREP header
    STREP_VERSION = 11
    STREP_HEADER_LENGTH = 12  # version 1 has 24
    RTP_SHORT = 13  # ends inside the fixed RTP header
    RTP_VERSION = 14
    RTP_CSRC = 15  # ends inside the CSRC list
    RTP_EXTENSION = 16  # ends inside the header extension
    RTP_PADDING = 17  # the padding count is 0 or more than there is

    @property
    def category(self) -> Literal["malformed", "rejected"] | None:
        """How the accounts name it: ``rejected`` is sound but not for us, ``malformed`` contradicts itself."""
        if self is Status.OK:
            return None
        return "rejected" if self in _REJECTED else "malformed"


_REJECTED: Final = frozenset(
    {
        Status.KIND_RTCP,
        Status.KIND_SIP,
        Status.KIND_T38,
        Status.KIND_DTLS,
        Status.KIND_STUN,
        Status.KIND_ZRTP,
        Status.KIND_KEEPALIVE,
        Status.KIND_OTHER,
        Status.STREP_VERSION,
        Status.STREP_HEADER_LENGTH,
    }
)
