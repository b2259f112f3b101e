"""dpkt: parses; on uvloop, so that what is measured is the parser more than the loop."""

from __future__ import annotations

import uvloop
from dpkt.rtp import RTP

from ._datagrams import Collector, serve


class Receiver(Collector):
    def datagram_received(self, data: bytes, addr: object) -> None:
        self.datagrams += 1
        packet = RTP(data)
        self.keep(packet.ssrc, packet.data)


if __name__ == "__main__":
    serve(Receiver(), uvloop.new_event_loop)
