"""Many datagrams in one system call: sendmmsg, and UDP segmentation offload. On Linux; a loop elsewhere."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .._edge.udp import UdpAddress
from .._edge.udp.messages import MESSAGE, recvmmsg_available
from .._model.exceptions import ConfigurationError

__all__ = ["BatchSender", "ScatterSender"]

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_SEGMENTS_LIMIT: Final = 64  # UDP_MAX_SEGMENTS
_CALL_BYTES: Final = 65_000  # at most, of all segments of a call
_NAME_BYTES: Final = 28  # of a sockaddr_in6; a sockaddr_in has 16
_RETRY_S: Final = 0.0002  # while the socket is full


def _name(address: UdpAddress) -> npt.NDArray[np.uint8]:
    """The address as sockaddr_in or sockaddr_in6, uint8 (28,)."""
    packed = socket.inet_pton(address.family, address.host)
    head = struct.pack("=H", address.family) + struct.pack("!H", address.port)
    name = head + packed if address.family == socket.AF_INET else head + bytes(4) + packed
    return np.frombuffer(name.ljust(_NAME_BYTES, b"\0"), np.uint8)


class BatchSender:
    """Sends rows of a slab in order, to one address, or each to one of several ``ports`` of it (IPv4 only; it is not
    noticed if nobody listens there). Blocks while the socket is full. For many addresses see :class:`ScatterSender`.

    ``rows``: datagrams at most of a system call. ``send_buffer``: bytes. Raises ConfigurationError, OSError.
    """

    _tolerant = False  # whether addresses that the network refuses are left out

    def __init__(
        self, address: UdpAddress, *, ports: Sequence[int] = (), rows: int = 1024, send_buffer: int = 8 << 20
    ) -> None:
        if ports and address.family != socket.AF_INET:
            raise ConfigurationError(f"{address.host}: many ports of one address are for IPv4")
        self._socket = socket.socket(address.family, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._destinations: list[tuple[str, int]] = []
        self._names = np.zeros((0, _NAME_BYTES), np.uint8)
        self._name_length = 16 if address.family == socket.AF_INET else _NAME_BYTES
        try:
            self._aim(address, ports)
        except OSError:
            self._socket.close()
            raise
        self._rows = rows
        self._iovecs = np.zeros(rows, np.dtype([("base", "u8"), ("len", "u8")]))
        self._messages = np.zeros(rows, MESSAGE)
        self._messages["iov"] = self._iovecs.ctypes.data + np.arange(rows, dtype=np.uint64) * np.uint64(16)
        self._messages["iovlen"] = 1
        self._vectored = recvmmsg_available()
        if self._vectored:
            self._call = ctypes.CDLL(None, use_errno=True).sendmmsg
            self._call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]

    def _aim(self, address: UdpAddress, ports: Sequence[int]) -> None:
        if ports:
            self._destinations = [(address.host, port) for port in ports]
            self._names = np.stack([_name(UdpAddress(address.host, port)) for port in ports])
        else:
            self._socket.connect((address.host, address.port))

    def send(
        self,
        slab: npt.NDArray[np.uint8],
        lengths: npt.NDArray[np.integer],
        to: npt.NDArray[np.integer] | None = None,
    ) -> int:
        """Send the first ``lengths[i]`` bytes of each row i, to ``ports[to[i]]`` if there are several. Returns how many
        datagrams were sent: those that were refused are left out.
        """
        sent = 0
        for begin in range(0, len(slab), self._rows):
            part = slice(begin, begin + self._rows)
            sent += self._send_part(slab[part], lengths[part], None if to is None else to[part])
        return sent

    def _send_part(
        self, slab: npt.NDArray[np.uint8], lengths: npt.NDArray[np.integer], to: npt.NDArray[np.integer] | None
    ) -> int:
        n = len(slab)
        if not self._vectored:
            refused = 0
            for i, (row, length) in enumerate(zip(slab, lengths.tolist(), strict=True)):
                try:
                    if to is None:
                        self._socket.send(row[:length])
                    else:
                        self._socket.sendto(row[:length], self._destinations[int(to[i])])
                except ConnectionRefusedError:
                    refused += 1
                except OSError:
                    if not self._tolerant:
                        raise
                    refused += 1
            return n - refused
        if to is not None:
            self._messages["name"][:n] = self._names.ctypes.data + to.astype(np.uint64) * np.uint64(_NAME_BYTES)
            self._messages["namelen"][:n] = self._name_length
        self._iovecs["base"][:n] = slab.ctypes.data + np.arange(n, dtype=np.uint64) * np.uint64(slab.strides[0])
        self._iovecs["len"][:n] = lengths
        done = refused = 0
        while done < n:
            at = self._messages.ctypes.data + 64 * done
            count = self._call(self._socket.fileno(), at, n - done, 0)
            if count < 0:
                code = ctypes.get_errno()
                if code in (errno.EAGAIN, errno.ENOBUFS, errno.EINTR):
                    time.sleep(_RETRY_S)
                    continue
                # nobody listens (yet): that is reported once for each datagram, the next one may pass
                if code == errno.ECONNREFUSED or self._tolerant:
                    refused += 1
                    done += 1
                    continue
                raise OSError(code, os.strerror(code))
            done += count
        return n - refused

    def send_segments(self, packed: npt.NDArray[np.uint8], size: int) -> int:
        """Send contiguous datagrams of ``size`` bytes with UDP_SEGMENT, up to 64 with one call. Returns how many."""
        flat = packed.reshape(-1)
        step = min(_SEGMENTS_LIMIT, _CALL_BYTES // size) * size
        control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("H", size))]
        for begin in range(0, flat.size, step):
            while True:
                try:
                    self._socket.sendmsg([flat[begin : begin + step].data], control)
                    break
                except (BlockingIOError, ConnectionRefusedError):
                    time.sleep(_RETRY_S)
        return flat.size // size

    def close(self) -> None:
        self._socket.close()


class ScatterSender(BatchSender):
    """Sends each row to an address of its own, all from one port. What the network refuses is left out, not raised."""

    _tolerant = True

    def __init__(self, family: socket.AddressFamily, *, rows: int = 1024, send_buffer: int = 8 << 20) -> None:
        any_host = "::" if family == socket.AF_INET6 else "0.0.0.0"
        super().__init__(UdpAddress(any_host, 0), rows=rows, send_buffer=send_buffer)
        self._index: dict[UdpAddress, int] = {}

    def _aim(self, address: UdpAddress, ports: Sequence[int]) -> None:
        self._socket.bind((address.host, 0))

    def add(self, address: UdpAddress) -> int:
        """The index to give as ``to[i]`` of :meth:`send` for this address, which must be of the socket's family."""
        if address not in self._index:
            self._index[address] = len(self._index)
            self._destinations.append((address.host, address.port))
            self._names = np.concatenate([self._names, _name(address)[None]])
        return self._index[address]
