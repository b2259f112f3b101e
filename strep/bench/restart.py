"""What it costs when a worker is killed under load: how long until another has its place, whose packets are gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._model.types import Direction, Leg
from .._parser import build_datagram
from .._workers.steering import worker_of
from .._workers.supervisor import Supervisor
from ..simulate.load import call_leg_id_of, expected_samples
from ..sinks import Sink, WavSink
from ._processes import MeasurementError

__all__ = ["Restart", "measure_restart"]

_KILLED_WORKER: Final = 1
_POLL_S: Final = 0.001
_AFTER_FIGURES_S: Final = 0.06  # figures are told each 0.1 s: some of what it has received then is not in them
_TIMEOUT_S: Final = 30.0
_QUIET_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Restart:
    """Packets and files by whose legs they are of: the worker that was killed, or the others."""

    streams: int
    rate: float  # packets/s that were sent
    sent: int
    behind_ms_max: float
    generator_was_the_limit: bool
    back_s: float  # from kill -9 until a new process receives
    picked_up: int  # streams of the killed one that went on
    streams_of_the_killed: int
    others_lost: int  # packets
    others_wrong: int  # files that are not, sample for sample, what was sent
    killed_files: int  # WAV files that the killed one left
    killed_unreadable: int  # of them; `wave` opens and reads a readable one, and what is in it is what was sent
    killed_missing_s: float  # of audio, at most: what a file ends before the last figures of its stream
    successor_wrong: int  # files that are not the end of what was sent
    gap_counted: int  # packets, by sequence numbers
    gap_true: int  # what was sent less what was received
    kernel_dropped: list[int]  # by worker
    accounts_hold: bool
    stop_s: float

    @property
    def exact(self) -> bool:
        """Nobody else lost anything, what the killed one left is readable, and the gap is what is missing."""
        wrong = self.others_lost or self.others_wrong or self.killed_unreadable or self.successor_wrong
        whole = self.picked_up == self.streams_of_the_killed and self.gap_counted == self.gap_true
        return not wrong and whole and self.accounts_hold


@dataclass(frozen=True)
class _Sinks:
    out: Path

    def __call__(self, index: int) -> list[Sink]:
        return [WavSink(self.out)]


def measure_restart(
    *,
    streams: int = 2000,
    rate: float = 100_000,
    duration_s: float = 6.0,
    workers: int = 2,
    kill_after: float = 0.5,
    directory: str | os.PathLike[str] | None = None,
) -> Restart:
    """Record ``streams`` at ``rate`` packets/s with ``workers``, kill -9 one of them after that share of the time, and
    compare every sample. Files go below ``directory`` and are removed. Blocks. Raises MeasurementError, BindError,
    ConfigurationError."""
    with tempfile.TemporaryDirectory(prefix="strep-restart-", dir=directory) as out:
        return asyncio.run(_measure(Path(out), streams, rate, duration_s, workers, kill_after))


async def _measure(out: Path, streams: int, rate: float, duration_s: float, workers: int, kill_after: float) -> Restart:
    supervisor = Supervisor("127.0.0.1:0", workers=workers, sinks=_Sinks(out))
    async with supervisor:
        if supervisor.fallback is not None:
            raise MeasurementError(f"one worker cannot be compared with others: {supervisor.fallback}")
        command = ["-m", "strep.simulate.load", "--to", f"udp:{supervisor.sockets[0].address}"]
        command += ["--streams", str(streams), "--rate", str(rate), "--duration", str(duration_s)]
        generator = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        try:
            await _until(lambda: supervisor.totals().datagrams >= kill_after * rate * duration_s)
            await asyncio.sleep(_AFTER_FIGURES_S)
            victim = supervisor.workers[_KILLED_WORKER].pid
            if victim is None:
                raise MeasurementError("the worker that was to be killed is not there")
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            await _until(lambda: _replaced(supervisor, victim))
            back_s = time.monotonic() - began
            output, _ = await generator.communicate()
        finally:
            if generator.returncode is None:
                generator.kill()
                await generator.wait()
        await _until_quiet(supervisor)
        began = time.monotonic()
    stop_s = time.monotonic() - began
    load = json.loads(output)
    return _compare(out, supervisor.summary(), load, workers, back_s, stop_s)


def _replaced(supervisor: Supervisor, victim: int) -> bool:
    status = supervisor.workers[_KILLED_WORKER]
    return status.state == "running" and status.pid not in (None, victim)


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"what was waited for did not happen within {_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)


async def _until_quiet(supervisor: Supervisor) -> None:
    """Until what is in the sockets has been received."""
    last = -1
    while (datagrams := supervisor.totals().datagrams) != last:
        last = datagrams
        await asyncio.sleep(_QUIET_S)


def _compare(
    out: Path, summary: dict[str, Any], load: dict[str, Any], workers: int, back_s: float, stop_s: float
) -> Restart:
    packets = load["packets_a_stream"]
    entries: dict[int, list[dict[str, Any]]] = {}
    for entry in summary["streams"]:
        entries.setdefault(entry["ssrcs"][0] - 1, []).append(entry)
    others_lost = others_wrong = picked_up = of_the_killed = left = unreadable = successor_wrong = 0
    gap_counted = gap_true = 0
    missing_s = 0.0
    for stream in range(load["streams"]):
        mine = entries.get(stream, [])
        received = sum(entry["packets_received"] for entry in mine)
        truth = expected_samples(stream, packets)
        if _worker(stream, workers) != _KILLED_WORKER:
            others_lost += packets - received
            others_wrong += not (len(mine) == 1 and _same(_samples(out, mine[0]["files"]), truth))
            continue
        of_the_killed += 1
        gap_true += packets - received
        before = [entry for entry in mine if entry["end"] == "worker died"]
        after = [entry for entry in mine if entry["end"] != "worker died"]
        picked_up += bool(after)
        gap_counted += sum(entry["restart_gap_packets"] for entry in after)
        for entry in before:
            if not entry["files"]:  # killed before it had written anything of this stream
                missing_s = max(missing_s, entry["samples"] / 8000)
                continue
            left += 1
            samples = _samples(out, entry["files"])
            unreadable += not _same(samples, truth[: 0 if samples is None else len(samples)])
            if samples is not None:
                missing_s = max(missing_s, (entry["samples"] - len(samples)) / 8000)
        for entry in after:
            samples = _samples(out, entry["files"])
            successor_wrong += samples is None or not _same(samples, truth[len(truth) - len(samples) :])
    totals = summary["totals"]
    parts = ("delivered", "duplicate", "late", "malformed", "rejected", "dropped", "buffered")
    return Restart(
        streams=load["streams"],
        rate=load["rate"],
        sent=load["sent"],
        behind_ms_max=load["behind_ms_max"],
        generator_was_the_limit=load["generator_was_the_limit"],
        back_s=back_s,
        picked_up=picked_up,
        streams_of_the_killed=of_the_killed,
        others_lost=others_lost,
        others_wrong=others_wrong,
        killed_files=left,
        killed_unreadable=unreadable,
        killed_missing_s=missing_s,
        successor_wrong=successor_wrong,
        gap_counted=gap_counted,
        gap_true=gap_true,
        kernel_dropped=[worker["kernel_dropped"] for worker in summary["workers"]],
        accounts_hold=totals["datagrams"]
        == sum(totals[part] for part in parts)
        == load["sent"] - gap_true - others_lost,
        stop_s=stop_s,
    )


def _worker(stream: int, workers: int) -> int:
    datagram = build_datagram(
        payload=b"", payload_type=0, sequence_number=0, rtp_timestamp=0, ssrc=0,
        call_leg_id=call_leg_id_of(stream), leg=Leg.A, direction=Direction.INBOUND,
    )  # fmt: skip
    return worker_of(datagram, workers)


def _samples(out: Path, files: list[str]) -> Any:
    """None where there is not one file that can be read."""
    if len(files) != 1:
        return None
    try:
        with wave.open(str(out / files[0]), "rb") as file:
            return np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (OSError, wave.Error, EOFError):
        return None


def _same(samples: Any, truth: Any) -> bool:
    return samples is not None and np.array_equal(samples, truth)
