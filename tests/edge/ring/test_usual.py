"""That all packets of a batch are usual is told from a few words; the oracle is the look at each of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from depth import usual_or_slow
from ring_frames import HERE, HERE6, STATUS_NOT_READY, STATUS_USER, STATUS_VALID, Frame, ipv4, ipv6, ring_of, udp

from strep._edge.ring.layout import FRAME_BYTES, IPV4, IPV6, IpVersion
from strep._edge.ring.usual import Heads, field, usual_rows

U8 = npt.NDArray[np.uint8]
MOST = 1000
SIZES = (0, 12, 196, 800)
SEEN = (*range(24), *range(72, 148))  # bytes of a frame that may be looked at


def kinds(version: IpVersion, status: int) -> U8:
    """Usual frames: of four lengths, two ports, two addresses of this machine."""
    made, to, wrap = (ipv4, (HERE, "10.0.0.9"), HERE) if version is IPV4 else (ipv6, (HERE6, "2001:db8::9"), HERE6)
    of = wrap.replace("1", "7")
    frames = [
        Frame(made(udp(bytes(size), there, of, port=port), there, of), status)
        for size in SIZES
        for port in (9000, 9300)
        for there in to
    ]
    return ring_of(frames)[0]


@pytest.mark.parametrize("status", [STATUS_USER | STATUS_VALID, STATUS_USER | STATUS_NOT_READY])
@pytest.mark.parametrize("version", [IPV4, IPV6])
@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, MOST])
def test_usual_packets_are_known_and_what_they_have_in_common(version: IpVersion, status: int, n: int) -> None:
    rng, all_kinds = np.random.default_rng(n), kinds(version, status)
    heads = Heads(version, MOST)
    found = Counter[tuple[bool, bool, bool]]()
    for some in (1, 2, 4, 8, 16, 1):  # kinds among them
        frames = all_kinds[rng.choice(len(all_kinds), some, replace=False)[rng.integers(0, some, n)]]
        assert usual_rows(frames, version).all()
        heads.take(frames)
        common = heads.common(frames)
        assert common is not None
        length, port = (field(frames, version.udp + at, ">u2").astype(int) for at in (4, 2))
        host = frames[:, 100 + version.destination :][:, : version.address_bytes]
        # what is said is so; where packets are as those before, it is also said
        same = bool((length == length[0]).all()), bool((port == port[0]).all()), bool((host == host[0]).all())
        said = common.length is not None, common.port is not None, common.destination
        assert all(is_so for is_so, it_is_said in zip(same, said, strict=True) if it_is_said)
        assert common.length in (None, length[0] - 8)
        assert common.port in (None, port[0])
        heads.take(frames)
        again = heads.common(frames)
        assert again is not None
        assert (again.length is not None, again.port is not None, again.destination) == same
        found[same] += 1
    assert len(found) > 1 or n == 1


@pytest.mark.parametrize("version", [IPV4, IPV6])
def test_no_packet_that_is_not_usual_hides_among_others(version: IpVersion) -> None:
    """One byte of one packet among many is changed, and what was learned before must not deceive."""
    rng, told = np.random.default_rng(5), Counter[bool]()
    all_kinds = kinds(version, STATUS_USER | STATUS_VALID)
    heads = Heads(version, MOST)
    for _ in range(usual_or_slow(2000, 50_000)):
        n = int(rng.integers(1, 80))
        frames = all_kinds[rng.integers(0, len(all_kinds), n)]
        frames[rng.integers(n), rng.choice(SEEN)] ^= rng.integers(1, 256)
        heads.take(frames)
        common = heads.common(frames)
        usual = bool(usual_rows(frames, version).all())
        assert usual or common is None
        told[usual] += 1
    assert min(told.values()) > 100


def test_frames_of_another_link_are_learned_anew() -> None:
    """From Ethernet to a link without a header, and back."""
    heads = Heads(IPV4, MOST)
    bare = ring_of([Frame(ipv4(udp(bytes(172))), STATUS_USER | STATUS_VALID, b"")] * 3)[0]
    ethernet = ring_of([Frame(ipv4(udp(bytes(172))))] * 3)[0]
    cut = ring_of([Frame(ipv4(udp(bytes(172))), STATUS_USER | STATUS_VALID, b"", room=180)] * 3)[0]
    for frames, usual in ((bare, True), (ethernet, True), (bare, True), (cut, False), (ethernet, True)):
        assert frames.shape == (3, FRAME_BYTES)
        heads.take(frames)
        assert (heads.common(frames) is not None) == usual == bool(usual_rows(frames, IPV4).all())
