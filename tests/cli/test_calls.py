"""strep calls, show and catalogue, as users type them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import strep
from strep.cli import cli


def leg(number: int, minute: int, **more: Any) -> dict[str, Any]:
    return {
        "call_leg_id": str(uuid.UUID(int=number)),
        "call_session_id": str(uuid.UUID(int=100)) if number < 3 else None,
        "from": f"+1555{number}",
        "to": "+4930",
        "leg": "b" if number == 2 else "a",
        "initiated_at": f"2026-11-29T10:{minute:02}:00Z",
        "streams": [
            {
                "direction": "inbound", "codec": "PCMU", "duration_s": 10.0, "packets_received": 500, "packets_lost": 2,
                "first_arrival_ns": 1_795_946_400_000_000_000 + minute * 60_000_000_000, "files": ["x/a-inbound.wav"],
                "quality": {"mos_cq": 4.0, "mos_min": 1.5 * number},
            },
        ],
        **more,
    }  # fmt: skip


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for n in (1, 2, 3):
        folder = tmp_path / "calls" / str(uuid.UUID(int=n))
        folder.mkdir(parents=True)
        (folder / "leg.json").write_text(json.dumps(leg(n, 10 * n)))
    return tmp_path / "calls"


def run(*arguments: object, fails: type[BaseException] | int = 0) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if isinstance(fails, int):
        assert done.exit_code == fails, done.output
    else:
        assert isinstance(done.exception, fails)
        return str(done.exception)
    return done.output


def test_from_files_to_answers(recordings: Path) -> None:
    assert "strep catalogue rebuild" in run("calls", "--catalogue", recordings, fails=strep.ConfigurationError)
    assert run("catalogue", "rebuild", recordings).startswith("3 legs, 0 files left out")
    where = ("--catalogue", recordings)

    def found(*options: object) -> list[str]:
        lines = run("calls", *where, "--json", *options).splitlines()
        return [each["from_number"] for line in lines for each in json.loads(line)["legs"]]

    assert found() == ["+15553", "+15551", "+15552"]  # the two legs of a call stay together
    assert found("--from", "+15552") == ["+15551", "+15552"]
    assert found("--mos-below", "2") == ["+15551", "+15552"]
    assert found("--since", "2026-11-29T10:25:00Z") == ["+15553"]
    assert found("--limit", "1") == ["+15553"]
    table = run("calls", *where)
    assert all(str(uuid.UUID(int=n)) in table for n in (1, 2, 3))
    shown = run("show", *where, uuid.UUID(int=2))
    assert "+15551 → +4930" in shown
    assert "2 of 500 packets lost, MOS 4.00" in shown
    assert "x/a-inbound.wav" in shown
    assert len(json.loads(run("show", *where, "--json", uuid.UUID(int=100)))["legs"]) == 2
    run("catalogue", "tag", *where, uuid.UUID(int=3), "case=7", "team=blue")
    run("catalogue", "tag", *where, uuid.UUID(int=3), "team=")
    run("catalogue", "rebuild", recordings)
    assert found("--tag", "case=7") == ["+15553"]
    assert found("--tag", "team=blue") == []


def test_what_is_not_there_is_said(recordings: Path) -> None:
    run("catalogue", "rebuild", recordings)
    where = ("--catalogue", recordings)
    assert "there is no call nobody" in run("show", *where, "nobody", fails=1)
    assert "there is no call nobody" in run("catalogue", "tag", *where, "nobody", "a=b", fails=1)
    assert "give KEY=VALUE" in run("calls", *where, "--tag", "case", fails=strep.ConfigurationError)
    assert "choose live" in run("calls", *where, "--outcome", "fine", fails=strep.ConfigurationError)
    assert "yesterday" in run("calls", *where, "--since", "soon", fails=strep.ConfigurationError)
