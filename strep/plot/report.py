"""One HTML file that holds all of a capture: pictures, players, figures. It needs nothing else, and fetches nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .._model.exceptions import ConfigurationError
from ..resample import resample
from .plot import LEFT, RIGHT, draw_leg, need_matplotlib
from .recorded import RecordedLeg, RecordedStream, legs_of

__all__ = ["report_directory", "report_page"]

I16 = npt.NDArray[np.int16]

_RATE: Final = 8000  # of the players: what telephones have; wideband calls get 16,000
_WIDE_RATE: Final = 16_000
_LONGEST_S: Final = 3600.0  # of audio in a player
_SIDES: Final = ("inbound", "outbound")

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2b33; --faint: #5c6b74; --line: #d5dcdf; --page: #fff; --alarm: #b3361a }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ecee; --faint: #9fb0b8; --line: #37474f; --page: #12191d; --alarm: #ff8a6a } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 78rem; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; word-break: break-all }
p.told { color: var(--faint); margin: .2rem 0 .8rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { text-align: right; padding: .15rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
td.bad, p.bad { color: var(--alarm); font-weight: 600 }
figure { margin: .6rem 0; position: relative; cursor: crosshair }
figure img { width: 100%; display: block; background: #fff }
figure i { position: absolute; top: 0; bottom: 0; width: 2px; background: #e4572e; left: -9px; pointer-events: none }
audio { width: 100%; margin: .4rem 0 } nav a { margin-right: 1rem; word-break: break-all }
"""

_SCRIPT: Final = """
for (const leg of document.querySelectorAll('section')) {
  const audio = leg.querySelector('audio'), figure = leg.querySelector('figure');
  if (!audio || !figure) continue;
  const line = figure.querySelector('i'), left = +figure.dataset.left, width = +figure.dataset.width;
  const seconds = +figure.dataset.seconds;
  const draw = () => { line.style.left = 100 * (left + width * Math.min(audio.currentTime / seconds, 1)) + '%';
    if (!audio.paused) requestAnimationFrame(draw) };
  audio.addEventListener('play', draw); audio.addEventListener('seeked', draw);
  figure.addEventListener('click', event => { const box = figure.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width - left) / width;
    audio.currentTime = Math.max(0, Math.min(1, at)) * seconds; audio.play() });
}
"""


def report_directory(
    directory: str | PathLike[str],
    out: str | PathLike[str],
    *,
    legs: frozenset[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the report of a capture directory into the file ``out``; returns how many call legs are in it. ``legs``:
    only those of these names (None: all). ``progress`` is called with (legs done, legs in all).

    Raises MissingExtraError without matplotlib, CaptureFileError when the directory has nothing that was recorded,
    ConfigurationError when ``out`` cannot be written or none of the legs is there.
    """
    need_matplotlib()
    folder, path = Path(directory), Path(out)
    wanted = [leg for leg in legs_of(folder) if legs is None or leg.name in legs]
    if not wanted:
        raise ConfigurationError(
            f"{folder} has none of these call legs: {', '.join(sorted(legs or ())) or 'it is empty'}"
        )
    try:
        with path.open("w", encoding="utf-8") as file:
            for part in report_page(folder, wanted, progress or (lambda done, total: None)):
                file.write(part)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; choose a file that can be written") from error
    return len(wanted)


def report_page(folder: Path, legs: list[RecordedLeg], progress: Callable[[int, int], None]) -> Iterator[str]:
    """The page, piece by piece: a long one is never in memory whole."""
    title = f"{folder.resolve().name}: {len(legs)} call leg{'s' * (len(legs) != 1)}"
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
    )
    if len(legs) > 1:
        links = " ".join(f'<a href="#leg{n}">{html.escape(leg.name)} {leg.leg}</a>' for n, leg in enumerate(legs))
        yield f"<nav>{links}</nav>"
    for number, leg in enumerate(legs):
        progress(number, len(legs))
        yield _section(folder, leg, number)
    progress(len(legs), len(legs))
    yield f"<script>{_SCRIPT}</script></body></html>\n"


def _section(folder: Path, leg: RecordedLeg, number: int) -> str:
    told = _told(folder, leg)
    parts = [f'<section id="leg{number}"><h2>{html.escape(leg.name)} leg {html.escape(leg.leg)}</h2>']
    began = f"{datetime.fromtimestamp(leg.began_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC" if leg.began_ns else ""
    words = [began, f"{leg.duration_s:.1f} s"]
    if told.get("from") or told.get("to"):
        words.insert(0, f"{told.get('from') or '?'} → {told.get('to') or '?'}")
    words += [str(told[name]) for name in ("direction", "hangup_cause") if told.get(name)]
    parts.append(f'<p class="told">{html.escape(" · ".join(word for word in words if word))}</p>')
    if told.get("error"):
        parts.append(f'<p class="bad">{html.escape(str(told["error"]))}</p>')
    if leg.duration_s > 0 and any(t.audio or t.gaps or t.talk or t.keys or t.mos for t in leg.streams):
        name = html.escape(f"Waveforms and spectrograms of {leg.name}: {_alternative(leg)}", quote=True)
        parts.append(
            f'<figure data-left="{LEFT}" data-width="{RIGHT - LEFT}" data-seconds="{leg.duration_s:.6f}">'
            f'<img alt="{name}" src="data:image/png;base64,{_picture(leg)}"><i></i></figure>'
        )
    audio = _audio(leg)
    if audio is not None:
        parts.append(f'<audio controls preload="metadata" src="data:audio/wav;base64,{audio}"></audio>')
        if leg.duration_s > _LONGEST_S:
            parts.append(f'<p class="told">The player has the first {_LONGEST_S / 3600:g} h.</p>')
    parts.append(_table(leg))
    parts.append("</section>")
    return "".join(parts)


def _told(folder: Path, leg: RecordedLeg) -> dict[str, Any]:
    """What ``strep serve`` wrote of the call, if it did."""
    name = "leg.json" if leg.number == 1 else f"leg-{leg.number}.json"
    try:
        found = json.loads((folder / leg.name / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alternative(leg: RecordedLeg) -> str:
    """The picture in words, for who does not see it."""
    return "; ".join(
        f"{t.direction} {t.codec}, {t.duration_s:.1f} s, talks {sum(s.duration_s for s in t.talk):.1f} s, "
        f"{len(t.gaps)} gaps" + (f", keys {''.join(k.text for k in t.keys)}" if t.keys else "")
        for t in leg.streams
    )


def _picture(leg: RecordedLeg) -> str:
    with tempfile.TemporaryDirectory(prefix="strep-report-") as scratch:
        path = Path(scratch) / "leg.png"
        draw_leg(leg, path)
        return base64.b64encode(path.read_bytes()).decode()


def _audio(leg: RecordedLeg) -> str | None:
    """Inbound left, outbound right, as a WAV file; None: there is none."""
    sounding = [stream for stream in leg.streams if stream.audio is not None]
    if not sounding:
        return None
    rate = _WIDE_RATE if any(t.audio is not None and t.audio.format.rate > _RATE for t in sounding) else _RATE
    length = round(min(leg.duration_s, _LONGEST_S) * rate)
    mixed = np.zeros((length, 2), np.int16)
    for stream in sounding:
        _lay(mixed[:, _SIDES.index(stream.direction) if stream.direction in _SIDES else 0], stream, rate)
    return base64.b64encode(_wav(mixed, rate)).decode()


def _lay(channel: I16, stream: RecordedStream, rate: int) -> None:
    """A stream's samples at their place."""
    audio = stream.audio
    assert audio is not None
    own = audio.format.rate
    room = round(len(channel) * own / rate)
    pieces, have = [], 0
    for piece in audio.slices():
        pieces.append(piece[: room - have])
        have += len(pieces[-1])
        if have >= room:
            break
    if not have:
        return
    samples = np.concatenate(pieces)
    if own != rate:
        samples = resample(samples, own, rate)
    at = max(0, round(audio.offset_s * rate))
    part = samples[: max(0, len(channel) - at)]
    channel[at : at + len(part)] = part


def _wav(samples: I16, rate: int) -> bytes:
    """16-bit PCM with a plain header."""
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


_HEADS: Final = ("direction", "codec", "seconds", "packets", "lost", "jitter ms", "level dBFS", "talk s", "keys", "MOS")


def _table(leg: RecordedLeg) -> str:
    rows = []
    for stream in leg.streams:
        entry = stream.entry
        received, lost = entry.get("packets_received") or 0, entry.get("packets_lost") or 0
        jitter, level = _dict(entry.get("jitter_ms")).get("mean"), _dict(entry.get("level")).get("rms_dbfs")
        talk, quality = _dict(entry.get("speech")).get("talk_s"), _dict(entry.get("quality"))
        mos = quality.get("mos_cq")
        keys = "".join(key.text for key in stream.keys)
        cells = [
            stream.direction, stream.codec, f"{stream.duration_s:.2f}", f"{received:,}",
            f"{lost:,} ({lost / max(received + lost, 1):.1%})" if lost else "0", _figure(jitter, ".1f"),
            _figure(level, ".1f"), _figure(talk, ".1f"), keys, _figure(mos, ".2f"),
        ]  # fmt: skip
        bad = {4: bool(lost), 9: isinstance(mos, int | float) and mos < 3.6}
        shown = (f"<td{' class=bad' * bad.get(n, False)}>{html.escape(cell)}</td>" for n, cell in enumerate(cells))
        rows.append(f"<tr>{''.join(shown)}</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _figure(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
