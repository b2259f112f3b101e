"""Redundant audio data (RFC 2198) as GStreamer makes them: what is lost on the way is heard as if it had come."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from packed_witness import elements
from support import MS, T0, Arrival, Result, pcmu, run

from strep._codecs.decoder import available
from strep._codecs.facts import parse_codec
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import EngineConfig

pytestmark = [
    pytest.mark.witness,
    pytest.mark.skipif(not {"rtpredenc", "rtpstreampay"} <= elements(), reason="GStreamer with rtpredenc is not here"),
]

COUNT = 200
ENCODED = {  # how it is made, and how the packets are paid: 20 ms each
    "PCMU": ("mulawenc", "rtppcmupay min-ptime=20000000 max-ptime=20000000"),
    "L16/8000": ("audioconvert ! audio/x-raw,format=S16BE", "rtpL16pay min-ptime=20000000 max-ptime=20000000 pt=96"),
}
WIDTH = 2048


def packets(tmp_path: Path, encode: str, pay: str, distance: int, rate: int = 8000) -> tuple[list[bytes], bytes]:
    """RTP packets with redundancy, and what was encoded. Sequence numbers and timestamps wrap on the way."""
    original, stream = tmp_path / "original", tmp_path / "stream"
    source = f"audiotestsrc wave=red-noise num-buffers={COUNT} samplesperbuffer={rate // 50}"
    command = (
        f"{source} ! audio/x-raw,rate={rate},channels=1,format=S16LE ! {encode} ! tee name=t ! queue ! "
        f"{pay} seqnum-offset=65500 timestamp-offset=4294960000 ssrc=77 ! rtpredenc pt=121 distance={distance} ! "
        f"rtpstreampay ! filesink location={stream} t. ! queue ! filesink location={original}"
    )
    subprocess.run(["gst-launch-1.0", "-q", *command.split()], check=True, capture_output=True)
    whole, found = stream.read_bytes(), []
    while whole:  # RFC 4571: a length before each packet
        end = 2 + int.from_bytes(whole[:2])
        found.append(whole[2:end])
        whole = whole[end:]
    return found, original.read_bytes()


def received(made: list[bytes], lost: set[int], named: dict[int, str]) -> Result:
    arrivals = [Arrival(T0 + k * 20 * MS, data) for k, data in enumerate(made) if k not in lost]
    return run(arrivals, width=WIDTH, config=EngineConfig(payload_types=PayloadTypes(named)))


def some_lost(distance: int, seed: int) -> tuple[set[int], set[int]]:
    """A third of the packets, also several in a row; and those of them that no other one brings."""
    rng = np.random.default_rng(seed)
    lost = {int(k) for k in rng.choice(np.arange(5, COUNT - 1), COUNT // 3, replace=False)}
    return lost, {k for k in lost if k + distance in lost or k + distance >= COUNT}


@pytest.mark.parametrize("distance", [1, 2, 3])
@pytest.mark.parametrize("codec", ENCODED)
def test_what_is_lost_is_there_to_the_sample(codec: str, distance: int, tmp_path: Path) -> None:
    made, original = packets(tmp_path, *ENCODED[codec], distance)
    assert len(made) == COUNT
    samples: npt.NDArray[np.int16] = (
        pcmu(original) if codec == "PCMU" else np.frombuffer(original, ">i2").astype(np.int16)
    ).copy()
    assert len(np.unique(samples)) > 100  # every place sounds differently
    lost, gone = some_lost(distance, distance)
    for k in gone:
        samples[160 * k : 160 * (k + 1)] = 0
    result = received(made, lost, {121: "red/8000", 96: "L16/8000"})
    audio, report = result.only()
    np.testing.assert_array_equal(audio, samples)
    assert (report.packets_lost, report.recovered) == (len(lost), len(lost) - len(gone))
    assert report.gap_samples == 160 * len(gone)
    assert result.totals.unused_copies_by == {}


@pytest.mark.skipif("opusenc" not in elements() or not available(parse_codec("opus/48000")), reason="opus is not here")
def test_opus_decodes_as_if_nothing_were_lost(tmp_path: Path) -> None:
    made, _ = packets(tmp_path, "opusenc frame-size=20", "rtpopuspay pt=111", 1, rate=48_000)
    lost = set(range(6, len(made) - 1, 2))
    named = {121: "red/48000/2", 111: "opus/48000"}
    whole = received(made, set(), named).only()[0]
    audio, report = received(made, lost, named).only()
    assert (report.packets_lost, report.recovered, report.gap_samples) == (len(lost), len(lost), 0)
    np.testing.assert_array_equal(audio, whole)
    assert np.abs(whole).max() > 100
