"""Real calls and hostile datagrams on their way, each from a socket of its own, at a steady rate."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Final

import numpy as np
import numpy.typing as npt
from fuzz.wire import bytes_of

from strep._edge.udp import UdpAddress
from strep._parser import write_headers
from strep.simulate._sendmmsg import BatchSender

from .kinds import REAL_HI

__all__ = ["Hostile", "RealSender", "leg_of", "payload_of_real"]

_PTIME_S: Final = 0.02
_STEP_S: Final = 0.002
_LARGEST: Final = 65_507  # of a datagram (IPv4)

U8 = npt.NDArray[np.uint8]


def leg_of(number: int) -> uuid.UUID:
    """The call_leg_id of a real call."""
    return uuid.UUID(int=REAL_HI << 64 | number)


def payload_of_real(packet: npt.NDArray[np.int64], stream: npt.NDArray[np.int64]) -> U8:
    """uint8 (n, 160): PCMU that tells whose packet it is, and which."""
    first = packet * 37 + stream * 11
    return ((first[:, None] + np.arange(160)) & 0xFF).astype(np.uint8)


def real_datagrams(legs: int, packets: int) -> U8:
    """uint8 (packets, 2 * legs, 196): both directions of each call, in order of sending."""
    packet, stream = (one.reshape(-1) for one in np.mgrid[:packets, : 2 * legs])
    slab = np.zeros((len(packet), 196), np.uint8)
    write_headers(
        slab,
        payload_type=0,
        sequence_number=packet & 0xFFFF,
        rtp_timestamp=packet * 160,
        ssrc=0x1000 + stream,
        call_leg_hi=np.uint64(REAL_HI),
        call_leg_lo=stream // 2,
        direction=stream % 2,
    )
    slab[:, 36:] = payload_of_real(packet, stream)
    return slab.reshape(packets, 2 * legs, 196)


class RealSender(threading.Thread):
    """Sends every real call's packets every 20 ms."""

    def __init__(self, port: int, legs: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.legs = legs
        self.packets = round(seconds / _PTIME_S)
        self._slab = real_datagrams(legs, self.packets)
        self._port = port

    def run(self) -> None:
        sender = BatchSender(UdpAddress("127.0.0.1", self._port))
        length = np.full(2 * self.legs, 196)
        began = time.monotonic()
        for k in range(self.packets):
            time.sleep(max(0.0, began + k * _PTIME_S - time.monotonic()))
            sender.send(self._slab[k], length)
        sender.close()


class Hostile(threading.Thread):
    """Sends rows at a rate, from another address."""

    def __init__(
        self, port: int, rows: npt.NDArray[np.void], rate: float, ports: tuple[int, ...] = (), source: str = ""
    ) -> None:
        super().__init__(daemon=True)
        self._slab, self._length = bytes_of(rows)
        self._slab = np.ascontiguousarray(self._slab)
        # what is longer than a slab row goes on with the rows behind it; the last ones have none
        reach = (len(rows) - np.arange(len(rows))) * self._slab.shape[1]
        self._length = np.minimum(self._length, np.minimum(reach, _LARGEST))
        self._rate = rate
        self._port = port
        self._ports = ports
        self._source = source  # address to send from, where there are ``ports``
        self.sent = 0
        self.seconds = 0.0

    def run(self) -> None:
        sender = BatchSender(UdpAddress("127.0.0.1", self._port), ports=self._ports)
        if self._source:
            sender._socket.bind((self._source, 0))
        began = time.monotonic()
        n = len(self._length)
        turn = np.arange(n) % max(len(self._ports), 1)
        while self.sent < n:
            due = min(n, int((time.monotonic() - began) * self._rate) + 1)
            if due <= self.sent:
                time.sleep(_STEP_S)
                continue
            part = slice(self.sent, due)
            sender.send(self._slab[part], self._length[part], turn[part] if self._ports else None)
            self.sent = due
        self.seconds = time.monotonic() - began
        sender.close()
