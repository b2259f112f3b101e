"""The unit, the sysctl file and the Dockerfile: they say what this version of the program understands."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from places import ROOT

from strep.cli import cli

DEPLOY = ROOT / "deploy"
if not DEPLOY.exists():
    pytest.skip("deploy/ is not beside the tests", allow_module_level=True)
UNIT = (DEPLOY / "strep.service").read_text()


def parses(arguments: list[str]) -> dict[str, object]:
    """What the command line makes of these, without running anything."""
    command = cli.commands["serve"]
    with command.make_context("serve", arguments) as context:
        return context.params


def dockerfile() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2]) for line in lines]


def test_the_unit_starts_what_there_is() -> None:
    (start,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    environment = dict(
        pair.split("=", 1) for line in re.findall(r"^Environment=(.*)$", UNIT, re.MULTILINE) for pair in line.split()
    ) | dict(
        line.split("=", 1)
        for line in (DEPLOY / "strep.env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    words = shlex.split(re.sub(r"\$\{?(\w+)\}?", lambda found: environment[found[1]], start))
    assert words[:2] == ["/opt/strep/bin/strep", "serve"]
    given = parses(words[2:])
    assert str(given["out"]) == "/var/lib/strep"
    assert given["advertise"] == environment["STREP_ADVERTISE"]
    assert "StateDirectory=strep" in UNIT
    assert {"TELNYX_API_KEY", "TELNYX_PUBLIC_KEY"} <= environment.keys()


def test_the_unit_gives_the_end_its_time() -> None:
    (stop_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    default = next(p for p in cli.commands["serve"].params if p.name == "stop_timeout")
    assert isinstance(default, click.Option)
    assert int(stop_s) >= 2 * float(str(default.default))


def test_no_core_file_holds_the_key() -> None:
    assert "LimitCORE=0" in UNIT.splitlines()
    assert "--ulimit core=0" in (DEPLOY / "README.md").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "strep.service"
    unit.write_text(UNIT.replace("/opt/strep/bin/strep", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=100)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "strep" in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_it_well_shut_in(tmp_path: Path) -> None:
    policy = tmp_path / "strep.service"
    policy.write_text(UNIT)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(policy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze does not judge files")
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_sysctl_file_is_enough_for_the_buffer_that_is_asked_for() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[sysctl]\n" + (DEPLOY / "99-strep.conf").read_text())
    values = {name: int(value) for name, value in parser["sysctl"].items()}
    assert set(values) == {"net.core.rmem_max", "net.core.rmem_default", "net.core.netdev_max_backlog"}
    asked = next(p for p in cli.commands["serve"].params if p.name == "receive_buffer")
    assert isinstance(asked, click.Option)
    assert values["net.core.rmem_max"] >= int(str(asked.default))


def test_the_dockerfile_runs_what_there_is_as_nobody_in_particular() -> None:
    steps = dockerfile()
    names = [name for name, _ in steps]
    assert [value.split()[0] for name, value in steps if name == "FROM"] == ["python:3.12-slim"] * 2
    last = max(i for i, name in enumerate(names) if name == "FROM")
    (user,) = [value for name, value in steps[last:] if name == "USER"]
    assert int(user.split(":")[0]) > 0
    entry = json.loads(next(value for name, value in steps if name == "ENTRYPOINT"))
    assert entry[:2] == ["strep", "serve"]
    given = parses([*entry[2:], "--advertise", "203.0.113.7"])
    assert str(given["out"]) in {value for name, value in steps if name == "VOLUME"}
    exposed = next(value for name, value in steps if name == "EXPOSE").split()
    assert exposed == [str(given["listen"]).split(":")[1] + "/udp", str(given["webhook_listen"]).split(":")[1] + "/tcp"]
    health = next(value for name, value in steps if name == "HEALTHCHECK")
    check = json.loads(health[health.index("[") :])
    assert "/healthz" in check[-1]
    compile(check[-1], "HEALTHCHECK", "exec")
    for source in (value for name, value in steps[:last] if name == "COPY"):
        assert all((ROOT / part).exists() for part in source.split()[:-1])


def test_the_dockerfile_installs_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"'\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert set(wanted.split(",")) == {"codecs", "serve", "metrics"} <= set(extras)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
