#!/usr/bin/env bash
# Makes the two voices that `strep demo` and `strep simulate` play: a caller and an agent who talk in turn.
# Needs espeak-ng and sox (Debian packages of those names). Usage: make_speech.sh [DIRECTORY]
set -eu
cd "${1:-$(dirname "$0")/../strep/data}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# say VOICE WORDS_A_MINUTE PITCH NAME TEXT: one utterance, 8 kHz mono, without the silence around it
say() {
    espeak-ng -v "$1" -s "$2" -p "$3" -w "$work/raw.wav" "$5"
    sox -D -R "$work/raw.wav" -r 8000 -b 16 -c 1 "$work/$4.wav" norm -6 \
        silence 1 0.02 0.2% reverse silence 1 0.02 0.2% reverse
}
say en-us+f3 165 60 c1 "Hello, this is Ada."
say en-us+m3 160 35 a1 "Good morning. Your order number?"
say en-us+f3 165 60 c2 "It is four two, one seven."
say en-us+m3 160 35 a2 "Thank you. It left today."

samples() { sox --i -s "$work/$1.wav"; }
c1=$(samples c1); a1=$(samples a1); c2=$(samples c2); a2=$(samples a2)
gap=1600 # 200 ms before whoever speaks next

# Each is silent while the other talks, and both files have the same length: they can be looped together.
sox -D "$work/c1.wav" "$work/c2.wav" caller.wav \
    pad "${gap}s" "$((gap + a1 + gap))s@${c1}s" "$((gap + a2))s"
sox -D "$work/a1.wav" "$work/a2.wav" agent.wav \
    pad "$((gap + c1 + gap))s" "$((gap + c2 + gap))s@${a1}s"
ls -l caller.wav agent.wav
