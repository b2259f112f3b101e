"""Calls of every codec as ffmpeg and GStreamer send them, how ffmpeg decodes them, and what a replay makes of them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from packed_witness import elements, ffmpeg, ffmpeg_decodes, ffmpeg_encoders, gst, packets_of
from support import Arrival, batch_of

import strep
from strep._codecs import amr
from strep._codecs.encoder import make_encoder
from strep._codecs.encoders import system_library
from strep._codecs.facts import parse_codec
from strep._edge.pcap import PcapWriter
from strep._model.blocks import BlockBatch
from strep._model.types import StreamInfo
from strep.simulate.speech import bundled_voices
from strep.sinks import BaseSink

I16 = npt.NDArray[np.int16]

# --- who sends what --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A codec, as it is told to the receiver; who sends it, and how ffmpeg decodes its payloads."""

    spelled: str
    send: Callable[[], list[bytes]]  # RTP packets of the bundled caller, 20 ms each but where ``name`` says otherwise
    decode: Callable[[list[bytes]], I16] | None = None
    least_db: float | None = None  # against ``decode``; None: the same samples
    encoders: tuple[str, ...] = ()  # of ffmpeg
    elements: tuple[str, ...] = ()  # of GStreamer
    library: str = ""

    @property
    def codec(self) -> strep.Codec:
        return parse_codec(self.spelled)


def program(*options: str) -> Callable[[list[bytes]], I16]:
    return lambda payloads: ffmpeg_decodes(b"".join(payloads), *options)


def by_gst(*stages: str) -> Callable[[], list[bytes]]:
    return lambda: packets_of(gst(*stages))


def by_ffmpeg(*options: str, most_bytes: int = 1472) -> Callable[[], list[bytes]]:
    return lambda: packets_of(ffmpeg(*options, most_bytes=most_bytes))


def numbered(payloads: list[bytes], step: int, payload_type: int, first: int = 0, ssrc: int = 77) -> list[bytes]:
    return [
        struct.pack("!BBHII", 0x80, payload_type, (first + k) & 0xFFFF, step * (first + k) & 0xFFFF_FFFF, ssrc)
        + payload
        for k, payload in enumerate(payloads)
    ]


def bandwidth_efficient(packets: list[bytes], wide: bool) -> list[bytes]:
    """GStreamer's octet-aligned packets of one frame, without the bits that align (RFC 4867 4.3 and 4.4)."""
    out = []
    for whole in packets:
        bits = np.unpackbits(np.frombuffer(whole[12:], np.uint8))
        speech = amr.SPEECH_BITS[wide][whole[13] >> 3 & 15]
        kept = np.concatenate([bits[:4], bits[8:14], bits[16 : 16 + speech]])
        out.append(whole[:12] + np.packbits(kept).tobytes())
    return out


def stored_amr(payloads: list[bytes], wide: bool) -> bytes:
    """The file that octet-aligned payloads of one frame make (RFC 4867 5)."""
    return (b"#!AMR-WB\n" if wide else b"#!AMR\n") + b"".join(p[1:] for p in payloads)


def opencore(payloads: list[bytes], wide: bool) -> I16:
    """GStreamer's decoder in place of ffmpeg's, which is in floating point, of octet-aligned payloads of one frame."""
    element = "amrwbdec" if wide else "amrnbdec"
    command = f"gst-launch-1.0 -q fdsrc ! amrparse ! {element} ! fdsink"
    data = stored_amr(payloads, wide)
    return np.frombuffer(subprocess.run(command.split(), input=data, check=True, capture_output=True).stdout, "<i2")


def of_bcg729() -> list[bytes]:
    encoder = make_encoder(parse_codec("G729"), 160)
    samples = bundled_voices(8000)[0]
    return numbered([encoder.encode(p) for p in samples[: samples.size // 160 * 160].reshape(-1, 160)], 160, 18)


def made_up_ilbc() -> list[bytes]:
    """Nothing that is installed encodes iLBC: frames of random parameters."""
    rng = np.random.default_rng(2)
    return numbered([rng.bytes(37) + b"\x02" for _ in range(200)], 160, 97)


NARROW = "audio/x-raw,rate=8000,channels=1"
WIDE = "audio/x-raw,rate=16000,channels=1"
OPUS = ("-c:a", "libopus", "-ar", "48000", "-b:a", "32k", "-ac")
_AMR_NB = by_gst(NARROW, "amrnbenc", "rtpamrpay")
_AMR_WB = by_gst(WIDE, "voamrwbenc", "rtpamrpay")
_NB_ELEMENTS = ("amrnbenc", "amrnbdec", "amrparse", "rtpamrpay")
_WB_ELEMENTS = ("voamrwbenc", "amrwbdec", "amrparse", "rtpamrpay")

CALLS = {
    "PCMU": Call(
        "PCMU", by_ffmpeg("-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1", most_bytes=172),
        program("-f", "mulaw", "-ar", "8000"), encoders=("pcm_mulaw",),
    ),
    "PCMA": Call(
        "PCMA", by_ffmpeg("-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1", most_bytes=172),
        program("-f", "alaw", "-ar", "8000"), encoders=("pcm_alaw",),
    ),
    "L16": Call(
        "L16/16000", by_ffmpeg("-c:a", "pcm_s16be", "-ar", "16000", "-ac", "1", most_bytes=652),
        program("-f", "s16be", "-ar", "16000"), encoders=("pcm_s16be",),
    ),
    "L16-stereo": Call(
        "L16/44100/2",
        by_gst("audio/x-raw,rate=44100,channels=2,format=S16BE", "rtpL16pay pt=96 max-ptime=10000000"),
        program("-f", "s16be", "-ar", "44100", "-ac", "2"), elements=("rtpL16pay",),
    ),
    "G722": Call(
        "G722", by_ffmpeg("-c:a", "g722", "-ar", "16000", "-ac", "1"), program("-f", "g722"), encoders=("g722",)
    ),
    "opus": Call("opus/48000", by_ffmpeg(*OPUS, "1"), encoders=("libopus",)),
    "opus-stereo": Call("opus/48000/2", by_ffmpeg(*OPUS, "2"), encoders=("libopus",)),
    "AMR": Call("AMR/8000;octet-align=1", _AMR_NB, lambda p: opencore(p, False), elements=_NB_ELEMENTS),
    "AMR-efficient": Call("AMR/8000", lambda: bandwidth_efficient(sent("AMR"), False), elements=_NB_ELEMENTS),
    "AMR-WB": Call("AMR-WB/16000;octet-align=1", _AMR_WB, lambda p: opencore(p, True), elements=_WB_ELEMENTS),
    "AMR-WB-efficient": Call("AMR-WB", lambda: bandwidth_efficient(sent("AMR-WB"), True), elements=_WB_ELEMENTS),
    "GSM": Call("GSM", by_gst(NARROW, "gsmenc", "rtpgsmpay"), program("-f", "gsm"), elements=("gsmenc", "rtpgsmpay")),
    "G729": Call("G729", of_bcg729, program("-f", "g729"), library="bcg729"),
    "iLBC": Call(
        "iLBC", made_up_ilbc, lambda p: ffmpeg_decodes(b"#!iLBC20\n" + b"".join(p), "-f", "ilbc"), least_db=40
    ),
}  # fmt: skip


def call_of(name: str) -> Call:
    """Skips the test when what it needs is not installed."""
    call = CALLS[name]
    if not ffmpeg_encoders():
        pytest.skip("ffmpeg is not installed")
    missing = [f"ffmpeg's {e}" for e in call.encoders if e not in ffmpeg_encoders()]
    missing += [f"GStreamer's {e}" for e in call.elements if e not in elements()]
    if call.library and system_library(call.library) is None:
        missing.append(f"lib{call.library}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return call


@lru_cache(maxsize=len(CALLS))
def sent(name: str) -> list[bytes]:
    return CALLS[name].send()


def cut(data: bytes, size: int) -> list[bytes]:
    """Whole parts of that size."""
    return [data[i : i + size] for i in range(0, len(data) - size + 1, size)]


def payloads_of(name: str) -> list[bytes]:
    return [p[12:] for p in sent(name)]


def types_of(name: str) -> dict[int, str]:
    """The dynamic payload type that the sender took."""
    number = sent(name)[0][1] & 127
    return {number: CALLS[name].spelled} if number >= 96 else {}


# --- replays ---------------------------------------------------------------------------------------------------------


class Collector(BaseSink):
    """All samples and masks of each stream; gaps as zeros, marked 255."""

    inline = True

    def __init__(self, conceal: bool = False) -> None:
        self.concealment = conceal
        self.events: list[strep.StreamEvent] = []
        self._parts: dict[int, list[tuple[I16, npt.NDArray[np.uint8]]]] = {}
        self.gaps: dict[int, list[tuple[int, int, str]]] = {}

    def blocks(self, batch: BlockBatch) -> None:
        for block in batch:
            parts = self._parts.setdefault(block.stream.serial, [])
            if block.gap is not None:
                at = block.position - block.gap.samples
                self.gaps.setdefault(block.stream.serial, []).append((at, block.gap.samples, block.gap.cause.label))
                silence = np.zeros((block.gap.samples, *block.samples.shape[1:]), np.int16)
                parts.append((silence, np.full(block.gap.samples, 255, np.uint8)))
            parts.append((block.samples, block.mask))

    def event(self, event: strep.StreamEvent) -> None:
        self.events.append(event)

    def heard(self, stream: StreamInfo) -> tuple[I16, npt.NDArray[np.uint8]]:
        samples, mask = zip(*self._parts[stream.serial], strict=True)
        return np.concatenate(samples), np.concatenate(mask)


def replayed(
    folder: Path, arrivals: list[Arrival], types: dict[int, str] | None = None, *, width: int = 1024
) -> tuple[strep.Replay, Collector, Collector]:
    """Through a capture file: (what was found, blocks as they are, blocks with gaps concealed)."""
    path = folder / "a.pcap"
    writer = PcapWriter(path)
    writer.write(batch_of(sorted(arrivals, key=lambda a: a.ns), width=width))
    writer.close()
    plain, concealed = Collector(), Collector(conceal=True)
    found = strep.replay(path, sinks=[plain, concealed], payload_types=types)
    assert found.totals().unaccounted == 0
    assert [r["failed"] for r in found.sink_reports()] == [None, None]
    return found, plain, concealed
