"""The recording of raw datagrams: what a port was for, when its datagrams came."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support import Arrival, batch_of, packet

from strep._edge.pcap import PcapReader, PcapWriter
from strep._receiver.recorder import Recorder
from strep._threads.incidents import Incidents


def test_a_port_that_is_closed_keeps_its_role_in_what_still_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair is closed, its ports are plain ports again, while the disk is behind."""
    go_on = threading.Event()
    write = PcapWriter.write

    def slowly(writer: PcapWriter, batch: object) -> int:
        go_on.wait(10)
        return write(writer, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(PcapWriter, "write", slowly)
    recorder = Recorder(tmp_path / "a.pcap", {}, Incidents(lambda: 0))
    recorder.bind({5004: 2})
    recorder.write(batch_of([Arrival(10**9, packet(0, call=None), local_port=5004)]))
    recorder.bind({5004: 0})
    go_on.set()
    recorder.close()
    with PcapReader(tmp_path / "a.pcap") as reader:
        assert sum(len(batch) for batch in reader.batches()) == 1
        assert reader.roles == {5004: 2}
