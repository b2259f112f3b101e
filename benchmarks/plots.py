"""Plots of what was measured: SVG, the same bytes for the same figures.

python benchmarks/plots.py DIR_WITH_JSON --out benchmarks/plots/
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "strep",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.axisbelow": True,
    }
)

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from report import grouped  # noqa: E402

__all__ = ["PLOTS", "draw_one", "main", "save"]

_OURS, _OTHERS = "#1f6f8b", "#b7b7b7"


def save(figure: Figure, path: Path) -> None:
    """Without the date, so that the same figures make the same file."""
    figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")


def plot_compare(measured: dict[str, Any], path: Path) -> None:
    """CPU time per packet of each, on a logarithmic scale: the median, and the range as a line."""
    groups = grouped(measured)
    costs = {key: [trial["cpu_us"] for trial in trials] for key, trials in groups.items()}
    order = sorted(costs, key=lambda key: -median(costs[key]))
    figure = Figure(figsize=(7.5, 0.6 + 0.32 * len(order)))
    axes = figure.subplots()
    for row, key in enumerate(order):
        middle, low, high = median(costs[key]), min(costs[key]), max(costs[key])
        axes.barh(row, middle, color=_OURS if key[0].startswith("strep") else _OTHERS, height=0.7)
        axes.plot([low, high], [row, row], color="black", linewidth=1)
        axes.annotate(f"{middle:.3g}", (high, row), xytext=(4, 0), textcoords="offset points", va="center")
    jobs = measured["peers"]
    axes.set_yticks(
        range(len(order)), [f"{name} ({jobs[name]['job']}), {streams:,} streams" for name, streams in order]
    )
    axes.set_xscale("log")
    axes.set_xlim(right=2 * max(max(values) for values in costs.values()))
    axes.set_xlabel("CPU µs per packet, median and range (less is better; logarithmic)")
    axes.grid(axis="x", color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _axes(width: float, height: float, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_stages(measured: dict[str, Any], path: Path) -> None:
    """ns per packet of each stage by batch size, stacked on a linear scale from where it can be told apart."""
    columns, rows = measured["columns"], measured["rows"]
    stages = columns[1 : columns.index("sum")]
    figure, axes = _axes(7, 3.6, "packets a batch", "ns per packet (logarithmic)")
    sizes = [row[0] for row in rows]
    for stage in stages:
        axes.plot(sizes, [row[columns.index(stage)] for row in rows], marker=".", linewidth=1, label=stage)
    axes.plot(sizes, [row[columns.index("sum")] for row in rows], color="black", linewidth=2, label="sum")
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.legend(ncols=2, fontsize=7, frameon=False)
    save(figure, path)


def plot_growth(measured: dict[str, Any], path: Path) -> None:
    """CPU per packet by number of streams at one rate: every run a point, the medians a line."""
    figure, axes = _axes(6, 3, "streams", "CPU µs per packet")
    groups = [g for g in measured["data"]["trials"] if g["rate"] == measured["data"]["trials"][0]["rate"]]
    streams = [g["streams"] for g in groups]
    costs = [[t["cpu_us"] for t in g["trials"]] for g in groups]
    axes.plot(streams, [median(values) for values in costs], color=_OURS)
    for number, values in zip(streams, costs, strict=True):
        axes.plot([number] * len(values), values, ".", color=_OURS)
    axes.set_xscale("log")
    axes.set_xticks(streams, [f"{n:,}" for n in streams])
    axes.set_ylim(bottom=0)
    save(figure, path)


def plot_latency(measured: dict[str, Any], path: Path) -> None:
    """What share of the packets took longer than so many milliseconds."""
    figure, axes = _axes(7, 4, "ms from intended sending (logarithmic)", "share of packets that took longer")
    for case in measured["data"]["cases"]:
        upper = [ns / 1e6 for ns, _ in case["histogram"]]
        total = sum(count for _, count in case["histogram"])
        above, left = [], total
        for _, count in case["histogram"]:
            left -= count
            above.append(left / total)
        label = f"{case['consumer']}, {case['rate']:,.0f}/s, {case['pattern']}"
        style = "-" if case["pattern"] == "even" else "--"
        keep = [i for i in range(len(upper)) if above[i] > 0 and (i % 3 == 0 or i > len(upper) - 20)]
        axes.plot([upper[i] for i in keep], [above[i] for i in keep], style, linewidth=1.2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1)
    axes.legend(fontsize=7, frameon=False)
    save(figure, path)


def _bars(axes: Axes, labels: list[str], values: list[dict[str, float]], unit: str) -> None:
    for row, value in enumerate(values):
        axes.barh(row, value["median"], color=_OURS, height=0.6)
        axes.plot([value["low"], value["high"]], [row, row], color="black", linewidth=1)
        text = f"{value['median']:,.3g}" if value["median"] < 1000 else f"{value['median']:,.0f}"
        axes.annotate(f"{text}{unit}", (value["high"], row), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlim(right=1.2 * max(value["high"] for value in values))


def plot_zero_loss(measured: dict[str, Any], path: Path) -> None:
    """The highest rates without loss: medians, and ranges as lines."""
    figure, axes = _axes(6.5, 2.6, "packets/s without loss on one core", "")
    rows = [row for row in reversed(measured["rows"]) if row[2]]
    _bars(axes, [f"{row[0]}, {row[1]:,} streams" for row in rows], [row[2] for row in rows], "")
    save(figure, path)


def plot_ratio(measured: dict[str, Any], path: Path) -> None:
    """CPU per packet beside the floor: medians, and ranges as lines."""
    figure, axes = _axes(6.5, 1.9, "CPU µs per packet", "")
    rows = list(reversed(measured["rows"]))
    _bars(axes, [row[0] for row in rows], [row[4] for row in rows], " µs")
    save(figure, path)


def plot_churn(measured: dict[str, Any], path: Path) -> None:
    """Resident memory over time while streams come and go."""
    figure, axes = _axes(6, 2.6, "seconds", "resident MiB")
    for run in measured["data"]["runs"]:
        memory = run["memory_mib"]
        axes.plot([i / 2 for i in range(len(memory))], memory, label=run["receiver"])
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    save(figure, path)


PLOTS: Final[dict[str, Callable[[dict[str, Any], Path], None]]] = {
    "churn": plot_churn,
    "compare": plot_compare,
    "growth": plot_growth,
    "latency": plot_latency,
    "ratio": plot_ratio,
    "stages": plot_stages,
    "zero-loss": plot_zero_loss,
}
"""By the "workload" that a JSON file, or an outcome in it, names: draws it into a file."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plots.py", description="Draw what was measured.")
    parser.add_argument("directory", type=Path, help="where the JSON files are")
    parser.add_argument("--out", type=Path, required=True, help="where the SVG files go, one for each workload")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for source in sorted(options.directory.glob("*.json")):
        measured = json.loads(source.read_text())
        found = measured.get("outcomes", [measured]) if isinstance(measured, dict) else []
        drawn = [draw_one(outcome, options.out) for outcome in found if outcome.get("workload") in PLOTS]
        if not drawn:
            print(f"skipped: {source.name} is of no workload that is drawn", file=sys.stderr)
        for path in drawn:
            print(path)
    return 0


def draw_one(outcome: dict[str, Any], directory: Path) -> Path:
    """Draw an outcome into ``directory``, under its workload's name; returns the file."""
    path = directory / f"{outcome['workload']}.svg"
    PLOTS[outcome["workload"]](outcome, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
