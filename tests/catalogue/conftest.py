"""Catalogues to test with: SQLite, and a PostgreSQL server that the tests start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port

from strep.catalogue import Catalogue


def _programs() -> Path | None:
    """PostgreSQL's, as Debian has them."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").is_file():
            return folder
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a server of our own, as a superuser; skips where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="strep-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # it does not run as root
        if shutil.which("setpriv") is None:
            pytest.skip("PostgreSQL does not run as root, and setpriv is not installed")
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        os.chown(folder, 65534, 65534)
    port = free_port()
    data = folder / "data"
    run = {"check": True, "capture_output": True, "cwd": folder, "env": {**os.environ, "HOME": str(folder)}}
    subprocess.run([*as_user, programs / "initdb", "-A", "trust", "-U", "strep", "-N", "-D", data], **run)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [*as_user, programs / "pg_ctl", "-D", data]
    subprocess.run([*control, "-w", "-t", "60", "-o", options, "-l", folder / "log", "start"], **run)
    try:
        yield f"postgresql://strep@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **{**run, "check": False})
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty catalogue may be."""
    if request.param == "sqlite":
        yield str(tmp_path / "catalogue.sqlite")
        return
    import psycopg

    server = request.getfixturevalue("postgresql")
    name = f"c{os.getpid()}_{abs(hash(request.node.nodeid))}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{server}/{name}"


@pytest.fixture
def catalogue(url: str) -> Iterator[Catalogue]:
    with Catalogue(url, machine="one") as opened:
        yield opened
