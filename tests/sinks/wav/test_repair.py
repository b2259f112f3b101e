"""Files that were left unfinished: mended from what is in them, whatever header was torn. faults.md 31, 32."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from live import hashes, samples_of
from places import TESTS
from programs import four_programs_read
from support import batch_of, payload_of, pcmu, steady

from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep.cli import cli
from strep.sinks import WavSink
from strep.sinks.wav.file import WavFormat
from strep.sinks.wav.repair import mend, mend_tree

pytestmark = pytest.mark.skipif(not hasattr(os, "fwalk"), reason="needs directory descriptors")

FORMATS = {
    "a-inbound": [WavFormat("pcm16", 8000, 1), WavFormat("pcm16", 16_000, 1)],
    "b-outbound": [WavFormat("PCMU", 8000, 1), WavFormat("PCMA", 8000, 1)],
    "a": [WavFormat("pcm16", 8000, 2)],
    "session": [WavFormat("pcm16", 48_000, 4), WavFormat("pcm16", 8000, 6)],
}
EACH = [(stem, format_) for stem, formats in FORMATS.items() for format_ in formats]


def old_enough(path: Path) -> None:
    os.utime(path, (1_700_000_000, 1_700_000_000))


def mended(path: Path) -> Path:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        found = mend(fd, path.name)
    finally:
        os.close(fd)
    assert found.did in ("completed", "mended", "fine"), found
    return path.with_name(found.name)


@pytest.mark.parametrize(("stem", "format_"), EACH)
@pytest.mark.parametrize("sizes", [(0, 4000), (1600, 4000), (4000, 4001)])
def test_a_header_torn_at_any_byte_is_whole_again(
    tmp_path: Path, stem: str, format_: WavFormat, sizes: tuple[int, int]
) -> None:
    """Torn between an old header and a new one."""
    rng = np.random.default_rng(7)
    before, size = sizes
    size -= size % format_.frame_bytes
    data = rng.integers(0, 256, size, np.uint8).tobytes()
    old, new = format_.header(before - before % format_.frame_bytes), format_.header(size)
    wanted = format_.header(size) + data + bytes(size % 2)
    for at in range(len(new) + 1):
        path = tmp_path / f"{stem}.part.wav"
        path.write_bytes(new[:at] + old[at:] + data)
        final = mended(path)
        assert final.name == f"{stem}.wav", at
        assert final.read_bytes() == wanted, at
        final.unlink()


@pytest.mark.parametrize(("stem", "format_"), EACH)
def test_a_first_header_that_was_torn_is_made_anew(tmp_path: Path, stem: str, format_: WavFormat) -> None:
    """Behind the tear there are zeros: where the format is among them, a file beside it tells."""
    data = bytes(range(1, 241)) * 4
    (tmp_path / f"{stem}.wav").write_bytes(format_.header(len(data)) + data)
    new = format_.header(0)
    for at in range(len(new) + 1):
        path = tmp_path / f"{stem}-2.part.wav"
        path.write_bytes(new[:at] + bytes(len(new) - at) + data)
        final = mended(path)
        assert final.read_bytes() == format_.header(len(data)) + data, at
        final.unlink()


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("encoding", ["pcm16", "PCMU"])
def test_headers_that_become_rf64(tmp_path: Path, encoding: str, at: int) -> None:
    """Torn in all places on the way past 4 GiB; the file is sparse."""
    format_ = WavFormat(encoding, 8000, 1)
    size = (1 << 32) + 1600
    old, new = format_.header((1 << 32) - 1600), format_.header(size)
    path = tmp_path / "a-inbound.part.wav"
    for torn in range(at, len(new) + 1, 4):
        with open(path, "wb") as file:
            file.write(new[:torn] + old[torn:])
            file.truncate(len(new) + size)
        final = mended(path)
        with open(final, "rb") as file:
            assert file.read(len(new)) == new, torn
        os.rename(final, path)


@pytest.mark.witness
def test_other_programs_read_what_was_mended(tmp_path: Path) -> None:
    """soundfile, `wave`, sox and ffmpeg; a few bytes of the way through each header."""
    made = []
    for n, (stem, format_) in enumerate(EACH):
        data = bytes(4800)
        new, old = format_.header(4800), format_.header(960)
        for at in {*range(0, len(new), 9), *range(len(new) - 5, len(new) + 1)}:
            folder = tmp_path / f"{n}-{at}"
            folder.mkdir()
            (folder / f"{stem}.part.wav").write_bytes(new[:at] + old[at:] + data)
            old_enough(folder / f"{stem}.part.wav")
            made.append(f"{n}-{at}/{stem}.wav")
    found = list(mend_tree(tmp_path))
    assert sorted(m.name for m in found) == sorted(made)
    assert {m.did for m in found} == {"completed"}
    paths = [tmp_path / name for name in made]
    for begin in range(0, len(paths), 20):
        frames = four_programs_read(paths[begin : begin + 20])
        assert all(
            count == 4800 // WavFormat.of_header(p.read_bytes()[:94]).frame_bytes  # type: ignore[union-attr]
            for p, count in frames.items()
        )


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    ours = WavFormat("pcm16", 8000, 1)
    plain = b"RIFF" + (36 + 320).to_bytes(4, "little") + b"WAVEfmt " + ours.header(0)[52:76] + bytes(4) + bytes(320)
    junk = bytearray(ours.header(320) + bytes(320))
    junk[72:76] = b"LIST"
    left = {
        "a-inbound.wav": plain,  # of another program, sizes wrong
        "b.part.wav": bytes(junk),  # likewise, and like ours up to its format
        "a.wav": b"",
        "music.part.wav": b"",
        "song.wav": ours.header(100)[:30],
        "session.part.wav": b"\x01no WAV file",
        "notes.txt": ours.header(0) + bytes(320),
    }
    for name, content in left.items():
        (out / name).write_bytes(content)
    target = elsewhere / "a-inbound.part.wav"
    target.write_bytes(ours.header(0) + bytes(320))
    (out / "b-inbound.part.wav").symlink_to(target)
    (out / "linked").symlink_to(elsewhere)
    os.mkfifo(out / "b-outbound.part.wav")
    for dry_run in (True, False):
        found = {m.file: m.did for m in mend_tree(out, dry_run=dry_run, min_age_s=0)}
        assert found == dict.fromkeys([n for n in left if n != "notes.txt"], "not ours") | {
            "b-inbound.part.wav": "not ours",
            "b-outbound.part.wav": "not ours",
        }
    assert {n: (out / n).read_bytes() for n in left} == left
    assert target.read_bytes() == ours.header(0) + bytes(320)


def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    sink = WavSink(tmp_path)
    engine, dispatcher = Engine(), Dispatcher([sink])
    dispatcher.handle(engine.receive(batch_of(steady(100))))
    deadline = time.monotonic() + 100
    while not (parts := [p for p in tmp_path.rglob("*.part.wav") if p.stat().st_size > 80]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    old_enough(parts[0])
    (found,) = mend_tree(tmp_path)
    assert (found.did, found.name) == ("in use", found.file)
    (found,) = mend_tree(tmp_path, min_age_s=0, dry_run=True)
    assert found.did == "in use"
    dispatcher.handle(engine.flush())
    dispatcher.close(10)
    (found,) = mend_tree(tmp_path)
    assert (found.did, found.frames) == ("fine", 100 * 160)


_KILLED = """
import os, sys
sys.path[:0] = [{tests!r}]
from support import batch_of, leg_id, steady
from strep._delivery.dispatcher import Dispatcher
from strep._engine.engine import Engine
from strep.sinks import WavSink
sink = WavSink({out!r}, layout={layout!r}, encoding={encoding!r}, drift_correction=False)
engine, dispatcher = Engine(), Dispatcher([sink])
arrivals = sorted([*steady(100), *steady(100, direction=1), *steady(100, call=leg_id(1))], key=lambda a: a.ns)
dispatcher.handle(engine.receive(batch_of(arrivals)))
while not sink._thread.idle: pass
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("layout", "encoding"), [("split", "pcm16"), ("split", "native"), ("stereo", "pcm16")])
def test_the_command_mends_what_a_killed_process_left(tmp_path: Path, layout: str, encoding: str) -> None:
    out = tmp_path / "out"
    code = _KILLED.format(tests=str(TESTS), out=str(out), layout=layout, encoding=encoding)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    parts = sorted(out.rglob("*.part.wav"))
    assert len(parts) == (3 if layout == "split" else 2)
    before = hashes(out)
    runner = CliRunner()
    young = runner.invoke(cli, ["repair", str(out), "--json"])
    assert [json.loads(line)["did"] for line in young.stdout.splitlines()] == ["young"] * len(parts)
    for path in parts:
        old_enough(path)
    dry = runner.invoke(cli, ["repair", str(out), "--dry-run", "--json"])
    assert hashes(out) == before
    done = runner.invoke(cli, ["repair", str(out), "--json"])
    assert (young.exit_code, dry.exit_code, done.exit_code) == (0, 0, 0)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [{**line, "dry_run": True} for line in lines] == [json.loads(line) for line in dry.stdout.splitlines()]
    assert {line["did"] for line in lines} == {"completed"}
    whole = [out / line["name"] for line in lines]
    frames = four_programs_read(whole)
    wanted = np.concatenate([pcmu(payload_of(k)) for k in range(100)])
    for path, line in zip(whole, lines, strict=True):
        # what still waited in the jitter ring, or to be written, is not in it: less than a second
        assert frames[path] == line["frames"] > 100 * 160 - 8000
        first = samples_of(path).reshape(line["frames"], -1)[:, 0]
        np.testing.assert_array_equal(first, wanted[: line["frames"]])
    again = runner.invoke(cli, ["repair", str(out)])
    assert again.stdout == ""
    assert f"{len(whole)} fine" in again.stderr


def test_what_cannot_be_mended_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a-inbound.part.wav"
    path.write_bytes(WavFormat("pcm16", 8000, 1).header(0) + bytes(320))
    old_enough(path)

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fails)
    done = CliRunner().invoke(cli, ["repair", str(tmp_path)])
    assert done.exit_code == 3
    assert "failed" in done.stdout
    assert "Input/output error" in done.stdout
    monkeypatch.undo()
    assert CliRunner().invoke(cli, ["repair", str(tmp_path / "nowhere")]).exit_code == 2
    (tmp_path / "a-inbound.wav").write_bytes(b"somebody else's")
    assert CliRunner().invoke(cli, ["repair", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "a-inbound.wav").read_bytes() == b"somebody else's"
    assert samples_of(tmp_path / "a-inbound-2.wav").size == 160


def test_half_a_sample_and_no_sample(tmp_path: Path) -> None:
    format_ = WavFormat("pcm16", 8000, 2)
    (tmp_path / "a.part.wav").write_bytes(format_.header(0) + bytes(range(10)) + b"x")
    (tmp_path / "b.part.wav").write_bytes(format_.header(0))
    (tmp_path / "a-inbound.part.wav").write_bytes(b"")
    (tmp_path / "b-inbound.part.wav").write_bytes(format_.header(0)[:17])
    found = {m.file: (m.did, m.frames) for m in mend_tree(tmp_path, min_age_s=0)}
    assert found == {
        "a.part.wav": ("completed", 2),
        "b.part.wav": ("removed", 0),
        "a-inbound.part.wav": ("removed", 0),
        "b-inbound.part.wav": ("removed", 0),
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    assert samples_of(tmp_path / "a.wav").shape == (2, 2)
