"""One row of facts for each codec.

Payload types, spellings, frame counts, guesses, decoders, encoders, the E-model's constants, the table in README and
the help texts are all made from these rows. To add a codec, add its row, and the decoder (and encoder) that it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, Literal, NamedTuple

from .._model.exceptions import ConfigurationError
from .._model.extras import install
from .._model.types import Codec

__all__ = [
    "CODECS",
    "NO_AUDIO",
    "REDUNDANT",
    "UNKNOWN",
    "CodecFacts",
    "FrameSize",
    "Impairment",
    "Scale",
    "bound",
    "codec_facts",
    "parse_codec",
    "silence_byte",
]

REDUNDANT: Final = "red"  # no codec: packets that bring earlier ones once more (RFC 2198)

# in columns of codec indices: what is none of them
UNKNOWN: Final = -1  # a payload type that is not decoded here: counted
NO_AUDIO: Final = -2  # known, and no audio: key presses, comfort noise


Scale = Literal["narrowband", "wideband", "fullband"]


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a codec costs: ``ie`` without loss, ``bpl`` how well it bears loss (larger is better).

    ``scale``       of R, for which both numbers are: "narrowband" (G.107, up to 93.2 by default), "wideband" (G.107.1,
                    up to 129) or "fullband" (G.107.2, up to 148). Values of different scales cannot be compared
    ``published``   both numbers stand in G.113; otherwise one of them is an estimate, as ``source`` says
    ``mode``        of the codec, if it has several that differ
    """

    ie: float
    bpl: float
    scale: Scale
    published: bool
    source: str
    mode: str = ""

    @property
    def wideband(self) -> bool:
        """Whether the scale is G.107.1's."""
        return self.scale == "wideband"


class FrameSize(NamedTuple):
    """The bytes of a coded frame, and its sample frames at the codec's ``sample_rate``."""

    bytes: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFacts:
    """What is to be known of a codec. Rates in Hz.

    A codec is plain (``sample_bytes``: numpy decodes it, any cut of its bytes will do), packed (``decoder``: its
    payloads need one), or known by name only, for reports and for the E-model.

    References name a module and what is in it, like ``".decoders:G729Decoder"``; see :func:`bound`.
    """

    name: str  # as it is registered for RTP; users may spell it in any case
    title: str = ""  # for people, where that differs
    spelling: str = ""  # how users spell it, where NAME/CLOCK is not all that they may say
    # --- rates and channels
    clock_rate: int = 8000  # of RTP timestamps; if ``any_rate``, what is meant when nobody says a rate
    sample_rate: int = 0  # of the audio; 0: that of the clock
    any_rate: bool = False  # users may say a rate, from 4,000 to 192,000 Hz
    other_clocks: tuple[int, ...] = (1000,)  # that senders have by mistake, and users may name; 1000: timestamps in ms
    max_channels: int = 1
    # --- payload types
    static_types: Mapping[int, str] = field(default_factory=dict)  # of RFC 3551, and what each stands for
    dynamic_type: int | None = None  # that the simulator sends; None: the first static one
    habitual: bool = False  # ``dynamic_type`` is understood without being told
    # --- guesses, for dynamic payload types that nobody has named
    guess_rank: int = 0  # packed: the place in the order in which codecs are tried; 0: never
    guessed_rates: tuple[int, ...] = ()  # plain: rates that are tried, last of all
    # --- payloads
    sample_bytes: int = 0  # plain: of one sample
    silence: int = 0  # plain: the byte that decodes to silence
    frame_sizes: tuple[FrameSize, ...] = ()  # packed: a payload is a number of frames of one of these; the first wins
    last_frame: FrameSize | None = None  # packed: what may stand after them, or alone
    counter: str = ""  # packed, instead of sizes: the module that reads from payloads how long they last
    parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of SDP's fmtp that are kept: their values
    refused: tuple[str, ...] = ()  # parameters of SDP's fmtp that make payloads which are not understood here
    # --- decoding
    decoder: str = ""  # packed: a subclass of :class:`.decoder.Decoder`
    decoded_by: str = "numpy"
    av_decoders: tuple[str, ...] = ()  # libavcodec's names for it; the first that is there is taken
    extra: str = ""  # of this package, which installs what decodes it
    concealed_by: str = "ITU-T G.711 Appendix I"  # what makes up for lost packets, for README
    # --- encoding, for simulations and tests
    encoder: str = ""  # packed: a subclass of :class:`.encoder.Encoder`
    encoded_frames: tuple[int, ...] = ()  # packet lengths it encodes, in sample frames; (n,): also multiples of n
    error_correction: bool = False  # packets may carry copies of their predecessors
    simulated_as: str = ""  # what the simulator means by the bare name, if not what users mean
    # --- the E-model
    impairment: Impairment | None = None
    impairment_bare: Impairment | None = None  # with holes played as silence
    impairment_by_rate: Mapping[int, Impairment] = field(default_factory=dict)  # sampled at so many Hz or more, rising
    impairment_modes: tuple[Impairment, ...] = ()  # by mode, as ``mode_counts`` of the ``counter`` has them

    @property
    def packed(self) -> bool:
        """Whether payloads need a decoder that keeps state."""
        return bool(self.decoder)

    @property
    def decodable(self) -> bool:
        return bool(self.sample_bytes or self.decoder)

    @property
    def encodable(self) -> bool:
        return bool(self.sample_bytes or self.encoder)

    @property
    def codec(self) -> Codec:
        """With one channel, at the usual rate."""
        return Codec(self.name, self.clock_rate, self.sample_rate or self.clock_rate, 1, self.sample_bytes)

    @property
    def simulated_type(self) -> int:
        """The payload type that the simulator sends."""
        return next(iter(self.static_types), 96) if self.dynamic_type is None else self.dynamic_type

    @property
    def install(self) -> str:
        """The command that installs what decodes it."""
        return install(self.extra)


_NB: Final = "G.113 (11/2007) Appendix I"
_WB: Final = "G.113 (09/2024) Appendix IV"
_OPUS: Final = "Alahmadi, Pocta, Melvin: ACM TOMM 17(4) 133 (2021)"
_G711_CONCEALED: Final = Impairment(0.0, 25.1, "narrowband", True, f"{_NB}, G.711 with G.711 Appendix I concealment")
_G711_BARE: Final = Impairment(0.0, 4.3, "narrowband", True, f"{_NB}, G.711 without concealment")
_UNCODED: Final = {
    16_000: Impairment(0.0, 15.0, "wideband", False, "estimated: no coding, and concealment like Opus's"),
    44_100: Impairment(0.0, 15.0, "fullband", False, "estimated: no coding, and concealment like Opus's"),
}
_FFMPEG: Final = "FFmpeg (PyAV)"
_AMR_REFUSED: Final = ("crc", "robust-sorting", "interleaving")  # RFC 4867 8.1
_OCTET_ALIGN: Final = {"octet-align": ("0", "1")}  # RFC 4867 8.1; without it, each payload is looked at


def _amr_wb(kbit_s: float, ie: float, bpl: float | None = None) -> Impairment:
    """A mode of AMR-WB: Ie by table IV.1, Bpl by table IV.4, or as that of 12.65 kbit/s."""
    robust = "Bpl by IV.4 (of both ears)" if bpl else "Bpl of 12.65 kbit/s"
    source = f"Ie {_WB} table IV.1, {kbit_s:g} kbit/s (one ear); estimated: {robust}"
    return Impairment(ie, bpl or 4.3, "wideband", False, source, f"{kbit_s:g}")


def _opus(mode: str, ie: float, bpl: float, source: str) -> Impairment:
    return Impairment(ie, bpl, "fullband", False, f"estimated, ITU-T has published nothing of Opus: {source}", mode)


# Impairments
#   narrowband  G.113 Appendix I (the edition of 2024 has no Bpl any more)
#   wideband    G.113 Appendix IV, tables IV.1 (Ie, listening with one ear, as with a handset) and IV.4 (Bpl, of three
#               AMR-WB modes, with both ears). 23.85 kbit/s is worse there than 23.05: no slip, all its tables say so
#   fullband    G.113 Appendix V has EVS only. Opus's are those that others measured, put on that scale: narrowband by
#               148 - 93.2, wideband by Appendix V's Ie,fb = Ie,wb + 19
_AMR_WB_MODES: Final = (  # by frame type (RFC 4867 8.1)
    _amr_wb(6.6, 41.0),
    _amr_wb(8.85, 26.0),
    _amr_wb(12.65, 13.0, 4.3),
    _amr_wb(14.25, 10.0),
    _amr_wb(15.85, 7.0),
    _amr_wb(18.25, 5.0),
    _amr_wb(19.85, 3.0),
    _amr_wb(23.05, 1.0, 4.6),
    _amr_wb(23.85, 8.0, 4.9),
)
_OPUS_MODES: Final = (  # by bandwidth (RFC 6716 table 1)
    _opus("narrowband", 56.8, 16.0, f"{_OPUS}, narrowband at 11 kbit/s, Ie 2.0 + 54.8"),
    _opus("mediumband", 47.0, 17.3, "between narrowband and wideband"),
    _opus("wideband", 37.1, 18.7, f"{_OPUS}, wideband at 15 kbit/s, Ie 18.1 + 19"),
    _opus("super-wideband", 16.8, 10.4, f"{_OPUS}, super-wideband at 31 kbit/s"),
    _opus("fullband", 16.8, 10.4, f"as super-wideband; {_OPUS}, at 31 kbit/s"),
)
_ROWS: Final = (
    CodecFacts(
        name="PCMU",
        static_types={0: "PCMU"},
        any_rate=True,
        sample_bytes=1,
        silence=0xFF,
        impairment=_G711_CONCEALED,
        impairment_bare=_G711_BARE,
        impairment_by_rate=_UNCODED,
    ),
    CodecFacts(
        name="PCMA",
        static_types={8: "PCMA"},
        any_rate=True,
        sample_bytes=1,
        silence=0xD5,
        impairment=_G711_CONCEALED,
        impairment_bare=_G711_BARE,
        impairment_by_rate=_UNCODED,
    ),
    CodecFacts(
        name="L16",
        spelling="L16/RATE[/CHANNELS]",
        clock_rate=44_100,
        any_rate=True,
        other_clocks=(),  # a rate that is named is that of the audio
        max_channels=2,
        static_types={10: "L16/44100/2", 11: "L16/44100"},
        dynamic_type=96,
        guessed_rates=(8000, 16_000, 24_000, 32_000, 44_100, 48_000),
        sample_bytes=2,
        simulated_as="L16/16000",
        impairment=Impairment(0.0, 25.1, "narrowband", False, "estimated: as G.711 with concealment"),
        impairment_by_rate=_UNCODED,
    ),
    CodecFacts(  # RFC 3551 4.5.2: its clock is an old mistake
        name="G722",
        title="G.722",
        sample_rate=16_000,
        other_clocks=(1000, 16_000),  # that of its audio
        static_types={9: "G722"},
        frame_sizes=(FrameSize(1, 2),),
        decoder=".decoders:FrameDecoder",
        decoded_by=_FFMPEG,
        av_decoders=("g722",),
        extra="codecs",
        encoder=".encoders:G722Encoder",
        encoded_frames=(2,),
        impairment=Impairment(
            13.0, 4.3, "wideband", False, f"Ie {_WB}, 64 kbit/s (some print 14); Bpl estimated: AMR-WB's"
        ),
    ),
    CodecFacts(  # RFC 3551 4.5.6: frames of 10 ms, and a silence descriptor (Annex B) as the last one
        name="G729",
        title="G.729 (A, B)",
        static_types={18: "G729"},
        guess_rank=4,
        frame_sizes=(FrameSize(10, 80),),
        last_frame=FrameSize(2, 80),
        decoder=".decoders:G729Decoder",
        decoded_by=_FFMPEG,
        av_decoders=("g729",),
        extra="codecs",
        concealed_by="its own",
        encoder=".encoders:G729Encoder",
        encoded_frames=(80,),
        impairment=Impairment(11.0, 19.0, "narrowband", True, f"{_NB}, G.729A with VAD"),
    ),
    CodecFacts(  # RFC 7587. Always signalled as /2; telephony fills one channel: decoded to one unless told otherwise.
        name="opus",
        title="Opus, mono or stereo",
        spelling="opus/48000[/2]",
        clock_rate=48_000,
        sample_rate=48_000,
        other_clocks=(1000, 8000, 12_000, 16_000, 24_000),
        max_channels=2,
        dynamic_type=111,  # WebRTC's number, which calls that pass through Telnyx keep: the fork carries no SDP
        habitual=True,
        guess_rank=1,
        counter=".opus",
        decoder=".decoders:OpusDecoder",
        decoded_by="libopus",
        av_decoders=("libopus", "opus"),
        extra="codecs",
        concealed_by="FEC of the next packet, else its own",
        encoder=".encoders:OpusEncoder",
        encoded_frames=(120, 240, 480, 960, 1920, 2880, 3840, 4800, 5760),  # libopus packs up to 120 ms
        error_correction=True,
        impairment=_OPUS_MODES[-1],
        impairment_modes=_OPUS_MODES,
    ),
    CodecFacts(  # RFC 4867
        name="AMR",
        dynamic_type=97,
        guess_rank=3,
        counter=".amr",
        parameters=_OCTET_ALIGN,
        refused=_AMR_REFUSED,
        decoder=".decoders:AmrDecoder",
        decoded_by=_FFMPEG,
        av_decoders=("libopencore_amrnb", "amrnb"),
        extra="codecs",
        concealed_by="its own",
        encoder=".encoders:AmrEncoder",
        encoded_frames=(160,),
        impairment=Impairment(
            5.0, 10.0, "narrowband", False, "estimated: GSM-EFR's, of which the 12.2 kbit/s mode is a kin"
        ),
    ),
    CodecFacts(  # RFC 4867
        name="AMR-WB",
        clock_rate=16_000,
        other_clocks=(1000, 8000),
        dynamic_type=98,
        guess_rank=2,
        counter=".amr",
        parameters=_OCTET_ALIGN,
        refused=_AMR_REFUSED,
        decoder=".decoders:AmrDecoder",
        decoded_by=_FFMPEG,
        av_decoders=("libopencore_amrwb", "amrwb"),
        extra="codecs",
        concealed_by="its own",
        encoder=".encoders:AmrWbEncoder",
        encoded_frames=(320,),
        impairment=_AMR_WB_MODES[2],
        impairment_modes=_AMR_WB_MODES,
    ),
    CodecFacts(  # RFC 3551 4.5.8
        name="GSM",
        static_types={3: "GSM"},
        guess_rank=6,
        frame_sizes=(FrameSize(33, 160),),
        decoder=".decoders:FrameDecoder",
        decoded_by=_FFMPEG,
        av_decoders=("gsm", "libgsm"),
        extra="codecs",
        encoder=".encoders:GsmEncoder",
        encoded_frames=(160,),
        impairment=Impairment(20.0, 10.0, "narrowband", False, f"Ie {_NB}, GSM-FR; Bpl estimated: as GSM-EFR's"),
    ),
    CodecFacts(  # RFC 3952: two modes; 950 bytes could be either, and count as the first
        name="iLBC",
        dynamic_type=99,
        guess_rank=5,
        frame_sizes=(FrameSize(38, 160), FrameSize(50, 240)),
        decoder=".decoders:IlbcDecoder",
        decoded_by=_FFMPEG,
        av_decoders=("ilbc", "libilbc"),
        extra="codecs",
        concealed_by="its own",
        encoded_frames=(160,),
        impairment=Impairment(
            11.0, 32.0, "narrowband", False, "estimated: not in G.113; between G.729A and G.711 with concealment"
        ),
    ),
    # Known by name only: RFC 3551 tables 4 and 5, G.113.
    CodecFacts(
        name="G723",
        static_types={4: "G723"},
        impairment=Impairment(15.0, 16.1, "narrowband", True, f"{_NB}, G.723.1 with VAD at 6.3 kbit/s"),
    ),
    CodecFacts(name="DVI4", static_types=dict.fromkeys((5, 6, 16, 17), "DVI4")),
    CodecFacts(name="LPC", static_types={7: "LPC"}),
    CodecFacts(name="QCELP", static_types={12: "QCELP"}),
    CodecFacts(name="MPA", static_types={14: "MPA"}),
    CodecFacts(
        name="G728",
        static_types={15: "G728"},
        impairment=Impairment(7.0, 10.0, "narrowband", False, f"Ie {_NB}, G.728 at 16 kbit/s; Bpl estimated"),
    ),
    CodecFacts(name="GSM-EFR", impairment=Impairment(5.0, 10.0, "narrowband", True, f"{_NB}, GSM-EFR")),
    CodecFacts(
        name="G726-32",
        impairment=Impairment(7.0, 10.0, "narrowband", False, f"Ie {_NB}, G.726 at 32 kbit/s; Bpl estimated"),
    ),
)

CODECS: Final = {row.name.upper(): row for row in _ROWS}  # by name in upper case

_LOWEST_RATE: Final = 4000  # Hz
_HIGHEST_RATE: Final = 192_000  # Hz
_SPELLED: Final = re.compile(r"(?P<name>[A-Za-z0-9-]+)(?:/(?P<rate>\d+))?(?:/(?P<channels>\d+))?")


def codec_facts(codec: Codec) -> CodecFacts:
    """The row of a codec. Raises ValueError if there is none."""
    row = CODECS.get(codec.name.upper())
    if row is None:
        raise ValueError(f"{codec} is not known here")
    return row


@lru_cache
def mistaken_clocks(codec: Codec) -> tuple[int, ...]:
    """RTP clocks in Hz that senders are known to have instead of the codec's, ascending: of milliseconds, of telephony,
    of opus, of the audio, of its bytes as 16-bit samples, or half of it, where bytes are taken for such samples."""
    audio = codec.sample_rate
    known = {1000, 8000, 48_000, audio, 2 * audio * codec.channels, *codec_facts(codec).other_clocks}
    if not codec.packed:
        known |= {audio * codec.channels, audio * codec.frame_bytes, audio // 2}
    return tuple(sorted(known - {codec.clock_rate}))


def silence_byte(name: str) -> int:
    """The byte that decodes to silence; 0 for what is no plain codec's name (16-bit samples)."""
    row = CODECS.get(name.upper())
    return 0 if row is None else row.silence


@lru_cache
def bound(reference: str) -> Any:
    """What a row refers to, imported when it is first wanted: ``".module"`` or ``".module:name"``, relative to this
    package; or of any other package, without the dot."""
    module, _, name = reference.partition(":")
    found = import_module(module, __package__)
    return getattr(found, name) if name else found


def parse_codec(spelled: str) -> Codec:
    """ "L16/16000/2", "PCMU/8000", "pcma", "opus/48000/2" or "AMR-WB/16000;octet-align=1" → Codec.

    As SDP has it: a=rtpmap name/rate/channels; a=fmtp parameters. The name in any case; the rate is that of the clock
    (G722/8000), also where the sender's is wrong (G722/16000, opus/8000, PCMU/1000 for timestamps in ms). Of the
    parameters, which are separated by ";", those are kept that tell how to read payloads; those that make payloads
    which are not understood here are refused; others make no difference and are left out.

    Raises ConfigurationError for what is not decoded here, and for a rate, channels or parameters that the codec does
    not have.
    """
    text, _, parameters = spelled.partition(";")
    match = _SPELLED.fullmatch(text.strip())
    row = CODECS.get(match["name"].upper()) if match else None
    if match is None or row is None or not row.decodable or (parameters and not row.packed):
        known = ", ".join(r.spelling or f"{r.name}/{r.clock_rate}" for r in CODECS.values() if r.decodable)
        raise ConfigurationError(f"codec {spelled!r} is not decoded here: {known}")
    rate = int(match["rate"] or row.clock_rate)
    channels = int(match["channels"] or 1)
    named = f"codec {row.name}/{row.clock_rate}"
    sample_rate = row.sample_rate or rate
    if rate in row.other_clocks:
        sample_rate = row.sample_rate or row.clock_rate
    elif row.any_rate and not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        others = "".join(f", or {other} where the RTP clock is that" for other in row.other_clocks)
        raise ConfigurationError(f"codec {spelled!r}: the rate must be {_LOWEST_RATE} to {_HIGHEST_RATE} Hz{others}")
    elif not row.any_rate and rate != row.clock_rate:
        others = ", ".join(map(str, row.other_clocks))
        raise ConfigurationError(
            f"{named}: its RTP clock runs at {row.clock_rate} Hz, not {rate}; of senders that are wrong: {others}"
        )
    if not 1 <= channels <= row.max_channels:
        choice = "1 or 2 channels" if row.max_channels > 1 else "one channel"
        raise ConfigurationError(f"codec {spelled!r}: choose {choice}")
    kept: dict[str, str] = {}
    for parameter in filter(None, (part.replace(" ", "").lower() for part in parameters.split(";"))):
        key, _, value = parameter.partition("=")
        if key in row.refused and value != "0":
            raise ConfigurationError(f"{named};{parameter}: payloads with {key} are not understood here")
        if key in row.parameters:
            if value not in row.parameters[key]:
                choice = " or ".join(f"{key}={possible}" for possible in row.parameters[key])
                raise ConfigurationError(f"{named};{parameter}: {choice}")
            kept[key] = parameter
    return Codec(row.name, rate, sample_rate, channels, channels * row.sample_bytes, ";".join(kept.values()))
