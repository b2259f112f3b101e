"""Messages in the words of who reads them: options on the command line, text as it stands on the terminal."""

from __future__ import annotations

import ast
import dataclasses
import io
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from commands import strep_command
from places import ROOT
from support import LEG, batch_of, steady

import strep
from strep._edge.pcap import PcapWriter
from strep._model.report import StreamReport
from strep._model.types import StreamInfo
from strep._receiver.settings import NOT_FOR, Settings
from strep.cli import running
from strep.cli.found import Found, every_sink
from strep.cli.options import flag_of
from strep.cli.output import Output
from strep.cli.running import console
from strep.cli.tables import stream_table
from strep.cli.words import _NO_OPTIONS, in_options
from strep.sinks import DtmfDetector, LevelMeter, QualityMeter, SpeechMeter

ERRORS = {"ConfigurationError", "AddressError", "BindError", "MissingExtraError"}
# arguments that no command has an option for
PYTHON_ONLY = {"audio_type", "cache_audio", "deadline_s", "kind", "max_restarts", "media_name", "page_number",
               "page_size", "payload_type", "pending_s", "playback_content", "service_level", "size", "speech",
               "status", "timeout_s", "timeout_secs"}  # fmt: skip


def messages() -> list[str]:
    """The constant parts of what errors say, of all that stands below the command line."""
    found = []
    for path in (ROOT / "strep").rglob("*.py"):
        if "cli" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                parts = [c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)]
                found.append("".join(parts))
    return found


def test_no_error_names_an_argument_to_who_typed_an_option() -> None:
    texts = messages()
    assert len(texts) > 100
    left = {name for text in texts for name in re.findall(r"\b([a-z_]+)=(?!=)", in_options(text))}
    assert left <= PYTHON_ONLY


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('give listen="udp:0.0.0.0:9000", rx= and tx=, or pairs="udp:0.0.0.0:20000-20999"',
         "give --listen udp:0.0.0.0:9000, or --rx and --tx"),
        ("max_streams 0: choose 1 to 1000000", "--max-streams 0: choose 1 to 1000000"),
        ("drain_s=4000: 0 to 3600 s", "--drain 4000: 0 to 3600 s"),
        ("no API key: give api_key= or set TELNYX_API_KEY", "no API key: set TELNYX_API_KEY"),
        ("stream_type='decrypted' exists with mode=\"rx_tx\" only",
         "--stream-type decrypted exists with --mode rx_tx only"),
        ("give the public one, or allow_private=True when", "give the public one, or --allow-private when"),
        ("udp:[::1]:9000 is in use; the mode of the target", "udp:[::1]:9000 is in use; the mode of the target"),
        ("https://x/?mode=1&listen=2 and --mode=target", "https://x/?mode=1&listen=2 and --mode=target"),
    ],
)  # fmt: skip
def test_arguments_become_options(text: str, right: str) -> None:
    assert in_options(text) == right


def test_every_field_of_settings_has_its_option() -> None:
    everywhere = [set(NOT_FOR[way]) for way in ("strep capture", "strep replay", "strep serve")]
    for one in fields(Settings):
        if one.name not in (*_NO_OPTIONS, *set.intersection(*everywhere)):
            assert in_options(f"{one.name}=7: wrong") == f"{flag_of(one)} 7: wrong"


def test_a_key_that_is_missing_is_told_in_words_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELNYX_API_KEY", raising=False)
    done = strep_command("fork", "start", "v3:x", "--target", "udp:203.0.113.7:9000")
    assert (done.returncode, done.stderr) == (2, "strep: no API key: set TELNYX_API_KEY\n")
    monkeypatch.setenv("TELNYX_API_KEY", "KEY0189")
    done = strep_command("fork", "start", "v3:x", "--target", "udp:10.0.0.7:9000")
    assert done.returncode == 2
    assert "--allow-private" in done.stderr
    assert "=True" not in done.stderr


# --- text as it stands ------------------------------------------------------------------------------------------------

WILD = "udp:[::1]:9000 strep-rtp[vad] /a[/b] [red]x[/] [/] [link=y] :smile: a\\[b] [bold"


def test_brackets_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    for stderr in (False, True):
        out = console(stderr=stderr)
        out.file = io.StringIO()
        out.print(WILD, soft_wrap=True)
        out.print(WILD, style="red", soft_wrap=True)
        assert out.file.getvalue() == f"{WILD}\n{WILD}\n"


def test_every_console_of_the_command_line_is_such_a_one() -> None:
    """No other is made, and nothing is written in markup."""
    for path in (ROOT / "strep" / "cli").glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Console" or path.name == Path(running.__file__).name, path
                if node.func.id == "TextColumn":
                    assert any(word.arg == "markup" for word in node.keywords), path
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "[/" not in node.value, (path, node.value)


@pytest.mark.sockets
def test_paths_and_addresses_with_brackets_are_printed(tmp_path: Path) -> None:
    out = tmp_path / "calls[/b][red]"
    done = strep_command("capture", "--listen", "[::1]:0", "--out", out, "--duration", "0.1")
    if "IPv6" not in done.stderr and done.returncode != 4:  # no IPv6 on this machine
        assert done.returncode == 0, done.stderr
        assert "listening on udp:[::1]:" in done.stderr
        assert f"wrote {out}/summary.json and 0 files" in done.stderr


# --- the table --------------------------------------------------------------------------------------------------------


def inspected(folder: Path) -> StreamInfo:
    writer = PcapWriter(folder / "a.pcap")
    writer.write(batch_of(steady(10)))
    writer.close()
    return strep.replay(folder / "a.pcap").reports()[0].stream


FOUND = {"talk": ["100%"], "MOS": ["4.41"], "keys": ["1234"]}


@pytest.mark.parametrize("columns", [80, 100, 119, 120, 160])
@pytest.mark.parametrize("meter", [False, True])
@pytest.mark.parametrize("found", [None, FOUND])
def test_the_table_says_all_that_fits(
    tmp_path: Path, columns: int, meter: bool, found: dict[str, list[str]] | None
) -> None:
    """No figure is cut off, at whatever width; only the stream's name may be shortened."""
    report = StreamReport.empty(inspected(tmp_path), "")
    assert report.stream.codec is not None
    report.packets_received, report.packets_expected, report.packets_lost = 1_234_567, 1_300_000, 65_433
    report.samples, report.jitter_ms_mean = 8000 * 14_399, 123.45
    report.stream.codec = dataclasses.replace(report.stream.codec, name="AMR-WB", clock_rate=16_000)
    out = console()
    out.file, out.width = io.StringIO(), columns
    now_ns = report.last_arrival_ns + 75 * 10**9
    level = LevelMeter() if meter else None
    table = stream_table([report], meter=level, found=found, columns=columns, now_ns=now_ns)
    out.print(table)
    text = out.file.getvalue()
    assert len(text.splitlines()) == 2  # a line for the heads, one for the stream
    assert max(map(len, text.splitlines())) <= columns
    for figure in ("14399.0", "1234567", "65433 (5.0%)", "123.45", "AMR-WB/16000"):
        assert figure in text
    assert str(LEG)[:7] in text
    assert text.count("…") <= 1
    assert ("reord" in text) == (columns >= 120)
    assert not meter or "75 s" in text
    shown = [name for name, (word,) in (found or {}).items() if name in text and word in text]
    assert shown == list(found or {}) or columns < 160
    assert all((name in text) == (name in shown) for name in found or {})


@pytest.mark.parametrize("columns", [80, 160, None])
def test_what_copies_stood_in_for_has_a_column_where_there_is_any(tmp_path: Path, columns: int | None) -> None:
    reports = [StreamReport.empty(dataclasses.replace(inspected(tmp_path), serial=n), "") for n in range(3)]

    def shown() -> list[list[str]]:
        out = console()
        out.file, out.width = io.StringIO(), columns or 200
        out.print(stream_table(reports, columns=columns))
        return [line.split() for line in out.file.getvalue().splitlines()]

    assert not any("recovered" in row for row in shown())
    reports[1].packets_lost, reports[1].packets_expected, reports[1].recovered = 1234, 10_000, 6789
    heads, *rows = shown()
    assert heads[heads.index("recovered") - 1] == "lost"
    assert ["6789" in row for row in rows] == [False, True, False]
    assert rows[1][rows[1].index("6789") - 2 :][:2] == ["1234", "(12.3%)"]  # beside what is lost nevertheless


def test_a_terminal_of_80_columns_has_room_for_what_analyzers_found(tmp_path: Path) -> None:
    report = StreamReport.empty(inspected(tmp_path), "")
    report.packets_received = report.packets_expected = 44_500
    report.samples, report.jitter_ms_mean = 8000 * 890, 12.34
    out = console()
    out.file, out.width = io.StringIO(), 80
    out.print(stream_table([report], meter=LevelMeter(), found=FOUND, columns=80))
    assert " talk " in out.file.getvalue()
    assert " 100% " in out.file.getvalue()
    assert out.file.getvalue().count("\n") == 2


def test_what_analyzers_found_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each stream that is shown, by whoever knows of it, in the order of the rows."""
    sinks = Output("split", (), False, "pcm16", None, False, False, 0.5, "all", "energy", False).sinks(None)
    known = {
        QualityMeter: {"serial": [7, 0, 3], "mos_cq": [4.409, 1.0, float("nan")]},
        SpeechMeter: {"serial": [3, 7], "talk_s": [3.0, 20.0]},
        DtmfDetector: {"serial": [7], "presses": [12]},
    }
    for sink in every_sink(sinks):
        if type(sink) in known:
            columns = {name: np.array(values) for name, values in known[type(sink)].items()}
            assert columns.keys() <= sink.arrays().keys()
            monkeypatch.setattr(sink, "arrays", lambda columns=columns: columns)
    info = inspected(tmp_path)
    reports = [StreamReport.empty(dataclasses.replace(info, serial=serial), "") for serial in (7, 3, 5)]
    for report in reports:
        report.samples = 8000 * 12
    reports[0].samples = 8000 * 10
    assert Found(sinks).columns(reports) == {
        "talk": ["100%", "25%", ""], "MOS": ["4.41", "", ""], "keys": ["12", "", ""]
    }  # fmt: skip
    assert Found([]).columns(reports) == {}
    reports[1].samples = 0
    assert Found(sinks).columns(reports)["talk"] == ["100%", "", ""]
