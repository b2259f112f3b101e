"""aiortc's RTP parser and jitter buffer, set up as its receiver sets them up for audio; on uvloop.

Its jitter buffer hands a frame on when four more have come: the last four of a stream stay in it. Its decoder (PyAV, in
a thread a track), RTCP and SRTP are left out.
"""

from __future__ import annotations

import uvloop
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from ._datagrams import Collector, serve


class Receiver(Collector):
    def __init__(self) -> None:
        super().__init__()
        self._buffers: dict[int, JitterBuffer] = {}

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.datagrams += 1
        packet = RtpPacket.parse(data)
        packet._data = packet.payload
        buffer = self._buffers.get(packet.ssrc)
        if buffer is None:
            buffer = self._buffers[packet.ssrc] = JitterBuffer(capacity=16, prefetch=4)
        _, frame = buffer.add(packet)
        if frame is not None:
            self.keep(packet.ssrc, frame.data)


if __name__ == "__main__":
    serve(Receiver(), uvloop.new_event_loop)
