"""One program at a time writes into a directory; faults.md 54."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import strep
from strep._model.exceptions import ConfigurationError
from strep.cli.lock import DirectoryLock

pytestmark = pytest.mark.realtime

HOLD = "import sys, time, pathlib as p, strep.cli.lock as s; s.DirectoryLock(p.Path(sys.argv[1]), 'serve').take(); "
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(strep.__file__).parents[1])}


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds it."""
    code = HOLD + "print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_one_is_told_who_has_it_and_what_to_do(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        try:
            with pytest.raises(
                ConfigurationError, match=rf"by strep serve \(process {process.pid}\): .* another --out"
            ):
                DirectoryLock(tmp_path, "capture").take()
        finally:
            process.kill()
    with DirectoryLock(tmp_path, "capture"):  # killed: the file is there, nobody has it
        assert f"process {os.getpid()}" in (tmp_path / ".strep.lock").read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_one_that_is_stopped_has_it_still(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(ConfigurationError):
                DirectoryLock(tmp_path, "serve").take()
        finally:
            process.kill()


def test_a_program_that_was_started_meanwhile_does_not_have_it_too(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path, "serve")
    lock.take()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        lock.release()
        with DirectoryLock(tmp_path, "serve"):
            pass
    finally:
        child.kill()
        child.wait()


def test_many_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """Who leaves removes the file: nobody may then hold one that others do not find."""
    code = """if True:
        import os, pathlib, sys, time
        from strep._model.exceptions import ConfigurationError
        from strep.cli.lock import DirectoryLock
        root, had = pathlib.Path(sys.argv[1]), 0
        until = time.monotonic() + 100
        while had < 40 and time.monotonic() < until:
            try:
                with DirectoryLock(root / "out", "serve"):
                    os.close(os.open(root / "alone", os.O_CREAT | os.O_EXCL))
                    os.unlink(root / "alone")
                    had += 1
            except ConfigurationError:
                pass
        print(had)
    """
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == ["40"] * 3
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="symlinks")
def test_a_planted_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".strep.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ConfigurationError, match="choose a directory"):
        DirectoryLock(tmp_path, "serve").take()
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_was_there_before_is_older_than_the_lock(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("x")
    time.sleep(0.02)
    with DirectoryLock(tmp_path, "serve") as lock:
        time.sleep(0.02)
        (tmp_path / "after").write_text("x")
        assert (tmp_path / "before").stat().st_mtime_ns < lock.since_ns < (tmp_path / "after").stat().st_mtime_ns


def test_what_stands_in_the_file_is_not_believed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        try:
            (tmp_path / ".strep.lock").write_bytes(b"strep \x1b[2J" + b"x" * 10_000)
            with pytest.raises(ConfigurationError, match="by another program: "):
                DirectoryLock(tmp_path, "serve").take()
        finally:
            process.kill()
