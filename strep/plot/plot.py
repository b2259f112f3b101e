"""Pictures of call legs: waveforms of both directions, spectrograms, what was lost, who spoke, keys, MOS."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError, MissingExtraError
from .._model.extras import install
from .recorded import RecordedLeg, RecordedStream, Span, columns_of, legs_of, spectra_of

__all__ = ["LEFT", "RIGHT", "draw_leg", "need_matplotlib", "plot_directory"]

LEFT: Final = 0.075  # where the time axis begins and ends, as shares of the picture's width
RIGHT: Final = 0.885

_DIRECTIONS: Final = ("inbound", "outbound")
_COLORS: Final = {"inbound": "#0f6f86", "outbound": "#5aa9a8"}
_SOFT_COLORS: Final = {"inbound": "#9cc7d0", "outbound": "#c3e0de"}
_INK: Final = "#1d2b33"
_FAINT: Final = "#6b7b84"
_GRID: Final = "#e6ecee"
_ALARM: Final = "#e4572e"
_REST: Final = "#d5dcdf"  # gaps that are nobody's fault
_SHADES: Final = ("#ffffff", "#dcecee", "#8fc6cc", "#2f8ea1", "#0d5065", "#072a36")
_LOST: Final = ("loss", "overrun")
_COLUMNS: Final = 1500  # of a waveform or spectrogram
_POOR_MOS: Final = 3.6  # many users are dissatisfied
_SCALES: Final = ("narrowband", "wideband", "fullband")
_RANGE_DB: Final = 62.0  # of a spectrogram, below its loudest part
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _FAINT,
    "axes.edgecolor": "#b8c4c9",
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "strep",
    "svg.fonttype": "none",
}

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def plot_directory(
    directory: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    format: Literal["png", "svg", "pdf"] = "png",  # noqa: A002  # what everybody calls it
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draw each call leg of a capture directory; returns the files written.

    A leg's picture goes beside its WAV files as ``<leg>.<format>``, or into ``out`` as ``<name>-<leg>.<format>``. Legs
    of which neither audio nor figures are there are left out. ``progress`` is called with (legs done, legs in all).

    Raises MissingExtraError without matplotlib, CaptureFileError when the directory has no ``summary.json``,
    ConfigurationError for another format or an ``out`` that cannot be written.
    """
    if format not in ("png", "svg", "pdf"):
        raise ConfigurationError(f"format {format!r}: png, svg or pdf")
    need_matplotlib()
    folder = Path(directory)
    legs = legs_of(folder)
    written: list[Path] = []
    for done, leg in enumerate(legs):
        if progress is not None:
            progress(done, len(legs))
        if any(t.audio or t.gaps or t.talk or t.keys or t.mos for t in leg.streams) and leg.duration_s > 0:
            path = leg.picture(folder, None if out is None else Path(out), format)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                draw_leg(leg, path)
            except OSError as error:
                raise ConfigurationError(f"{path}: {error.strerror}; choose a directory that can be written") from error
            written.append(path)
    if progress is not None:
        progress(len(legs), len(legs))
    return written


def need_matplotlib() -> None:
    """Raises MissingExtraError if it is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"pictures need matplotlib: {install('plot')}") from error


def draw_leg(leg: RecordedLeg, path: Path) -> None:
    """Draw one call leg into a file; the same figures make the same file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    of = {d: [t for t in leg.streams if t.direction == d] for d in _DIRECTIONS}
    sounding = [d for d in _DIRECTIONS if any(t.audio for t in of[d])]
    rows: list[tuple[str, float]] = []
    if any(t.talk for t in leg.streams):
        rows.append(("talk", 0.42))
    if sounding or any(t.gaps or t.keys for t in leg.streams):
        rows.append(("wave", 2.3 if of["inbound"] and of["outbound"] else 1.25))
    rows += [(f"spectrum {d}", 1.25) for d in sounding]
    # a row for each scale: figures of different ones cannot be compared
    scales = {t.scale for t in leg.streams if t.mos}
    rows += [(f"mos {scale}", 1.0) for scale in (*_SCALES, *sorted(scales.difference(_SCALES))) if scale in scales]
    total = sum(height for _, height in rows)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 1.25 + 1.05 * total), dpi=130, facecolor="white")
        top, bottom = 1 - 0.72 / figure.get_figheight(), 0.48 / figure.get_figheight()
        grid = {"height_ratios": [height for _, height in rows], "hspace": 0.13}
        grid |= {"left": LEFT, "right": RIGHT, "top": top, "bottom": bottom}
        axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
        for axis, (kind, _) in zip(axes, rows, strict=True):
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
            if kind == "talk":
                _draw_talk(axis, of, leg.duration_s)
            elif kind == "wave":
                _draw_waves(axis, of, leg.duration_s)
            elif kind.startswith("mos "):
                _draw_mos(axis, of, kind.partition(" ")[2])
            else:
                _draw_spectrum(axis, of[kind.partition(" ")[2]], kind.partition(" ")[2], leg.duration_s)
            axis.tick_params(length=2.5, width=0.7)
            if axis is not axes[-1]:
                axis.tick_params(axis="x", length=0, labelbottom=False)
        axes[-1].set_xlim(0, leg.duration_s)
        axes[-1].set_xticks(np.arange(0, leg.duration_s * (1 + 1e-9), _tick(leg.duration_s)))
        axes[-1].xaxis.set_major_formatter(_clock)
        _head(figure, leg)
        dates: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(path, metadata=dates.get(path.suffix[1:]))


def _tick(span_s: float) -> float:
    """Seconds between ticks: at most twelve of them, at round times."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200):
        if span_s / step <= 12:
            return step
    return 3600.0 * float(np.ceil(span_s / 12 / 3600))


def _clock(seconds: float, _: int = 0) -> str:
    """A tick: 5 s, 1:05, 1:01:05."""
    whole = round(seconds, 3)
    if whole < 60:
        return f"{whole:g} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:02.0f}" if hours else f"{minutes}:{rest:02.0f}"


def _head(figure: Any, leg: RecordedLeg) -> None:
    high = figure.get_figheight()
    codecs = list(dict.fromkeys(t.codec for t in leg.streams))
    began = f"{datetime.fromtimestamp(leg.began_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC" if leg.began_ns else ""
    figure.text(LEFT, 1 - 0.30 / high, f"Call leg {leg.leg}", fontsize=13, fontweight="bold", va="center")
    figure.text(LEFT, 1 - 0.53 / high, leg.name, fontsize=8.5, color=_FAINT, va="center")
    figure.text(RIGHT, 1 - 0.30 / high, "  ·  ".join(codecs), fontsize=9, ha="right", va="center")
    length = _clock(round(leg.duration_s, 1))
    right = "  ·  ".join(part for part in (began, length) if part)
    figure.text(RIGHT, 1 - 0.53 / high, right, fontsize=8.5, color=_FAINT, ha="right", va="center")


def _name(axis: Any, direction: str, y: float) -> None:
    axis.annotate(
        direction, (0, y), (-44, 0), xycoords="axes fraction", textcoords="offset points", rotation=90, va="center",
        ha="center", color=_COLORS[direction], fontsize=8.5, fontweight="bold",
    )  # fmt: skip


def _note(axis: Any, lines: list[tuple[str, str]], y: float) -> None:
    """Figures at the right edge: the first line of each pair strong, in its colour."""
    for number, (text, colour) in enumerate(lines):
        axis.annotate(
            text, (1, y), (10, 13 * ((len(lines) - 1) / 2 - number)), xycoords="axes fraction",
            textcoords="offset points", va="center", fontsize=8.5, color=colour,
        )  # fmt: skip


def _draw_talk(axis: Any, of: dict[str, list[RecordedStream]], span_s: float) -> None:
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_ylim(0, 2)
    axis.set_yticks([])
    axis.annotate("talk", (0, 0.5), (-44, 0), xycoords="axes fraction", textcoords="offset points", rotation=90,
                  va="center", ha="center", color=_FAINT, fontsize=8.5)  # fmt: skip
    for row, direction in ((1, "inbound"), (0, "outbound")):
        talk = [span for stream in of[direction] for span in stream.talk]
        axis.broken_barh([(0, span_s)], (row + 0.2, 0.6), color="#f2f5f6", linewidth=0)
        axis.broken_barh([(s.start_s, s.duration_s) for s in talk], (row + 0.2, 0.6), color=_COLORS[direction], lw=0)
        if of[direction]:
            share = sum(s.duration_s for s in talk) / span_s
            _note(axis, [(f"{share:.0%} of the time", _COLORS[direction])], (row + 0.5) / 2)


def _draw_waves(axis: Any, of: dict[str, list[RecordedStream]], span_s: float) -> None:
    """Inbound upwards, outbound downwards: each its envelope, its RMS darker within."""
    time_s = (np.arange(_COLUMNS) + 0.5) * span_s / _COLUMNS
    # a direction that there is not has no half
    axis.set_ylim(-1.18 if of["outbound"] else 0, 1.18 if of["inbound"] else 0)
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.axhline(0, color="#b8c4c9", linewidth=0.8, zorder=3)
    envelopes = {d: [columns_of(t.audio, span_s, _COLUMNS) for t in of[d] if t.audio] for d in _DIRECTIONS}
    loudest = max(
        (float(np.nanmax(np.maximum(high, -low))) for e in envelopes.values() for low, high, _ in e), default=0
    )
    scale = 1 / max(loudest, 1e-3)
    for direction, sign in (("inbound", 1), ("outbound", -1)):
        if not of[direction]:
            continue
        middle = 0.5 + sign * 0.25 if of["inbound"] and of["outbound"] else 0.5
        _name(axis, direction, middle)
        for low, high, rms in envelopes[direction]:
            peak = np.maximum(high, -low) * scale
            axis.fill_between(time_s, 0, sign * peak, step="mid", color=_SOFT_COLORS[direction], linewidth=0, zorder=1)
            axis.fill_between(
                time_s, 0, sign * rms * scale, step="mid", color=_COLORS[direction], linewidth=0, zorder=2
            )
        _draw_gaps(axis, [gap for stream in of[direction] for gap in stream.gaps], sign)
        _draw_keys(axis, [key for stream in of[direction] for key in stream.keys], sign, span_s)
        _note(axis, _figures(of[direction]), middle)


def _draw_gaps(axis: Any, gaps: list[Span], sign: int) -> None:
    """What was lost goes through the whole half, with a mark at its edge; silence and hold are a soft ground."""
    rest = [(g.start_s, g.duration_s) for g in gaps if g.text not in _LOST]
    lost = [g for g in gaps if g.text in _LOST]
    axis.broken_barh(rest, (0, sign * 1.0), facecolor=_REST, alpha=0.55, linewidth=0, zorder=0)
    spans = [(g.start_s, g.duration_s) for g in lost]
    axis.broken_barh(spans, (0, sign * 1.0), facecolor=_ALARM, alpha=0.20, linewidth=0, zorder=0)
    axis.broken_barh(spans, (sign * 1.0, sign * 0.07), facecolor=_ALARM, edgecolor=_ALARM, linewidth=0.9, zorder=4)


def _draw_keys(axis: Any, keys: list[Span], sign: int, span_s: float) -> None:
    """Keys that were pressed close together share a label."""
    labels: list[Span] = []
    for key in sorted(keys, key=lambda k: k.start_s):
        if labels and key.start_s - (labels[-1].start_s + labels[-1].duration_s) < 0.012 * span_s:
            last = labels[-1]
            labels[-1] = Span(last.start_s, key.start_s + key.duration_s - last.start_s, last.text + key.text)
        else:
            labels.append(key)
    for label in labels:
        middle = label.start_s + label.duration_s / 2
        axis.broken_barh([(label.start_s, label.duration_s)], (0, sign * 0.86), facecolor=_INK, alpha=0.10, linewidth=0)
        axis.annotate(
            label.text, (middle, sign * 0.86), ha="center", va="center", fontsize=8, fontweight="bold", color="white",
            fontfamily="monospace", zorder=6, bbox={"boxstyle": "round,pad=0.28", "facecolor": _INK, "linewidth": 0},
        )  # fmt: skip


def _figures(streams: list[RecordedStream]) -> list[tuple[str, str]]:
    """Packets lost and jitter of a direction, in words."""
    expected = sum(int(t.entry.get("packets_expected") or 0) for t in streams)
    lost = sum(int(t.entry.get("packets_lost") or 0) for t in streams)
    lines = []
    if expected:
        share = f"{lost / expected:.1%} lost" if lost else "nothing lost"
        lines.append((share, _ALARM if lost else _FAINT))
    jitter = [float(t.entry["jitter_ms"]["mean"]) for t in streams if isinstance(t.entry.get("jitter_ms"), dict)]
    if jitter:
        lines.append((f"jitter {max(jitter):.1f} ms", _FAINT))
    return lines


def _draw_spectrum(axis: Any, streams: list[RecordedStream], direction: str, span_s: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("strep", _SHADES).with_extremes(bad="white")
    _name(axis, direction, 0.5)
    highest = 0.0
    for stream in streams:
        if stream.audio is None:
            continue
        decibel, frequency = spectra_of(stream.audio, span_s, _COLUMNS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nothing but NaN
            loud = float(np.nanpercentile(decibel, 99.7))
        if np.isnan(loud):
            continue
        highest = max(highest, float(frequency[-1]))
        axis.imshow(
            decibel, origin="lower", aspect="auto", cmap=shades, vmin=loud - _RANGE_DB, vmax=loud,
            extent=(0, span_s, 0, frequency[-1] / 1000), interpolation="bilinear",
        )  # fmt: skip
    axis.set_ylim(0, max(highest, 1000) / 1000)
    axis.set_ylabel("kHz", fontsize=8)
    step = 1 if highest <= 4000 else 2 if highest <= 12_000 else 8
    axis.set_yticks(np.arange(0, highest / 1000 + 0.01, step))


def _draw_mos(axis: Any, of: dict[str, list[RecordedStream]], scale: str) -> None:
    """The streams that are rated on one scale."""
    axis.set_ylim(1, 4.6)
    axis.set_yticks([1, 2, 3, 4])
    axis.set_ylabel(f"MOS\n{scale}", fontsize=8)
    axis.grid(axis="y", color=_GRID, linewidth=0.8)
    axis.axhspan(1, _POOR_MOS, color=_ALARM, alpha=0.06, linewidth=0)
    ends = []
    for direction in _DIRECTIONS:
        streams = [stream.mos for stream in of[direction] if stream.scale == scale and stream.mos]
        for windows in streams:
            time_s, mos = steps(windows)
            axis.plot(time_s, mos, color=_COLORS[direction], lw=1.8, solid_capstyle="butt", solid_joinstyle="miter")
        windows = [window for some in streams for window in some]
        if windows:
            start, end, mos = (np.array(column) for column in zip(*windows, strict=True))
            ends.append((float(np.average(mos, weights=np.maximum(end - start, 1e-3))), float(mos.min()), direction))
    for number, (mean, worst, direction) in enumerate(ends):
        y = 0.5 if len(ends) == 1 else (0.75, 0.25)[number]
        _note(axis, [(f"{mean:.2f}, worst {worst:.2f}", _COLORS[direction])], y)


def steps(windows: list[tuple[float, float, float]]) -> tuple[F64, F64]:
    """A line through windows (start, end, MOS), in order: time and MOS, NaN where there is a hole."""
    time_s: list[float] = []
    mos: list[float] = []
    for start, end, value in windows:
        if time_s and start > time_s[-1]:
            time_s.append(start)
            mos.append(np.nan)
        time_s += [start, end]
        mos += [value, value]
    return np.array(time_s), np.array(mos)
