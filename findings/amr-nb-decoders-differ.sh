#!/usr/bin/env bash
# AMR narrowband: the decoder that FFmpeg takes by itself is not the one of the standard, and is not near it.
#
# av 18.1.0 (its wheel brings FFmpeg with libavcodec 62 and opencore-amr), numpy 2.4.6, Python 3.11, Linux x86_64.
#
# 3GPP TS 26.073 defines AMR's decoder bit by bit: whoever follows it gives the same samples. opencore-amr does. FFmpeg has
# that decoder as "libopencore_amrnb", but for an AMR stream whose codec nobody names it takes its own "amrnb", in floating
# point. The two differ in nearly every sample: 28 dB between them at 12.2 kbit/s, up to 610 of 32,768 apart, without a
# word. Who compares a recording made with one with a recording made with the other (a receiver's test against a phone's,
# say) sees a fault where there is none; so AMR can only be witnessed by a decoder of the same kind.
#
# Output seen:
#   200 frames of 12.2 kbit/s: 32000 and 32000 samples, 2 % equal, 28 dB apart, at most 610 of 32768
#   taken by itself: amrnb
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q av==18.1.0 numpy==2.4.6
cat > "$work/compare.py" <<'PYTHON'
import io
import sys

import av
import numpy as np

RATE = 8000
t = np.arange(4 * RATE) / RATE
noise = np.random.default_rng(1).standard_normal(len(t))
tone = np.sin(2 * np.pi * (150 + 60 * np.sin(2 * np.pi * 0.7 * t)) * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
sound = (6000 * tone + 300 * noise).astype(np.int16)

encoder = av.CodecContext.create("libopencore_amrnb", "w")
encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = RATE, "mono", "s16", 12_200
frames = []
for at in range(0, len(sound), 160):
    frame = av.AudioFrame.from_ndarray(sound[at : at + 160].reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE, at
    frames += [bytes(packet) for packet in encoder.encode(frame)]


def decoded(name):
    decoder = av.CodecContext.create(name, "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    parts = []
    for one in frames:
        for frame in decoder.decode(av.Packet(one)):
            samples = frame.to_ndarray().reshape(-1)
            if samples.dtype != np.int16:
                samples = np.rint(np.clip(samples * 32_768, -32_768, 32_767))
            parts.append(samples.astype(np.float64))
    return np.concatenate(parts)


own, standard = decoded("amrnb"), decoded("libopencore_amrnb")
apart = own - standard
snr = 10 * np.log10((standard**2).sum() / (apart**2).sum())
equal = (apart == 0).mean()
print(
    f"{len(frames)} frames of 12.2 kbit/s: {len(own)} and {len(standard)} samples, {equal:.0%} equal, "
    f"{snr:.0f} dB apart, at most {np.abs(apart).max():.0f} of 32768"
)
with av.open(io.BytesIO(b"#!AMR\n" + b"".join(frames))) as file:  # RFC 4867 section 5
    default = file.streams.audio[0].codec_context.name
print(f"taken by itself: {default}")
sys.exit(0 if default == "amrnb" and equal < 0.1 and 20 < snr < 35 else "this has changed")
PYTHON
"$work/venv/bin/python" "$work/compare.py"
