#!/usr/bin/env bash
# opus from GStreamer: the second packet's RTP timestamp comes 312 samples too early.
#
# GStreamer 1.22.0 (opusenc: plugins-base 1.22.0-3+deb12u7, rtpopuspay: plugins-good 1.22.0-5+deb12u4, Debian 12) with
# libopus 1.3.1, Linux x86_64.
#
# A packet of 20 ms of opus moves the RTP timestamp by 960, at whatever rate (RFC 7587 section 4.1: the timestamp is the
# time of the packet's first sample). Between the first two packets of every stream GStreamer moves it by 648: 960 less 312,
# the pre-skip that belongs into an Ogg file (RFC 7845 section 4.2), not into RTP. opusenc gives its first buffer a duration
# that is so much shorter, and rtpopuspay goes by the buffers' times. All packets last 20 ms nevertheless: their TOC bytes
# say so. So a receiver that goes by timestamps has 6.5 ms of two packets on the same place and has to cut, and one that
# learns the clock's step from the first two packets learns a wrong one. 40 and 60 ms begin with 312 too few just the same.
#
# Output seen:
#   20 ms: steps 648 960 960 960, samples by TOC 960 960 960 960 960
#   40 ms: steps 1608 1920 1920 1920, samples by TOC 1920 1920 1920 1920 1920
#   60 ms: steps 2568 2880 2880 2880, samples by TOC 2880 2880 2880 2880 2880
set -euo pipefail
script=$(realpath "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
core=1.22.0-2+deb12u1 base=1.22.0-3+deb12u7 good=1.22.0-5+deb12u4
apt-get download -qq gstreamer1.0-tools=$core libgstreamer1.0-0=$core gstreamer1.0-plugins-base=$base \
  libgstreamer-plugins-base1.0-0=$base gstreamer1.0-plugins-good=$good libopus0=1.3.1-3 libdw1 libelf1 libffi8 \
  libglib2.0-0 liborc-0.4-0 libpcre2-8-0 libunwind8 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
libraries="$work/root/usr/lib/x86_64-linux-gnu"
plugins="$work/plugins" # those that are needed: others would ask for libraries of their own
mkdir "$plugins"
for name in audiotestsrc coreelements opus rtp; do
  cp "$libraries/gstreamer-1.0/libgst$name.so" "$plugins"
done
export LD_LIBRARY_PATH="$libraries:$work/root/lib/x86_64-linux-gnu" GST_REGISTRY="$work/registry" GST_REGISTRY_FORK=no
export GST_PLUGIN_PATH= GST_PLUGIN_SYSTEM_PATH="$plugins" HOME="$work"

cat >steps.py <<'PYTHON'
import struct
import sys

with open("packets", "rb") as file:
    data = file.read()
timestamps, samples = [], []
while data:  # RFC 4571: each packet behind its length
    length = int.from_bytes(data[:2], "big")
    packet, data = data[2 : 2 + length], data[2 + length :]
    timestamps.append(struct.unpack(">I", packet[4:8])[0])
    toc = packet[12]  # RFC 6716 section 3.1
    config, code = toc >> 3, toc & 3
    frame = (480, 960, 1920, 2880)[config & 3] if config < 12 else (480, 960)[config & 1] if config < 16 else None
    frame = frame or (120, 240, 480, 960)[config & 3]
    samples.append(frame * (packet[13] & 0x3F if code == 3 else (1, 2, 2)[code]))
steps = [(b - a) % 2**32 for a, b in zip(timestamps, timestamps[1:])]
print(f"{sys.argv[1]} ms: steps {' '.join(map(str, steps[:4]))}, samples by TOC {' '.join(map(str, samples[:5]))}")
PYTHON

for size in 20 40 60; do
  root/usr/bin/gst-launch-1.0 -q audiotestsrc num-buffers=30 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 ! \
    opusenc frame-size=$size ! rtpopuspay ! rtpstreampay ! filesink location=packets
  python3 steps.py $size
done | tee seen

sed -n 's/^#   //p' "$script" >expected
diff expected seen && echo "as it was"
