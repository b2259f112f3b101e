"""Which peers there are, what each one does and does not do, how it is started, how it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BENCHMARKS", "PEERS", "Missing", "Peer", "Setting"]

BENCHMARKS: Final = Path(__file__).resolve().parent.parent
_GO: Final = Path("/usr/share/gocode")  # where Debian's golang packages put their sources
_PACKAGES: Final = "golang-go golang-github-pion-rtp-dev golang-github-pion-webrtc.v3-dev"


class Missing(Exception):
    """A peer is not here; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a trial runs."""

    python: str  # that has the Python peers
    work: Path  # for what is built; kept over all trials
    out: Path  # for files
    streams: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Something beside which strep is measured."""

    job: str  # "parse", "order" or "record": compared with the strep that does no less
    does: str
    command: Callable[[Setting], list[str]]
    version: Callable[[Setting], str]  # raises Missing
    port_a_stream: bool = False
    most_streams: int = 20_000
    tail: int = 0  # packets that its jitter buffer holds of each stream, and never gives back


def _python(module: str) -> Callable[[Setting], list[str]]:
    def command(setting: Setting) -> list[str]:
        paths = os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])
        program = [setting.python, "-m", f"peers.{module}", str(setting.out), str(setting.streams)]
        return ["env", f"PYTHONPATH={paths}", *program]

    return command


def _distributions(*names: str) -> Callable[[Setting], str]:
    def version(setting: Setting) -> str:
        code = "import platform; from importlib.metadata import version; print('Python', platform.python_version()); "
        code += "; ".join(f"print('{name}', version('{name}'))" for name in names)
        try:
            done = subprocess.run([setting.python, "-c", code], capture_output=True, text=True)
        except OSError as error:
            raise Missing(f"{setting.python}: {error.strerror}") from None
        if done.returncode:
            requirements = (BENCHMARKS / "requirements-peers.txt").relative_to(BENCHMARKS.parent)
            raise Missing(f"pip install -r {requirements}, and --peer-python if that is another interpreter's")
        return ", ".join(done.stdout.splitlines())

    return version


def _program(name: str, option: str, install: str) -> Callable[[Setting], str]:
    def version(setting: Setting) -> str:
        if shutil.which(name) is None:
            raise Missing(f"apt-get install {install}")
        done = subprocess.run([name, option], capture_output=True, text=True)
        return (done.stdout or done.stderr).splitlines()[0].partition(" Copyright")[0]

    return version


def _gstreamer_version(setting: Setting) -> str:
    packages = "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    version = _program("gst-launch-1.0", "--version", packages)(setting)
    for element in ("udpsrc", "rtpjitterbuffer", "rtppcmudepay", "mulawdec", "wavenc", "filesink"):
        if subprocess.run(["gst-inspect-1.0", "--exists", element], capture_output=True).returncode:
            raise Missing(f"GStreamer has no {element}: apt-get install {packages}")
    return version


def _rtpengine_version(setting: Setting) -> str:
    return "rtpengine " + _program("rtpengine", "--version", "rtpengine-daemon")(setting).removeprefix("Version: ")


def _pion_command(setting: Setting) -> list[str]:
    return [str(setting.work / "pion"), str(setting.out)]


def _pion_version(setting: Setting) -> str:
    """Builds it as well: offline, from the sources that Debian packages."""
    if shutil.which("go") is None or not (_GO / "src/github.com/pion/webrtc/pkg/media/samplebuilder").is_dir():
        raise Missing(f"apt-get install {_PACKAGES}")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(_GO), "GOFLAGS": ""}
    source = BENCHMARKS / "peers" / "pion" / "main.go"
    build = ["go", "build", "-o", str(setting.work / "pion"), str(source)]
    done = subprocess.run(build, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"it does not build: {done.stderr.strip()}")
    version = _program("go", "version", _PACKAGES)(setting)
    if shutil.which("dpkg-query"):
        packages = ["golang-github-pion-rtp-dev", "golang-github-pion-webrtc.v3-dev"]
        query = ["dpkg-query", "-W", "-f", ", ${Package} ${Version}", *packages]
        version += subprocess.run(query, capture_output=True, text=True).stdout
    return version


PEERS: Final = {
    "gstreamer": Peer(
        "record",
        "udpsrc ! rtpjitterbuffer latency=200 ! rtppcmudepay ! mulawdec ! wavenc ! filesink; a port a stream",
        _python("gstreamer"),
        _gstreamer_version,
        port_a_stream=True,
    ),
    "ffmpeg": Peer(
        "record",
        "SDP to WAV; its RTP demuxer orders; a port and a process a stream",
        _python("ffmpeg"),
        _program("ffmpeg", "-version", "ffmpeg"),
        port_a_stream=True,
        most_streams=40,
    ),
    "rtpengine": Peer(
        "record",
        "in user space, a pcap file a call; relays each packet too; neither orders nor decodes; a port a stream",
        _python("rtpengine"),
        _rtpengine_version,
        port_a_stream=True,
    ),
    "pion": Peer(
        "record",
        "rtp.Packet and the sample builder order; a table decodes, bufio writes the WAVs; one port",
        _pion_command,
        _pion_version,
        tail=1,
    ),
    "aiortc": Peer(
        "order",
        "RtpPacket.parse and JitterBuffer on uvloop; payloads kept, not decoded; no statistics; one port",
        _python("aiortc_buffer"),
        _distributions("aiortc", "uvloop"),
        tail=4,
    ),
    "rtp": Peer(
        "parse",
        "RTP().fromBytes on uvloop; payloads kept as they come; one port",
        _python("rtp_parser"),
        _distributions("rtp", "uvloop"),
    ),
    "dpkt": Peer(
        "parse",
        "dpkt.rtp.RTP on uvloop; payloads kept as they come; one port",
        _python("dpkt_parser"),
        _distributions("dpkt", "uvloop"),
    ),
    "asyncio": Peer(
        "parse",
        "a DatagramProtocol and struct; payloads kept as they come; one port",
        _python("asyncio_struct"),
        _distributions(),
    ),
    "uvloop": Peer(
        "parse",
        "the same on uvloop",
        _python("uvloop_struct"),
        _distributions("uvloop"),
    ),
}
"""What strep is compared with, by name."""
