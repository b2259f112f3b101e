"""Codecs against the textbook and against ffmpeg; payload types."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from support import pcmu

import strep
from strep._codecs.facts import parse_codec, silence_byte
from strep._codecs.g711 import PCMA, PCMU, decode, encode
from strep._codecs.payload_types import PayloadTypes

L16_MONO, L16_STEREO = parse_codec("L16/44100"), parse_codec("L16/44100/2")
ALL = np.arange(256, dtype=np.uint8)


def test_mulaw_is_the_textbook() -> None:
    np.testing.assert_array_equal(decode(PCMU, ALL), pcmu(bytes(ALL)))


@pytest.mark.witness
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
@pytest.mark.parametrize(("codec", "name"), [(PCMU, "mulaw"), (PCMA, "alaw")])
def test_all_codes_decode_as_ffmpeg_does(codec: strep.Codec, name: str) -> None:
    command = ["ffmpeg", "-v", "error", "-f", name, "-ar", "8000", "-i", "-", "-f", "s16le", "-"]
    theirs = subprocess.run(command, input=bytes(ALL), capture_output=True, check=True).stdout
    np.testing.assert_array_equal(decode(codec, ALL), np.frombuffer(theirs, "<i2"))


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_encoding_takes_the_nearest_code(codec: strep.Codec) -> None:
    samples = np.arange(-32_768, 32_768, dtype=np.int64)
    table = decode(codec, ALL).astype(np.int64)
    nearest = np.abs(table[:, None] - samples[::37]).min(axis=0)
    coded = decode(codec, encode(codec, samples.astype(np.int16)))[::37].astype(np.int64)
    np.testing.assert_array_equal(np.abs(coded - samples[::37]), nearest)


@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_codes_survive_a_round_trip(codec: strep.Codec) -> None:
    again = decode(codec, encode(codec, decode(codec, ALL)))
    np.testing.assert_array_equal(again, decode(codec, ALL))


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 127, 128, 129, 1601])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("codec", [PCMU, PCMA])
def test_pairs_of_codes_are_looked_up_as_single_ones(codec: strep.Codec, size: int, offset: int) -> None:
    payload = np.random.default_rng(size).integers(0, 256, size + offset, dtype=np.uint8)[offset:]
    table = decode(codec, ALL)
    np.testing.assert_array_equal(decode(codec, payload), table[payload])


def test_linear_is_network_byte_order() -> None:
    payload = np.frombuffer(bytes.fromhex("0001fffe80007fff"), np.uint8)
    assert decode(L16_MONO, payload).tolist() == [1, -2, -32_768, 32_767]
    np.testing.assert_array_equal(encode(L16_MONO, decode(L16_MONO, payload)), payload)


@pytest.mark.parametrize("codec", [PCMU, PCMA, L16_MONO, L16_STEREO])
def test_silence_is_quiet(codec: strep.Codec) -> None:
    assert np.abs(decode(codec, np.full(64, silence_byte(codec.name), np.uint8))).max() <= 8  # A-law has no zero


def test_payload_types() -> None:
    types = PayloadTypes({96: "L16/16000", 97: "pcma", 0: "PCMA/8000"})
    codecs = [types.codecs[i] if i >= 0 else None for i in types.index_of.tolist()]
    assert codecs[8] == codecs[97] == codecs[0] == PCMA
    assert (codecs[10], codecs[11]) == (L16_STEREO, L16_MONO)
    assert codecs[96] == strep.Codec("L16", 16_000, 16_000, 1, 2)
    assert str(codecs[10]) == "L16/44100/2"
    assert {i for i, codec in enumerate(codecs) if codec} == {0, 3, 8, 9, 10, 11, 18, 96, 97, 111}
    assert [str(codecs[i]) for i in (3, 9, 18, 111)] == ["GSM/8000", "G722/8000", "G729/8000", "opus/48000"]
    assert np.flatnonzero(types.is_event).tolist() == [101, 110, 126]
    assert np.flatnonzero(types.is_noise).tolist() == [13]
    assert not types.guessable[[0, 77, 96, 97, 101, 111]].any()
    assert types.guessable[[98, 127]].all()
    assert PayloadTypes.parse_option("98=telephone-event") == (98, "telephone-event")
    assert PayloadTypes.parse_option("96=L16/16000") == (96, codecs[96])


@pytest.mark.parametrize(
    "wrong", ["OPUS/44100", "G722/48000", "L16/1", "L16/16000/3", "PCMU/8000/2", "", "L16/", "L16 16000"]
)
def test_codecs_that_are_not(wrong: str) -> None:
    with pytest.raises(strep.ConfigurationError, match="codec"):
        parse_codec(wrong)


@pytest.mark.parametrize("wrong", ["96", "x=PCMU", "128=PCMU", "-1=PCMU", "96:L16"])
def test_options_that_are_not(wrong: str) -> None:
    with pytest.raises(strep.ConfigurationError, match="96=L16/16000"):
        PayloadTypes.parse_option(wrong)


def test_payload_types_out_of_range() -> None:
    with pytest.raises(strep.ConfigurationError, match="128"):
        PayloadTypes({128: "PCMU"})
