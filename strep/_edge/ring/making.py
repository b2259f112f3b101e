"""Packet sockets as a receiver has them: of its own, one of several that share the traffic, or lent by another process.

Members of a group (PACKET_FANOUT) are numbered in the order in which they join. When one leaves, the last takes its
place; one that makes its ring after it has joined has left and comes last. So rings are made first, and nobody leaves:
whoever made the sockets holds them as long as the group is read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Final

from ..._model.exceptions import StrepError
from ..bpf import DROP, Instruction
from .layout import IPV4, IPV6, IpVersion
from .odd import Mine
from .packet_socket import PacketSocket
from .state import RingStates

__all__ = ["Group", "MakePacketSocket", "group_problem", "lent_sockets", "own_socket"]

MakePacketSocket = Callable[[IpVersion, int], PacketSocket]
"""Makes one for a version of IP, whose ring has so many bytes, and which lets nothing in. Raises ConfigurationError,
BindError."""

_STATE_OF: Final = {IPV4: 0, IPV6: 1}
_STATES: Final = len(_STATE_OF)  # of each member


def group_problem() -> str | None:
    """Why the kernel does not share a ring's traffic among several; None: it does."""
    group = Group(2, lambda version: [DROP])
    made: list[PacketSocket] = []
    try:
        made += [group.maker(number)(IPV4, 0) for number in range(2)]
    except (OSError, StrepError) as error:
        return f"the kernel does not share packets among rings (PACKET_FANOUT): {error}"
    finally:
        for packets in made:
            packets.close()
        group.close()
    return None


def own_socket(version: IpVersion, ring_bytes: int) -> PacketSocket:
    """One that has all of the traffic."""
    packets = PacketSocket(version.ethertype, [DROP], 0, ring_bytes)
    if version is IPV4:
        packets.join_fragments()
    return packets


class Group:
    """Sockets of ``members`` readers, who share the traffic as ``program`` says, of each version of IP: its result is
    the number of the reader."""

    def __init__(self, members: int, program: Callable[[IpVersion], list[Instruction]]) -> None:
        self._states = RingStates(_STATES * members)
        self._program = program
        self._members: dict[IpVersion, list[PacketSocket]] = {}

    @property
    def fd(self) -> int:
        """The file descriptor of the states, for :func:`lent_sockets`."""
        return self._states.fd

    def maker(self, number: int) -> MakePacketSocket:
        """Makes those of one reader; for the readers in order. Raises OSError if the kernel has no groups."""

        def make(version: IpVersion, ring_bytes: int) -> PacketSocket:
            state = self._states.of(_STATES * number + _STATE_OF[version])
            packets = PacketSocket(version.ethertype, [DROP], 0, ring_bytes, state=state)
            others = self._members.setdefault(version, [])
            try:
                if others:
                    packets.join(others[0].group)
                else:
                    packets.join(None)
                    packets.steer(self._program(version))
            except OSError:
                packets.close()
                raise
            others.append(packets)
            return packets

        return make

    def close(self) -> None:
        """The sockets are not closed."""
        self._states.close()


def lent_sockets(
    sockets: Iterable[socket.socket], states: int, number: int, mine: Mine | None = None
) -> MakePacketSocket:
    """Gives reader ``number`` its sockets of a group that another process has made. ``states`` is :attr:`Group.fd`;
    ``mine``: which datagrams are this reader's."""
    of = {sock.getsockname()[1]: sock for sock in sockets}  # by EtherType
    every = RingStates(_STATES * (number + 1), states)

    def make(version: IpVersion, ring_bytes: int) -> PacketSocket:
        state = every.of(_STATES * number + _STATE_OF[version])
        return PacketSocket.lent_by(of[version.ethertype], state, mine)

    return make
