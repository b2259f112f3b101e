"""Programs that are not ours send, read and count: ffmpeg, GStreamer, tshark. Real packets, real sockets."""

from __future__ import annotations

import asyncio
import os
import subprocess
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from live import port_of, run_on, samples_of, until
from programs import needs, tshark_streams
from support import MS, T0, Arrival, batch_of, packet, steady

import strep
from strep._edge.pcap import PcapWriter
from strep.resample import resample
from strep.sinks import WavSink

pytestmark = pytest.mark.witness


def speech(path: Path, rate: int = 8000, seconds: float = 3.0) -> npt.NDArray[np.int16]:
    """The bundled caller as a WAV file of that length."""
    samples = _voice(rate)[: round(rate * seconds)]
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return samples


def _voice(rate: int) -> npt.NDArray[np.int16]:
    path = Path(strep.__file__).parent / "data" / "caller.wav"
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
        return np.asarray(resample(samples, file.getframerate(), rate))


def ffmpeg_decodes(name: str, payload: bytes) -> npt.NDArray[np.int16]:
    command = ["ffmpeg", "-v", "error", "-f", name, "-ar", "8000", "-ac", "1", "-i", "-", "-f", "s16le", "-"]
    return np.frombuffer(subprocess.run(command, input=payload, capture_output=True, check=True).stdout, "<i2")


def rtp_payloads(path: Path, port: int) -> list[tuple[int, bytes]]:
    """Sequence numbers and payloads as tshark reads them."""
    fields = ["-e", "rtp.seq", "-e", "rtp.payload"]
    command = ["tshark", "-r", str(path), "-d", f"udp.port=={port},rtp", "-Y", "rtp", "-T", "fields", *fields]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [(int(s), bytes.fromhex(p.replace(":", ""))) for s, p in (line.split() for line in out.splitlines())]


# --- a real call -----------------------------------------------------------------------------------------------------

G711A = [Path(p) for p in (os.environ.get("STREP_G711A", ""), "/usr/share/sip-tester/g711a.pcap") if p]


@needs("ffmpeg")
@needs("tshark")
def test_a_real_call_decodes_as_ffmpeg_does(tmp_path: Path) -> None:
    """SIPp's capture of a real call: A-law in packets of 30 ms."""
    found = [p for p in G711A if p.is_file()]
    if not found:
        pytest.skip("g711a.pcap is not here: install sip-tester, or name it with STREP_G711A")
    result = strep.replay(found[0], sinks=[WavSink(tmp_path)])
    (report,) = result.reports()
    assert (report.packets_received, report.packets_expected, report.packets_lost) == (236, 236, 0)
    assert str(report.stream.codec) == "PCMA/8000"
    port = report.stream.local_port
    payloads = rtp_payloads(found[0], port)
    assert len(payloads) == 236
    (path,) = tmp_path.rglob("*.wav")
    assert path.relative_to(tmp_path).as_posix() == f"rtp-{port}-{report.stream.ssrc:08x}/a-inbound.wav"
    theirs = ffmpeg_decodes("alaw", b"".join(p for _, p in payloads))
    np.testing.assert_array_equal(samples_of(path), theirs)
    assert report.samples == len(theirs) == 236 * 240


# --- live senders ----------------------------------------------------------------------------------------------------


async def record(folder: Path, command_of: object, packets: int) -> strep.Receiver:
    """Two senders, one to each port, in real time."""
    receiver = strep.Receiver(rx="127.0.0.1:0", tx="127.0.0.1:0", sinks=[WavSink(folder)], pcap=folder / "a.pcap")
    async with receiver:
        senders = []
        for number, role in enumerate(("rx", "tx")):
            command = command_of(port_of(receiver, role), number)  # type: ignore[operator]
            senders.append(
                await asyncio.create_subprocess_exec(
                    *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
                )
            )
        for sender in senders:
            _, err = await sender.communicate()
            assert sender.returncode == 0, err.decode()
        await until(lambda: sum(r.packets_received for r in receiver.reports()) >= packets)
    return receiver


@pytest.mark.sockets
@needs("ffmpeg")
@pytest.mark.parametrize(("encoder", "codec"), [("pcm_mulaw", "PCMU"), ("pcm_alaw", "PCMA")])
def test_ffmpeg_sends(tmp_path: Path, encoder: str, codec: str) -> None:
    wanted = [speech(tmp_path / "0.wav", seconds=2), speech(tmp_path / "1.wav", seconds=1.5)]

    def command(port: int, number: int) -> list[str]:
        source = ["-re", "-i", str(tmp_path / f"{number}.wav"), "-c:a", encoder]
        return ["ffmpeg", "-v", "error", "-nostdin", *source, "-f", "rtp", f"rtp://127.0.0.1:{port}?pkt_size=172"]

    receiver = run_on("uvloop", record(tmp_path, command, 170))
    for number, report in enumerate(sorted(receiver.reports(), key=lambda r: r.stream.direction)):
        assert (report.packets_lost, str(report.stream.codec)) == (0, f"{codec}/8000")
        encoded = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", str(tmp_path / f"{number}.wav"), "-c:a", encoder, "-f",
             {"PCMU": "mulaw", "PCMA": "alaw"}[codec], "-"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        theirs = ffmpeg_decodes({"PCMU": "mulaw", "PCMA": "alaw"}[codec], encoded)
        ours = samples_of(tmp_path / report.stream.leg_name / f"{('inbound', 'outbound')[number]}.wav")
        np.testing.assert_array_equal(ours, theirs)
        assert len(ours) == len(wanted[number])
    # ffmpeg also sends RTCP sender reports to the port above: they are not ours


@pytest.mark.sockets
@needs("gst-launch-1.0", "GStreamer")
@pytest.mark.parametrize(("elements", "codec"), [("mulawenc ! rtppcmupay", "PCMU"), ("alawenc ! rtppcmapay", "PCMA")])
def test_gstreamer_sends(tmp_path: Path, elements: str, codec: str) -> None:
    wanted = [speech(tmp_path / "0.wav", seconds=2), speech(tmp_path / "1.wav", seconds=1.5)]

    def command(port: int, number: int) -> list[str]:
        source = f"filesrc location={tmp_path}/{number}.wav ! wavparse ! audioconvert"
        pay = f"{elements} min-ptime=20000000 max-ptime=20000000"
        return ["gst-launch-1.0", "-q", *f"{source} ! {pay} ! udpsink host=127.0.0.1 port={port} sync=true".split()]

    receiver = run_on("asyncio", record(tmp_path, command, 170))
    law = {"PCMU": ("mulaw", "rtppcmudepay ! mulawdec"), "PCMA": ("alaw", "rtppcmadepay ! alawdec")}[codec]
    for number, report in enumerate(sorted(receiver.reports(), key=lambda r: r.stream.direction)):
        assert (report.packets_lost, str(report.stream.codec)) == (0, f"{codec}/8000")
        ours = samples_of(tmp_path / report.stream.leg_name / f"{('inbound', 'outbound')[number]}.wav")
        assert len(ours) == len(wanted[number])
        # GStreamer's own decoding of GStreamer's own encoding
        raw = tmp_path / f"{number}.raw"
        chain = f"filesrc location={tmp_path}/{number}.wav ! wavparse ! audioconvert ! {elements.split(' ! ')[0]}"
        decode = f"{law[1].split(' ! ')[1]} ! audio/x-raw,format=S16LE ! filesink location={raw}"
        subprocess.run(["gst-launch-1.0", "-q", *f"{chain} ! {decode}".split()], check=True, capture_output=True)
        np.testing.assert_array_equal(ours, np.frombuffer(raw.read_bytes(), "<i2"))


@pytest.mark.sockets
@needs("gst-launch-1.0", "GStreamer")
def test_gstreamer_sends_linear(tmp_path: Path) -> None:
    """L16 at 44.1 kHz, the static payload type 11."""
    wanted = speech(tmp_path / "0.wav", rate=44_100, seconds=1)
    command = (
        f"filesrc location={tmp_path}/0.wav ! wavparse ! audioconvert ! audio/x-raw,format=S16BE,channels=1,rate=44100 "
        "! rtpL16pay pt=11 ! udpsink host=127.0.0.1 sync=true port="
    )

    async def main() -> None:
        async with strep.Receiver(rx="127.0.0.1:0", sinks=[WavSink(tmp_path / "out")]) as receiver:
            whole = ["gst-launch-1.0", "-q", *f"{command}{port_of(receiver, 'rx')}".split()]
            sender = await asyncio.create_subprocess_exec(*whole)
            assert await sender.wait() == 0
        assert str(receiver.reports()[0].stream.codec) == "L16/44100"

    run_on("asyncio", main())
    (path,) = (tmp_path / "out").rglob("*.wav")
    np.testing.assert_array_equal(samples_of(path), wanted)


# --- tshark counts ---------------------------------------------------------------------------------------------------


def capture(path: Path, arrivals: list[Arrival]) -> Path:
    writer = PcapWriter(path)
    writer.write(batch_of(sorted(arrivals, key=lambda a: a.ns), width=1024))
    writer.close()
    return path


SCENES = ["clean", "loss", "burst", "wrap", "jitter", "duplicates", "reordered"]


@needs("tshark")
@pytest.mark.parametrize("scene", SCENES)
def test_figures_are_those_of_tshark(tmp_path: Path, scene: str) -> None:
    rng = np.random.default_rng(SCENES.index(scene))
    first = 65_400 if scene == "wrap" else 100
    arrivals = steady(400, first=first, call=None)
    lost = {
        "loss": set(range(3, 397, 7)),
        "burst": set(range(100, 160)),
        "wrap": {130, 135, 136, 140},
        "reordered": {9, 55},
    }.get(scene, set())
    kept = [a for k, a in enumerate(arrivals) if k not in lost]
    if scene == "jitter":
        kept = [Arrival(a.ns + int(rng.integers(0, 15 * MS)), a.data) for a in kept]
    if scene == "duplicates":
        kept += [Arrival(a.ns + MS, a.data) for a in kept[10:390:9]]
    if scene == "reordered":
        kept = [Arrival(a.ns + 50 * MS * (k % 11 == 5), a.data) for k, a in enumerate(kept[:-10])] + kept[-10:]
    path = capture(tmp_path / "a.pcap", kept)
    (theirs,) = tshark_streams(path)
    (ours,) = strep.replay(path).reports()
    assert theirs["packets"] == ours.packets_received == len(kept)
    # tshark subtracts what was received, copies too: RFC 3550's cumulative number
    assert theirs["lost"] == ours.rfc3550_lost
    assert ours.packets_lost == len(lost)
    if scene in ("clean", "loss", "burst", "wrap", "jitter"):
        # min, mean, max of the interarrival jitter; two decimals and milliseconds
        _, mean, most = theirs["jitter"]  # type: ignore[misc]
        assert ours.jitter_ms_mean == pytest.approx(mean, abs=0.02 + 0.02 * mean)
        assert ours.jitter_ms_max == pytest.approx(most, abs=0.02 + 0.02 * most)


@needs("tshark")
def test_each_ssrc_is_a_stream_to_tshark_and_a_source_to_us(tmp_path: Path) -> None:
    """faults.md 6."""
    parts = [
        Arrival(T0 + (1000 * s + 20 * k) * MS, packet(300 * s + k, call=None, ssrc=7 + s))
        for s in range(3)
        for k in range(50)
    ]
    strep_parts = [Arrival(a.ns, strep_header() + a.data) for a in parts]
    plain = capture(tmp_path / "plain.pcap", parts)
    theirs = tshark_streams(plain)
    (ours,) = strep.replay(capture(tmp_path / "strep.pcap", strep_parts)).reports()
    assert ours.sources == len(theirs) == 3
    assert ours.stream.ssrcs == sorted(row["ssrc"] for row in theirs) == [7, 8, 9]


def strep_header() -> bytes:
    return packet(0)[:24]


@needs("tshark")
def test_tshark_agrees_on_what_is_rtp(tmp_path: Path) -> None:
    """Padding, CSRC and extensions: payload offsets and lengths as Wireshark's dissector finds them (faults.md 19)."""
    rng = np.random.default_rng(5)
    wanted, arrivals = [], []
    for k in range(200):
        payload = rng.bytes(int(rng.integers(1, 60)))
        extension = (int(rng.choice([0xBEDE, 0x1000, 0x1234])), bytes(4 * int(rng.integers(0, 4))))
        data = strep.build_datagram(
            payload=payload, payload_type=0, sequence_number=k, rtp_timestamp=160 * k, ssrc=5,
            csrc=range(int(rng.integers(0, 4))), extension=extension if k % 2 else None, padding=k % 3,
        )  # fmt: skip
        arrivals.append(Arrival(T0 + k * MS, data))
        wanted.append((k, strep.parse_datagram(data).payload))
        assert wanted[-1][1] == payload
    assert rtp_payloads(capture(tmp_path / "a.pcap", arrivals), 9000) == wanted
