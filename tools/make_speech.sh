#!/usr/bin/env bash
# Makes the two voices that `strep demo` and `strep simulate` play: a caller and an agent who talk in turn.
# Needs espeak-ng and sox (Debian packages of those names). Deterministic.
set -eu
cd "$(dirname "$0")/../strep/data"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { espeak-ng -v "$1" -s "$2" -p "$3" -w "$work/raw.wav" "$5"; sox -D -R "$work/raw.wav" -r 8000 -b 16 -c 1 "$work/$4.wav" norm -6; }
say en-us+f3 165 60 c1 "Hello, this is Ada. I am calling about my order."
say en-us+m3 155 35 a1 "Good morning Ada. May I have the order number?"
say en-us+f3 165 60 c2 "It is four two, one seven."
say en-us+m3 155 35 a2 "Thank you. It left today."
length() { sox --i -s "$1"; }
quiet() { sox -D -n -r 8000 -b 16 -c 1 "$work/q.wav" trim 0 "${1}s"; }
c1=$(length "$work/c1.wav"); a1=$(length "$work/a1.wav"); c2=$(length "$work/c2.wav"); a2=$(length "$work/a2.wav")
gap=1600
# caller speaks, agent answers, caller, agent; each is silent while the other talks
quiet $((gap + a1 + gap)); mv "$work/q.wav" "$work/q1.wav"; quiet $((gap + a2 + gap)); mv "$work/q.wav" "$work/q2.wav"
sox -D "$work/c1.wav" "$work/q1.wav" "$work/c2.wav" "$work/q2.wav" caller.wav
quiet $((c1 + gap)); mv "$work/q.wav" "$work/q1.wav"; quiet $((gap + c2 + gap)); mv "$work/q.wav" "$work/q2.wav"; quiet $gap
sox -D "$work/q1.wav" "$work/a1.wav" "$work/q2.wav" "$work/a2.wav" "$work/q.wav" agent.wav
ls -l caller.wav agent.wav
