"""Datagrams of every kind that steering looks at."""

from __future__ import annotations

import random
import uuid

from support import leg_id, packet


def of_every_kind(rng: random.Random) -> list[bytes]:
    calls = [leg_id(n) for n in range(30)] + [uuid.UUID(int=rng.getrandbits(128)) for _ in range(100)]
    media = [packet(k, call=c, leg=leg, direction=d) for c in calls for leg in (0, 1) for d in (0, 1) for k in (0, 1)]
    plain = [packet(5, call=None, ssrc=rng.getrandbits(32)) for _ in range(200)] + [
        packet(6, call=None, ssrc=n) for n in range(50)
    ]
    noise = [rng.randbytes(rng.randrange(1500)) for _ in range(400)]
    cut = [bytes([first]) * length for length in range(41) for first in (0x00, 0x40, 0x80, 0x90, 0xC4, 0xC7, 0xFF)]
    cut += [whole[:length] for whole in (media[0], plain[0]) for length in range(41)]
    return media + plain + noise + cut
