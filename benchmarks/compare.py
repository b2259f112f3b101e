"""strep beside other software: the same plain RTP for each, a core for each, every answer checked.

    python benchmarks/compare.py [NAME[@STREAMS] ...] [--streams N] [--duration S] [--rounds N] [--json FILE]

A NAME is one of the peers or of strep-monitor, strep-wav, strep-ring-monitor, strep-ring-wav, strep-headed-wav; with
@STREAMS it gets that many streams.
Without one all are measured, and strep's with 4,000 streams as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from answers import Answer, check_files, check_payloads
from peers.registry import PEERS, Missing, Peer, Setting
from report import print_table

from strep import StrepError
from strep._edge.ring.packet_socket import ring_problem
from strep.bench import machine
from strep.bench._machine import core_pair
from strep.bench._processes import MeasuredProcess, ProcessEnd
from strep.bench._trial import cpu_when_idle

_PACKETS_PER_S: Final = 50  # of a stream: 20 ms each
_OUR_STREAMS: Final = 4000  # strep is measured with so many too, beside --streams, unless names are given
_SATURATED: Final = 0.95  # share of a core from which on what a program takes is no longer what it needs


def _strep(setting: Setting) -> list[str]:
    return [sys.executable, "-m", "strep", "capture", "--json", "--listen", "127.0.0.1:0"]


def _strep_wav(setting: Setting) -> list[str]:
    return [*_strep(setting), "--out", str(setting.out)]


def _strep_version(setting: Setting) -> str:
    here = machine()
    return f"strep {here.strep}, Python {here.python}, numpy {here.numpy}"


def _strep_ring(setting: Setting) -> list[str]:
    return [*_strep(setting), "--transport", "ring"]


def _strep_ring_wav(setting: Setting) -> list[str]:
    return [*_strep_wav(setting), "--transport", "ring"]


def _strep_ring_version(setting: Setting) -> str:
    if (problem := ring_problem()) is not None:
        raise Missing(problem)
    return _strep_version(setting)


OURS: Final = {
    "strep-monitor": Peer(
        "order",
        "strep capture: parses, orders, RFC 3550 statistics, nothing written; one port",
        _strep,
        _strep_version,
    ),
    "strep-wav": Peer(
        "record",
        "strep capture --out: the same, and a WAV a stream and summary.json; one port",
        _strep_wav,
        _strep_version,
    ),
    "strep-ring-monitor": Peer(
        "order", "as strep-monitor, over a packet ring (CAP_NET_RAW)", _strep_ring, _strep_ring_version
    ),
    "strep-ring-wav": Peer(
        "record", "as strep-wav, over a packet ring (CAP_NET_RAW)", _strep_ring_wav, _strep_ring_version
    ),
    "strep-headed-wav": Peer(
        "record", "the same with the STREP header before each packet (for information)", _strep_wav, _strep_version
    ),
}
EVERYTHING: Final = {**OURS, **PEERS}


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one of them."""

    name: str
    round: int
    streams: int
    sent: int
    behind_ms_max: float
    generator_was_the_limit: bool
    cpu_s: float  # of all its processes, from before the first packet until nothing is left to do
    finish_cpu_s: float  # from there to its end: files finished, the summary; an interpreter's end as well
    share: float  # of the core, over the time that packets came
    memory_mib: float  # proportional set size of all its processes, at the end of the load
    answer: Answer

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / self.sent

    @property
    def saturated(self) -> bool:
        return self.share > _SATURATED


class _Running(MeasuredProcess):
    """A measured process that may have others do the work."""

    def ready(self) -> int:
        """Wait until it can receive; returns its first port."""
        said = json.loads(self.line())
        self.pids: list[int] = said.get("pids", [self.process.pid])
        return said["port"] if "port" in said else int(said["sockets"][0]["address"].rpartition(":")[2])

    def cpu_s(self) -> float:
        return sum(_cpu_s(pid) for pid in self.pids)

    def memory_mib(self) -> float:
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids]
        lines = [line for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:")]
        return sum(int(line.split()[1]) for line in lines) / 1024


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_trial(name: str, number: int, setting: Setting, duration_s: float) -> Trial:
    """Raises MeasurementError when a process did not do what it was started for."""
    peer = EVERYTHING[name]
    core, other = core_pair()
    os.sync()  # what earlier trials left to the disk is not this one's
    with _Running(peer.command(setting), core, setting.work / f"{name}.log") as process:
        port = process.ready()
        before = process.cpu_s()
        load = _load(name, port, other, setting, duration_s)
        share = (process.cpu_s() - before) / load["elapsed_s"]
        cpu_s = cpu_when_idle(process.cpu_s)
        memory = process.memory_mib()
        ended = process.end()
    last = json.loads(ended.output.splitlines()[-1])
    return Trial(
        name=name,
        round=number,
        streams=setting.streams,
        sent=load["sent"],
        behind_ms_max=load["behind_ms_max"],
        generator_was_the_limit=load["generator_was_the_limit"],
        cpu_s=cpu_s - before,
        finish_cpu_s=max(_whole(ended, last) - cpu_s, 0.0),
        share=share,
        memory_mib=memory,
        answer=_answer(name, last, setting, load["packets_a_stream"]),
    )


def _whole(ended: ProcessEnd, said: dict[str, Any]) -> float:
    """All the CPU time from its start to its end: of the processes it had, if it says so."""
    return float(said.get("cpu_s", ended.cpu_s))


def _load(name: str, port: int, core: int, setting: Setting, duration_s: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "strep.simulate.load", "--to", f"udp:127.0.0.1:{port}"]
    command += ["--streams", str(setting.streams), "--rate", str(_PACKETS_PER_S * setting.streams)]
    command += ["--duration", str(duration_s)]
    if name != "strep-headed-wav":
        command.append("--plain")
    if EVERYTHING[name].port_a_stream:
        command.append("--port-a-stream")
    with MeasuredProcess(command, core, setting.work / "load.log") as generator:
        report: dict[str, Any] = json.loads(generator.line())
    return report


def _answer(name: str, said: dict[str, Any], setting: Setting, packets: int) -> Answer:
    peer = EVERYTHING[name]
    received: int | None = said["totals"]["datagrams"] if "totals" in said else said.get("datagrams")
    if peer.job == "record":
        return check_files(setting.out, setting.streams, packets, tail=peer.tail, received=received)
    if received is None or name in PEERS:
        return check_payloads(said["streams"], setting.streams, packets, tail=peer.tail, received=received)
    lost = sum(stream["packets_lost"] for stream in said["streams"]) + said["totals"]["kernel_dropped"]
    return Answer(received, missing=packets * setting.streams - received + lost, tail=0, wrong=0)


def compare(
    entries: Sequence[tuple[str, int]], *, python: str, duration_s: float, rounds: int, directory: Path | None
) -> tuple[dict[str, str], list[Trial]]:
    """The versions of what is here, and its trials; what is missing is named on standard error and left out."""
    versions: dict[str, str] = {}
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="strep-compare-", dir=directory) as work:
        for name in dict.fromkeys(name for name, _ in entries):
            try:
                versions[name] = EVERYTHING[name].version(Setting(python, Path(work), Path(work), 0))
            except Missing as missing:
                print(f"skipped: {name} is missing: {missing}", file=sys.stderr)
        here = [(name, streams) for name, streams in entries if name in versions]
        for number in range(rounds):
            for name, streams in here:
                with tempfile.TemporaryDirectory(dir=work) as out:
                    trial = run_trial(name, number, Setting(python, Path(work), Path(out), streams), duration_s)
                trials.append(trial)
                told = f"{trial.cpu_us:.2f} µs/packet, {'saturated' if trial.saturated else f'{trial.share:.0%}'}"
                print(f"round {number + 1}: {name}, {streams} streams: {told}", file=sys.stderr, flush=True)
    return versions, trials


def _entry(text: str) -> tuple[str, int | None]:
    name, at, streams = text.partition("@")
    if name not in EVERYTHING:
        raise argparse.ArgumentTypeError(f"no {name!r}: choose from {', '.join(EVERYTHING)}")
    if at and not (streams.isdigit() and int(streams)):
        raise argparse.ArgumentTypeError(f"{text!r}: NAME@STREAMS with a number of streams")
    return name, int(streams) if at else None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="compare.py", description="Measure strep beside other software.")
    parser.add_argument("names", nargs="*", type=_entry, metavar="NAME[@STREAMS]", help=f"of {', '.join(EVERYTHING)}")
    parser.add_argument("--streams", type=int, default=400, help="at most, for those without @STREAMS (default 400)")
    parser.add_argument("--duration", type=float, default=10, help="seconds (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="trials of each, taken in turns (default 5)")
    parser.add_argument("--peer-python", default=sys.executable, help="the interpreter that has the Python peers")
    parser.add_argument("--out", type=Path, help="where files go until they are checked (default: the temporary one)")
    parser.add_argument("--json", type=Path, help="write everything measured")
    options = parser.parse_args(arguments)
    if options.streams < 1 or options.rounds < 1 or options.duration < 0.1:
        parser.error("at least one stream, one round, 0.1 s")
    named = options.names or [*((name, None) for name in EVERYTHING), *((name, _OUR_STREAMS) for name in OURS)]
    entries = [(name, streams or min(options.streams, EVERYTHING[name].most_streams)) for name, streams in named]
    began = time.time()
    try:
        versions, trials = compare(
            list(dict.fromkeys(entries)),
            python=options.peer_python,
            duration_s=options.duration,
            rounds=options.rounds,
            directory=options.out,
        )
    except StrepError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    if not trials:
        print("compare.py: nothing of that is here", file=sys.stderr)
        return 1
    measured = {
        "workload": "compare",
        "date": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/compare.py", *_shareable(arguments or sys.argv[1:])]),
        "machine": asdict(machine()),
        "duration_s": options.duration,
        "rounds": options.rounds,
        "peers": {
            name: {"job": EVERYTHING[name].job, "does": EVERYTHING[name].does, "version": version}
            for name, version in versions.items()
        },
        "trials": [{**asdict(t), "cpu_us": t.cpu_us, "saturated": t.saturated} for t in trials],
    }
    print_table(measured)
    if options.json is not None:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 0 if all(t.answer.exact for t in trials) else 8


def _shareable(words: Sequence[str]) -> list[str]:
    """The command line without where things are on this machine."""
    return [Path(word).name if word.startswith("/") else word for word in words]


if __name__ == "__main__":
    sys.exit(main())
