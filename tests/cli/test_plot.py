"""strep plot: what the pictures are made of, exactly; that everything that may be missing may; and how it is told."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
from support import MS, T0, Arrival, batch_of, leg_id, packet, payload_of, pcmu, steady

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep._model.exceptions import CaptureFileError, ConfigurationError, MissingExtraError
from strep._model.report import summary_of
from strep._receiver.summary import write_summary
from strep.plot import recorded
from strep.plot.plot import plot_directory, steps
from strep.plot.recorded import columns_of, legs_of, spectra_of
from strep.plot.report import report_directory
from strep.service._json_files import write_json
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
    inbound, outbound = sorted(leg.streams, key=lambda t: t.direction)
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
    audio = next(t.audio for t in leg.streams if t.direction == "inbound")
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
    from strep.plot.plot import _ALARM, _COLORS

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
    assert all(pixels(path, colour) > 1000 for colour in _COLORS.values())
    for entry in summary["streams"]:
        entry["quality"]["gap_list"] = []
        entry["packets_lost"] = 0
    write_summary(tmp_path, summary)
    plot_directory(tmp_path)
    assert pixels(path, _ALARM) == 0


def rated(sent_ms: list[int]) -> tuple[list[tuple[float, float, float]], dict[str, Any]]:
    """The MOS line of packets of 20 ms sent at these times, in windows of 2 s; and the stream's entry."""
    arrivals = [Arrival(T0 + at * MS, packet(k, timestamp=8 * at)) for k, at in enumerate(sent_ms)]
    engine, dispatcher = Engine(), Dispatcher([QualityMeter(window_s=2.0)])
    dispatcher.handle(engine.receive(batch_of(arrivals)))
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    summary = summary_of(engine.totals(), dispatcher.ended, dispatcher.files, [], [], dispatcher.figures)
    (entry,) = summary["streams"]
    return _line(entry), entry


def _line(entry: dict[str, Any]) -> list[tuple[float, float, float]]:
    (leg,) = recorded._legs(Path(), [entry])
    return leg.streams[0].mos


def test_the_line_of_mos_has_holes_only_where_nothing_came(tmp_path: Path) -> None:
    """Silence that was not sent, within windows and over their ends; then 6 s with 0.4 s of audio, of which nothing is
    concluded."""
    talk = [*range(0, 1500, 20), *range(2700, 3900, 20), *range(4000, 5000, 20)]
    talk += [*range(8000, 8400, 20), *range(12_000, 13_500, 20)]
    line, entry = rated(talk)
    assert [span[:2] for span in line] == [(0, 2), (2, 4), (4, 6), (12, 13.5)]
    time_s, mos = steps(line)
    assert time_s[np.isnan(mos)].tolist() == [12]
    assert time_s[~np.isnan(mos)].tolist() == [0, 2, 2, 4, 4, 6, 12, 13.5]
    # figures that do not say where windows end: no longer hole than that
    for window in entry["quality"]["series"]:
        del window["end_s"]
    del entry["quality"]["window_s"]
    found = [span[:2] for span in _line(entry)]
    np.testing.assert_allclose(found, [(0, 1.5), (1.5, 3.9), (3.9, 5), (12, 13.5)])


def test_the_line_of_a_steady_stream_has_no_hole_however_long(tmp_path: Path) -> None:
    line, _ = rated([*range(0, 30_000, 20)])
    time_s, mos = steps(line)
    assert not np.isnan(mos).any()
    assert (time_s[0], time_s[-1], len(line)) == (0, 30, 15)


def test_scales_are_drawn_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    summary = record(tmp_path)
    outbound = next(entry for entry in summary["streams"] if entry["direction"] == "outbound")
    texts = {}
    for scale, model in (("narrowband", "G.107"), ("wideband", "G.107.1"), ("fullband", "G.107.2")):
        outbound["quality"] |= {"scale": scale, "model": model}
        write_summary(tmp_path, summary)
        (path,) = plot_directory(tmp_path, tmp_path / "out", format="svg")
        texts[scale] = [line for line in re.findall(r">([^<]+)</t", path.read_text()) if line.strip()]
        del outbound["quality"]["scale"]  # as older versions wrote it
        (leg,) = legs_of(tmp_path)
        write_summary(tmp_path, summary)
        assert [stream.scale for stream in legs_of(tmp_path)[0].streams] == [stream.scale for stream in leg.streams]
    shown = {scale: [s for s in ("narrowband", "wideband", "fullband") if s in text] for scale, text in texts.items()}
    assert shown == {
        "narrowband": ["narrowband"], "wideband": ["narrowband", "wideband"], "fullband": ["narrowband", "fullband"],
    }  # fmt: skip
    assert [text.count("MOS") for text in texts.values()] == [1, 2, 2]


def test_what_serve_recorded_is_plotted(tmp_path: Path) -> None:
    """Its summary tells of calls; each leg has a file of its own, also one that another run has written."""
    pytest.importorskip("matplotlib")
    summary = record(tmp_path)
    folder = tmp_path / str(leg_id(0))
    told = {"schema": 1, "call_leg_id": str(leg_id(0)), "leg": "a"}
    write_json(folder, "leg", told | {"streams": summary["streams"]})
    again = [{**entry, "first_arrival_ns": entry["first_arrival_ns"] + 10**12} for entry in summary["streams"]]
    unnamed = [{k: v for k, v in entry.items() if k not in ("name", "leg")} for entry in again]
    write_json(folder, "leg", told | {"streams": unnamed})
    write_json(tmp_path / str(leg_id(1)), "leg", {"call_leg_id": str(leg_id(1)), "leg": "b", "streams": []})
    write_summary(tmp_path, {"calls": {"recorded": 2}, "legs": [{"file": f"{leg_id(0)}/leg.json"}]})
    wanted = [folder / "a.png", folder / "a-2.png"]
    assert plot_directory(tmp_path) == wanted
    assert [len(leg.streams) for leg in legs_of(tmp_path)] == [2, 2]
    (tmp_path / "summary.json").unlink()  # it was killed
    assert plot_directory(tmp_path) == wanted
    (folder / "leg.json").write_text("[]")
    with pytest.raises(CaptureFileError, match=r"leg\.json is not a summary"):
        legs_of(tmp_path)


@pytest.mark.slow
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
    with pytest.raises(MissingExtraError, match=r"pip install 'matplotlib"):
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


def test_a_report_is_one_file_with_the_audio_in_it(tmp_path: Path) -> None:
    record(tmp_path)
    path = tmp_path / "report.html"
    assert report_directory(tmp_path, path) == 1
    page = path.read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # nothing is fetched from elsewhere
    assert "default-src 'none'" in page
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    (encoded,) = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    with wave.open(io.BytesIO(base64.b64decode(encoded))) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    np.testing.assert_array_equal(samples[: len(INBOUND), 0], INBOUND)
    begin = LATER_MS * 8
    np.testing.assert_array_equal(samples[begin : begin + 200 * 160, 1], heard(200, 50))
    assert not samples[:begin, 1].any()
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", page)
    rows = [cells[k : k + 10] for k in range(0, len(cells), 10)]
    assert rows[0][:5] == ["direction", "codec", "seconds", "packets", "lost"]
    assert rows[1][:5] == ["inbound", "PCMU 8 kHz", "8.00", "395", "5 (1.2%)"]
    assert rows[2][:5] == ["outbound", "PCMU 8 kHz", "4.00", "200", "0"]
    assert rows[2][8] == "5"
    assert report_directory(tmp_path, path, legs=frozenset({str(leg_id(0))})) == 1
    with pytest.raises(ConfigurationError, match="none of these call legs: nobody"):
        report_directory(tmp_path, path, legs=frozenset({"nobody"}))
    with pytest.raises(ConfigurationError, match="choose a file that can be written"):
        report_directory(tmp_path, tmp_path / "no" / "report.html")


def test_a_report_tells_what_serve_knows_and_escapes_it(tmp_path: Path) -> None:
    summary = record(tmp_path)
    (tmp_path / "summary.json").unlink()
    evil = "<script>alert(1)</script>"
    told = {"call_leg_id": str(leg_id(0)), "leg": "a", "from": evil, "to": "+4930", "error": f'"{evil}', "streams": []}
    write_json(tmp_path / str(leg_id(0)), "leg", {**told, "streams": summary["streams"]})
    report_directory(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert evil not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; → +4930" in page
    assert page.count("<script>") == 1
