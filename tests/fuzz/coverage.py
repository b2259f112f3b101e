"""Guided by coverage (atheris): the vector parser against the scalar one, and captures of any bytes.

``python -m fuzz.coverage parser -max_total_time=60``, or ``pcap``, and what else libFuzzer takes. Needs
``pip install atheris``; a find is left as ``crash-…``, and that file as argument runs it again.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Final

import atheris
import numpy as np

with atheris.instrument_imports(include=["strep"]):
    from strep import CaptureFileError, Status
    from strep._edge.pcap import PcapReader
    from strep._parser import inspect_datagram, parse_batch

_WIDTHS: Final = (64, 72, 256, 2048)
_MEMORY: Final = 64 << 20  # beyond what the process had, for files of some kilobytes
_KNOWN: Final = ("call_leg_id",)


def parser(data: bytes) -> None:
    """Bytes: which slab width; then datagrams, each after its length in two bytes."""
    if len(data) < 3:
        return
    width, rest, parts = _WIDTHS[data[0] & 3], data[1:], []
    while len(rest) >= 2 and len(parts) < 8:
        length = int.from_bytes(rest[:2]) & 0x1FF
        parts.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    if not parts:
        return
    slab = np.full((len(parts), width), data[0], np.uint8)
    for row, one in zip(slab, parts, strict=True):
        row[: min(len(one), width)] = np.frombuffer(one[:width], np.uint8)
    columns = parse_batch(slab, np.array([len(one) for one in parts], np.int32))
    for i, one in enumerate(parts):
        wanted = dataclasses.asdict(inspect_datagram(one))
        if len(one) > width:
            wanted = {"status": Status.TRUNCATED, "kind": wanted["kind"]}
        if "call_leg_id" in wanted:
            whole = wanted.pop("call_leg_id")
            wanted["call_leg_hi"], wanted["call_leg_lo"] = whole >> 64, whole & (1 << 64) - 1
        for name, value in wanted.items():
            found = int(getattr(columns, name)[i])
            if found != int(value):
                raise AssertionError(f"{name}: {found} for {int(value)} of {one.hex()} in rows of {width}")


def pcap(data: bytes) -> None:
    """A file of these bytes: read, or refused by name; in bounded memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _PATH.write_bytes(data)
    try:
        with PcapReader(_PATH) as reader:
            for batch in reader.batches():
                if len(batch) > len(data):
                    raise AssertionError(f"{len(batch)} datagrams in {len(data)} bytes")
    except CaptureFileError:
        pass
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > _MEMORY:
        raise AssertionError(f"{grown >> 20} MiB for a file of {len(data)} bytes")


_PATH: Final = Path(tempfile.gettempdir()) / f"strep-fuzz-{os.getpid()}.pcap"
_TARGETS: Final = {"parser": parser, "pcap": pcap}


def seeds(directory: Path) -> None:
    """Sound files and datagrams to begin with."""
    from strep.simulate import make_traffic
    from strep.simulate.recorded import write_pcap

    traffic = make_traffic(calls=1, duration_s=0.1, seed=1)
    write_pcap(traffic.batches(), directory / "seed.pcap")
    one = traffic.datagrams(slice(0, 1), strep=True)[0].tobytes()
    (directory / "seed.datagram").write_bytes(b"\3" + (len(one).to_bytes(2) + one) * 2)
    # pcapng (draft-ietf-opsawg-pcapng): section header, interface, one packet
    shb = bytes.fromhex("0a0d0d0a1c0000004d3c2b1a01000000ffffffffffffffff1c000000")
    idb = bytes.fromhex("01000000140000000100000000000400" + "14000000")
    frame = (directory / "seed.pcap").read_bytes()[40:]
    frame = frame[: 14 + 20 + 8 + len(one)]
    padded = frame + bytes(-len(frame) % 4)
    size = 32 + len(padded)
    head = size.to_bytes(4, "little") + bytes(12) + 2 * len(frame).to_bytes(4, "little")
    epb = (6).to_bytes(4, "little") + head + padded + size.to_bytes(4, "little")
    (directory / "seed.pcapng").write_bytes(shb + idb + epb)


def main() -> None:
    target = _TARGETS[sys.argv.pop(1)]
    corpus = Path(tempfile.mkdtemp(prefix="strep-fuzz-"))
    seeds(corpus)
    atheris.Setup([*sys.argv, str(corpus)] if not any(Path(a).is_file() for a in sys.argv[1:]) else sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
