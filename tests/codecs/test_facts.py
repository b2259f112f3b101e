"""Codecs are rows of facts: a made-up one is received, decoded, simulated and rated by its row and its two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

import strep
from strep import quality
from strep._codecs import g711, listing
from strep._codecs.counts import HEAD_BYTES, frame_count, frame_counts
from strep._codecs.decoder import Decoder
from strep._codecs.encoder import Encoder
from strep._codecs.facts import CODECS, CodecFacts, FrameSize, Impairment, bound, parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep.cli import cli
from strep.simulate import Impairments, make_traffic
from strep.sinks import ArraySink, QualityMeter

I16 = npt.NDArray[np.int16]

README = Path(__file__).parents[2] / "README.md"
TOY_BYTES, TOY_SAMPLES = 16, 160


class ToyDecoder(Decoder):
    """A byte for ten samples: their upper byte. For what is lost, the last of these."""

    def __init__(self, codec: strep.Codec) -> None:
        super().__init__(codec)
        self._last = 0

    def _decode(self, payload: bytes) -> tuple[I16, bool]:
        samples = np.repeat(np.frombuffer(payload, np.int8), TOY_SAMPLES // TOY_BYTES).astype(np.int16) * 256
        self._last = int(samples[-1])
        return samples, len(payload) % TOY_BYTES == 0

    def _conceal(self, following: bytes, frames: int) -> I16:
        return np.full(frames, self._last, np.int16)


class ToyEncoder(Encoder):
    def _encode(self, samples: I16) -> bytes:
        return (samples[:: TOY_SAMPLES // TOY_BYTES] >> 8).astype(np.int8).tobytes()


TOY = CodecFacts(
    name="Toy-1",
    title="The toy codec",
    dynamic_type=105,
    habitual=True,
    guess_rank=7,
    frame_sizes=(FrameSize(TOY_BYTES, TOY_SAMPLES),),
    decoder=f"{__name__}:ToyDecoder",
    decoded_by="this test",
    concealed_by="its last sample",
    encoder=f"{__name__}:ToyEncoder",
    encoded_frames=(TOY_SAMPLES,),
    impairment=Impairment(30.0, 7.0, "narrowband", False, "made up"),
)


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, TOY.name.upper(), TOY)


@pytest.mark.usefixtures("_toy")
@pytest.mark.parametrize("payload_type", [None, 98, 120], ids=["habitual", "named", "guessed"])
def test_a_codec_is_its_row_and_its_decoder(tmp_path: Path, payload_type: int | None) -> None:
    trouble = Impairments(loss=0.05, protect_first=10)
    traffic = make_traffic(calls=2, duration_s=3, codec="toy-1", payload_type=payload_type, impairments=trouble, seed=6)
    assert traffic.payload_type == (payload_type or 105)
    traffic.write_pcap(tmp_path / "toy.pcap")
    plain, filled, meter = ArraySink(), ArraySink(conceal=True), QualityMeter()
    named: dict[int, str | strep.Codec] = dict([PayloadTypes.parse_option("98=TOY-1/8000")])
    found = strep.replay(tmp_path / "toy.pcap", payload_types=named, sinks=[plain, filled, meter])
    assert found.totals().unaccounted == 0
    truth = {t.key: t for t in traffic.truth}
    assert len(found.reports()) == len(truth) == 4
    for report in found.reports():
        stream = report.stream
        assert stream.call_leg_id is not None
        true = truth[stream.call_leg_id, stream.leg, stream.direction]
        assert str(stream.codec) == "Toy-1/8000"
        figures = meter.figures(stream)["quality"]
        assert (figures["ie"], figures["bpl"], figures["basis"]) == (30.0, 7.0, "made up")
        guessed = payload_type == 120
        assert stream.codec_guessed is guessed
        assert report.undecoded == (5 if guessed else 0)  # that the guess was made from
        audio = plain.get(stream).samples
        wanted = true.audio()[-len(audio) :]
        assert len(wanted) == len(audio) >= len(true.audio()) - 5 * TOY_SAMPLES
        np.testing.assert_array_equal(audio, wanted)
        heard = filled.get(stream).samples.reshape(-1, TOY_SAMPLES)
        lost = np.flatnonzero(~true.sent[-len(heard) :])
        assert lost.size
        for number in lost.tolist():
            assert np.unique(heard[number]).tolist() == [heard[number - 1][-1]]  # the decoder's own concealment


@pytest.mark.usefixtures("_toy")
def test_tables_and_messages_know_a_new_row() -> None:
    assert str(parse_codec("toy-1")) == "Toy-1/8000"
    assert quality.impairment_of("TOY-1").source == "made up"
    assert "| The toy codec | `Toy-1/8000` | 105 | this test | its last sample | payload type 105 |\n" in (
        listing.codec_table()
    )
    assert "Toy-1 (payload type 105)" in listing.simulated_codecs()
    with pytest.raises(strep.ConfigurationError, match="Toy-1/8000"):
        parse_codec("EVS")
    assert 105 not in np.flatnonzero(PayloadTypes().guessable)


def test_readme_has_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    _, begin, rest = text.partition("<!-- codecs: begin -->\n\n")
    table, end, _ = rest.partition("\n<!-- codecs: end -->\n")
    assert begin
    assert end
    assert table == listing.codec_table(), "put what strep._codecs.listing.codec_table() gives between the markers"


def test_help_names_what_can_be_simulated() -> None:
    text = CliRunner().invoke(cli, ["simulate", "--help"], terminal_width=200).output
    assert listing.simulated_codecs() in " ".join(text.split())


def test_rows_are_consistent() -> None:
    tables = {name for name, row in CODECS.items() if row.sample_bytes == 1}
    assert tables == set(g711._TABLES)
    assert {name for name, row in CODECS.items() if row.sample_bytes} == {*tables, "L16"}
    numbers = [number for row in CODECS.values() for number in row.static_types]
    habits = [row.dynamic_type for row in CODECS.values() if row.habitual]
    assert len(numbers) == len(set(numbers))
    assert all(0 <= number < 96 for number in numbers)
    assert all(number is not None and 96 <= number < 128 for number in habits)
    dynamic = [row.dynamic_type for row in CODECS.values() if row.dynamic_type is not None]
    assert len(dynamic) == len(set(dynamic))
    ranks = [row.guess_rank for row in CODECS.values() if row.guess_rank]
    assert len(ranks) == len(set(ranks))
    for row in CODECS.values():
        assert not (row.sample_bytes and row.decoder), row.name
        if not row.packed:
            continue
        assert issubclass(bound(row.decoder), Decoder), row.name
        assert bool(row.counter) is not bool(row.frame_sizes), row.name
        assert row.encoded_frames, row.name
        assert row.extra, row.name
        assert not row.encoder or issubclass(bound(row.encoder), Encoder), row.name
        heads = np.zeros((3, HEAD_BYTES), np.uint8)
        lengths = [0, 1, 160]
        counts = frame_counts(row.codec, heads, np.array(lengths, np.int64)).tolist()
        assert counts == [frame_count(row.codec, bytes(length)) for length in lengths]


@pytest.mark.parametrize("codec", [strep.Codec("EVS", 16_000, 16_000, 1, 0), strep.Codec("G723", 8000, 8000, 1, 1)])
def test_codec_objects_that_nothing_decodes_are_refused(codec: strep.Codec) -> None:
    with pytest.raises(strep.ConfigurationError, match="is not decoded here"):
        PayloadTypes({96: codec})
