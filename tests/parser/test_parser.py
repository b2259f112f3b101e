"""The vectorized parser against the readable one, for any bytes; one vector per malformation."""

from __future__ import annotations

import dataclasses
import uuid

import numpy as np
import pytest
from depth import usual_or_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from support import LEG, Arrival, packet, run

import strep
from strep import Direction, Leg, Status
from strep._model.datagrams import end_to_end
from strep._parser import PacketColumns, inspect_datagram, parse_batch, write_headers

# --- any bytes -------------------------------------------------------------------------------------------------------

_extension = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from([0xBEDE, 0x1000, 0x100F, 0x0000, 0xABCD]),  # one-byte, two-byte (RFC 8285), others
        st.integers(0, 5).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)),
    ),
)


def columns_of(columns: PacketColumns | type[PacketColumns]) -> list[dataclasses.Field[object]]:
    return [f for f in dataclasses.fields(columns) if f.name != "uniform"]


@st.composite
def fields(draw: st.DrawFn) -> dict:
    payload_type = draw(st.integers(0, 127))
    strep_leg = draw(st.one_of(st.none(), st.uuids()))
    return {
        "payload": draw(st.binary(max_size=80)),
        "payload_type": payload_type,
        "marker": draw(st.booleans()) and not 64 <= payload_type <= 95,
        "sequence_number": draw(st.integers(0, 0xFFFF)),
        "rtp_timestamp": draw(st.integers(0, 0xFFFF_FFFF)),
        "ssrc": draw(st.integers(0, 0xFFFF_FFFF)),
        "call_leg_id": strep_leg,
        "leg": draw(st.sampled_from(Leg)),
        "direction": draw(st.sampled_from(Direction)),
        "csrc": draw(st.lists(st.integers(0, 0xFFFF_FFFF), max_size=15)),
        "extension": draw(_extension),
        "padding": draw(st.integers(0, 20)),
    }


STUN = bytes.fromhex("000100002112a442") + bytes(12)  # RFC 8489 section 5
ZRTP = bytes.fromhex("1000 0001 5a525450 12345678 505a 001d 48656c6c6f202020")  # RFC 6189 section 5


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound datagram that something happened to."""
    others = st.sampled_from([STUN, ZRTP, b"\r\n\r\n"])
    data = bytearray(draw(st.one_of(fields().map(lambda f: strep.build_datagram(**f)), others)))
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["flip", "set", "cut", "grow"])):
            case "flip" if data:
                data[draw(st.integers(0, min(len(data) - 1, 44)))] ^= 1 << draw(st.integers(0, 7))
            case "set" if data:
                data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from([0, 1, 0xFF, 0x80, 0xC4, 24]))
            case "cut":
                del data[draw(st.integers(0, len(data))) :]
            case "grow":
                data += draw(st.binary(max_size=8))
    return bytes(data)


datagrams = st.lists(
    st.one_of(mutated(), mutated(), st.binary(max_size=80), fields().map(lambda f: strep.build_datagram(**f))),
    min_size=1,
    max_size=12,
)


def slab_of(data: list[bytes], width: int, garbage: int) -> tuple[np.ndarray, np.ndarray]:
    slab = np.full((len(data), width), garbage, np.uint8)
    for row, one in zip(slab, data, strict=True):
        row[: min(len(one), width)] = np.frombuffer(one[:width], np.uint8)
    return slab, np.array([len(one) for one in data], np.int32)


def row_of(columns: PacketColumns, i: int) -> dict[str, int]:
    return {f.name: int(getattr(columns, f.name)[i]) for f in columns_of(columns)}


def oracle(data: bytes, width: int) -> dict[str, int]:
    found = dataclasses.asdict(inspect_datagram(data))
    if len(data) > width:
        # the reference sees everything; of a cut datagram only what every prefix of it says is comparable
        found = {"status": Status.TRUNCATED, "kind": found["kind"]}
    if "call_leg_id" in found:
        whole = found.pop("call_leg_id")
        found["call_leg_hi"], found["call_leg_lo"] = whole >> 64, whole & (1 << 64) - 1
    return {name: int(value) for name, value in found.items()}


@settings(max_examples=usual_or_slow(150, 600), deadline=None)
@given(datagrams, st.sampled_from([64, 72, 256, 2048]), st.integers(0, 255))
def test_vector_equals_scalar_for_any_bytes(data: list[bytes], width: int, garbage: int) -> None:
    columns = parse_batch(*slab_of(data, width, garbage))
    for i, one in enumerate(data):
        wanted = oracle(one, width)
        row = row_of(columns, i)
        assert {name: row[name] for name in wanted} == wanted


def end_to_end_of(data: list[bytes], garbage: int) -> tuple[np.ndarray, np.ndarray]:
    """A slab in which datagrams are whole, one behind the other; and the row that each begins with."""
    slab, first_row = end_to_end(np.array([len(one) for one in data]))
    slab.fill(garbage)
    for row, one in zip(first_row.tolist(), data, strict=True):
        slab.reshape(-1)[64 * row : 64 * row + len(one)] = np.frombuffer(one, np.uint8)
    return slab, first_row


@settings(max_examples=usual_or_slow(40, 200), deadline=None)
@given(datagrams, st.lists(st.integers(0, 9000), min_size=40, max_size=40), st.integers(0, 255))
def test_end_to_end_equals_scalar_for_any_bytes_and_lengths(data: list[bytes], more: list[int], garbage: int) -> None:
    """Extensions, padding and sources may reach over any number of rows; datagrams that are cut are truncated."""
    data = [one + bytes([n & 0xFF]) * n for one, n in zip(data, more, strict=False)]
    slab, first_row = end_to_end_of(data, garbage)
    length = np.array([len(one) for one in data], np.int32)
    columns = parse_batch(slab, length, length, first_row)
    kept = np.minimum(length, 2048)
    cut = parse_batch(slab, length, kept, first_row)
    for i, one in enumerate(data):
        wanted = oracle(one, len(one))
        row = row_of(columns, i)
        assert {name: row[name] for name in wanted} == wanted
        if kept[i] == length[i]:
            assert row_of(cut, i) == row
        else:
            assert cut.status[i] == Status.TRUNCATED


@settings(max_examples=usual_or_slow(70, 200), deadline=None)
@given(datagrams, st.data())
def test_the_split_into_batches_does_not_matter(data: list[bytes], draw: st.DataObject) -> None:
    slab, length = slab_of(data, 256, 0xA5)
    whole = parse_batch(slab, length)
    cut = draw.draw(st.integers(0, len(data)))
    parts = [parse_batch(slab[:cut], length[:cut]), parse_batch(slab[cut:], length[cut:])]
    for f in columns_of(PacketColumns):
        joined = np.concatenate([getattr(p, f.name) for p in parts])
        np.testing.assert_array_equal(joined, getattr(whole, f.name))
        assert joined.dtype == getattr(whole, f.name).dtype


@settings(max_examples=100, deadline=None)
@given(st.lists(mutated(), min_size=1, max_size=6))
def test_what_stands_behind_a_datagram_is_not_read(data: list[bytes]) -> None:
    results = [parse_batch(*slab_of(data, 2048, garbage)) for garbage in (0x00, 0xFF, 0x5A)]
    for f in columns_of(PacketColumns):
        for other in results[1:]:
            np.testing.assert_array_equal(getattr(results[0], f.name), getattr(other, f.name))


@settings(max_examples=300, deadline=None)
@given(fields())
def test_what_was_built_is_parsed_back(wanted: dict) -> None:
    found = strep.parse_datagram(strep.build_datagram(**wanted))
    with_leg = wanted["call_leg_id"] is not None
    assert found == strep.Packet(
        call_leg_id=wanted["call_leg_id"],
        leg=wanted["leg"] if with_leg else None,
        direction=wanted["direction"] if with_leg else None,
        marker=wanted["marker"],
        payload_type=wanted["payload_type"],
        sequence_number=wanted["sequence_number"],
        rtp_timestamp=wanted["rtp_timestamp"],
        ssrc=wanted["ssrc"],
        csrc=tuple(wanted["csrc"]),
        extension=wanted["extension"],
        padding_length=wanted["padding"],
        payload=wanted["payload"],
    )


@pytest.mark.parametrize("with_strep", [True, False])
def test_headers_written_as_columns_are_those_built_one_by_one(with_strep: bool) -> None:
    rng = np.random.default_rng(3)
    n = 50
    ids = [uuid.UUID(bytes=rng.bytes(16)) for _ in range(n)]
    sequence, stamp, ssrc = (rng.integers(0, top, n) for top in (1 << 16, 1 << 32, 1 << 32))
    leg, direction, marker, payload_type = (rng.integers(0, top, n) for top in (2, 2, 2, 64))
    slab = np.zeros((n, 64), np.uint8)
    size = write_headers(
        slab,
        payload_type=payload_type,
        sequence_number=sequence,
        rtp_timestamp=stamp,
        ssrc=ssrc,
        marker=marker,
        strep=with_strep,
        call_leg_hi=np.array([i.int >> 64 for i in ids], np.uint64),
        call_leg_lo=np.array([i.int & (1 << 64) - 1 for i in ids], np.uint64),
        leg=leg,
        direction=direction,
    )
    for i in range(n):
        wanted = strep.build_datagram(
            payload=b"",
            payload_type=int(payload_type[i]),
            sequence_number=int(sequence[i]),
            rtp_timestamp=int(stamp[i]),
            ssrc=int(ssrc[i]),
            marker=bool(marker[i]),
            call_leg_id=ids[i] if with_strep else None,
            leg=Leg(int(leg[i])),
            direction=Direction(int(direction[i])),
        )
        assert slab[i, :size].tobytes() == wanted


# --- one vector per malformation: faults.md 15, 17 to 20 --------------------------------------------------------------

GOOD = packet(7)
PLAIN = packet(7, call=None)
CSRCS = strep.build_datagram(
    payload=b"x", payload_type=0, sequence_number=1, rtp_timestamp=1, ssrc=1, call_leg_id=LEG, csrc=[1, 2, 3]
)
EXTENDED = strep.build_datagram(
    payload=b"x",
    payload_type=0,
    sequence_number=1,
    rtp_timestamp=1,
    ssrc=1,
    call_leg_id=LEG,
    extension=(0xBEDE, b"1234"),
)


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


VECTORS = [
    ("empty", b"", Status.KIND_KEEPALIVE),
    *((f"keep-alive {data.hex()}", data, Status.KIND_KEEPALIVE) for data in (b"\r\n", b"\r\n\r\n", b"\0", bytes(4))),
    ("five NULs", bytes(5), Status.KIND_T38),
    ("CR and a letter", b"\rA", Status.KIND_T38),
    ("one byte of STREP", b"\xc4", Status.STREP_SHORT),
    ("STREP header cut by one", GOOD[:23], Status.STREP_SHORT),
    ("STREP header and nothing", GOOD[:24], Status.RTP_SHORT),
    ("RTP header cut by one", GOOD[:35], Status.RTP_SHORT),
    ("plain RTP cut by one", PLAIN[:11], Status.RTP_SHORT),
    *((f"STREP version {v}", changed(GOOD, 0, 0xC0 | v << 2), Status.STREP_VERSION) for v in range(16) if v != 1),
    *((f"HeaderLen {n}", changed(GOOD, 1, n), Status.STREP_HEADER_LENGTH) for n in (0, 1, 12, 23, 25, 36, 128, 255)),
    ("HeaderLen beyond the packet", changed(GOOD[:40], 1, 200), Status.STREP_HEADER_LENGTH),
    *((f"RTP version {v} behind STREP", changed(GOOD, 24, v << 6), Status.RTP_VERSION) for v in (0, 1, 3)),
    ("CSRC list cut", CSRCS[: 36 + 11], Status.RTP_CSRC),
    ("15 CSRCs claimed", changed(GOOD[:60], 24, 0x8F), Status.RTP_CSRC),
    ("extension bit, no extension", changed(GOOD[:36], 24, 0x90), Status.RTP_EXTENSION),
    ("extension header cut", EXTENDED[:39], Status.RTP_EXTENSION),
    ("extension longer than the packet", changed(EXTENDED, 39, 200), Status.RTP_EXTENSION),
    ("extension of 65,535 words", changed(changed(EXTENDED, 38, 255), 39, 255), Status.RTP_EXTENSION),
    ("padding of 0", changed(changed(GOOD, 24, 0xA0), len(GOOD) - 1, 0), Status.RTP_PADDING),
    ("padding longer than the payload", changed(changed(GOOD, 24, 0xA0), len(GOOD) - 1, 161), Status.RTP_PADDING),
    ("padding bit without a payload", changed(GOOD[:36], 24, 0xA0), Status.RTP_PADDING),
    ("RTCP sender report", b"\x80\xc8" + bytes(26), Status.KIND_RTCP),
    ("RTCP receiver report", b"\x81\xc9" + bytes(30), Status.KIND_RTCP),
    ("RTCP BYE", b"\x81\xcb" + bytes(6), Status.KIND_RTCP),
    ("RTCP behind a STREP header", GOOD[:24] + b"\x80\xc8" + bytes(26), Status.KIND_RTCP),
    ("SIP request", b"OPTIONS sip:a@b SIP/2.0\r\n\r\n", Status.KIND_SIP),
    ("SIP answer", b"SIP/2.0 200 OK\r\n\r\n", Status.KIND_SIP),
    ("STUN binding request", STUN, Status.KIND_STUN),
    ("STUN binding success, with attributes", b"\1\1\0\x0c" + STUN[4:] + bytes(12), Status.KIND_STUN),
    ("STUN cut by one", STUN[:19], Status.KIND_T38),
    ("STUN with another cookie", changed(STUN, 7, 0x43), Status.KIND_T38),
    ("a first byte that STUN has not", changed(STUN, 0, 4), Status.KIND_T38),
    ("ZRTP Hello", ZRTP, Status.KIND_ZRTP),
    ("ZRTP cut within its header", ZRTP[:11], Status.KIND_T38),
    ("ZRTP with another cookie", changed(ZRTP, 4, 0), Status.KIND_T38),
    ("T.38 UDPTL", bytes.fromhex("0000060000000000"), Status.KIND_T38),
    ("DTLS ClientHello", bytes.fromhex("16fefd0000000000000000"), Status.KIND_DTLS),
    ("lower-case text", b"hello", Status.KIND_OTHER),
]


@pytest.mark.parametrize(("data", "status"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_each_malformation_has_its_status(data: bytes, status: Status) -> None:
    columns = parse_batch(*slab_of([GOOD, data, PLAIN], 256, 0xA5))
    assert [Status(s) for s in columns.status] == [Status.OK, status, Status.OK]
    assert int(columns.payload_length[1]) == 0
    with pytest.raises(strep.ParseError) as caught:
        strep.parse_datagram(data)
    assert caught.value.status == status


def test_every_status_has_a_vector_and_a_counter() -> None:
    """What the parser refuses stands in the totals under its name, and nothing of it is audio."""
    assert {v[2] for v in VECTORS} | {Status.OK, Status.TRUNCATED} == set(Status)
    good = [Arrival(1_700_000_000_000_000_000 + 20_000_000 * k, packet(k)) for k in range(10)]
    bad = [Arrival(good[-1].ns, data) for _, data, _ in VECTORS]
    too_long = Arrival(good[-1].ns, packet(3, payload=bytes(500)))
    result = run([*good, *bad, too_long])
    audio, report = result.only()
    assert (report.packets_received, report.duplicates) == (
        11,
        1,
    )  # a datagram that is cut behind its header is a packet
    assert len(audio) == 1600
    totals = result.totals
    assert totals.malformed + totals.rejected == len(VECTORS)
    counted = {**totals.malformed_by, **totals.rejected_by}
    wanted: dict[str, int] = {}
    for _, _, status in VECTORS:
        wanted[status.name.lower()] = wanted.get(status.name.lower(), 0) + 1
    assert {k.removeprefix("kind_"): v for k, v in counted.items()} == {
        k.removeprefix("kind_"): v for k, v in wanted.items()
    }
    kinds = {k: v for k, v in totals.by_kind.items() if k != "strep" and v}
    assert kinds == {
        "rtp": 1, "rtcp": 3, "sip": 2, "t38": 8, "dtls": 1, "other": 1, "stun": 2, "zrtp": 1, "keepalive": 5,
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 11, 12, 23, 24, 35, 36, 37, 196, 1500, 9000, 65_507])
@pytest.mark.parametrize("head", [GOOD, PLAIN, b"\xff" * 40, b"\x00" * 40])
def test_any_length(size: int, head: bytes) -> None:
    data = (head + bytes(65_507))[:size]
    for width in (64, 2048, 65_536):
        columns = parse_batch(*slab_of([data], width, 0xA5))
        wanted = oracle(data, width)
        assert {name: row_of(columns, 0)[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"payload_type": 128}, "payload_type 128"),
        ({"sequence_number": 65_536}, "0 to 65535"),
        ({"rtp_timestamp": -1}, "rtp_timestamp"),
        ({"ssrc": 1 << 32}, "ssrc"),
        ({"csrc": range(16)}, "at most 15"),
        ({"csrc": [-1]}, "csrc"),
        ({"padding": 256}, "padding"),
        ({"extension": (0, b"123")}, "32-bit words"),
        ({"payload_type": 72, "marker": True}, "RTCP"),
    ],
)
def test_the_builder_says_what_is_wrong(wrong: dict, says: str) -> None:
    fine = {"payload": b"", "payload_type": 0, "sequence_number": 0, "rtp_timestamp": 0, "ssrc": 0}
    with pytest.raises(strep.ConfigurationError, match=says):
        strep.build_datagram(**{**fine, **wrong})


def test_categories() -> None:
    assert Status.OK.category is None
    assert {s for s in Status if s.category == "rejected"} == {
        Status.KIND_RTCP,
        Status.KIND_SIP,
        Status.KIND_T38,
        Status.KIND_DTLS,
        Status.KIND_STUN,
        Status.KIND_ZRTP,
        Status.KIND_KEEPALIVE,
        Status.KIND_OTHER,
        Status.STREP_VERSION,
        Status.STREP_HEADER_LENGTH,
    }
