"""How fast a source's timestamps run, packet by packet: what tells media of which many packets are lost from noise.

The *pace* of a packet is its timestamp's step since the packet before it of the same source, by its sequence number's:
timestamp units a packet. It is 0 where the two do not advance together: another packet is further than 10 sequence
numbers away, or its timestamp is no later.

Example: sequence numbers 7, 9, 11, 14 with timestamps 1120, 1440, 1760, 2240 are of pace 160, each of the last three.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["PACES", "are_steady", "paces"]

F32 = npt.NDArray[np.float32]

PACES: Final = 3  # one after the other, and alike, are media: of four packets
_FURTHEST: Final = 10  # so far is the next packet away, in sequence numbers
_ALIKE: Final = np.float32(1.25)  # timestamps that are made from a clock are not quite regular


def paces(
    prior_sequence: npt.NDArray[np.uint16],
    sequence: npt.NDArray[np.uint16],
    prior_timestamp: npt.NDArray[np.uint32],
    timestamp: npt.NDArray[np.uint32],
) -> F32:
    """Float32 (n,), timestamp units a packet; 0: the two do not advance together."""
    step = sequence - prior_sequence  # modulo 65,536
    ticks = (timestamp - prior_timestamp).view(np.int32)
    together = (step >= 1) & (step <= _FURTHEST) & (ticks > 0)
    pace: F32 = np.zeros(len(step), np.float32)
    np.divide(ticks, step, out=pace, where=together, casting="unsafe")
    return pace


def are_steady(first: F32, second: F32, third: F32) -> npt.NDArray[np.bool_]:
    """Whether paces of packets one after the other are such as media have, bool (n,)."""
    least = np.minimum(np.minimum(first, second), third)
    steady: npt.NDArray[np.bool_] = least > 0
    steady &= np.maximum(np.maximum(first, second), third) <= least * _ALIKE
    return steady
