"""Packed codecs: how they are spelled, how much audio payloads stand for; against libopus and RFC 4867."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from amr_payloads import SPELLED, amr_payloads
from hypothesis import given, settings
from hypothesis import strategies as st

from strep._codecs import amr, libopus
from strep._codecs.counts import HEAD_BYTES, frame_count, frame_counts
from strep._codecs.facts import CODECS, parse_codec
from strep._model.exceptions import ConfigurationError


@pytest.mark.parametrize("spelled", SPELLED)
def test_codecs_are_spelled_as_in_sdp(spelled: str) -> None:
    codec = parse_codec(spelled)
    assert str(codec) == spelled
    assert codec.packed
    assert parse_codec(spelled.lower()) == codec
    assert codec.sample_rate == {"G722": 16_000}.get(codec.name, codec.clock_rate)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("AMR-WB/16000; mode-set=0,2,8; octet-align=1; crc=0", "AMR-WB/16000;octet-align=1"),
        ("AMR/8000;mode-change-capability=2", "AMR/8000"),
        ("opus/48000/2;minptime=10;useinbandfec=1", "opus/48000/2"),
        ("G729/8000;annexb=no", "G729/8000"),
        ("iLBC;mode=20", "iLBC/8000"),
    ],
)
def test_parameters_of_sdp_that_make_no_difference_are_left_out(spelled: str, meant: str) -> None:
    assert str(parse_codec(spelled)) == meant


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("G722/48000", "runs at 8000 Hz, not 48000; of senders that are wrong: 1000, 16000"),
        ("opus/44100", "runs at 48000 Hz, not 44100"),
        ("opus/48000/3", "1 or 2 channels"),
        ("AMR/8000/2", "choose one"),
        ("AMR/8000;octet-align=2", "octet-align=0 or octet-align=1"),
        ("AMR-WB/16000;octet-align=1;crc=1", "crc are not understood"),
        ("AMR/8000; interleaving=5", "interleaving are not understood"),
        ("PCMU/8000;x=1", "is not decoded here"),
        ("EVS/16000", "opus/48000"),
    ],
)
def test_what_no_codec_has_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse_codec(wrong)


def test_static_payload_types() -> None:
    static = {number: str(parse_codec(s)) for r in CODECS.values() if r.packed for number, s in r.static_types.items()}
    assert static == {3: "GSM/8000", 9: "G722/8000", 18: "G729/8000"}
    assert all(row.name.upper() == key for key, row in CODECS.items())


def matrix(payloads: list[bytes], garbage: int) -> tuple[np.ndarray, np.ndarray]:
    heads = np.full((len(payloads), HEAD_BYTES + 3), garbage, np.uint8)
    for row, payload in zip(heads, payloads, strict=True):
        row[: len(payload)] = np.frombuffer(payload[: len(row)], np.uint8)
    return heads, np.array([len(p) for p in payloads], np.int64)


PAYLOADS = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([2, 10, 12, 20, 33, 38, 50, 66, 76, 100, 114, 950]).flatmap(lambda n: st.just(bytes(n))),
    amr_payloads(False),
    amr_payloads(True),
)


@pytest.mark.parametrize("spelled", SPELLED)
@given(payloads=st.lists(PAYLOADS, max_size=8), garbage=st.integers(0, 255))
@settings(max_examples=30, deadline=None)
def test_many_at_once_as_one_by_one(spelled: str, payloads: list[bytes], garbage: int) -> None:
    """Whatever stands behind a payload's end."""
    codec = parse_codec(spelled)
    counts = frame_counts(codec, *matrix(payloads, garbage))
    assert counts.dtype == np.int64
    assert counts.tolist() == [frame_count(codec, p) for p in payloads]


@pytest.mark.skipif(libopus.load() is None, reason="libopus is not installed")
def test_opus_counts_are_those_of_libopus() -> None:
    """All first bytes, with all second bytes."""
    codec = parse_codec("opus/48000/2")
    payloads = [bytes([toc]) for toc in range(256)]
    payloads += [bytes([toc, second, 0]) for toc in range(256) for second in range(256)]
    library = libopus.load()
    assert library is not None
    samples = library.opus_packet_get_nb_samples
    samples.restype, samples.argtypes = ctypes.c_int, [ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32]
    theirs = [max(0, samples(p, len(p), 48_000)) for p in payloads]
    assert frame_counts(codec, *matrix(payloads, 0x5A)).tolist() == theirs
    assert [frame_count(codec, p) for p in payloads] == theirs
    assert frame_count(codec, b"") == 0
    assert sum(n > 0 for n in theirs) > 10_000


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_amr_survives_packing_in_both_formats(wide: bool, aligned: bool, data: st.DataObject) -> None:
    payload = data.draw(amr_payloads(wide))
    frames = amr.unpack(payload, wide=wide, octet_aligned=aligned)
    if frames is not None:
        again = amr.pack(frames, wide=wide, octet_aligned=aligned, mode_request=payload[0] >> 4)
        assert amr.unpack(again, wide=wide, octet_aligned=aligned) == frames
        assert len(again) <= len(payload)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_format_of_amr_is_found_out(wide: bool, aligned: bool, count: int) -> None:
    """Sound frames of every type: the payload itself tells which of the two formats it has."""
    rng = np.random.default_rng(5)
    sizes = amr.SPEECH_BITS[wide]
    for kind in [k for k, bits in enumerate(sizes) if bits >= 0]:
        for _ in range(50):
            number = int.from_bytes(rng.bytes(64), "big") % (1 << sizes[kind])
            size = -(-sizes[kind] // 8)
            frame = amr.AmrFrame(kind, True, (number << 8 * size - sizes[kind]).to_bytes(size, "big"))
            for request in (0, 7, 15):
                payload = amr.pack([frame] * count, wide=wide, octet_aligned=aligned, mode_request=request)
                assert amr.unpack(payload, wide=wide, octet_aligned=None) == [frame] * count


def test_amr_by_hand() -> None:
    """RFC 4867 4.3.5.1: one frame of 7.4 kbit/s (148 bits), CMR 6, in the bandwidth-efficient format."""
    bits = "0110" + "0" + "0100" + "1" + "1" * 148 + "00"
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    (frame,) = amr.unpack(payload, wide=False, octet_aligned=False) or [None]
    assert frame == amr.AmrFrame(4, True, b"\xff" * 18 + b"\xf0")
    assert amr.pack([frame], wide=False, octet_aligned=False, mode_request=6) == payload
    assert frame_count(parse_codec("AMR"), payload) == 160
