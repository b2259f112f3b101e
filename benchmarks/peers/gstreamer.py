"""GStreamer: one gst-launch, a branch for each stream, from its port to its WAV file."""

from __future__ import annotations

from ._programs import arguments, free_ports, run

_CAPS = "application/x-rtp,media=audio,clock-rate=8000,encoding-name=PCMU,payload=0"


def main() -> None:
    out, streams = arguments()
    ports = free_ports(streams)
    command = ["gst-launch-1.0", "-q", "-e"]  # -e: SIGINT ends the streams, so that the files are finished
    for stream, port in enumerate(ports):
        command += ["udpsrc", "address=127.0.0.1", f"port={port}", f"caps={_CAPS}", "!"]
        command += ["rtpjitterbuffer", "latency=200", "!", "rtppcmudepay", "!", "mulawdec", "!"]
        command += ["wavenc", "!", "filesink", f"location={out / str(stream)}.wav"]
    run([command], ports)


if __name__ == "__main__":
    main()
