"""One run: a receiver on one core, a load from another, the answers compared with what was sent."""

from __future__ import annotations

import json
import os
import sys
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..simulate.load import call_leg_id_of, expected_samples
from ..simulate.schedule import Schedule, make_schedule
from ._disk import emptied, quiet_directory
from ._machine import busy_s, core_pair
from ._processes import MeasuredProcess, MeasurementError

__all__ = ["RECEIVERS", "Load", "Trial", "capture_command", "cpu_when_idle", "is_right", "run_trial"]

RECEIVERS: Final = ("floor", "monitor", "arrays", "wav")
"""What is measured: the C program that discards; ``strep capture``; all streams decoded; ``strep capture --out``."""

_LOOK_S: Final = 0.5  # between two looks at CPU time
_IDLE_CPU_S: Final = 0.02  # in that time: nothing is going on any more
_MAX_LOOKS: Final = 20
_PACKET_FRAMES: Final = 160  # samples


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent; see :func:`strep.simulate.load.send_load`."""

    streams: int
    rate: float
    duration_s: float
    pattern: str = "even"
    churn: float = 200.0
    segment: bool = False
    spin: bool = False
    port_a_stream: bool = False  # plain RTP, stream s to the port s above the one that is told

    def schedule(self) -> Schedule:
        return make_schedule(
            self.pattern, streams=self.streams, rate=self.rate, duration_s=self.duration_s, churn=self.churn
        )

    def command(self, port: int) -> list[str]:
        """The generator, aimed at a port of this machine."""
        command = [sys.executable, "-m", "strep.simulate.load", "--to", f"udp:127.0.0.1:{port}"]
        command += ["--streams", str(self.streams), "--rate", str(self.rate), "--duration", str(self.duration_s)]
        command += ["--pattern", self.pattern, "--churn", str(self.churn)]
        if self.port_a_stream:
            command += ["--plain", "--port-a-stream", "--port-step", "1"]
        return command + ["--segment"] * self.segment + ["--spin"] * self.spin


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one receiver under one load."""

    receiver: str
    sent: int
    behind_ms_max: float  # how far behind its intended times the generator was at most
    generator_was_the_limit: bool
    datagrams: int
    kernel_dropped: int
    lost: int
    missing: int  # sample frames that a sink did not get
    wrong: int  # files whose audio is not what was sent, sample for sample
    cpu_us: float  # CPU time per packet, all threads, from before the first packet until nothing is left to do
    machine_us: float  # CPU time per packet of the whole machine, generator and interrupts included, in that time
    memory_mib: float  # at its peak
    finish_s: float  # from SIGTERM to the end: files finished, summary written
    summary: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    load: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)  # the generator's report
    file_us: float = 0.0  # CPU that a new file took just before, where the files of this run went

    @property
    def exact(self) -> bool:
        """Everything that was sent came, and every sample of it is right."""
        return self.sent == self.datagrams and not (self.kernel_dropped or self.lost or self.missing or self.wrong)

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name not in ("summary", "load")}


def run_trial(
    receiver: str,
    load: Load,
    work: Path,
    *,
    floor: Path | None = None,
    command: Sequence[str] = (),
    options: Sequence[str] = (),
    samples: int | None = None,
    cores: Sequence[int] | None = None,
    watch: Callable[[MeasuredProcess], None] | None = None,
) -> Trial:
    """Run one of RECEIVERS, or ``command``, under a load; "{out}" in ``command`` stands for where WAVs are looked for.

    ``options`` are added to ``strep capture``'s; ``watch`` is called with the receiver's process twice a second while
    the load lasts. With ``cores`` it may use these, the generator's among them, and CPU time is that of all its
    processes.

    The files of ``samples`` streams are compared with what was sent (None: of all, which only even loads allow). Then
    they are emptied; their names stay below ``work``. Raises MeasurementError.
    """
    core, other = core_pair()
    out, file_us = quiet_directory(work)
    os.sync()  # what earlier trials left to the disk is not this one's
    commands = {
        "floor": [str(floor)],
        "monitor": [*capture_command(), *options],
        "arrays": [sys.executable, "-m", "strep.bench._listen", "arrays"],
        "wav": [*capture_command(), "--out", str(out), *options],
    }
    try:
        own = [part.replace("{out}", str(out)) for part in command]
        with MeasuredProcess(own or commands[receiver], cores or core, work / "receiver.log") as process:
            port = _port(process.line())
            cpu = process.family_cpu_s if cores else process.cpu_s
            before, busy_before = cpu(), busy_s()
            with MeasuredProcess(load.command(port), other, work / "load.log") as generator:
                while watch is not None and generator.process.poll() is None:
                    watch(process)
                    time.sleep(_LOOK_S)
                sent = json.loads(generator.line())
            cpu_s, machine_s = cpu_when_idle(cpu) - before, busy_s() - busy_before
            ended = process.end()
        datagrams, dropped, lost, missing, summary = _figures(ended.output)
        wrong = _count_wrong(out, load, sent["packets_a_stream"], samples) if receiver == "wav" else 0
    finally:
        emptied(out)
    return Trial(
        receiver=receiver,
        sent=sent["sent"],
        behind_ms_max=sent["behind_ms_max"],
        generator_was_the_limit=sent["generator_was_the_limit"],
        datagrams=datagrams,
        kernel_dropped=dropped,
        lost=lost,
        missing=missing,
        wrong=wrong,
        cpu_us=1e6 * cpu_s / max(datagrams, 1),
        machine_us=1e6 * machine_s / max(datagrams, 1),
        memory_mib=ended.memory_mib,
        finish_s=ended.finish_s,
        summary=summary,
        load=sent,
        file_us=file_us,
    )


def capture_command() -> list[str]:
    return [sys.executable, "-m", "strep", "capture", "--json", "--listen", "127.0.0.1:0"]


def cpu_when_idle(cpu: Callable[[], float]) -> float:
    """CPU seconds, as ``cpu`` tells them, once what has been received is worked off."""
    cpu_s = -1.0
    for _ in range(_MAX_LOOKS):
        earlier, cpu_s = cpu_s, cpu()
        if cpu_s - earlier < _IDLE_CPU_S:
            break
        time.sleep(_LOOK_S)
    return cpu_s


def _port(line: str) -> int:
    if line.startswith("port "):
        return int(line.split()[1])
    return int(json.loads(line)["sockets"][0]["address"].rpartition(":")[2])


def _figures(output: str) -> tuple[int, int, int, int, dict[str, Any]]:
    """Datagrams, kernel drops, lost packets, sample frames that a sink did not get, the summary."""
    last = output.splitlines()[-1]
    if last.startswith("datagrams "):
        words = last.split()
        return int(words[1]), int(words[5]), 0, 0, {}
    summary = json.loads(last)
    if summary.get("event") != "summary":
        raise MeasurementError(f"a receiver's last line is no summary: {last[:200]}")
    totals = summary["totals"]
    lost = sum(stream["packets_lost"] for stream in summary["streams"])
    missing = sum(sink["dropped_frames"] for sink in summary["sinks"])
    if "frames" in summary:
        missing += totals["delivered"] * _PACKET_FRAMES - summary["frames"]
    return totals["datagrams"], totals["kernel_dropped"], lost, missing, summary


def _count_wrong(out: Path, load: Load, packets: int, samples: int | None) -> int:
    chosen = range(load.streams)
    if samples is not None and samples < load.streams:
        chosen = range(0, load.streams, load.streams // samples)
    return sum(not is_right(out, stream, packets) for stream in chosen)


def is_right(out: Path, stream: int, packets: int) -> bool:
    """Whether a stream's file holds exactly what an even load sent."""
    path = out / str(call_leg_id_of(stream)) / f"a-{('inbound', 'outbound')[stream % 2]}.wav"
    try:
        with wave.open(str(path), "rb") as file:
            there = np.frombuffer(file.readframes(packets * _PACKET_FRAMES + 1), "<i2")
    except (OSError, wave.Error, EOFError):
        return False
    return np.array_equal(there, expected_samples(stream, packets))
