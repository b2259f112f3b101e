"""When what is ready leaves the engine, and what it becomes: the policy of whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Release"]


@dataclass(frozen=True, slots=True)
class Release:
    """How promptly an engine sends off what is ready, and whether anybody wants audio.

    It changes when blocks come and how they are cut, never the samples, their positions or the figures.

    ``within_ns``  packets that are ready leave within this time, in ns; 0: at once. A batch costs the same whatever is
                   in it, so fewer and larger ones are cheaper
    ``groups``     streams take turns within that time, in so many groups: smaller batches, which stay in the CPU cache
    ``prompt``     what waited behind a lost packet leaves at its deadline; False: together with whatever leaves next
    ``audio``      somebody wants blocks; False: packets are only placed and counted
    ``payloads``   payloads are kept even while nobody wants audio, so that audio that is wanted later begins with the
                   packets that wait; False: it begins with the packets that come after it was wanted
    """

    within_ns: int = 200_000_000
    groups: int = 1
    prompt: bool = True
    audio: bool = True
    payloads: bool = True
