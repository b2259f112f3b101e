"""One ring, read for all ports: what is ready in it becomes batches, and is given back in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import DatagramBatch
from ..udp.clock import SteadyClock
from ..udp.stamps import Stamps
from .frames import BATCH_FRAMES, Decoder, FrameDecoder
from .layout import COPIED, FRAME_BYTES, READY, IpVersion
from .long import NONE
from .packet_socket import PacketSocket
from .ports import PortTable
from .programs import port_program, ranges_of

__all__ = ["PortRing", "RingReader"]

I64 = npt.NDArray[np.int64]

_FIRST_LOOK: Final = 64  # frames whose status is looked at at once, at least
_LOOKED_AT: Final = np.uint32(READY | COPIED)
_WHEN: Final = 16  # in a frame's header: seconds and nanoseconds
_SECONDS: Final = np.uint64(0xFFFF_FFFF)


class RingReader:
    """Gives what is in the ring of ``packets`` as ``decoder`` makes it of the frames."""

    def __init__(self, packets: PacketSocket, decoder: Decoder, *, name: str, clock: SteadyClock) -> None:
        self._socket = packets
        self._decoder = decoder
        self._stamps = Stamps(clock)
        self.name = name
        self.granted_buffer = packets.ring_bytes
        self.full = False
        self.closed = False
        self._state = packets.state
        self._status = packets.frames.view(np.uint32)[:, 0]
        self._when = np.ndarray((len(packets.frames),), "<u8", packets.frames, _WHEN, (FRAME_BYTES,))
        self._last_count = 0  # of frames that were ready
        self._copied = False  # whether packets among them wait in the socket's queue
        self._at = self._oldest()  # the oldest frame that was not given back
        self._held_arrival = np.zeros(0, np.int64)  # of the first frames, which were looked at and left there

    def _oldest(self) -> int:
        """Where to go on. A reader that was killed while it gave frames back has left the last of them."""
        state, frames = self._state, len(self._status)
        between = np.arange(state.given, state.taken) % frames
        left = np.flatnonzero(self._status[between] & READY)
        state.resume(state.given + int(left[0]) if left.size else state.taken)
        return state.taken % frames

    # --- reading --------------------------------------------------------------------------------------------------

    def receive(self, before_ns: int | None = None, limit: int | None = None) -> DatagramBatch | None:
        """As :meth:`UdpSocket.receive`."""
        while True:
            self._stamps.begin()
            count = self._ready(min(limit or BATCH_FRAMES, BATCH_FRAMES))
            if not count:
                self._stamps.none()
                self._socket.check()
                return None
            batch = self._take(count, before_ns)
            if batch is not None or not self.full or self.held_back:
                return batch

    def _ready(self, most: int) -> int:
        """How many frames are ready, one behind the other, up to the ring's last; sets ``full``."""
        room = min(most, len(self._status) - self._at)
        end = self._state.end
        if end is not None:
            room = min(room, end - self._state.taken)
        status = self._status[self._at : self._at + room]
        count, look = 0, max(_FIRST_LOOK, self._last_count)
        self._copied = False
        while count < room:
            bits = status[count : count + look] & _LOOKED_AT
            if (bits != READY).any():
                self._copied |= bool((bits & COPIED).any())
                if not bits.all():
                    count += int(bits.argmin())
                    break
            count += len(bits)
            look = max(_FIRST_LOOK, count // 4)  # what is not ready yet costs as much to look at
        self._last_count = count
        self.full = 0 < count == room
        return count

    def _take(self, count: int, before_ns: int | None) -> DatagramBatch | None:
        begin = self._at
        frames = self._socket.frames[begin : begin + count]
        held = len(self._held_arrival)
        arrival = self._held_arrival[:count]
        if count > held:
            arrived = self._stamps.take(_stamps_of(self._when[begin + held : begin + count]), not self.full)
            arrival = np.concatenate([arrival, arrived]) if held else arrived
        self._held_arrival = self._held_arrival[count:]
        if before_ns is not None and arrival[-1] >= before_ns:
            cut = int((arrival >= before_ns).argmax())
            if cut >= count - BATCH_FRAMES // 2:
                self._held_arrival = np.concatenate([arrival[cut:], self._held_arrival])
                self.full = False
                count, frames, arrival = cut, frames[:cut], arrival[:cut]
                if not count:
                    return None
        long = self._socket.long_packets(frames) if self._copied else NONE
        try:
            return self._decoder.decode(frames, arrival, long)
        finally:
            self._state.take(count)
            self._status[begin : begin + count] = 0  # the kernel's again
            self._state.give()
            self._at = begin + count if begin + count < len(self._status) else 0

    @property
    def held_back(self) -> int:
        """Frames that were looked at and are left for the next time."""
        return len(self._held_arrival)

    def fileno(self) -> int:
        return self._socket.fileno()

    # --- figures and the end --------------------------------------------------------------------------------------

    def kernel_dropped(self) -> int:
        """Packets that found no free frame; of the time before :meth:`shut`, once that is over."""
        self._socket.count()
        return self._state.dropped_before_end

    def shut(self) -> None:
        """What the kernel puts into the ring from now on is not given any more, only counted. If the ring is lent, its
        owner shuts the door, for all who read it in turn."""
        if not self._socket.lent and self._state.end is None:
            self._socket.count()
            self._state.shut()

    def after_end(self) -> int:
        """Frames that came after :meth:`shut`; if the ring is lent, its owner counts them."""
        self._socket.count()
        return 0 if self._socket.lent else self._state.after_end

    def count_rest(self) -> int:
        """Frames that have come, before :meth:`shut` if the door is shut, and were not taken; if the ring is lent, they
        wait for whoever goes on."""
        self._socket.count()
        return 0 if self._socket.lent else self._state.rest

    def close(self) -> None:
        """Give all memory back."""
        self.closed = True
        self._status, self._when = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
        self._socket.close()


def _stamps_of(when: npt.NDArray[np.uint64]) -> I64:
    """Seconds and nanoseconds, as headers of frames have them, in ns."""
    stamps: I64 = (when & _SECONDS).view(np.int64)
    stamps *= 1_000_000_000
    stamps += (when >> np.uint64(32)).view(np.int64)
    return stamps


class PortRing(RingReader):
    """The ring of all ports that are bound, of one version of IP: that of ``packets``, which let nothing in yet.
    ``skipped`` counts by cause what came and is no usable datagram of ours; ``local`` holds the machine's addresses."""

    def __init__(
        self,
        version: IpVersion,
        packets: PacketSocket,
        *,
        clock: SteadyClock,
        local: Container[bytes],
        skipped: Counter[str],
    ) -> None:
        self._version = version
        self.interfaces: set[int] | None = set()
        """By index, where what is for its ports comes by; None: all."""
        self._ports = PortTable(version.address_bytes)
        self._open = np.zeros(1 << 16, np.bool_)  # ports that the program lets in
        self._program = port_program(version, [])
        decoder = FrameDecoder(version, self._ports, local, skipped, packets.mine)
        super().__init__(packets, decoder, name=f"the packet ring of IPv{version.number}", clock=clock)

    def bind(self, port: int, host: bytes, interfaces: Collection[int]) -> None:
        """Read this port too. ``host`` is the address that it is bound to, all zeros: any; what is for it comes by one
        of ``interfaces`` (by index; none: all). Raises OSError."""
        self._ports.bind(port, host)
        self._open[port] = True
        if interfaces and self.interfaces is not None:
            self.interfaces |= set(interfaces)
        else:
            self.interfaces = None
        self._let_in()

    def stop(self, port: int) -> None:
        """Let nothing more in that is for this port. What has come of it is given until :meth:`forget`. Raises
        OSError."""
        self._open[port] = False
        self._let_in()

    def forget(self, port: int) -> None:
        """What is in the ring for this port is nobody's."""
        self._ports.unbind(port)
        self.stop(port)

    def _let_in(self) -> None:
        if self.closed:
            return
        program = port_program(self._version, ranges_of(self._open), sorted(self.interfaces or ()))
        if program != self._program:
            self._socket.filter(program)
            self._program = program
