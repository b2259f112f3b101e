"""The packet socket and its ring: made, mapped, asked for what the kernel dropped (packet(7))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import BindError, ConfigurationError
from ..bpf import SO_ATTACH_FILTER, Instruction, attach
from ..udp.base import grant_buffer
from .layout import FRAME_BYTES, RESERVE_BYTES
from .long import LongPackets, LongQueue
from .odd import Mine
from .state import RingState

__all__ = ["PacketSocket", "ring_problem"]

U8 = npt.NDArray[np.uint8]

_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_RX_RING: Final = 5
_STATISTICS: Final = 6
_COPY_THRESH: Final = 7
_VERSION: Final = 10
_RESERVE: Final = 12
_VNET_HDR: Final = 15
_FANOUT: Final = 18
_FANOUT_DATA: Final = 22
_FANOUT_HASH: Final = 0
_FANOUT_CBPF: Final = 6
_FANOUT_DEFRAG: Final = 0x8000
_FANOUT_UNIQUE: Final = 0x2000
_PROMISCUOUS: Final = 1  # PACKET_MR_PROMISC
_V2: Final = 1
_BLOCK_FRAMES: Final = 64  # 15 pages of 4 KiB: so that blocks have no rest that is no frame
_BLOCK_BYTES: Final = _BLOCK_FRAMES * FRAME_BYTES
_FEWEST_BLOCKS: Final = 4
_LONG_QUEUE_BYTES: Final = 16 << 20  # at least, for packets that are longer than a frame

_HOW: Final = (
    "give the process CAP_NET_RAW: a container --cap-add NET_RAW, a systemd service AmbientCapabilities=CAP_NET_RAW, "
    "an interpreter of its own: setcap cap_net_raw+ep $(readlink -f .venv/bin/python) "
)


def ring_problem() -> str | None:
    """Why there can be no packet ring here, and what to do; None: there can."""
    if sys.platform != "linux" or sys.byteorder != "little":
        return "a packet ring needs Linux on a little-endian machine"
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return f"a packet ring needs the capability NET_RAW, which this process does not have: {_HOW}".strip()
        if error.errno == errno.EAFNOSUPPORT:
            return (
                "this process may not make packet sockets: the kernel lacks CONFIG_PACKET, or a systemd service needs "
                "AF_PACKET among its RestrictAddressFamilies="
            )
        return f"this process cannot make packet sockets: {error.strerror}"
    return None


class PacketSocket:
    """Packets of one EtherType (0x0003: all), as ``program`` lets them in, from one interface (by index; 0: all), into
    a ring of at most ``ring_bytes``.

    ``frames``  uint8 (n, FRAME_BYTES): the ring itself, shared with the kernel.
    ``state``   how far it has been read, and what the kernel counted; in memory of its own, unless it is given.
    ``lent``    another process made it, sets its program and asks the kernel for its figures.
    ``mine``    which datagrams are for this one of several; None: all.
    Raises ConfigurationError without the capability, BindError if there is no memory.
    """

    def __init__(
        self,
        ethertype: int,
        program: list[Instruction],
        interface: int,
        ring_bytes: int,
        *,
        state: RingState | None = None,
    ) -> None:
        problem = ring_problem()
        if problem is not None:
            raise ConfigurationError(f'transport "ring": {problem}')
        self.state = RingState() if state is None else state
        self.lent = False
        self.mine: Mine | None = None
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # takes nothing before it is bound
        try:
            self._set_up(ring_bytes)
            self.filter(program)
            _bind(self._socket, ethertype, interface)
        except OSError as error:
            self._socket.close()
            raise BindError(error.errno, f"cannot make a packet ring: {error.strerror or error}") from error

    @classmethod
    def lent_by(cls, sock: socket.socket, state: RingState, mine: Mine | None = None) -> Self:
        """The ring of a socket that another process has made and holds too. Raises OSError."""
        packets = cls.__new__(cls)
        packets.state, packets.lent, packets.mine, packets._socket = state, True, mine, sock
        packets._map(state.ring_bytes)
        return packets

    def _set_up(self, ring_bytes: int) -> None:
        sock = self._socket
        sock.setblocking(False)
        sock.setsockopt(_SOL_PACKET, _VERSION, _V2)
        sock.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _RESERVE, RESERVE_BYTES)
        sock.setsockopt(_SOL_PACKET, _COPY_THRESH, 1)
        grant_buffer(sock, max(ring_bytes // 2, _LONG_QUEUE_BYTES))
        blocks = max(ring_bytes // _BLOCK_BYTES, _FEWEST_BLOCKS)
        while True:
            try:
                request = struct.pack("=IIII", _BLOCK_BYTES, blocks, FRAME_BYTES, blocks * _BLOCK_FRAMES)
                sock.setsockopt(_SOL_PACKET, _RX_RING, request)
                break
            except OSError as error:
                if error.errno != errno.ENOMEM or blocks // 2 < _FEWEST_BLOCKS:
                    raise
                blocks //= 2
        self.state.ring_bytes = blocks * _BLOCK_BYTES
        self._map(self.state.ring_bytes)

    def _map(self, ring_bytes: int) -> None:
        self.ring_bytes = ring_bytes
        self._memory = mmap.mmap(self._socket.fileno(), ring_bytes)
        self._long = LongQueue(self._socket.fileno())
        self.frames: U8 = np.frombuffer(self._memory, np.uint8).reshape(-1, FRAME_BYTES)

    def fileno(self) -> int:
        return self._socket.fileno()

    def filter(self, program: list[Instruction]) -> None:
        """Let in what this program says from now on; if it is lent, that is its owner's affair. Raises OSError."""
        if not self.lent:
            attach(self._socket, SO_ATTACH_FILTER, program)

    def join_fragments(self) -> bool:
        """Have the kernel put fragments of IPv4 together before the program sees them; whether it does."""
        try:
            self._fan_out(_FANOUT_HASH, None)
        except OSError:
            return False
        return True

    def join(self, group: int | None) -> None:
        """Share the traffic with the members of a group, as its last one; None: with nobody, in a new group. Fragments
        of IPv4 are put together before that. Raises OSError."""
        self._fan_out(_FANOUT_CBPF, group)

    def _fan_out(self, kind: int, group: int | None) -> None:
        unique = _FANOUT_UNIQUE if group is None else 0  # the kernel chooses a number that no group has
        self._socket.setsockopt(_SOL_PACKET, _FANOUT, struct.pack("=HH", group or 0, kind | _FANOUT_DEFRAG | unique))

    @property
    def group(self) -> int:
        """The number of its group. Raises OSError."""
        return self._socket.getsockopt(_SOL_PACKET, _FANOUT) & 0xFFFF

    def steer(self, program: list[Instruction]) -> None:
        """This program says which member of the group gets a packet. Raises OSError."""
        attach(self._socket, _FANOUT_DATA, program, level=_SOL_PACKET)

    def watch_all_of(self, interface: int) -> None:
        """Packets to other machines too, as long as this socket is open. Raises OSError."""
        self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("=iHH8s", interface, _PROMISCUOUS, 0, b""))

    def count(self) -> None:
        """Bring the state up to date. The kernel's own figures go back to zero when they are read."""
        if self.lent or self._socket.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            packets, drops = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
            self.state.count(packets - drops, drops)

    def long_packets(self, frames: U8) -> LongPackets:
        """The packets that were longer than these frames, whole."""
        return self._long.take(frames)

    def check(self) -> None:
        """Raises OSError if the interface has gone."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "the interface is down" if code == errno.ENETDOWN else errno.errorcode.get(code, "?"))

    def close(self) -> None:
        """The memory goes with the last array over it."""
        self.count()
        self.frames = np.zeros((0, FRAME_BYTES), np.uint8)
        self._socket.close()


def _bind(sock: socket.socket, ethertype: int, interface: int) -> None:
    """By index, 0 being all, which Python's own bind() does not know. Raises OSError."""
    address = struct.pack("=HHiHBB8x", socket.AF_PACKET, socket.htons(ethertype), interface, 0, 0, 0)
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
