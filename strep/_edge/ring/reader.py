"""One ring, read for all ports: what is ready in it becomes batches, and is given back in order."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Collection, Container
from typing import Final

import numpy as np
import numpy.typing as npt

from ..._model.datagrams import DatagramBatch
from ..udp.clock import SteadyClock
from ..udp.stamps import Stamps
from .frames import BATCH_FRAMES, FrameDecoder
from .layout import COPIED, READY, IpVersion
from .packet_socket import PacketSocket
from .ports import PortTable
from .programs import port_program

__all__ = ["RingReader"]

I64 = npt.NDArray[np.int64]

_FIRST_LOOK: Final = 64  # frames whose status is looked at; four times as many each time that all were ready


class RingReader:
    """Gives the datagrams of all ports that are bound (:meth:`bind`), of one version of IP.

    Raises ConfigurationError without the capability, BindError.
    """

    transport = "ring"

    def __init__(
        self,
        version: IpVersion,
        *,
        ring_bytes: int,
        clock: SteadyClock,
        local: Container[bytes],
    ) -> None:
        self._version = version
        self._interfaces: set[int] | None = set()  # None: all
        self._clock = clock
        self._ports = PortTable(version.address_bytes)
        self._stopped: set[int] = set()
        self.skipped: Counter[str] = Counter()
        """What came and is no usable datagram of ours, by cause."""
        self._program = port_program(version, ())
        self._socket = PacketSocket(version.ethertype, self._program, 0, ring_bytes)
        self._socket.join_fragments()
        self._decoder = FrameDecoder(version, self._ports, local, self.skipped)
        self._stamps = Stamps(clock)
        self.granted_buffer = self._socket.ring_bytes
        self.full = False
        self._status = self._socket.frames.view(np.uint32)[:, 0]
        self._at = 0  # the oldest frame that was not given back
        self._taken = 0  # frames that were given back
        self._end: int | None = None  # how many frames were stored when the door was shut
        self._dropped_at_end = 0
        self._held_arrival = np.zeros(0, np.int64)  # of the first frames, which were looked at and left there

    # --- ports ----------------------------------------------------------------------------------------------------

    def bind(self, port: int, host: bytes, interfaces: Collection[int]) -> None:
        """Read this port too. ``host`` is the address that it is bound to, all zeros: any; what is for it comes by one
        of ``interfaces`` (by index; none: all). Raises OSError."""
        self._ports.bind(port, host)
        self._stopped.discard(port)
        if interfaces and self._interfaces is not None:
            self._interfaces |= set(interfaces)
        else:
            self._interfaces = None
        self._let_in()

    def stop(self, port: int) -> None:
        """Let nothing more in that is for this port. What has come of it is given until :meth:`forget`. Raises
        OSError."""
        self._stopped.add(port)
        self._let_in()

    def forget(self, port: int) -> None:
        """What is in the ring for this port is nobody's."""
        self._ports.unbind(port)
        self._stopped.discard(port)
        self._let_in()

    def _let_in(self) -> None:
        program = port_program(self._version, self._ports.ports - self._stopped, self._interfaces or ())
        if program != self._program:
            self._socket.filter(program)
            self._program = program

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
        if self._end is not None:
            room = min(room, self._end - self._taken)
        status = self._status[self._at : self._at + room]
        count, look = 0, _FIRST_LOOK
        while count < room:
            ready = (status[count : count + look] & READY) != 0
            if not ready.all():
                count += int(ready.argmin())
                break
            count += len(ready)
            look *= 4
        self.full = 0 < count == room
        return count

    def _take(self, count: int, before_ns: int | None) -> DatagramBatch | None:
        begin = self._at
        frames = self._socket.frames[begin : begin + count]
        held = len(self._held_arrival)
        arrival = self._held_arrival[:count]
        if count > held:
            words = frames.view(np.uint32)[held:, 4:6].astype(np.int64)
            stamps = words[:, 0] * 1_000_000_000
            stamps += words[:, 1]
            arrival = np.concatenate([arrival, self._stamps.take(stamps, not self.full)])
        self._held_arrival = self._held_arrival[count:]
        if before_ns is not None and arrival[-1] >= before_ns:
            cut = int((arrival >= before_ns).argmax())
            if cut >= count - BATCH_FRAMES // 2:
                self._held_arrival = np.concatenate([arrival[cut:], self._held_arrival])
                self.full = False
                count, frames, arrival = cut, frames[:cut], arrival[:cut]
                if not count:
                    return None
        copied = int(np.count_nonzero(self._status[begin : begin + count] & COPIED))
        long = [self._socket.long_packet() for _ in range(copied)]
        try:
            return self._decoder.decode(frames, arrival, long)
        finally:
            self._status[begin : begin + count] = 0  # the kernel's again
            self._taken += count
            self._at = begin + count if begin + count < len(self._status) else 0

    @property
    def name(self) -> str:
        """For people."""
        return f"the ring of IPv{self._version.number}"

    @property
    def held_back(self) -> int:
        """Frames that were looked at and are left for the next time."""
        return len(self._held_arrival)

    @property
    def joined(self) -> int:
        """Datagrams of fragments that were put together here, and not by the kernel."""
        return self._decoder.joined

    def fileno(self) -> int:
        return self._socket.fileno()

    async def attach(self, loop: AbstractEventLoop, wake: Callable[[], object]) -> None:
        raise NotImplementedError("a packet ring needs a loop that watches file descriptors")

    def now_ns(self) -> int:
        return self._clock.now_ns()

    # --- figures and the end --------------------------------------------------------------------------------------

    def kernel_dropped(self) -> int:
        """Packets that found no free frame; of the time before :meth:`shut`, once that is over."""
        self._socket.count()
        return self._dropped_at_end if self._end is not None else self._socket.dropped

    def shut(self) -> None:
        """What the kernel puts into the ring from now on is not given any more, only counted."""
        if self._end is None:
            self._socket.count()
            self._end, self._dropped_at_end = self._socket.stored, self._socket.dropped

    def after_end(self) -> int:
        """Frames that came after :meth:`shut`."""
        if self._end is None:
            return 0
        self._socket.count()
        return self._socket.stored - self._end + self._socket.dropped - self._dropped_at_end

    def count_rest(self) -> int:
        """Frames that have come, before :meth:`shut` if the door is shut, and were not taken."""
        self._socket.count()
        return (self._socket.stored if self._end is None else self._end) - self._taken

    def close(self) -> None:
        """Give all memory back."""
        self._status = np.zeros(0, np.uint32)
        self._socket.close()
