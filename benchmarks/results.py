"""The page of results, from what `strep bench --json` and `compare.py --json` wrote.

python benchmarks/results.py DIR_WITH_JSON --out benchmarks/RESULTS.md
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any, Final

from plots import PLOTS, draw_one
from report import grouped, ratios, reference_of

__all__ = ["main", "page"]

_READING: Final = Path(__file__).with_name("reading.md")  # written by hand: what the figures say
_HEAD: Final = """# Results

Made by `python benchmarks/results.py` from the JSON files that the commands below wrote; how to read them stands in
[README.md](README.md). Medians with (lowest-highest). Speed on shared machines changes from minute to minute: ratios
within a run say more than figures of two runs.
"""


def page(reports: list[dict[str, Any]], plots: str) -> str:
    """Markdown; ``plots`` is where the pictures are, as the page sees it."""
    parts = [_HEAD, _READING.read_text()] if _READING.is_file() else [_HEAD]
    for report in reports:
        here = report["machine"]
        where = (
            f"{here['processor']}, {here['cores']} cores, {here['memory_gib']:g} GiB, {here['system']}, "
            f"Python {here['python']}, numpy {here['numpy']}, strep {here['strep']}; {report['date']}"
        )
        for outcome in report.get("outcomes", [report]):
            name = outcome["workload"]
            parts.append(f"## {name}\n\n`{report['command']}`  \n{where}\n")
            if name == "compare":
                parts.append(_compare(outcome))
            else:
                parts.append(f"{outcome['title']}\n\n{_table(outcome['columns'], outcome['rows'])}")
                parts += [f"- {note}\n" for note in outcome["notes"]]
                parts += [f"- **wrong: {wrong}**\n" for wrong in outcome["wrong"]]
            if name in PLOTS:
                parts.append(f"![{name}]({plots}/{name}.svg)\n")
    return "\n".join(parts)


def _table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _compare(measured: dict[str, Any]) -> str:
    rows: list[list[Any]] = []
    for key, trials in grouped(measured).items():
        same, most = reference_of(measured, key), reference_of(measured, key, most=True)
        rows.append(
            [
                key[0],
                measured["peers"][key[0]]["job"],
                key[1],
                _spread([t["cpu_us"] for t in trials]),
                round(median(t["cpu_us"] for t in trials) * 50 * 3600 / 1e6, 2),
                _spread(ratios(measured, key, same)) if same else None,
                _spread(ratios(measured, key, most)) if most else None,
                f"{median(t['share'] for t in trials):.0%}",
                round(median(t["memory_mib"] for t in trials)),
                sum(t["answer"]["missing"] + t["answer"]["wrong"] for t in trials),
            ]
        )
    columns = ["", "job", "streams", "CPU µs/packet", "CPU s/stream-hour", "x strep", "x strep at its most"]
    text = f"20 ms PCMU, 50 packets/s a stream, {measured['duration_s']:g} s, {measured['rounds']} rounds\n\n"
    text += _table([*columns, "of a core", "MiB", "missing or wrong"], rows)
    return text + "\n" + "".join(f"- {name}: {peer['version']}\n" for name, peer in measured["peers"].items())


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values), "runs": len(values)}


def _cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, dict):
        text = _number(cell["median"])
        return text if cell["runs"] == 1 else f"{text} ({_number(cell['low'])}-{_number(cell['high'])})"
    return cell if isinstance(cell, str) else _number(cell)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 100 else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="results.py", description="Make the page of results, and its pictures.")
    parser.add_argument("directory", type=Path, help="where the JSON files are")
    parser.add_argument("--out", type=Path, required=True, help="the page; pictures go into plots/ beside it")
    options = parser.parse_args(arguments)
    reports = [json.loads(path.read_text()) for path in sorted(options.directory.glob("*.json"))]
    if not reports:
        print(f"{options.directory} has no JSON file: measure with --json first", file=sys.stderr)
        return 2
    plots = options.out.parent / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for report in reports:
        for outcome in report.get("outcomes", [report]):
            if outcome["workload"] in PLOTS:
                draw_one(outcome, plots)
    options.out.write_text(page(reports, "plots"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
