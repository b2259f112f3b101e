"""Disks and directories that do what real ones do: errors of one file, deleted directories, planted links, names."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from live import hashes, samples_of
from support import LEG, MS, T0, batch_of, leg_id, payload_of, pcmu, steady

import strep
from strep._delivery.dispatcher import Dispatcher
from strep._edge.pcap import PcapWriter
from strep._engine.engine import Engine
from strep._engine.release import Release
from strep._threads.incidents import Incident
from strep.cli import cli
from strep.sinks import WavSink
from strep.sinks import folders as _folders
from strep.sinks.folders import Folders, safe_name
from strep.sinks.wav import disk as _wavdisk
from strep.sinks.wav import lanes as _lanes
from strep.sinks.wav.aio import ManyWrites
from strep.sinks.wav.file import WavFormat
from strep.sinks.wav.lanes import WavLanes
from strep.sinks.wav.tree import WavTree

pytestmark = pytest.mark.realtime

STEP = 10  # packets that are fed at once


class Calls:
    """Steady streams into a sink, step by step, until the writer has taken each step."""

    def __init__(self, sink: WavSink, count: int = 3) -> None:
        self.sink = sink
        self.engine = Engine(release=Release(20 * MS))
        self.dispatcher = Dispatcher([sink])
        self.told: list[Incident] = []
        self.dispatcher.incidents.listen(self.told.append)
        self.count = count
        self.fed = 0

    def feed(self, packets: int) -> None:
        for _ in range(packets // STEP):
            start = T0 + self.fed * 20 * MS
            streams = [steady(STEP, first=self.fed, start_ns=start, call=leg_id(n)) for n in range(self.count)]
            arrivals = [a for together in zip(*streams, strict=True) for a in together]
            self.fed += STEP
            self.dispatcher.handle(self.engine.receive(batch_of(arrivals)))
            self.until(lambda: self.sink._thread.idle)

    def until(self, condition: Callable[[], object], seconds: float = 100) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def finish(self) -> dict[str, Any]:
        self.dispatcher.handle(self.engine.flush())
        self.dispatcher.close(10)
        (report,) = self.dispatcher.reports()
        return report

    def wanted(self) -> npt.NDArray[np.int16]:
        return np.concatenate([pcmu(payload_of(k)) for k in range(self.fed)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wavdisk, "PAUSE_S", 0.05)
    monkeypatch.setattr(_wavdisk, "_CALM_S", 0.1)


class Broken:
    """Writes to one file fail, by either way into files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lanes: bool, code: int) -> None:
        self.inode: int | None = None
        pwrite = os.pwrite

        def one(fd: int, data: Any, at: int) -> int:
            if os.fstat(fd).st_ino == self.inode:
                raise OSError(code, os.strerror(code))
            return pwrite(fd, data, at)

        def several(many: Any) -> Any:
            def write(writes: ManyWrites, fd: Any, address: Any, length: Any, offset: Any) -> Any:
                bad = np.array([os.fstat(f).st_ino == self.inode for f in fd.tolist()], np.bool_)
                done = np.full(len(fd), -code, np.int64)
                if not bad.all():
                    done[~bad] = many(writes, fd[~bad], address[~bad], length[~bad], offset[~bad])
                return done

            return write

        monkeypatch.setattr(os, "pwrite", one)
        for name in ("write", "write_pieces"):
            monkeypatch.setattr(ManyWrites, name, several(getattr(ManyWrites, name)))
        monkeypatch.setattr(_lanes, "_WRITE_S", 0.0)  # nothing waits for more
        if not lanes:
            monkeypatch.setattr(WavLanes, "of", classmethod(lambda cls, evicted: None))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("layout", ["split", "stereo"])
def test_a_file_that_cannot_be_written_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lanes: bool, layout: Any
) -> None:
    """EIO: faults.md 30. Told once, counted to the frame, over when it is over."""
    broken = Broken(monkeypatch, lanes, errno.EIO)
    calls = Calls(WavSink(tmp_path, layout=layout, drift_correction=False))
    stem = "a-inbound" if layout == "split" else "a"
    calls.feed(100)
    broken.inode = (tmp_path / str(leg_id(1)) / f"{stem}.part.wav").stat().st_ino
    calls.feed(100)
    report = calls.sink.report()
    assert (report["failed"], report["paused"]) == (None, True)
    assert report["problem"].startswith("EIO: ")
    lost = report["dropped_frames"]
    assert 99 * 160 <= lost <= 101 * 160
    broken.inode = None
    calls.until(lambda: calls.sink.report()["problem"] is None)
    calls.feed(100)
    report = calls.finish()
    assert (report["failed"], report["problem"], report["dropped_frames"]) == (None, None, lost)
    assert set(report["errors"]) == {"EIO"}
    wanted = calls.wanted()
    for n in range(3):
        samples = samples_of(tmp_path / str(leg_id(n)) / f"{stem}.wav").reshape(300 * 160, -1)[:, 0]
        if n == 1:
            wrong = np.flatnonzero(samples != wanted)
            assert not samples[wrong].any()
            assert 98 * 160 < wrong[-1] - wrong[0] < lost
        else:
            np.testing.assert_array_equal(samples, wanted)
    assert [i.kind for i in calls.told] == ["disk_paused", "disk_resumed"]
    assert (calls.told[1].data["lost_frames"], str(leg_id(1)) in str(calls.told[0].data["where"])) == (lost, True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOENT])
def test_new_files_that_cannot_be_made_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """For some time nothing can be made: nothing is lost of streams that began in it."""
    made = Folders.make

    def fails(folders: Folders, name: str) -> str:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Folders, "make", fails)
    monkeypatch.setattr(Folders, "probe", lambda self: fails(self, ""))
    calls = Calls(WavSink(tmp_path / "out"))
    calls.feed(100)
    assert calls.sink.report()["problem"].startswith(errno.errorcode[code])
    monkeypatch.setattr(Folders, "make", made)
    calls.feed(50)
    calls.until(lambda: calls.sink.report()["problem"] is None)
    report = calls.finish()
    assert (report["failed"], report["dropped_frames"], report["refused_streams"]) == (None, 0, 0)
    wanted = calls.wanted()
    for n in range(3):
        np.testing.assert_array_equal(samples_of(tmp_path / "out" / str(leg_id(n)) / "a-inbound.wav"), wanted)
    assert [i.kind for i in calls.told] == ["disk_paused", "disk_resumed"]


@pytest.mark.usefixtures("quick")
def test_what_waits_for_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folders, "make", lambda *_: (_ for _ in ()).throw(OSError(errno.EACCES, "no")))
    calls = Calls(WavSink(tmp_path / "out", queue_bytes=400_000))
    for _ in range(20):
        calls.feed(50)
        assert calls.sink._pending.size <= 110_000
    report = calls.finish()
    assert report["failed"].startswith("EACCES")
    assert (report["dropped_frames"], report["refused_streams"]) == (3 * 1000 * 160, 3)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("encoding", ["pcm16", "native"])
def test_a_file_that_somebody_deletes_is_made_again(tmp_path: Path, encoding: Any) -> None:
    calls = Calls(WavSink(tmp_path, encoding=encoding))
    calls.feed(100)
    calls.until(lambda: calls.sink._tree is not None and _checked(calls.sink))
    shutil.rmtree(tmp_path / str(leg_id(1)))
    calls.until(lambda: (tmp_path / str(leg_id(1)) / "a-inbound.part.wav").exists())
    calls.feed(100)
    calls.until(lambda: calls.sink.report()["problem"] is None)
    report = calls.finish()
    assert (report["failed"], report["errors"], report["dropped_frames"]) == (None, {"ENOENT": 1}, 0)
    assert report["files"] == 3
    wanted = calls.wanted()
    for n in range(3):
        samples = samples_of(tmp_path / str(leg_id(n)) / "a-inbound.wav")
        assert len(samples) == 200 * 160
        begin = 101 * 160 if n == 1 else 0
        np.testing.assert_array_equal(samples[begin:], wanted[begin:])
        assert n != 1 or not samples[: 98 * 160].any()


def _checked(sink: WavSink) -> bool:
    """The writer has looked at all files since they were written last."""
    files = [track.file for track in sink._writer._tracks.values()]
    lanes = sink._writer._lanes
    if sink._writer.waiting_frames:
        return False
    if lanes is not None:
        for track in sink._writer._tracks.values():
            lanes.release(track.stream.index, track.file)
    return all(file.checked == file.end > 0 for file in files)


# --- who may read it, and where it goes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "umask", "modes"),
    [
        ({}, 0o022, (0o640, 0o750)),
        ({}, 0o077, (0o600, 0o700)),
        ({}, 0o000, (0o640, 0o750)),
        ({"file_mode": 0o666, "directory_mode": 0o777}, 0o002, (0o664, 0o775)),
    ],
)
def test_modes(tmp_path: Path, options: dict[str, Any], umask: int, modes: tuple[int, int]) -> None:
    before = os.umask(umask)
    try:
        calls = Calls(WavSink(tmp_path / "out", **options), 1)
        calls.feed(40)
        calls.finish()
    finally:
        os.umask(before)
    path = tmp_path / "out" / str(LEG) / "a-inbound.wav"
    assert stat.S_IMODE(path.stat().st_mode) == modes[0]
    assert {stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path.parent.parent)} == {modes[1]}


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_planted_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_descriptor: bool) -> None:
    """Of directories, of files under their partial names and their final ones; to what is there and what is not."""
    monkeypatch.setattr(_folders, "_BY_DESCRIPTOR", by_descriptor)
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a-inbound.wav").write_bytes(b"mine")
    before = hashes(elsewhere)
    out.mkdir()
    (out / str(leg_id(0))).symlink_to(elsewhere)
    (out / str(leg_id(1))).symlink_to(tmp_path / "not there")
    (out / str(leg_id(2))).write_bytes(b"a file")
    for n, name in ((3, "a-inbound.part.wav"), (4, "a-inbound.wav")):
        (out / str(leg_id(n))).mkdir()
        (out / str(leg_id(n)) / name).symlink_to(elsewhere / "a-inbound.wav")
    for n, name in ((5, "a-inbound.part.wav"), (6, "a-inbound.wav")):
        (out / str(leg_id(n))).mkdir()
        (out / str(leg_id(n)) / name).symlink_to(tmp_path / "new.wav")
    calls = Calls(WavSink(out), 8)
    calls.feed(40)
    report = calls.finish()
    assert (report["failed"], report["dropped_frames"], report["errors"]) == (None, 0, {})
    assert hashes(elsewhere) == before
    assert not (tmp_path / "new.wav").exists()
    assert not (tmp_path / "not there").exists()
    names = {name for r in calls.dispatcher.ended for name in calls.sink.files(r.stream)}
    assert names == {
        *(f"{leg_id(n)}-2/a-inbound.wav" for n in (0, 1, 2)),
        *(f"{leg_id(n)}/a-inbound-2.wav" for n in (3, 4, 5, 6)),
        f"{leg_id(7)}/a-inbound.wav",
    }
    for name in names:
        assert not (out / name).is_symlink()
        np.testing.assert_array_equal(samples_of(out / name), calls.wanted())
    assert report["names_taken"] == 3


def test_a_link_that_takes_a_directory_s_place_meanwhile(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    tree = WavTree(out, 8)  # keeps two directories open
    file = tree.create("call", "a", WavFormat("pcm16", 8000, 1))
    tree.begin(file, [(0, bytes(320))])
    for other in ("one", "two", "three"):
        tree.create(other, "a", WavFormat("pcm16", 8000, 1))
    (out / "call").rename(out / "moved")
    (out / "call").symlink_to(elsewhere)
    with pytest.raises(OSError):
        tree.finish(file)
    assert list(elsewhere.iterdir()) == []
    tree.close()


def test_a_root_that_goes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once when it was deleted; 0.1 s later when it was moved away."""
    now = [100.0]
    monkeypatch.setattr(_folders.time, "monotonic", lambda: now[0])
    root = tmp_path / "rec"
    folders = Folders(root, keep=8)
    folders.make("a")
    shutil.rmtree(root)
    assert folders.make("b") == "b"
    assert [path.name for path in root.iterdir()] == ["b"]
    root.rename(tmp_path / "old")
    now[0] += 0.05
    folders.make("c")
    now[0] += 0.1
    folders.make("d")
    folders.close()
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["b", "c"]
    assert [path.name for path in root.iterdir()] == ["d"]


@pytest.mark.parametrize("how", ["access", "stat"])
def test_what_has_a_name_is_there_whatever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(_folders, "_ACCESS", how == "access")
    folders = Folders(tmp_path, keep=8)
    folders.make("call")
    (tmp_path / "call" / "file").write_bytes(b"")
    (tmp_path / "call" / "broken").symlink_to("nowhere")
    found = [folders.there("call", name) for name in ("file", "broken", "none")]
    folders.close()
    assert found == [True, True, False]


def test_the_writer_s_thread_is_as_nice_as_the_receiver_s(tmp_path: Path) -> None:
    """A nicer one got no CPU beside three busy programs, and a third of the audio was lost."""
    sink = WavSink(tmp_path)
    writer = next(thread for thread in threading.enumerate() if thread.name == "strep-wav")
    assert writer.native_id is not None
    nice = [os.getpriority(os.PRIO_PROCESS, who) for who in (writer.native_id, threading.get_native_id())]
    sink.close(5.0)
    assert nice[0] == nice[1]


def test_nothing_is_overwritten_that_comes_meanwhile(tmp_path: Path) -> None:
    calls = Calls(WavSink(tmp_path), 1)
    calls.feed(40)
    (tmp_path / str(LEG) / "a-inbound.wav").write_bytes(b"somebody else's")
    calls.finish()
    (report,) = calls.dispatcher.ended
    assert calls.sink.files(report.stream) == [f"{LEG}/a-inbound-2.wav"]
    assert (tmp_path / str(LEG) / "a-inbound.wav").read_bytes() == b"somebody else's"
    assert {p.name for p in (tmp_path / str(LEG)).iterdir()} == {"a-inbound.wav", "a-inbound-2.wav"}


@pytest.mark.parametrize("missing", ["renameat2", "link"])
def test_file_systems_that_cannot_do_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(_folders, "_renameat2", None)
    if missing == "link":

        def fails(*_: Any, **__: Any) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", fails)
    test_nothing_is_overwritten_that_comes_meanwhile(tmp_path)


def test_long_names_lose_no_call(tmp_path: Path) -> None:
    long = [("s" * 400) + end for end in ("1", "2")]
    sessions: Any = {leg_id(0): long[0], leg_id(1): long[1]}
    calls = Calls(WavSink(tmp_path, layout="session", sessions=sessions, drift_correction=False), 2)
    calls.feed(40)
    report = calls.finish()
    assert (report["failed"], report["dropped_frames"]) == (None, 0)
    folders = sorted(p.name for p in tmp_path.iterdir())
    assert folders == sorted(safe_name(name) for name in long)
    assert all(name.startswith("s" * 180) and len(name) == 200 for name in folders)
    for name in folders:
        np.testing.assert_array_equal(samples_of(tmp_path / name / "session.wav")[:, 0], calls.wanted())


@pytest.mark.parametrize("wrong", [{"file_mode": 0o1000}, {"directory_mode": -1}, {"shortest_s": -1}])
def test_wrong_options(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(strep.ConfigurationError, match=next(iter(wrong))):
        WavSink(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("umask", "modes"), [("022", (0o644, 0o755)), ("0027", (0o640, 0o750)), ("77", (0o600, 0o700))]
)
def test_the_command_s_umask(tmp_path: Path, umask: str, modes: tuple[int, int]) -> None:
    writer = PcapWriter(tmp_path / "a.pcap")
    writer.write(batch_of(steady(40)))
    writer.close()
    before = os.umask(0o022)
    try:
        command = ["replay", str(tmp_path / "a.pcap"), "--out", str(tmp_path / "out"), "--umask", umask]
        done = CliRunner().invoke(cli, command)
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    path = tmp_path / "out" / str(LEG) / "a-inbound.wav"
    assert stat.S_IMODE(path.stat().st_mode) == modes[0]
    assert stat.S_IMODE(path.parent.stat().st_mode) == modes[1]


@pytest.mark.parametrize("wrong", ["9", "-1", "1000", "x"])
def test_no_umask(tmp_path: Path, wrong: str) -> None:
    done = CliRunner().invoke(cli, ["replay", str(tmp_path), "--out", str(tmp_path), f"--umask={wrong}"])
    assert done.exit_code == 2
    assert "027" in done.output
