"""strep demo: calls, forked and received on this machine, the call-control API included."""

from __future__ import annotations

import asyncio
import sys
import time
import wave
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from .._model.exceptions import MissingExtraError
from .._receiver.receiver import Receiver
from .._receiver.summary import write_summary
from ..plot.plot import plot_directory
from ..simulate import Impairments, make_traffic, play
from ..sinks import DtmfDetector, LevelMeter, QualityMeter, SpeechMeter, WavSink
from .demo_calls import fork_calls
from .exit_codes import EXIT_SINK
from .results import sink_failed
from .running import console, run_async
from .tables import stream_table, totals_line

__all__ = ["demo"]

_MAX_PICTURES: Final = 5  # calls; a picture takes a second
_LAST_PACKETS_S: Final = 0.3
_FILE_COLUMNS: Final = 140  # columns of text, when stdout is no terminal
_TROUBLE: Final = Impairments(loss=0.02, reorder=0.02, jitter_ms=4)


@click.command()
@click.option("--calls", type=click.IntRange(1, 500), default=3, show_default=True, metavar="N")
@click.option("--seconds", type=click.FloatRange(1, 600), default=6.0, show_default=True, metavar="S")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("strep-demo"),
    show_default=True,
    metavar="DIR",
    help="Each run writes into a new folder in it.",
)
@click.option("--seed", type=int, metavar="N")
def demo(calls: int, seconds: float, out: Path, seed: int | None) -> None:
    """Fork a few simulated calls over loopback, with some loss and reordering, and record them. Needs no account.

    A stand-in for the call-control API tells by webhooks which calls are answered and is asked to fork each of them
    (with the extra serve; otherwise they are forked without asking).
    """
    sys.exit(run_async(lambda: _demo(calls, seconds, out, seed)))


async def _demo(calls: int, seconds: float, out: Path, seed: int | None) -> int:
    err = console()
    folder = out / time.strftime("%Y%m%d-%H%M%S")
    sinks = [WavSink(folder), LevelMeter(), SpeechMeter(), DtmfDetector(), QualityMeter()]
    receiver = Receiver("udp:127.0.0.1:0", sinks=sinks)
    await receiver.start()
    try:
        address = receiver.sockets[0].address
        err.print(f"{calls} two-way calls → udp:{address} as STREP, 2 % lost and 2 % out of order on purpose")
        with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
            task = progress.add_task("calls in progress", total=1.0)

            def update(part: float) -> None:
                progress.update(task, completed=part)

            try:
                withheld = await fork_calls(
                    address,
                    calls=calls,
                    seconds=seconds,
                    impairments=_TROUBLE,
                    seed=seed,
                    tell=lambda text: err.print(text, soft_wrap=True),
                    progress=update,
                )
            except MissingExtraError as error:
                err.print(f"without the API, forked straight: {error}", soft_wrap=True)
                traffic = make_traffic(calls=calls, duration_s=seconds, impairments=_TROUBLE, seed=seed)
                withheld = (await play(traffic, f"udp:{address}", progress=update)).lost
            await asyncio.sleep(_LAST_PACKETS_S)
    finally:
        await receiver.stop()
    summary = receiver.summary()
    write_summary(folder, summary)
    out_console = console(stderr=False, file_columns=_FILE_COLUMNS)
    _print_results(out_console, receiver, summary, withheld, folder)
    if calls <= _MAX_PICTURES:
        try:
            drawn = await asyncio.to_thread(plot_directory, folder)
        except MissingExtraError as error:
            err.print(f"no pictures: {error}", soft_wrap=True)
        else:
            for path in drawn:
                out_console.print(str(path), soft_wrap=True)
    return EXIT_SINK if sink_failed(summary["sinks"]) else 0


def _print_results(out: Console, receiver: Receiver, summary: dict[str, Any], withheld: int, folder: Path) -> None:
    out.print(stream_table(receiver.reports()))
    out.print()
    out.print(totals_line(receiver.totals(), 0), soft_wrap=True)
    counted = sum(s["packets_lost"] for s in summary["streams"])
    verdict = "as many as were withheld" if counted == withheld else f"but {withheld} were withheld"
    out.print(f"lost: {counted} counted, {verdict}")
    files = [(s, folder / name) for s in summary["streams"] for name in s["files"]]
    first = summary["streams"][0]["call_leg_id"] if files else None
    out.print()
    for stream, path in files:
        if stream["call_leg_id"] == first:
            out.print(f"{stream['direction']:>9} {_waveform(path, 72)}", soft_wrap=True)
    out.print()
    for _, path in files:
        out.print(str(path), soft_wrap=True)
    out.print(str(folder / "summary.json"), soft_wrap=True)


def _waveform(path: Path, columns: int) -> str:
    """A recording as one line of blocks: how loud, from left to right."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float64)
    if samples.size < columns:
        return ""
    parts = samples[: samples.size // columns * columns].reshape(columns, -1)
    rms = np.sqrt((parts**2).mean(axis=1))
    steps = np.clip(rms / max(rms.max(), 1.0) * 8.99, 0, 8).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[s] for s in steps)
