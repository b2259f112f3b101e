"""A plain asyncio datagram protocol: struct for the header, a dict by SSRC for the payloads."""

from __future__ import annotations

import struct

from ._datagrams import Collector, serve

__all__ = ["Receiver"]

_HEADER = struct.Struct("!BBHII")


class Receiver(Collector):
    def datagram_received(self, data: bytes, addr: object) -> None:
        self.datagrams += 1
        first, _, _, _, ssrc = _HEADER.unpack_from(data)
        if first >> 6 == 2:
            self.keep(ssrc, data[12:])


if __name__ == "__main__":
    serve(Receiver())
