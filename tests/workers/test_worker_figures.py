"""Figures of several processes: told in shared memory, added up, and what is left of who died."""

from __future__ import annotations

import json
import os
import struct
import wave
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import T0, batch_of, leg_id, steady

import strep
from strep._codecs.payload_types import PayloadTypes
from strep._engine.engine import Engine
from strep._workers.board import Board, report_of_row
from strep._workers.ledger import packets_between
from strep._workers.merge import merge_sinks, merge_totals, totals_of_the_dead
from strep._workers.spec import recording_of
from strep.sinks.wav.file import WavFile, WavFormat
from strep.sinks.wav.leftovers import complete_file, complete_files, find_left_files
from strep.sinks.wav.tree import WavTree

pytestmark = pytest.mark.realtime


@pytest.fixture
def engine() -> Engine:
    """Six streams with some of everything."""
    engine = Engine()
    arrivals = [
        a
        for n in range(6)
        for k, a in enumerate(
            steady(60, first=65_500, call=leg_id(n), direction=n % 2, ssrc=n, start_ns=T0 + n * 999_999)
        )
        if k % 13 != n
    ]
    arrivals += [replace(a, ns=a.ns + 3_000_000) for a in arrivals[20:25]]
    arrivals += steady(50, call=None, ssrc=77, payload_type=8) + steady(40, call=None, ssrc=78, payload_type=96)
    arrivals.sort(key=lambda a: a.ns)
    for begin in range(0, len(arrivals), 50):
        engine.receive(batch_of(arrivals[begin : begin + 50]))
    return engine


def columns_of(engine: Engine) -> dict[str, Any]:
    rows = engine.state.table.live()
    columns = engine.state.columns(rows)
    columns["hi"], columns["lo"], columns["tag"] = engine.state.table.keys(rows)
    serials = [info.serial for info in engine.registry.info if info is not None]
    return {**columns, "serial": np.array(serials), "restart_gap": np.arange(len(rows))}


@pytest.fixture
def board() -> Any:
    board = Board(100)
    yield board
    board.close()


def test_a_board_tells_what_the_engine_would(engine: Engine, board: Board) -> None:
    assert len(board.read()) == 0
    reader = Board(100, os.dup(board.fd))
    board.publish(1, {"totals": engine.totals().as_dict(), "sinks": []}, columns_of(engine))
    snapshot = reader.read()
    assert (snapshot.generation, len(snapshot)) == (1, 8)
    assert snapshot.figures["totals"] == engine.totals().as_dict()
    codecs = PayloadTypes().codecs
    for i, info in enumerate(engine.registry.live()):
        copy = replace(info, codec=None, ssrcs=[info.ssrc])
        told = report_of_row(snapshot.columns, i, copy, codecs, "x")
        codec = codecs[int(engine.state.timeline.codec[i])] if engine.state.timeline.codec[i] >= 0 else None
        info.codec = info.codec or codec
        assert told.as_dict() == replace(engine.report(info), end="x").as_dict()
    assert board.read(columns=False).columns == {}
    reader.close()


def test_a_board_is_never_read_torn(board: Board) -> None:
    """Two halves: the one that was published stays whole while the next is written."""
    empty = {name: column[:0] for name, column in columns_of(Engine()).items()}
    for n in range(1, 6):
        board.publish(n, {"n": n}, empty)
        assert board.read().figures == {"n": n}
        # the other half is being written
        board._heads[(n + 1) % 2][:] = 99, 3, 7
        board._texts[(n + 1) % 2][:9] = 0xFF
        assert board.read().figures == {"n": n}


def test_what_does_not_fit_leaves_the_sinks_out(board: Board) -> None:
    empty = {name: column[:0] for name, column in columns_of(Engine()).items()}
    board.publish(1, {"n": 1, "sinks": [{"kind": "x" * 70_000}]}, empty)
    assert board.read().figures == {"n": 1, "sinks": []}


def test_totals_are_added_and_the_dead_drop_what_they_held(engine: Engine) -> None:
    totals = engine.totals()
    assert totals.buffered > 0
    dead = totals_of_the_dead(totals.as_dict())
    merged = merge_totals([dead, totals.as_dict(), strep.Totals().as_dict()])
    assert merged.unaccounted == 0
    assert merged.datagrams == 2 * totals.datagrams
    assert merged.buffered == totals.buffered
    assert merged.dropped_by["worker_died"] == totals.buffered
    assert merged.by_kind == {kind: 2 * count for kind, count in totals.by_kind.items()}
    assert merged.streams_ended == totals.streams_started
    assert totals_of_the_dead(strep.Totals().as_dict()) == strep.Totals().as_dict()


def test_sinks_of_a_kind_become_one() -> None:
    one = {"kind": "wav", "failed": None, "files": 3, "errors": {"EIO": 1}, "seconds": 0.5}
    two = {"kind": "wav", "failed": "EIO: bad", "files": 4, "errors": {"EIO": 1, "ENOSPC": 2}, "seconds": 0.25}
    three = {"kind": "wav", "failed": "later", "files": 0, "errors": {}}
    pcap = {"kind": "pcap", "failed": None, "written": 1}
    merged = merge_sinks([[one, pcap], [two], [pcap, three]])
    assert merged == [
        {"kind": "wav", "failed": "EIO: bad", "files": 7, "errors": {"EIO": 2, "ENOSPC": 2}, "seconds": 0.75},
        {"kind": "pcap", "failed": None, "written": 2},
    ]
    assert one["errors"] == {"EIO": 1}
    assert len(merge_sinks([[one, two]])) == 2  # two of a kind in one worker stay two


@pytest.mark.parametrize(
    ("last", "first", "elapsed_ms", "between"),
    [
        (10, 11, 20, 0),
        (10, 15, 100, 4),
        (65_535, 0, 20, 0),
        (65_533, 4, 200, 6),
        ((1 << 20) + 65_533, (1 << 20) + 4, 200, 6),  # extended
        (10, 10, 20, 0),  # a duplicate
        (10, 8, 20, 0),  # late
        (10, 5010, 100, 0),  # no sender is that fast: it began anew
        (10, 5010, 100_000, 4999),
        (10, 12, -5, 1),
    ],
)
def test_packets_between(last: int, first: int, elapsed_ms: int, between: int) -> None:
    assert packets_between(last, first, elapsed_ms * 1_000_000) == between


def test_names_of_recordings(tmp_path: Path) -> None:
    path = tmp_path / "calls.pcap"
    assert recording_of(path, 1, 1).name == "calls.1.pcap"
    (tmp_path / "calls.1.pcap").touch()
    assert recording_of(path, 1, 1).name == "calls.1.pcap"  # a new capture writes anew, as without workers
    assert recording_of(path, 1, 2).name == "calls.1-2.pcap"
    (tmp_path / "calls.1-2.pcap").touch()
    assert recording_of(path, 1, 3).name == "calls.1-3.pcap"


# --- files of the dead -----------------------------------------------------------------------------------------------


def left(folder: Path, name: str, format_: WavFormat, data: bytes, told: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(format_.header(told) + data)
    return path


def test_a_file_is_completed_with_all_that_is_in_it(tmp_path: Path) -> None:
    samples = np.arange(1001, dtype="<i2")
    part = left(tmp_path, "a-inbound.part.wav", WavFormat("pcm16", 16_000, 1), samples.tobytes() + b"x", told=200)
    final = complete_file(part)
    assert final.name == "a-inbound.wav"
    assert not part.exists()
    with wave.open(str(final)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 1001)
        np.testing.assert_array_equal(np.frombuffer(file.readframes(2000), "<i2"), samples)


def test_odd_bytes_of_g711_are_padded(tmp_path: Path) -> None:
    final = complete_file(left(tmp_path, "a.part.wav", WavFormat("PCMA", 8000, 1), b"\xd5" * 81))
    data = final.read_bytes()
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    assert data == WavFormat("PCMA", 8000, 1).header(81) + b"\xd5" * 81 + b"\0"


def test_only_what_the_dead_one_wrote_is_completed(tmp_path: Path, engine: Engine) -> None:
    stream, other = engine.registry.live()[:2]
    folder, format_ = tmp_path / stream.name, WavFormat("pcm16", 8000, 1)
    old = left(folder, "a-inbound.part.wav", format_, b"")
    os.utime(old, (1000, 1000))
    left(folder, "a-inbound-2.part.wav", format_, bytes(320))
    left(folder, "a-inbound-3.part.wav", format_, b"").write_bytes(b"")  # killed before the header
    left(folder, "a-inbound-x.part.wav", format_, bytes(320))
    left(folder, "b-inbound.part.wav", format_, bytes(320))
    left(folder, "a-2.part.wav", WavFormat("pcm16", 8000, 2), bytes(320))  # stereo, of both directions
    (folder / "a-inbound-4.part.wav").write_bytes(b"no WAV file")
    (folder / "a-inbound-5.wav").touch()
    left(folder, "a-inbound-5.part.wav", format_, bytes(320))
    found = complete_files(tmp_path, find_left_files(tmp_path, [stream, other], 2000))
    assert found == {
        stream.serial: [
            f"{stream.name}/{name}"
            for name in ("a-inbound-2.wav", "a-inbound-4.part.wav", "a-inbound-5-2.wav", "a-2.wav")
        ],
        other.serial: [],
    }
    names = {path.name for path in folder.iterdir()}
    assert {"a-inbound.part.wav", "a-inbound-x.part.wav", "b-inbound.part.wav", "a-inbound-5.wav"} <= names
    assert "a-inbound-3.part.wav" not in names


def test_a_name_that_was_given_meanwhile_is_not_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor opens its file between our completing the dead one's and our naming it."""
    tree = WavTree(tmp_path, 10)
    original = WavTree._open_fd

    def completed_meanwhile(self: WavTree, file: WavFile, flags: int) -> int:
        if file.part == "a.part.wav":
            (tmp_path / "call" / "a.wav").write_bytes(b"the dead one's")
        return original(self, file, flags)

    monkeypatch.setattr(WavTree, "_open_fd", completed_meanwhile)
    file = tree.create("call", "a", WavFormat("pcm16", 8000, 1))
    assert file.part == "a-2.part.wav"
    tree.begin(file, [(0, bytes(2))])
    tree.finish(file)
    assert {p.name: p.read_bytes()[:4] for p in (tmp_path / "call").iterdir()} == {"a.wav": b"the ", "a-2.wav": b"RIFF"}


@pytest.mark.sockets
def test_workers_measure(tmp_path: Path) -> None:
    """What the benchmarks say, with little to do."""
    from strep.bench.restart import measure_restart
    from strep.bench.steering import measure_steering

    steering = measure_steering(50_000, 3)
    assert (steering.received, steering.wrong, steering.split_legs) == (50_000, 0, 0)
    assert sum(steering.by_worker) == 50_000
    assert min(steering.by_worker) > 14_000
    assert steering.exact
    with pytest.raises(strep.ConfigurationError):
        measure_steering(0)
    restart = measure_restart(streams=40, rate=2000, duration_s=1.6, directory=tmp_path)
    assert json.loads(json.dumps(asdict(restart)))["killed_files"] == restart.streams_of_the_killed > 10
    assert restart.exact, restart
    assert list(tmp_path.iterdir()) == []
