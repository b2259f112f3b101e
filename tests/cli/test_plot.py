"""strep plot: what the pictures are made of, exactly; that everything that may be missing may; and how it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
from support import MS, T0, batch_of, leg_id, payload_of, pcmu, steady

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._model.exceptions import CaptureFileError, ConfigurationError, MissingExtraError
from strep._model.report import summary_of
from strep._receiver.summary import write_summary
from strep.plot.plot import plot_directory
from strep.plot.recorded import columns_of, legs_of, spectra_of
from strep.sinks import QualityMeter, WavSink

LOST = {150, 151, 152, 153, 154}
LATER_MS = 500  # that outbound begins after inbound


def record(folder: Path, **options: Any) -> dict[str, Any]:
    """Two directions of one leg, 8 s and 4 s, some packets lost in the first; returns the summary."""
    inbound = [a for k, a in enumerate(steady(400)) if k not in LOST]
    outbound = steady(200, direction=1, first=50, start_ns=T0 + LATER_MS * MS, ssrc=7)
    engine, dispatcher = Engine(), Dispatcher([WavSink(folder, **options), QualityMeter(window_s=2.0)])
    dispatcher.handle(engine.receive(batch_of(sorted(inbound + outbound, key=lambda a: a.ns))))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    reports = sorted(dispatcher.ended, key=lambda r: r.stream.serial)
    summary = summary_of(engine.totals(), reports, dispatcher.files, dispatcher.reports(), [], dispatcher.figures)
    by = {entry["direction"]: entry for entry in summary["streams"]}
    by["inbound"]["speech"] = {"segments": [[0.5, 2.0], [5.0, 7.5]]}
    by["outbound"]["dtmf"] = {"count": 1, "events": [{"digit": "5", "position_s": 1.0, "duration_s": 0.1}]}
    write_summary(folder, summary)
    return summary


def heard(packets: int, first: int = 0) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(first + k)) for k in range(packets)])


INBOUND = np.concatenate([pcmu(payload_of(k)) * (k not in LOST) for k in range(400)])


@pytest.mark.parametrize("options", [{}, {"layout": "stereo"}, {"encoding": "native"}])
def test_a_leg_is_read_with_all_that_is_known_of_it(tmp_path: Path, options: dict[str, str]) -> None:
    record(tmp_path, **options)
    (leg,) = legs_of(tmp_path)
    assert (leg.name, leg.leg, leg.began_ns, leg.duration_s) == (str(leg_id(0)), "a", T0, 8.0)
    inbound, outbound = sorted(leg.tracks, key=lambda t: t.direction)
    assert (inbound.offset_s, outbound.offset_s) == (0, 0.5)
    assert [(g.start_s, g.duration_s, g.text) for g in inbound.gaps] == [(3.0, 0.1, "loss")]
    assert [(s.start_s, s.duration_s) for s in inbound.talk] == [(0.5, 1.5), (5.0, 2.5)]
    assert [(k.start_s, k.text) for k in outbound.keys] == [(1.5, "5")]
    assert [window[:2] for window in inbound.mos] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert [window[0] for window in outbound.mos] == [0.5, 2.5]
    assert inbound.codec == "PCMU 8 kHz"
    for track, wanted, at in ((inbound, INBOUND, 0), (outbound, heard(200, 50), 4000)):
        assert track.audio is not None
        samples = np.concatenate(list(track.audio.slices(1000)))
        begin = at - round(track.audio.offset_s * 8000)
        np.testing.assert_array_equal(samples[begin : begin + len(wanted)], wanted)
        low, high, rms = columns_of(track.audio, 8.0, 80)
        mine = np.arange(at // 800, (at + len(wanted)) // 800)
        parts = wanted.reshape(-1, 800) / 32_768
        np.testing.assert_allclose(low[mine], parts.min(axis=1), rtol=1e-6)
        np.testing.assert_allclose(high[mine], parts.max(axis=1), rtol=1e-6)
        np.testing.assert_allclose(rms[mine], np.sqrt((parts**2).mean(axis=1)), rtol=1e-6)
        outside = np.setdiff1d(np.arange(80), mine)
        assert np.isnan(rms[outside]).all() or (rms[outside] == 0).all()  # a stereo file has silence there


@pytest.mark.parametrize("step", [999, 1 << 22])
def test_spectra_are_scipys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    record(tmp_path)
    (leg,) = legs_of(tmp_path)
    audio = next(t.audio for t in leg.tracks if t.direction == "inbound")
    assert audio is not None
    slices = type(audio).slices
    monkeypatch.setattr(type(audio), "slices", lambda self: slices(self, step))
    # a column a hop of 128 samples: its window's middle is the column's
    decibel, frequency = spectra_of(audio, 8.0, 500)
    # ours begin 64 samples before the first whole one
    f, t, wanted = scipy.signal.spectrogram(
        INBOUND[64:] / 32_768, 8000, window="hann", nperseg=256, noverlap=128, detrend=False
    )
    np.testing.assert_allclose(frequency, f)
    found = decibel[1 : len(f) - 1, 1 : 1 + len(t)]
    loud = np.maximum(10 * np.log10(np.maximum(wanted[1:-1], 1e-14)), -100)
    np.testing.assert_allclose(np.maximum(found, -100), loud, atol=0.05)
    # longer columns: means of some windows, within the range of what is there
    coarse, _ = spectra_of(audio, 8.0, 20)
    assert not np.isnan(coarse).any()
    assert coarse.max() <= decibel.max() + 0.1


def pixels(path: Path, colour: str) -> int:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    image = imread(path)[:, :, :3]
    return int((np.abs(image - np.array(to_rgb(colour))).max(axis=2) < 0.02).sum())


def test_pictures_show_what_was_lost_and_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from strep.plot.plot import _ALARM, _COLOUR

    summary = record(tmp_path)
    told: list[tuple[int, int]] = []
    (path,) = plot_directory(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path == tmp_path / str(leg_id(0)) / "a.png"
    assert told == [(0, 1), (1, 1)]
    first = path.read_bytes()
    plot_directory(tmp_path)
    assert path.read_bytes() == first
    marked = pixels(path, _ALARM)
    assert marked > 100
    assert all(pixels(path, colour) > 1000 for colour in _COLOUR.values())
    for entry in summary["streams"]:
        entry["quality"]["gap_list"] = []
        entry["packets_lost"] = 0
    write_summary(tmp_path, summary)
    plot_directory(tmp_path)
    assert pixels(path, _ALARM) == 0


def test_whatever_is_missing_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    summary = record(tmp_path)
    heights = []
    from matplotlib.image import imread

    for missing in ((), ("quality",), ("quality", "speech", "dtmf"), ("quality", "speech", "dtmf", "files")):
        kept = [{k: v for k, v in entry.items() if k not in missing} for entry in summary["streams"]]
        write_summary(tmp_path, {"streams": kept})
        written = plot_directory(tmp_path, tmp_path / "out")
        heights.append([imread(path).shape[0] for path in written])
    assert heights[0] > heights[1] > heights[2] > heights[3] == []
    for direction in ("inbound", "outbound"):
        one = [entry for entry in summary["streams"] if entry["direction"] == direction]
        write_summary(tmp_path, {"streams": one})
        assert len(plot_directory(tmp_path, tmp_path / "out", format="svg")) == 1
    # figures without audio: marks alone
    write_summary(tmp_path, {"streams": [{**entry, "files": []} for entry in summary["streams"]]})
    (path,) = plot_directory(tmp_path, tmp_path / "out", format="pdf")
    assert path.read_bytes().startswith(b"%PDF")
    strange = {"name": "../../x", "leg": "a/b", "direction": "inbound", "files": ["../../etc/passwd", "summary.json"]}
    write_summary(tmp_path, {"streams": [strange | {"duration_s": 1.0, "gap_list": [[0.1, 0.2, "loss"]]}]})
    assert plot_directory(tmp_path, tmp_path / "out") == [tmp_path / "out" / "______x-a_b.png"]
    write_summary(tmp_path, {"streams": []})
    assert plot_directory(tmp_path) == []


def test_what_cannot_be_drawn_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaptureFileError, match=r"no summary\.json"):
        legs_of(tmp_path)
    strange = {"files": [5], "quality": 5, "speech": {"segments": [5]}}
    for text in ("{", "[]", '{"streams": 5}', '{"streams": [5]}', "{}", json.dumps({"streams": [strange]})):
        (tmp_path / "summary.json").write_text(text)
        with pytest.raises(CaptureFileError, match="not a summary"):
            legs_of(tmp_path)
    with pytest.raises(ConfigurationError, match="png, svg or pdf"):
        plot_directory(tmp_path, format="gif")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'strep-rtp\[plot\]'"):
        plot_directory(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    record(tmp_path / "calls")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error", "-m", "strep", "plot", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=os.environ)

    done = run(tmp_path / "calls", "--json", "--out", tmp_path / "pictures")
    assert (done.returncode, done.stderr) == (0, "")
    files = json.loads(done.stdout)
    assert files == [str(tmp_path / "pictures" / f"{leg_id(0)}-a.png")]
    assert all(Path(file).stat().st_size > 20_000 for file in files)
    missing = run(tmp_path)
    assert missing.returncode == 3
    assert "no summary.json" in missing.stderr
    assert run(tmp_path / "nowhere").returncode == 2
