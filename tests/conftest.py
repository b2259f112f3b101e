"""How tests run: which only nightly, which on a machine to themselves, which once more on the portable transport."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import depth
import pytest
from ports import reserved

from strep._edge import udp

try:
    import fcntl
except ImportError:  # Windows: nobody runs tests in parallel there
    fcntl = None  # type: ignore[assignment]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also the depth that a change does not need every time")


def pytest_configure(config: pytest.Config) -> None:
    depth.slow = bool(config.getoption("--run-slow"))
    config.pluginmanager.register(Machine(config), "strep-machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not depth.slow:
            item.add_marker(pytest.mark.skip(reason="slow: --run-slow runs it, as .ci/nightly does"))
        if item.get_closest_marker("serial"):
            item.add_marker(pytest.mark.xdist_group("serial"))


class Machine:
    """Tests marked ``serial`` run while no other does, also with ``-n 2``: they hold a lock that all others share.

    A file is locked by everybody for as long as a test takes, and by all serial ones that follow each other at once.
    Who waits for it holds a second one meanwhile, so that nobody overtakes.
    """

    def __init__(self, config: pytest.Config) -> None:
        run = getattr(config, "workerinput", {}).get("testrunuid")
        stem = f"strep-tests-{run}" if run and fcntl else ""
        self._paths = [Path(tempfile.gettempdir()) / f"{stem}.{name}" for name in ("gate", "lock")] if stem else []
        self._files = [path.open("w") for path in self._paths]
        self._alone = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before a test's time begins to count
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        if not self._files:
            return (yield)
        gate, lock = self._files
        serial = item.get_closest_marker("serial") is not None
        if not self._alone:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_EX if serial else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            self._alone = serial and nextitem is not None and nextitem.get_closest_marker("serial") is not None
            if not self._alone:
                fcntl.flock(lock, fcntl.LOCK_UN)

    def pytest_unconfigure(self) -> None:
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            with contextlib.suppress(FileNotFoundError):  # the other one was faster
                path.unlink()


@pytest.fixture(autouse=True)
def _marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Who receives on a transport that he did not choose says so, or the portable pass would leave him out."""
    genuine = udp.transport_named

    def named(name: str) -> Any:
        assert name != "auto", "this test receives on the transport of the machine's choice: mark it `sockets`"
        return genuine(name)

    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("sockets"):
            patch.setattr(udp, "transport_named", named)
        yield


@pytest.fixture
def port_range() -> Iterator[range]:
    """100 ports that nothing is bound to, and that no other test gets meanwhile."""
    with reserved(100) as ports:
        yield ports
