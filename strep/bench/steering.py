"""Whether the kernel steers every single datagram to the worker that it should."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .._edge.udp import UdpAddress, open_socket
from .._edge.udp.base import Reader
from .._model.exceptions import ConfigurationError
from .._model.types import Direction, Leg
from .._parser import build_datagram
from .._workers.ports import PortPlan, SteeringError, bind_group
from .._workers.rings import SharedRings
from .._workers.steering import worker_of
from ..simulate._sendmmsg import BatchSender

__all__ = ["Steering", "measure_steering"]

_CALL_LEGS: Final = 4000
_PLAIN_SOURCES: Final = 2000
_BURST: Final = 250  # datagrams: what the smallest receive buffer holds
_PAYLOAD_BYTES: Final = 160
_BUFFER_BYTES: Final = 16 << 20
_ARRIVAL_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Steering:
    """``by_worker``: how many datagrams each got; ``split_legs``: call legs that more than one worker got some of."""

    packets: int
    workers: int
    received: int
    wrong: int
    split_legs: int
    by_worker: list[int]
    seconds: float

    @property
    def exact(self) -> bool:
        return self.received == self.packets and not (self.wrong or self.split_legs)


def measure_steering(
    packets: int = 1_000_000, workers: int = 2, *, address: str = "127.0.0.1", transport: str = "auto"
) -> Steering:
    """Send ``packets`` datagrams to a group of ``workers`` sockets and look where each arrives; with the transport
    "ring" to a group of packet rings.

    4,000 call legs of random ids, both legs and directions of each, and 2,000 plain RTP sources take turns; each
    datagram carries a number, by which it is told what :func:`worker_of` says of it. Blocks. Raises ConfigurationError
    where the kernel does not steer or there is no such transport, BindError.
    """
    if packets < 1 or not 1 <= workers <= 64:
        raise ConfigurationError(f"{packets} packets to {workers} workers: at least one packet, 1 to 64 workers")
    datagrams, leg = _datagrams()
    length = np.array([len(datagram) for datagram in datagrams])
    slab = np.zeros((len(datagrams), int(length.max())), np.uint8)
    for row, datagram in zip(slab, datagrams, strict=True):
        row[: len(datagram)] = np.frombuffer(datagram, np.uint8)
    right = np.array([worker_of(datagram, workers) for datagram in datagrams])
    order = np.random.default_rng(1).permutation(len(datagrams))  # kinds and legs mixed
    got = np.zeros(workers, np.int64)
    seen = np.zeros((int(leg.max()) + 1, workers), np.bool_)
    wrong = 0
    target, ours, close = (_rings if transport == "ring" else _sockets)(UdpAddress(address, 0), workers, transport)
    sender = BatchSender(target)
    began = time.monotonic()
    try:
        done = 0
        while done < packets:
            chosen = order[np.arange(done, min(done + _BURST, packets)) % len(datagrams)]
            done += sender.send(slab[chosen], length[chosen])
            deadline = time.monotonic() + _ARRIVAL_TIMEOUT_S
            while int(got.sum()) < done and time.monotonic() < deadline:
                for worker, sock in enumerate(ours):
                    batch = sock.receive()
                    if batch is None:
                        continue
                    at = batch.length.astype(np.int64) - _PAYLOAD_BYTES
                    number = batch.slab[np.arange(len(batch))[:, None], at[:, None] + np.arange(4)]
                    number = np.ascontiguousarray(number).view(">u4")[:, 0].astype(np.int64)
                    got[worker] += len(batch)
                    wrong += int(np.count_nonzero(right[number] != worker))
                    seen[leg[number], worker] = True
            if int(got.sum()) < done:
                break
    finally:
        sender.close()
        close()
    split = int(np.count_nonzero(seen.sum(axis=1) > 1))
    return Steering(packets, workers, int(got.sum()), wrong, split, got.tolist(), time.monotonic() - began)


_Group = tuple[UdpAddress, Sequence[Reader], Callable[[], None]]  # where to send, what to read, how it is closed


def _sockets(address: UdpAddress, workers: int, transport: str) -> _Group:
    try:
        bound = bind_group(address, workers, _BUFFER_BYTES)
    except SteeringError as error:
        raise ConfigurationError(str(error)) from error
    target = UdpAddress(*bound[0].getsockname()[:2])
    ours = [open_socket(target, transport=transport, bound=sock) for sock in bound]

    def close() -> None:
        for sock in ours:
            sock.close()

    return target, ours, close


def _rings(address: UdpAddress, workers: int, _: str) -> _Group:
    shared = SharedRings([])
    shared.bind([PortPlan(address, "listen", True)], workers, _BUFFER_BYTES)
    return UdpAddress(address.host, shared.numbers[0]), shared.readers, shared.close


def _datagrams() -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """One of each kind, its number at the start of its payload; and which of them are of one call leg."""
    rng = np.random.default_rng(20_261_123)
    datagrams: list[bytes] = []
    legs: list[int] = []
    for call in range(_CALL_LEGS):
        call_leg_id = uuid.UUID(bytes=rng.bytes(16))
        for leg in Leg:
            for direction in Direction:
                datagrams.append(_datagram(len(datagrams), call_leg_id, leg, direction, int(rng.integers(1 << 32))))
                legs.append(call)
    for source in range(_PLAIN_SOURCES):
        datagrams.append(_datagram(len(datagrams), None, Leg.A, Direction.INBOUND, int(rng.integers(1 << 32))))
        legs.append(_CALL_LEGS + source)
    return datagrams, np.array(legs)


def _datagram(number: int, call_leg_id: uuid.UUID | None, leg: Leg, direction: Direction, ssrc: int) -> bytes:
    return build_datagram(
        payload=number.to_bytes(4, "big") + bytes(_PAYLOAD_BYTES - 4),
        payload_type=0,
        sequence_number=number & 0xFFFF,
        rtp_timestamp=0,
        ssrc=ssrc,
        call_leg_id=call_leg_id,
        leg=leg,
        direction=direction,
    )
