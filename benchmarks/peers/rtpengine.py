"""rtpengine in user space, recording method pcap: a call for two streams, one from each side.

It is a relay, so it also sends each packet on, to a socket of ours that drops it. What it recorded is made into WAV
files after it has ended, which no figure includes.
"""

from __future__ import annotations

import re
import socket
import struct
import sys
import time
import wave
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np

from strep._codecs.g711 import PCMU, decode

from ._programs import arguments, free_ports, run

_NG_PORT_TRIES: Final = 50
_PCAP_HEADER: Final = 24
_RECORD: Final = struct.Struct("<IIII")
_ANSWER_BYTES: Final = 65_536


class _Control:
    """Its "ng" protocol: a cookie and a bencoded dictionary in a datagram, each way."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(1.0)

    def ask(self, **fields: object) -> bytes:
        """Have it done; returns the answer as it came. Keys have blanks for ``_``, and ``-`` for ``__``."""
        message = {key.replace("__", "-").replace("_", " "): value for key, value in fields.items()}
        for number in range(_NG_PORT_TRIES):
            cookie = f"{time.monotonic_ns()}.{number}".encode()
            try:
                self._socket.send(cookie + b" " + _bencoded(message))
                answer = self._socket.recv(_ANSWER_BYTES).removeprefix(cookie + b" ")
            except OSError:  # it does not listen yet
                time.sleep(0.1)
                continue
            if b"6:result2:ok" not in answer and b"6:result4:pong" not in answer:
                raise SystemExit(f"rtpengine: {answer[:300]!r}")
            return answer
        raise SystemExit("rtpengine does not answer")


def _bencoded(value: object) -> bytes:
    if isinstance(value, dict):
        return b"d" + b"".join(_bencoded(key) + _bencoded(value[key]) for key in sorted(value)) + b"e"
    if isinstance(value, list):
        return b"l" + b"".join(map(_bencoded, value)) + b"e"
    text = str(value).encode()
    return b"%d:%s" % (len(text), text)


def main() -> None:
    out, streams = arguments()
    streams += streams % 2
    recordings = out / "rtpengine"
    ports = free_ports(streams)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        control_port = free.getsockname()[1]
    drain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    drain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the least that there is; nobody reads it
    drain.bind(("127.0.0.1", 0))
    control = _Control(control_port)

    def open_calls() -> None:
        """As many calls as there are ports for: whatever order it takes them in, each is a side of one."""
        control.ask(command="ping")
        sdp = _sdp(drain.getsockname()[1])
        common = {"sdp": sdp, "flags": ["asymmetric", "trust-address"], "record_call": "on", "ICE": "remove"}
        opened = set()
        for call in range(streams // 2):
            tags: dict[str, object] = {"call__id": f"call-{call}", "from__tag": "a"}
            for answer in (
                control.ask(command="offer", **tags, **common),
                control.ask(command="answer", **tags, to__tag="b", **common),
            ):
                opened.add(int(re.search(rb"m=audio (\d+)", answer)[1]))  # type: ignore[index]
        if opened != set(ports):
            raise SystemExit("rtpengine did not take the ports that it was given")

    def close_calls() -> None:
        """As who uses it does: of calls that live when it ends, files lacked their last packets."""
        for call in range(streams // 2):
            control.ask(command="delete", call__id=f"call-{call}", from__tag="a", delete_delay=0)

    command = ["rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=3", "--table=-1"]
    command += ["--num-threads=1"]  # it has one core; with more they write packets of a stream in any order
    command += ["--interface=127.0.0.1", f"--listen-ng=127.0.0.1:{control_port}"]
    command += [f"--port-min={ports[0]}", f"--port-max={ports[-1] + 1}"]
    command += [f"--recording-dir={recordings}", "--recording-method=pcap", "--recording-format=raw"]
    run([command], ports, opening=open_calls, closing=close_calls)
    _make_files(recordings, out)


def _sdp(port: int) -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0", f"m=audio {port} RTP/AVP 0"]
    return "".join(line + "\r\n" for line in [*lines, "a=rtpmap:0 PCMU/8000"])


def _make_files(recordings: Path, out: Path) -> None:
    """A WAV a stream from what was recorded: payloads in the order of the capture, raw IPv4 packets."""
    payloads: dict[int, list[bytes]] = defaultdict(list)
    for path in recordings.rglob("*.pcap"):
        data = path.read_bytes()
        at = _PCAP_HEADER
        while at + _RECORD.size <= len(data):
            size = _RECORD.unpack_from(data, at)[2]
            packet = data[at + _RECORD.size : at + _RECORD.size + size]
            at += _RECORD.size + size
            rtp = packet[4 * (packet[0] & 15) + 8 :]
            payloads[int.from_bytes(rtp[8:12], "big")].append(rtp[12:])
    for ssrc, parts in payloads.items():
        with wave.open(str(out / f"{ssrc - 1}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(decode(PCMU, np.frombuffer(b"".join(parts), np.uint8)).astype("<i2").tobytes())
    print(f"{sum(map(len, payloads.values()))} packets recorded", file=sys.stderr)


if __name__ == "__main__":
    main()
