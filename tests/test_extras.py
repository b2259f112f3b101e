"""What is missing is named by what installs it, from wherever this package came: the packages themselves."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata

import pytest
from places import ROOT

from strep import MissingExtraError
from strep._codecs.facts import codec_facts, parse_codec
from strep._edge.http import HttpServer
from strep._edge.pcap.opening import _needs
from strep._model import extras
from strep._speech.silero import session
from strep.control.webhooks import PublicKey
from strep.metrics import collector
from strep.plot.plot import need_matplotlib

OPTIONAL = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
USERS = sorted(set(OPTIONAL) - {"test", "lint", "docs"})
INSTALLED = [f'{package}; extra == "{extra}"' for extra, packages in OPTIONAL.items() for package in packages]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as pyproject.toml says now, whatever is in this environment."""
    known = ["numpy>=2.0", "uvloop>=0.20; sys_platform != 'win32'", *INSTALLED]
    monkeypatch.setattr(extras, "_requirements", lambda: tuple(known))


@pytest.mark.parametrize("extra", USERS)
def test_an_extra_is_installed_by_its_packages(extra: str) -> None:
    assert shlex.split(extras.install(extra)) == ["pip", "install", *OPTIONAL[extra]]


def test_several_name_what_they_share_once() -> None:
    assert shlex.split(extras.install("serve", "metrics")).count("uvicorn>=0.30") == 1
    assert shlex.split(extras.install(*USERS))[2:] == list(dict.fromkeys(p for e in USERS for p in OPTIONAL[e]))


@pytest.mark.parametrize(
    "line",
    ["av>=12; extra == 'codecs'", 'av >=12 ; extra == "codecs"', 'av>=12; python_version>"3" and extra=="codecs"'],
)
def test_however_the_metadata_are_written(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(extras, "_requirements", lambda: (line,))
    assert extras.install("codecs") == "pip install 'av>=12'"


def test_who_runs_it_from_its_source_installs_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    extras._requirements.cache_clear()
    assert extras.install("codecs", "serve").startswith("pip install '.[codecs,serve]' ")
    extras._requirements.cache_clear()


@pytest.mark.parametrize(
    ("modules", "extra", "use"),
    [
        (["prometheus_client"], "metrics", lambda: collector(None)),  # type: ignore[arg-type]
        (["uvicorn"], "serve", lambda: HttpServer(None, "127.0.0.1", 0)),
        (["uvicorn"], "metrics", lambda: HttpServer(None, "127.0.0.1", 0, extra="metrics")),
        (["cryptography"], "serve", lambda: PublicKey("A" * 43 + "=")),
        (["onnxruntime"], "vad", session),
        (["matplotlib", "matplotlib.figure"], "plot", need_matplotlib),
    ],
)
def test_every_feature_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, modules: list[str], extra: str, use: Callable[[], object]
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in modules:
            monkeypatch.setitem(sys.modules, name, None)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=re.escape(extras.install(extra))):
        use()


def test_codecs_and_captures_say_it_too() -> None:
    assert codec_facts(parse_codec("G722")).install == extras.install("codecs")
    assert extras.install("captures") in _needs("zstd")


def test_no_message_names_a_package_that_no_index_has() -> None:
    for path in (ROOT / "strep").rglob("*.py"):
        assert f"{extras.PACKAGE}[" not in path.read_text(), path
