"""ffmpeg: a process for each stream, told by an SDP file what comes to which port."""

from __future__ import annotations

from ._programs import arguments, free_ports, run

_SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=audio {port} RTP/AVP 0
"""


def main() -> None:
    out, streams = arguments()
    ports = free_ports(streams)
    commands = []
    for stream, port in enumerate(ports):
        sdp = out / f"{stream}.sdp"
        sdp.write_text(_SDP.format(port=port))
        command = ["ffmpeg", "-nostdin", "-v", "error", "-protocol_whitelist", "file,udp,rtp", "-i", str(sdp)]
        commands.append([*command, "-c:a", "pcm_s16le", str(out / f"{stream}.wav")])
    run(commands, ports, bye=True)  # after SIGINT it would wait for a packet, up to 10 s


if __name__ == "__main__":
    main()
