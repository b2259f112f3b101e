"""Each field of Settings reaches the receiver by each way in, or is refused there with a reason.

A new field needs an entry in ``GIVEN``: its value in Python, and on a command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from live import until
from support import LEG, leg_id
from worker_sinks import ShowingSettings

import strep
from strep._codecs.payload_types import PayloadTypes
from strep._edge.pcap import PcapWriter
from strep._receiver.settings import NOT_FOR, Settings
from strep.cli import capture as capture_module
from strep.cli import cli
from strep.cli import replay as replay_module
from strep.cli import serve as serve_module
from strep.cli.options import option_of

# by field: a value that is not the default, and what a command line says for it; {tmp} is a directory
GIVEN: dict[str, tuple[Any, list[str]]] = {
    "listen": ("127.0.0.1:0", ["--listen", "127.0.0.1:0"]),
    "rx": ("127.0.0.1:0", ["--rx", "127.0.0.1:0"]),
    "tx": ("127.0.0.1:0", ["--tx", "127.0.0.1:0"]),
    "call_leg_id": (LEG, ["--call-leg-id", str(LEG)]),
    "pairs": ("udp:127.0.0.1:0", []),
    "latency_ms": (40.0, ["--latency", "40"]),
    "payload_types": (dict([PayloadTypes.parse_option("96=L16/16000")]), ["--pt", "96=L16/16000"]),
    "allow": (("127.0.0.0/8",), ["--allow", "127.0.0.0/8"]),
    "call_legs": ((LEG, leg_id(1)), ["--call-leg", str(LEG), "--call-leg", str(leg_id(1))]),
    "announced_only": (True, []),
    "pending_s": (1.0, []),
    "max_streams": (64, ["--max-streams", "64"]),
    "idle_timeout_s": (2.0, ["--idle-timeout", "2"]),
    "pin": ("network", ["--pin", "network"]),
    "pcap": (Path("{tmp}/a.pcap"), ["--pcap", "{tmp}/a.pcap"]),
    "transport": ("portable", ["--transport", "portable"]),
    "receive_buffer": (1 << 16, ["--receive-buffer", "65536"]),
    "drain_s": (1.5, ["--drain", "1.5"]),
    "redact": (True, ["--redact"]),
}
# the same of those that cannot be had together with all others: a test of their own
ALONE: dict[str, tuple[Any, list[str]]] = {
    "interface": (("lo", "eth0"), ["--interface", "lo", "--interface", "eth0"]),
    "sniff": ("udp port 5004", ["--sniff", "udp port 5004"]),
}
FIELDS = [one.name for one in fields(Settings)]
REPLAYED = {"rx": ("5004", ["--rx", "5004"]), "tx": ("5006", ["--tx", "5006"])}


def given(way: str, tmp_path: Path) -> tuple[dict[str, Any], list[str]]:
    """Everything that a way in takes, as values and as a command line."""
    values: dict[str, Any] = {}
    arguments: list[str] = []
    for name, (value, words) in {**GIVEN, **(REPLAYED if "replay" in way else {})}.items():
        if name not in NOT_FOR[way]:
            values[name] = tmp_path / "a.pcap" if name == "pcap" else value
            arguments += [word.format(tmp=tmp_path) for word in words]
    return values, arguments


def run(*arguments: object, **environment: str) -> str:
    result = CliRunner().invoke(cli, [*map(str, arguments)], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit | Told):
        raise result.exception
    return result.output


class Told(Exception):
    """The settings have arrived; the rest of the command is not run."""


@contextmanager
def receivers_of(monkeypatch: pytest.MonkeyPatch, module: Any, *, stop: bool = False) -> Iterator[list[Settings]]:
    """The settings of receivers that a module makes."""
    made: list[Settings] = []
    make = strep.Receiver.of

    def spy(settings: Settings, *arguments: Any, **options: Any) -> strep.Receiver:
        made.append(settings)
        if stop:
            raise Told
        return make(settings, *arguments, **options)

    monkeypatch.setattr(module.Receiver, "of", spy)
    yield made


def test_each_setting_has_an_entry_here() -> None:
    entries = {**GIVEN, **ALONE}
    assert set(entries) == set(FIELDS)
    for one in fields(Settings):
        assert entries[one.name][0] != one.default
        assert entries[one.name][1] or one.name in NOT_FOR["strep capture"], f"{one.name} needs an option"


async def test_a_supervisor_s_workers_get_each(tmp_path: Path) -> None:
    values, _ = given("Supervisor", tmp_path)
    supervisor = strep.Supervisor(workers=2, sinks=ShowingSettings(), **values)
    told: dict[int, Settings] = {}
    supervisor.on_event = lambda event: told.update({event["worker"]: event["settings"]})
    async with supervisor:
        await until(lambda: len(told) == 2)
        listening, rx, tx = (socket.address for socket in supervisor.sockets)
    for index, settings in told.items():
        own = {"listen": listening, "max_streams": 40, "pcap": tmp_path / f"a.{index}.pcap"}
        own |= {"rx": rx, "tx": tx} if index == 1 else {"rx": None, "tx": None}
        assert settings == Settings(**{**values, **own}), index


@pytest.mark.parametrize("name", sorted(NOT_FOR["Supervisor"]))
def test_a_supervisor_refuses_the_others(name: str) -> None:
    with pytest.raises(strep.ConfigurationError, match=f"{name} is not for Supervisor: (nothing there|one process)"):
        strep.Supervisor("127.0.0.1:0", workers=2, **{name: {**GIVEN, **ALONE}[name][0]})  # type: ignore[arg-type]


def test_capture_takes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, arguments = given("strep capture", tmp_path)
    with receivers_of(monkeypatch, capture_module) as made:
        run("capture", "--duration", 0.1, *arguments)
    assert made == [Settings(**values)]
    supervised: list[Settings] = []

    def spy(settings: Settings, **options: Any) -> Any:
        supervised.append(settings)
        raise Told

    monkeypatch.setattr(capture_module.Supervisor, "of", spy)
    monkeypatch.setattr(capture_module, "steering_problem", lambda: None)
    run("capture", "--workers", 2, *arguments)
    assert supervised == made


def test_capture_and_serve_take_a_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="extra serve")
    interfaces, words = ALONE["interface"]
    with receivers_of(monkeypatch, capture_module, stop=True) as made:
        run("capture", "--transport", "ring", *words)
        run("capture", *words, *ALONE["sniff"][1], "--workers", 2)
    by_port, sniffing = made
    assert (by_port.listen, by_port.transport, by_port.interface) == ("0.0.0.0:9000", "ring", interfaces)
    assert (sniffing.listen, sniffing.interface, sniffing.sniff) == (None, interfaces, ALONE["sniff"][0])
    command = ["serve", "--advertise", "203.0.113.7", "--out", tmp_path / "out", "--transport", "ring", *words]
    with receivers_of(monkeypatch, serve_module, stop=True) as made:
        run(*command, TELNYX_PUBLIC_KEY="key", TELNYX_API_KEY="key")
    assert (made[0].transport, made[0].interface) == ("ring", interfaces)


def test_capture_without_options_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    with receivers_of(monkeypatch, capture_module, stop=True) as made:
        run("capture")
    assert made == [Settings("0.0.0.0:9000", latency_ms=200.0, payload_types={})]


def test_replay_and_inspect_take_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PcapWriter(tmp_path / "none.pcap").close()
    values, arguments = given("strep replay", tmp_path)
    given_to: list[Settings] = []
    replay_with = replay_module.replay_with

    def spy(settings: Settings, *rest: Any, **options: Any) -> strep.Replay:
        given_to.append(settings)
        return replay_with(settings, *rest, **options)

    monkeypatch.setattr(replay_module, "replay_with", spy)
    run("replay", tmp_path / "none.pcap", "--out", tmp_path / "out", *arguments)
    assert given_to == [Settings(**values)]
    # inspect shows no key presses, so there is nothing to redact
    arguments.remove("--redact")
    run("inspect", tmp_path / "none.pcap", *arguments)
    assert given_to[1] == Settings(**{**values, "redact": False})


def test_serve_takes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn", reason="extra serve")
    values, arguments = given("strep serve", tmp_path)
    command = ["serve", "--advertise", "203.0.113.7", "--out", tmp_path / "out", *arguments]
    environment = {"TELNYX_PUBLIC_KEY": "key", "TELNYX_API_KEY": "key"}
    with receivers_of(monkeypatch, serve_module, stop=True) as made:
        run(*command, **environment)
        run(*command, "--mode", "rx_tx", "--allow-unannounced", **environment)
        run(*command, "--mode", "rx_tx", "--ports", "20000-20999", **environment)
    one_port, pairs, some_pairs = made
    assert one_port == Settings(**{**values, "pairs": None, "announced_only": True})
    assert pairs == Settings(**{**values, "listen": None, "announced_only": False})
    assert some_pairs == Settings(**{**values, "listen": None, "pairs": "udp:127.0.0.1:20000-20999"})


@pytest.mark.parametrize("command", ["capture", "replay", "serve"])
def test_a_command_has_no_option_for_what_it_does_not_take(command: str) -> None:
    options = {option.name for option in cli.get_command(click.Context(cli), command).params}  # type: ignore[union-attr]
    assert not options & set(NOT_FOR[f"strep {command}"])


def test_a_new_field_is_an_option_with_its_help_unit_and_default() -> None:
    @dataclass
    class Fields:
        grace_s: float = field(default=2.0, metadata={"help": "How long it waits.", "unit": "s"})
        eager: bool = field(default=False, metadata={"help": "Whether it waits at all.", "unit": None})
        friends: tuple[str, ...] = field(default=(), metadata={"help": "Who may come.", "unit": None})

    seen: dict[str, Any] = {}
    command = click.Command("x", callback=lambda **options: seen.update(options))
    command.params = [option_of(one, "strep capture")(lambda: None).__click_params__[0] for one in fields(Fields)]
    shown = CliRunner().invoke(command, ["--help"]).output
    for text in ("--grace S", "How long it waits.  [default: 2.0]", "--eager", "--friends"):
        assert text in shown
    CliRunner().invoke(command, ["--grace", "3", "--eager", "--friends", "a", "--friends", "b"])
    assert seen == {"grace_s": 3.0, "eager": True, "friends": ("a", "b")}
