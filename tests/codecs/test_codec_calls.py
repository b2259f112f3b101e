"""Calls of every codec from socket to file: what ffmpeg and GStreamer say, as ffmpeg hears it; and 30 of 12,000 packets
lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from codec_calls import CALLS, OPUS, call_of, cut, numbered, payloads_of, replayed, sent, stored_amr, types_of
from depth import usual_or_slow
from live import listening, port_of, run_on, samples_of, send_paced, until
from packed_witness import ffmpeg_decodes, ogg_of, snr_db
from support import LEG, MS, T0, Arrival, packet

import strep
from strep._model.types import Mask
from strep.sinks import WavSink

pytest.importorskip("av", reason="PyAV is not installed: pip install '.[codecs]'")

I16 = npt.NDArray[np.int16]

# --- live ------------------------------------------------------------------------------------------------------------


async def receive(folder: Path, name: str) -> strep.Receiver:
    """The packets to a plain RTP port, and behind STREP headers to another."""
    packets = sent(name)
    header = packet(0)[:24]
    receiver = strep.Receiver(
        "udp:127.0.0.1:0", rx="127.0.0.1:0", sinks=[WavSink(folder)], payload_types=types_of(name)
    )
    async with receiver:
        await send_paced(("127.0.0.1", port_of(receiver, "rx")), packets)
        await send_paced(listening(receiver), [header + p for p in packets])
        await until(lambda: sum(r.packets_received for r in receiver.reports()) == 2 * len(packets))
    return receiver


def wanted_of(name: str, folder: Path) -> tuple[I16, float]:
    """ffmpeg's decoding of the packets, and the least signal to difference (inf: the same samples)."""
    call, payloads = CALLS[name], payloads_of(name)
    if name.endswith("-efficient"):  # the same frames as the octet-aligned ones
        return wanted_of(name.removesuffix("-efficient"), folder)
    if call.decode is None:  # opus, from a file of the same packets
        import av

        path = folder / "a.ogg"
        path.write_bytes(ogg_of(*OPUS, str(call.codec.channels)))
        with av.open(str(path)) as file:
            assert [bytes(p) for p in file.demux() if p.size] == payloads
        return ffmpeg_decodes(path.read_bytes(), "-c:a", "libopus"), 100.0
    return call.decode(payloads), call.least_db or float("inf")


@pytest.mark.sockets
@pytest.mark.witness
@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_heard_as_ffmpeg_hears_it(tmp_path: Path, name: str) -> None:
    call = call_of(name)
    receiver = run_on("asyncio", receive(tmp_path, name))
    totals = receiver.totals()
    assert (totals.unaccounted, totals.dropped, totals.rejected, totals.malformed) == (0, 0, 0, 0)
    wanted, least_db = wanted_of(name, tmp_path)
    plain, strep_ = receiver.reports()
    files = {s["name"]: s["files"] for s in receiver.summary()["streams"]}
    assert strep_.stream.call_leg_id == LEG
    heard = [samples_of(tmp_path / files[r.stream.name][0]).reshape(-1) for r in (plain, strep_)]
    np.testing.assert_array_equal(*heard)
    for report in (plain, strep_):
        assert (report.packets_lost, report.undecoded, report.gap_samples, report.stream.notes) == (0, 0, 0, [])
        assert report.stream.codec == call.codec
        assert report.samples * call.codec.channels == len(heard[0])
    begin = 0
    if call.codec.name == "opus":
        begin = 312 * call.codec.channels  # the pre-skip of the file, which RTP does not know
    ours = heard[0][begin:]
    behind = len(ours) - len(wanted)
    assert len(ours) > 3 * call.codec.sample_rate
    if call.codec.name == "opus":
        # the file ends where the speech did, within a packet
        assert 0 <= behind < 2 * 960 * call.codec.channels
    elif call.codec.name.startswith("AMR"):
        # GStreamer's decoder leaves up to three frames out at the end
        assert 0 <= behind <= 3 * call.codec.sample_rate // 50
    else:
        assert behind == 0
    same = snr_db(wanted, ours[: len(wanted)])
    print(f"{name}: {len(ours)} samples, {same:.1f} dB against ffmpeg's")
    assert same >= least_db
    if call.codec.name.startswith("AMR"):
        aligned = payloads_of(name.removesuffix("-efficient"))
        floating = ffmpeg_decodes(stored_amr(aligned, call.codec.name == "AMR-WB"), "-f", "amr")
        same = snr_db(ours, floating)
        print(f"{name}: {same:.1f} dB against ffmpeg's decoder, which is in floating point")
        assert len(floating) == len(ours)
        assert same > 15


# --- 30 of 12,000 packets --------------------------------------------------------------------------------------------


HOLES = usual_or_slow(6, 25)  # every fifth of them is of two packets
COUNT, LOST = 480 * HOLES, HOLES * 6 // 5

# After how many ms behind a lost packet the audio is that of the call without losses, to this many dB (inf: exactly)
SETTLED = {
    "PCMU": (0, np.inf), "PCMA": (0, np.inf), "L16": (0, np.inf),
    "G722": (200, 40), "opus": (200, 25), "AMR": (200, 20), "AMR-WB": (200, 20), "GSM": (200, 40), "G729": (200, 20),
}  # fmt: skip


@pytest.mark.witness
@pytest.mark.parametrize("name", SETTLED)
def test_30_packets_of_12_000_are_lost(tmp_path: Path, name: str) -> None:
    """Four minutes, every time one: the length is exact and only the gaps differ, and with decoders that remember what
    comes soon after. What fills the gaps is told from what came."""
    call = call_of(name)
    codec = call.codec
    frames, step = codec.sample_rate // 50, codec.clock_rate // 50
    said = payloads_of(name)[:-1]  # the last may be shorter
    if codec.frame_bytes:  # whose packets are as long as ffmpeg's buffers let them be
        said = cut(b"".join(said), frames * codec.frame_bytes)
    payloads = [said[k % len(said)] for k in range(COUNT)]
    rng = np.random.default_rng(30)
    lost = np.sort(200 + 470 * np.arange(HOLES) + rng.integers(0, 100, HOLES))
    lost = np.append(lost, lost[: HOLES // 5] + 1)  # two in a row
    payload_type = sent(name)[0][1] & 127
    header = packet(0)[:24]
    clean = packet(0, leg=1)[:24]
    gone = set(lost.tolist())
    witness = None if name.startswith("AMR") else call.decode
    arrivals = []
    for k, data in enumerate(numbered(payloads, step, payload_type)):
        at = T0 + 20 * k * MS
        if k not in gone:
            arrivals.append(Arrival(at, header + data))
        if witness is None:
            arrivals.append(Arrival(at, clean + data))
    found, plain, concealed = replayed(tmp_path, arrivals, types_of(name))
    report, *others = found.reports()
    assert (report.packets_lost, report.undecoded, report.samples) == (LOST, 0, COUNT * frames)
    if witness is not None:
        whole = witness(payloads)
    else:  # of these the calls above are witnesses
        assert (others[0].packets_lost, others[0].samples) == (0, COUNT * frames)
        whole, _ = plain.heard(others[0].stream)
    audio, mask = plain.heard(report.stream)
    assert len(whole) == len(audio) == COUNT * frames
    missing = np.repeat(np.isin(np.arange(COUNT), lost), frames)
    np.testing.assert_array_equal(mask == 255, missing)
    assert not audio[missing].any()
    assert sum(samples for _, samples, _ in plain.gaps[report.stream.serial]) == LOST * frames
    assert {cause for *_, cause in plain.gaps[report.stream.serial]} == {"loss"}

    settle_ms, least_db = SETTLED[name]
    begins = (np.sort(lost[~np.isin(lost + 1, lost)]) + 1) * frames
    differs = (audio != whole) & ~missing
    settled = ~missing
    longest = 0
    for begin, end in zip(begins.tolist(), [*(begins[1:] - 2 * frames).tolist(), len(audio)], strict=True):
        settled[begin : begin + settle_ms * codec.sample_rate // 1000] = False
        at = np.flatnonzero(differs[begin:end])
        longest = max(longest, int(at[-1]) + 1 if at.size else 0)
    same = snr_db(whole[settled], audio[settled])
    ms = 1000 * longest / codec.sample_rate
    print(f"{name}: {same:.1f} dB from {settle_ms} ms behind the gaps on; the same samples after {ms:.1f} ms")
    assert same >= least_db

    filled, mask = concealed.heard(report.stream)
    assert len(filled) == COUNT * frames
    assert report.stream.serial not in concealed.gaps
    np.testing.assert_array_equal(mask != Mask.RECEIVED, missing)
    assert set(np.unique(mask[missing]).tolist()) <= {int(Mask.CONCEALED), int(Mask.LOST)}
    assert filled[missing].any()
