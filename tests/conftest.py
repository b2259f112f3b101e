"""How tests run: which only nightly, which on a machine to themselves, which once more on the portable transport."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import depth
import order
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import HealthCheck, settings
from ports import reserved

from strep._edge import udp

try:
    import fcntl
except ImportError:  # Windows: nobody runs tests in parallel there
    fcntl = None  # type: ignore[assignment]


AGAIN = "judged again, alone"

# how long anything takes beside other workers says nothing: such claims live in benchmarks
settings.register_profile("strep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("strep")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also the depth that a change does not need every time")


def pytest_configure(config: pytest.Config) -> None:
    depth.slow = bool(config.getoption("--run-slow"))
    config.pluginmanager.register(Machine(config), "strep-machine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    machine = item.config.pluginmanager.get_plugin("strep-machine")
    assert isinstance(machine, Machine)
    return machine.run(item, nextitem)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("STREP_TRANSPORT") == "portable" and not depth.slow:
        left_out = [item for item in items if not order.repeated(item.nodeid)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if order.repeated(item.nodeid)]
    for item in items:
        if item.get_closest_marker("slow") and not depth.slow:
            item.add_marker(pytest.mark.skip(reason="slow: --run-slow runs it, as .ci/nightly does"))
    if hasattr(config, "workerinput"):
        items[:] = order.spread(items, _waits)


def _waits(item: pytest.Item) -> bool:
    """On real time, or on other processes."""
    return any(map(item.get_closest_marker, ("realtime", "sockets")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n``: a unit after the other to whoever is free, in the order of the workers' collection."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return order.unit(nodeid)

    return Together(config, log)


class Machine:
    """Which tests run at the same time, with ``-n``; and what is said of one that fails while others run.

    A file is locked by every test for as long as it takes: by those marked ``serial`` alone (by all that follow each
    other at once), by others together. Who waits for it holds a second one meanwhile, so that nobody overtakes.
    Two runs that share a machine have the same folder for these files, STREP_TESTS_LOCKS, as in ``.ci/run``.

    A test marked ``realtime`` or ``sockets`` may fail because others had the processors. It is run once more, alone,
    and that is what counts; the summary names it.
    """

    def __init__(self, config: pytest.Config) -> None:
        run = getattr(config, "workerinput", {}).get("testrunuid")
        shared = os.environ.get("STREP_TESTS_LOCKS", "")
        stem = Path(shared, "strep-tests") if shared else Path(tempfile.gettempdir(), f"strep-tests-{run}")
        self._paths = [stem.with_name(f"{stem.name}.{name}") for name in ("gate", "lock")] if run and fcntl else []
        self._kept = bool(shared)
        self._files = [path.open("w") for path in self._paths]
        self._alone = False
        self._again: list[str] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before a test's time begins to count
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        serial = item.get_closest_marker("serial") is not None
        if not self._alone:
            self._lock(serial)
        try:
            return (yield)
        finally:
            self._alone = serial and nextitem is not None and nextitem.get_closest_marker("serial") is not None
            if not self._alone:
                self._unlock()

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """A test that is judged alone if it fails beside others; None if it is none of these."""
        if not self._files or self._alone or not any(map(item.get_closest_marker, ("realtime", "sockets"))):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if any(report.failed for report in reports):
            self._unlock()
            self._lock(alone=True)
            item._initrequest()  # type: ignore[attr-defined]
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            reports[-1].user_properties.append((AGAIN, item.nodeid))
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._again += [str(name) for key, name in report.user_properties if key == AGAIN]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name in sorted(set(self._again)):
            terminalreporter.write_line(f"AGAIN {name}: failed beside others; what counts is how it went alone")

    def _lock(self, alone: bool) -> None:
        if self._files:
            gate, lock = self._files
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)

    def _unlock(self) -> None:
        if self._files:
            fcntl.flock(self._files[1], fcntl.LOCK_UN)

    def pytest_unconfigure(self) -> None:
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            if not self._kept:
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
