"""What a killed strep serve left behind: which files are completed, which left alone; faults.md 55."""

from __future__ import annotations

import json
import os
import time
import uuid
import wave
from pathlib import Path
from typing import Any

import pytest
from support import LEG

from strep.service._recovery import Recovery
from strep.sinks.wav.file import WavFormat

B_LEG = uuid.UUID(int=LEG.int + 1)


def left(folder: Path, stem: str, frames: int, *, age_s: float = 10.0, channels: int = 1) -> Path:
    """A file as a killed process leaves it: its header is behind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.part.wav"
    format_ = WavFormat("pcm16", 8000, channels)
    path.write_bytes(format_.header(0) + bytes(range(256)) * (frames * format_.frame_bytes // 256 + 1))
    os.truncate(path, format_.header_bytes + frames * format_.frame_bytes)
    at = time.time() - age_s
    os.utime(path, (at, at))
    return path


def recover(root: Path, calls: dict[uuid.UUID, dict[str, Any]], since_s: float | None = None) -> tuple[Recovery, Any]:
    told: list[tuple[str, dict[str, Any]]] = []
    since_ns = int((time.time() - 1 if since_s is None else since_s) * 1e9)
    recovery = Recovery(
        root, since_ns, calls, lambda path, found: told.append((path.relative_to(root).as_posix(), found))
    )
    recovery.start()
    recovery._thread.join(100)
    assert not recovery._thread.is_alive()
    return recovery, told


def test_what_is_left_of_legs_sessions_and_nobodies_is_completed(tmp_path: Path) -> None:
    known, other = str(LEG), str(B_LEG)
    left(tmp_path / known, "a-inbound", 8000)
    left(tmp_path / known, "a-outbound-2", 4000)
    left(tmp_path / other, "b", 800, channels=2)
    left(tmp_path / "s1", "session", 1600, channels=4)
    (tmp_path / known / "leg.json").write_text("an earlier one's")
    (tmp_path / known / ".leg.json.77.part").write_text("scrap")
    os.utime(tmp_path / known / ".leg.json.77.part", (1, 1))
    recovery, told = recover(tmp_path, {LEG: {"call_leg_id": known, "from": "+1"}})
    assert (recovery.done, recovery.completed, recovery.failed) == (True, 4, 0)
    assert [name for name, _ in told] == [f"{known}/leg-2.json", f"{other}/leg.json"]
    first, second = (json.loads((tmp_path / name).read_text()) for name, _ in told)
    assert (first["from"], first["recovered"], second["call_leg_id"]) == ("+1", True, other)
    streams = [(s["leg"], s["direction"], s["duration_s"], s["files"]) for s in first["streams"] + second["streams"]]
    assert streams == [
        ("a", "inbound", 1.0, [f"{known}/a-inbound.wav"]),
        ("a", "outbound", 0.5, [f"{known}/a-outbound-2.wav"]),
        ("b", "inbound", 0.1, [f"{other}/b.wav"]),
        ("b", "outbound", 0.1, [f"{other}/b.wav"]),
    ]
    assert not list(tmp_path.rglob("*.part*"))
    with wave.open(str(tmp_path / "s1" / "session.wav")) as file:
        assert (file.getnchannels(), file.getnframes()) == (4, 1600)
    assert sorted(recovery.figures()["names"]) == sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.wav")
    )


def test_what_is_being_written_and_what_only_looks_like_ours_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out" / str(LEG)
    now = left(folder, "a-inbound", 800, age_s=0)
    elsewhere = left(tmp_path / "elsewhere", "precious", 800)
    before = elsewhere.read_bytes()
    (folder / "b-inbound.part.wav").symlink_to(elsewhere)
    (tmp_path / "out" / str(B_LEG)).symlink_to(tmp_path / "elsewhere")
    recovery, told = recover(tmp_path / "out", {LEG: {}, B_LEG: {}})
    assert (recovery.done, recovery.completed, told) == (True, 0, [])
    assert now.exists()
    assert elsewhere.read_bytes() == before


def test_nobody_knows_what_is_older_when_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of calls that live would look as if they were left."""
    part = left(tmp_path / str(LEG), "a-inbound", 800)
    real = time.time
    recovery = Recovery(tmp_path, int(real() * 1e9), {}, lambda path, found: None)
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    recovery.start()
    recovery._thread.join(100)
    assert (recovery.done, recovery.completed) == (False, 0)
    assert part.exists()
