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

from matplotlib.figure import Figure  # noqa: E402
from report import grouped  # noqa: E402

__all__ = ["PLOTS", "main", "save"]

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


PLOTS: Final[dict[str, Callable[[dict[str, Any], Path], None]]] = {"compare": plot_compare}
"""By the "workload" that a JSON file names: draws it into a file."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="plots.py", description="Draw what was measured.")
    parser.add_argument("directory", type=Path, help="where the JSON files are")
    parser.add_argument("--out", type=Path, required=True, help="where the SVG files go, one for each JSON file")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for source in sorted(options.directory.glob("*.json")):
        measured = json.loads(source.read_text())
        draw = PLOTS.get(measured.get("workload", "")) if isinstance(measured, dict) else None
        if draw is None:
            print(f"skipped: {source.name} is of no workload that is drawn", file=sys.stderr)
            continue
        path = options.out / f"{source.stem}.svg"
        draw(measured, path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
