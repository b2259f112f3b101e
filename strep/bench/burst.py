"""Thousands of calls begin at once, each with its directory and file: what a stream costs, and whether any is lost."""

from __future__ import annotations

from statistics import median
from typing import Final

from ._disk import files_note
from ._outcome import Outcome, spread
from ._settings import Settings
from ._trial import Load, Trial, run_trial

__all__ = ["cost_of_a_stream_us", "measure"]

_STREAMS: Final = 5000
_RATE: Final = 250_000.0  # packets/s: all streams begin within 20 ms
_SAMPLED: Final = 200  # streams whose files are compared
COLUMNS: Final = ("receiver", "streams", "lost", "missing", "wrong", "CPU µs/stream", "CPU µs/packet then", "MiB")


def measure(settings: Settings) -> Outcome:
    runs = settings.repeat(3)
    short_s, long_s = (2.0, 5.0) if settings.quick else (2.0, 8.0)
    title = f"{_STREAMS:,} streams begin within 20 ms, {_RATE:,.0f} packets/s on one core; median (range) of {runs}"
    outcome = Outcome("burst", title, COLUMNS)
    found: dict[str, list[tuple[Trial, Trial]]] = {"monitor": [], "wav": []}
    with settings.work() as work:
        for run in range(runs):
            for receiver, pairs in found.items():
                trials = []
                for seconds in (short_s, long_s):
                    settings.progress(f"{receiver}, {seconds:g} s, {run + 1}/{runs}")
                    trials.append(run_trial(receiver, Load(_STREAMS, _RATE, seconds), work, samples=_SAMPLED))
                pairs.append((trials[0], trials[1]))
    for receiver, pairs in found.items():
        both = [trial for pair in pairs for trial in pair]
        costs = [cost_of_a_stream_us(*pair, _STREAMS) for pair in pairs]
        outcome.rows.append(
            [
                receiver,
                _STREAMS,
                sum(t.sent - t.datagrams + t.lost for t in both),
                sum(t.missing for t in both),
                sum(t.wrong for t in both),
                spread([stream for stream, _ in costs]),
                spread([packet for _, packet in costs]),
                round(median(t.memory_mib for t in both)),
            ]
        )
        outcome.data[receiver] = {"trials": [[t.as_dict() for t in pair] for pair in pairs]}
        outcome.wrong += [f"{receiver}, run {n // 2 + 1}: not exact" for n, t in enumerate(both) if not t.exact]
    outcome.notes.append(files_note([t.file_us for pair in found["wav"] for t in pair]))
    outcome.notes.append(
        "CPU µs/stream: what packets at the cost of the longer run do not account for in the shorter one"
    )
    return outcome


def cost_of_a_stream_us(short: Trial, long: Trial, streams: int) -> tuple[float, float]:
    """CPU of a stream's beginning, and of a packet once all have begun, in µs: two runs that differ in length only."""
    packets = long.datagrams - short.datagrams
    spent_us = short.cpu_us * short.datagrams
    packet_us = (long.cpu_us * long.datagrams - spent_us) / max(packets, 1)
    return (spent_us - packet_us * short.datagrams) / streams, packet_us
