"""Headers on disk, of files that nothing is written to at the moment: they never lag far behind their samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from block_batches import Part, batch_of_blocks, stream

from strep.sinks.wav.disk import DiskState
from strep.sinks.wav.file import HEADER_INTERVAL_S, WavFile, WavFormat
from strep.sinks.wav.lanes import WavLanes
from strep.sinks.wav.tree import WavTree
from strep.sinks.wav.upkeep import FileUpkeep


class Files:
    """Files that lanes write, and their upkeep; of stream i the samples are all i + 1."""

    def __init__(self, root: Path, max_open: int = 100) -> None:
        self.tree = WavTree(root, max_open)
        lanes = WavLanes.of(lambda: self.tree.evicted)
        if lanes is None:
            pytest.skip("io_submit is not available")
        self.lanes = lanes
        self.tracks: dict[int, SimpleNamespace] = {}
        self.upkeep = FileUpkeep(self.tree, DiskState(lambda *told: None), lanes, self.tracks)  # type: ignore[arg-type]

    def begin(self, row: int, now: float) -> WavFile:
        """A file of 160 frames, with a lane where there may be one."""
        file = self.tree.create("call", f"s{row}", WavFormat("pcm16", 8000, 1))
        self.tree.begin(file, [(0, np.full(160, row + 1, np.int16).tobytes())])
        file.header_written_at = now
        self.tracks[row] = SimpleNamespace(file=file, stream=stream(row))
        self.lanes.adopt(row, file)
        return file

    def write(self, row: int, block: int, now: float) -> None:
        """A further block of 160 frames, by its lane."""
        part = Part(stream(row), 160 * block, 0, np.full(160, row + 1, np.int16))
        assert self.lanes.write(batch_of_blocks([part]), False, now) == []

    def frames(self, row: int) -> int:
        """As the header on disk says; all of them are the stream's."""
        samples, _ = soundfile.read(self.tree.root / "call" / f"s{row}.part.wav", dtype="int16")
        assert (samples == row + 1).all()
        return len(samples)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    files = Files(tmp_path)
    yield files
    files.tree.close()
    files.lanes.close()


def test_the_header_of_a_stream_on_hold_is_written_while_other_calls_keep_the_thread_busy(files: Files) -> None:
    files.begin(0, 10.0)
    files.begin(1, 10.0)
    files.upkeep.look_after(10.0, idle=False, stuck=False)
    files.write(0, 1, 10.1)
    for block in range(1, 60):  # the thread is never idle
        now = 10.1 + 0.02 * block
        files.write(1, block, now)
        files.upkeep.look_after(now, idle=False, stuck=False)
        if now - 10.1 > 2 * HEADER_INTERVAL_S:
            assert files.frames(0) == 320
    assert files.frames(1) >= 59 * 160 - HEADER_INTERVAL_S * 8000
    assert now > 10.1 + 2 * HEADER_INTERVAL_S


@pytest.mark.parametrize("idle", [False, True])
def test_a_header_is_not_written_into_the_file_that_has_the_descriptor_now(tmp_path: Path, idle: bool) -> None:
    files = Files(tmp_path, max_open=1)
    first = files.begin(0, 10.0)
    files.write(0, 1, 10.1)  # its header lags
    descriptor = first.fd
    second = files.begin(1, 10.2)  # the first one is closed for it
    assert (first.fd, second.fd) == (-1, descriptor)
    files.upkeep.look_after(11.0, idle=idle, stuck=False)
    assert (files.frames(0), files.frames(1)) == (320, 160)
    assert os.path.getsize(tmp_path / "call" / "s0.part.wav") == first.format.header_bytes + 640
    assert not files.upkeep.lags
    files.tree.close()
    files.lanes.close()
