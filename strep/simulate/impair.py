"""What the network does to packets on their way: loss, copies, reordering, jitter; and the record of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError

__all__ = ["Impairments", "SendingOrder", "impair"]

I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_HELD_PTIMES: Final = 3  # packet times that a reordered packet is held back at most
_JITTER_LIMIT_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Impairments:
    """What happens on the way: probabilities per packet, and a uniform random delay.

    Raises ConfigurationError for what is no probability, for a negative or absurd delay, and for bursts so short that
    the loss cannot be reached with them.
    """

    loss: float = 0.0
    duplicate: float = 0.0  # the copy comes up to two packet times after the packet
    reorder: float = 0.0  # held back by one to three packet times
    jitter_ms: float = 0.0  # uniform from 0; packets overtake each other only where it is longer than their distance
    protect_first: int = 0  # packets at each stream's beginning that are left alone
    burst: float = 0.0  # mean length of a run of lost packets (Gilbert's model); 0: each is lost or not by itself

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} {getattr(self, name)}: a probability from 0 to 1")
        if not 0 <= self.jitter_ms <= _JITTER_LIMIT_MS:
            raise ConfigurationError(f"jitter {self.jitter_ms} ms: choose 0 to {_JITTER_LIMIT_MS}")
        if self.protect_first < 0:
            raise ConfigurationError(f"protect_first {self.protect_first}: 0 or more packets")
        shortest = max(1.0, self.loss / (1 - self.loss)) if self.loss < 1 else 1.0
        if self.burst and not shortest <= self.burst < float("inf"):
            raise ConfigurationError(
                f"burst {self.burst}: runs of lost packets are {shortest:g} long or longer in the mean at this loss; "
                "0 for independent loss"
            )


@dataclass(frozen=True, slots=True)
class SendingOrder:
    """Datagrams in order of sending, and what was done to which packet.

    Per datagram (n,): ``time_ns`` int64, ``stream`` int64, ``number`` int64 of the packet in its stream, ``copy`` bool
    (the second of a doubled packet). Per packet (streams, packets): ``lost``, ``doubled``, ``held``. Per stream:
    ``reordered`` int64: packets that came, not as a copy, after one of a higher number.
    """

    time_ns: I64
    stream: I64
    number: I64
    copy: Bool
    lost: Bool
    doubled: Bool
    held: Bool
    reordered: I64


def impair(time_ns: I64, ptime_ns: int, impairments: Impairments, rng: np.random.Generator) -> SendingOrder:
    """Let packets with the intended send times ``time_ns``, int64 (streams, packets), suffer."""
    streams, packets = time_ns.shape
    free = np.arange(packets) >= impairments.protect_first
    chance = rng.random((3, streams, packets))
    lost = _lost(chance[0], impairments) & free
    doubled = (chance[1] < impairments.duplicate) & free & ~lost
    held = (chance[2] < impairments.reorder) & free & ~lost
    # half a packet time more than whole ones: it falls between two others, not on one of them
    delay = np.where(held, rng.integers(1, _HELD_PTIMES + 1, lost.shape) * ptime_ns + ptime_ns // 2, 0)
    delay += (rng.random(lost.shape) * (impairments.jitter_ms * 1e6)).astype(np.int64) * free
    sent_ns = time_ns + delay
    copy_ns = sent_ns[doubled] + rng.integers(0, 2 * ptime_ns, int(doubled.sum()))
    kept_stream, kept_number = np.nonzero(~lost)
    copy_stream, copy_number = np.nonzero(doubled)
    times = np.concatenate([sent_ns[~lost], copy_ns])
    order = np.argsort(times, kind="stable")  # stable: a copy at the same time stands behind
    stream = np.concatenate([kept_stream, copy_stream])[order]
    number = np.concatenate([kept_number, copy_number])[order]
    copy = order >= len(kept_stream)
    return SendingOrder(
        time_ns=times[order],
        stream=stream,
        number=number,
        copy=copy,
        lost=lost,
        doubled=doubled,
        held=held,
        reordered=_reordered(stream, number, copy, streams, packets),
    )


def _lost(chance: npt.NDArray[np.float64], impairments: Impairments) -> Bool:
    loss = impairments.loss
    if not impairments.burst or not 0 < loss < 1:
        return chance < loss
    # Gilbert: out of the bad state with 1/burst, into it so often that its share of the time is `loss`
    leave = 1 / impairments.burst
    enter = leave * loss / (1 - loss)
    lost = np.empty(chance.shape, np.bool_)
    bad = chance[:, 0] < loss
    lost[:, 0] = bad
    for k in range(1, chance.shape[1]):
        bad = np.where(bad, chance[:, k] >= leave, chance[:, k] < enter)
        lost[:, k] = bad
    return lost


def _reordered(stream: I64, number: I64, copy: Bool, streams: int, packets: int) -> I64:
    order = np.argsort(stream, kind="stable")
    order = order[~copy[order]]  # a copy never has the highest number first: its packet came before it
    # streams one behind the other as one row of numbers: the maximum so far never reaches into the next stream
    position = stream[order] * packets + number[order]
    behind = position < np.maximum.accumulate(position)
    return np.bincount(stream[order][behind], minlength=streams).astype(np.int64)
