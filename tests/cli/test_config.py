"""A command's options in a file: what is in force, where it is from, and what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import strep
from strep.cli import cli
from strep.cli.config import read_config, reloader, shown_config
from strep.cli.serve import serve

NEEDED = ("--advertise", "192.0.2.1", "--out", "x")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "strep.toml"
    path.write_text(text)
    return path


def shown(*arguments: str, **environment: str) -> tuple[dict[str, Any], str]:
    """What is in force, and the text."""
    done = CliRunner().invoke(cli, ["serve", *arguments, "--show-config"], env=environment, auto_envvar_prefix="STREP")
    assert done.exit_code == 0, done.output + repr(done.exception)
    return tomllib.loads(done.output)["serve"], done.output


def test_each_source_goes_before_the_next(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        [serve]
        advertise = "192.0.2.9"
        out = "from-the-file"
        only-answered = true
        latency = 100
        allow = ["192.0.2.0/24", "198.51.100.0/24"]
        pt = ["96=opus/48000"]
        """,
    )
    values, text = shown("--config", str(path), "--out", "typed", STREP_SERVE_LATENCY_MS="80", STREP_CATALOGUE="none")
    assert values["out"] == "typed"
    assert values["advertise"] == "192.0.2.9"
    assert values["latency"] == 80.0
    assert values["catalogue"] == "none"
    assert values["only-answered"] is True
    assert values["allow"] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert values["stop-timeout"] == 10.0
    for line, source in (
        ('out = "typed"', "command line"),
        ("latency = 80.0", "environment, STREP_SERVE_LATENCY_MS"),
        ('catalogue = "none"', "environment, STREP_CATALOGUE"),
        ("only-answered = true", "file"),
        ("stop-timeout = 10.0", "default"),
    ):
        assert f"{line}  # {source}\n" in text
    assert "# public-url is not set\n" in text


def test_what_is_shown_is_such_a_file(tmp_path: Path) -> None:
    first, text = shown(*NEEDED, "--allow", "192.0.2.0/24", "--mode", "rx_tx", "--answer", "--session", 'a"b=1,2')
    again, _ = shown("--config", str(written(tmp_path, text)))
    assert again == first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nadvertize = 'x'", "'advertize', which is no option; the nearest one is 'advertise'"),
        ("[serve]\nonly_answred = true", "nearest one is 'only-answered'"),
        ("[serve]\nxyzzy = 1", "'xyzzy', which is no option"),
        ("[serve]\napi_key = 'KEY'", "it comes from the environment, as TELNYX_API_KEY"),
        ("[serve]\nanswer = 'yes'", "answer in [serve] is to be true or false"),
        ("[serve]\nallow = '192.0.2.0/24'", "allow in [serve] is to be a list"),
        ("[serve]\nout = ['a']", "out in [serve] is to be a text or a number"),
        ("serve = 1", "[serve]"),
        ("[capture]\nout = 'x'", "there is no table [serve], but capture"),
        ("[serve", "--config"),
        ("[serve]\nconfig = 'other.toml'", "'config', which is no option"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(strep.ConfigurationError) as failed:
        read_config(written(tmp_path, text), serve)
    assert said in str(failed.value)


def test_a_wrong_value_is_refused_as_on_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, "[serve]\nadvertise = 'x'\nout = 'x'\nmode = 'sideways'")
    done = CliRunner().invoke(cli, ["serve", "--config", str(path), "--show-config"])
    assert done.exit_code == 2
    assert "'sideways' is not one of 'target', 'rx_tx'" in done.output


def test_the_file_read_again(tmp_path: Path) -> None:
    path = written(tmp_path, "[serve]\nadvertise = '192.0.2.1'\nout = 'x'\nmin-free = 5\nrecord-legs = 'a'")
    context = serve.make_context("serve", ["--config", str(path), "--record-legs", "b"])
    read = reloader(context)
    assert read is not None
    path.write_text(
        "[serve]\nadvertise = '192.0.2.1'\nout = 'x'\nmin-free = 7\nrecord-legs = 'both'\nonly-answered = true"
    )
    values = read()
    assert (values["min_free_mib"], values["record_legs"], values["only_answered"]) == (7, "b", True)
    path.write_text("[serve]\nadvertise = '192.0.2.1'\nout = 'x'")
    assert read()["min_free_mib"] == 256
    path.write_text("[serve]\nmin-free = -1")
    with pytest.raises(strep.ConfigurationError, match="min_free"):
        read()
    assert reloader(serve.make_context("serve", list(NEEDED))) is None
    assert isinstance(context, click.Context)
    assert shown_config(context).startswith("[serve]\n")
