"""Every setting, on every way in: it is taken and honoured, or refused with a reason.

The tables below have an entry for each field of ``Settings``; a new field without one fails.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from support import LEG, T0, Arrival, batch_of, leg_id, packet
from virtual import in_memory, run_virtually, send, until

import strep
from strep import ConfigurationError, Receiver, Supervisor
from strep._edge.pcap import PcapWriter
from strep._edge.ring.packet_socket import ring_problem
from strep._engine.sources.port_keys import PortRole
from strep._receiver import settings as module
from strep._receiver.bindings import bindings_of
from strep._receiver.settings import NOT_FOR, Settings
from strep.sinks import ArraySink

FIELDS = [one.name for one in fields(Settings)]
WAYS: dict[str, Any] = {"Receiver": Receiver, "replay": strep.replay, "Supervisor": Supervisor}
# a value of each that is not its default
OTHER: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "rx": "127.0.0.1:5004",
    "tx": "127.0.0.1:5006",
    "call_leg_id": LEG,
    "pairs": "udp:127.0.0.1:20000-20999",
    "latency_ms": 40.0,
    "payload_types": {96: "L16/16000"},
    "allow": ("127.0.0.0/8",),
    "call_legs": (LEG,),
    "announced_only": True,
    "pending_s": 1.0,
    "max_streams": 7,
    "idle_timeout_s": 2.0,
    "pin": "network",
    "pcap": "a.pcap",
    "transport": "portable",
    "interface": ("lo",),
    "sniff": "udp port 5004",
    "receive_buffer": 1 << 16,
    "drain_s": 1.5,
    "redact": True,
}
# what is refused everywhere where the field is taken
WRONG: dict[str, tuple[Any, str]] = {
    "listen": ("nonsense", "udp:ADDR:PORT"),
    "rx": ("nonsense", "udp:ADDR:PORT|no UDP port"),
    "tx": ("nonsense", "udp:ADDR:PORT|no UDP port"),
    "call_leg_id": ("nonsense", "is not a UUID"),
    "pairs": ("udp:0.0.0.0:9000", "no range of ports"),
    "latency_ms": (801, "choose 0 to 800 ms"),
    "payload_types": ({200: "L16/16000"}, "choose 0 to 127"),
    "allow": (["nonsense"], "not a network"),
    "call_legs": (["nonsense"], "is not a UUID"),
    "pending_s": (0, "more than 0"),
    "max_streams": (0, "choose 1 to 1000000"),
    "idle_timeout_s": (0.5, "choose 1 s or more"),
    "pin": ("nonsense", '"address", "network" or "off"'),
    "transport": ("nonsense", '"auto", "recvmmsg", "portable" or "ring"'),
    "sniff": ("tcp port 80", "write udp port N"),
    "drain_s": (-1, "0 to 3600 s"),
}
ANY_VALUE_GOES = {"announced_only", "interface", "pcap", "receive_buffer", "redact"}


def test_each_setting_says_what_it_is_and_has_its_entries() -> None:
    assert set(OTHER) == set(FIELDS) == set(WRONG) | ANY_VALUE_GOES
    for one in fields(Settings):
        assert one.default is not MISSING, one.name
        assert OTHER[one.name] != one.default, one.name
        help_text, unit = one.metadata["help"], one.metadata["unit"]
        assert help_text.endswith("."), one.name
        assert unit in (None, "ms", "s", "bytes", "streams"), one.name
        assert f"``{one.name}``" in (Settings.__doc__ or ""), one.name


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_takes_a_setting_or_says_why_not(way: str) -> None:
    assert set(NOT_FOR[way]) < set(FIELDS)
    taken = inspect.signature(WAYS[way]).parameters
    assert {name for name in FIELDS if name in taken} == set(FIELDS) - set(NOT_FOR[way])
    for one in fields(Settings):
        if one.name in taken:
            assert taken[one.name].default == one.default, one.name
    assert all(len(why) > 15 for why in NOT_FOR[way].values())


@pytest.mark.parametrize(
    ("way", "options"),
    [("Receiver", module.ReceiverOptions), ("replay", module.ReplayOptions), ("Supervisor", module.SocketOptions)],
)
def test_type_checkers_know_the_same_names(way: str, options: type) -> None:
    named = set(options.__annotations__) | {"listen"} - set(NOT_FOR[way])
    assert named == set(FIELDS) - set(NOT_FOR[way])
    ours = typing.get_type_hints(Settings)
    for name, theirs in typing.get_type_hints(options).items():
        assert theirs == ours[name] or name in ("rx", "tx"), name


@pytest.mark.parametrize("way", ["Receiver", "replay"])
def test_its_docstring_names_each_parameter(way: str) -> None:
    doc = inspect.getdoc(WAYS[way]) or ""
    for name in inspect.signature(WAYS[way]).parameters:
        assert name == "path" or f"``{name}``" in doc, name


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("way", ["Receiver", "replay"])
def test_what_is_wrong_is_refused_with_what_would_be_right(way: str, name: str, tmp_path: Path) -> None:
    if name in NOT_FOR[way]:
        pytest.skip(f"{way} does not take it")
    value, message = WRONG[name]
    begin: dict[str, Callable[..., object]] = {
        "Receiver": lambda **options: Receiver(**{"listen": "127.0.0.1:0", **options}),
        "replay": lambda **options: strep.replay(tmp_path / "none.pcap", **options),
    }
    with pytest.raises(ConfigurationError, match=message):
        begin[way](**{name: value})


@pytest.mark.parametrize("name", sorted(NOT_FOR["replay"]))
def test_a_replay_refuses_what_it_cannot_honour(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is not for replay: a replay reads a file"):
        strep.replay(tmp_path / "none.pcap", **{name: OTHER[name]})


def test_a_receiver_needs_a_port() -> None:
    with pytest.raises(ConfigurationError, match="no port to receive on"):
        Receiver()
    with pytest.raises(TypeError, match="nonsense"):
        Receiver("127.0.0.1:0", nonsense=1)  # type: ignore[call-arg]


def test_settings_are_a_value() -> None:
    settings = Settings(**OTHER)
    assert settings == Settings(**OTHER) != replace(settings, redact=False)
    assert pickle.loads(pickle.dumps(settings)) == settings
    types, legs = {96: "L16/16000"}, iter([str(LEG), LEG])
    copied = Settings(payload_types=types, call_legs=legs, allow=["127.0.0.0/8"], call_leg_id=str(LEG))
    types.clear()
    for _ in range(2):  # it is not used up
        config = copied.engine_config({}, 200.0)
        assert config.call_legs == {LEG.int}
        assert len(config.payload_types.codecs) > 0
    assert copied.payload_types == {96: "L16/16000"}
    assert (copied.leg, copied.call_legs) == (LEG, (LEG, LEG))


def test_one_port_for_both_directions_stands_there_once() -> None:
    def roles(**ports: str) -> list[tuple[str, PortRole]]:
        return [(str(address), role) for address, role in Settings(**ports).addresses()]

    assert roles(rx="1.2.3.4:5", tx="udp:1.2.3.4:5") == [("1.2.3.4:5", PortRole.BOTH)]
    assert roles(rx="1.2.3.4:0", tx="1.2.3.4:0") == [("1.2.3.4:0", PortRole.RX), ("1.2.3.4:0", PortRole.TX)]
    assert roles(listen="1.2.3.4:5", tx="1.2.3.4:6") == [("1.2.3.4:5", PortRole.LISTEN), ("1.2.3.4:6", PortRole.TX)]
    both = Settings(rx=5004, tx="ADDR:5004").replayed_bindings()
    assert {port: (b.role, b.pair) for port, b in both.items()} == {5004: (PortRole.BOTH, 5004)}
    pair = bindings_of([(9000, PortRole.LISTEN), (7, PortRole.RX), (6, PortRole.TX)], LEG)
    assert {port: (b.pair, b.call_leg_id) for port, b in pair.items()} == {9000: (0, None), 7: (6, LEG), 6: (6, LEG)}


# --- honoured: what it does to what is received -----------------------------------------------------------------------

TRAFFIC = [packet(k) for k in range(30)]


async def received(datagrams: list[bytes], sinks: Any = (), role: str = "listen", **options: Any) -> Receiver:
    """A receiver that was given these."""
    receiver = in_memory(sinks=sinks, **options)
    async with receiver:
        await send(receiver, datagrams, role)
        await until(lambda: receiver.totals().datagrams == len(datagrams))
    return receiver


async def honours_ports(tmp_path: Path) -> None:
    for name, direction in (("rx", "inbound"), ("tx", "outbound")):
        receiver = await received([packet(k, call=None) for k in range(9)], role=name, **{name: "127.0.0.1:0"})
        assert [r.stream.stem for r in receiver.reports()] == [direction]


async def honours_call_leg_id(tmp_path: Path) -> None:
    plain = [packet(k, call=None) for k in range(9)]
    receiver = await received(plain, role="rx", rx="127.0.0.1:0", call_leg_id=str(LEG))
    assert [r.stream.call_leg_id for r in receiver.reports()] == [LEG]


async def honours_pairs(tmp_path: Path) -> None:
    async with in_memory(pairs="udp:127.0.0.1:0") as receiver:
        assert len({*(await receiver.open_pair()).ports}) == 2


async def honours_listen(tmp_path: Path) -> None:
    async with in_memory() as receiver:
        assert [s.role for s in receiver.sockets] == ["listen"]


async def honours_latency_ms(tmp_path: Path) -> None:
    for given, sinks, latency_ms in ((40.0, (), 40), (None, (), 60), (None, (ArraySink(),), 200)):
        async with in_memory(latency_ms=given, sinks=sinks) as receiver:
            assert inside(receiver).config.latency_ns == latency_ms * 1_000_000


async def honours_payload_types(tmp_path: Path) -> None:
    datagrams = [packet(k, payload_type=96) for k in range(9)]
    receiver = await received(datagrams, [ArraySink()], payload_types={96: "L16/16000"})
    assert [r.stream.codec.name for r in receiver.reports() if r.stream.codec] == ["L16"]


async def honours_allow(tmp_path: Path) -> None:
    receiver = await received(TRAFFIC, allow=["203.0.113.0/24"])
    assert receiver.totals().rejected_by == {"source": 30}


async def honours_call_legs(tmp_path: Path) -> None:
    receiver = await received(TRAFFIC, call_legs=[str(leg_id(1))])
    assert receiver.totals().rejected_by == {"call_leg": 30}


async def honours_announced_only(tmp_path: Path) -> None:
    receiver = await received(TRAFFIC, announced_only=True)
    assert receiver.totals().rejected_by == {"unannounced": 30}


async def honours_pending_s(tmp_path: Path) -> None:
    async with in_memory(announced_only=True, pending_s=0.1) as receiver:
        await send(receiver, TRAFFIC)
        await until(lambda: receiver.totals().rejected_by == {"unannounced": 30})


async def honours_max_streams(tmp_path: Path) -> None:
    receiver = await received([packet(k, call=leg_id(n)) for n in range(3) for k in range(4)], max_streams=2)
    assert (receiver.totals().streams_started, receiver.totals().streams_refused) == (2, 1)


async def honours_idle_timeout_s(tmp_path: Path) -> None:
    async with in_memory(idle_timeout_s=1.0) as receiver:
        assert receiver.idle_timeout_s == 1.0
        await send(receiver, TRAFFIC)
        await until(lambda: [r.end for r in receiver.reports()] == ["idle"])


async def honours_pin(tmp_path: Path) -> None:
    async with in_memory(pin="off") as receiver:
        assert inside(receiver).config.pin == "off"


async def honours_pcap(tmp_path: Path) -> None:
    await received(TRAFFIC, pcap=tmp_path / "a.pcap")
    assert strep.replay(tmp_path / "a.pcap").totals().datagrams == 30


async def honours_transport(tmp_path: Path) -> None:
    async with Receiver("127.0.0.1:0", transport="portable") as receiver:
        assert [s.transport for s in receiver.sockets] == ["portable"]


async def honours_interface(tmp_path: Path) -> None:
    if problem := ring_problem():
        pytest.skip(problem)
    async with Receiver("127.0.0.1:0", interface=["lo"], receive_buffer=1 << 16) as receiver:
        assert [(s.role, s.transport) for s in receiver.sockets] == [("listen", "ring"), ("ring", "ring")]
        assert receiver.sockets[1].address == "lo"


async def honours_sniff(tmp_path: Path) -> None:
    """What it takes: tests/edge/ring/test_cable.py."""
    if problem := ring_problem():
        pytest.skip(problem)
    async with Receiver(interface=["lo"], sniff="udp port 5004", receive_buffer=1 << 16) as receiver:
        assert [(s.role, s.address) for s in receiver.sockets] == [("sniff", "lo")]


async def honours_receive_buffer(tmp_path: Path) -> None:
    async with Receiver("127.0.0.1:0", receive_buffer=1 << 16) as receiver:
        assert [s.requested_buffer for s in receiver.sockets] == [1 << 16]


async def honours_drain_s(tmp_path: Path) -> None:
    """What it does when there is much to read: test_ending.py."""
    assert Receiver("127.0.0.1:0", drain_s=1.5)._settings.drain_s == 1.5


async def honours_redact(tmp_path: Path) -> None:
    for redact, digit in ((False, "5"), (True, "•")):
        receiver = in_memory(redact=redact, latency_ms=0)
        async with receiver:
            events = aiter(receiver.events())
            told = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            await send(receiver, [*TRAFFIC, *presses(30)])
            assert (await told).data["digit"] == digit


def presses(first: int) -> list[bytes]:
    """The key 5, told as RFC 4733 has it."""
    events = [bytes([5, end | 10, *(160 * n).to_bytes(2, "big")]) for n, end in ((1, 0), (2, 0), (3, 128), (3, 128))]
    options = {"payload_type": 101, "timestamp": 160 * first}
    return [packet(first + k, payload=payload, **options) for k, payload in enumerate(events)]


def inside(receiver: Receiver) -> Any:
    assert receiver._parts is not None
    return receiver._parts.engine


ON_REAL_SOCKETS = {"transport", "interface", "sniff", "receive_buffer"}
HONOURED: dict[str, Callable[[Path], Any]] = {
    "listen": honours_listen,
    "rx": honours_ports,
    "tx": honours_ports,
    "call_leg_id": honours_call_leg_id,
    "pairs": honours_pairs,
    "latency_ms": honours_latency_ms,
    "payload_types": honours_payload_types,
    "allow": honours_allow,
    "call_legs": honours_call_legs,
    "announced_only": honours_announced_only,
    "pending_s": honours_pending_s,
    "max_streams": honours_max_streams,
    "idle_timeout_s": honours_idle_timeout_s,
    "pin": honours_pin,
    "pcap": honours_pcap,
    "transport": honours_transport,
    "interface": honours_interface,
    "sniff": honours_sniff,
    "receive_buffer": honours_receive_buffer,
    "drain_s": honours_drain_s,
    "redact": honours_redact,
}


@pytest.mark.sockets
@pytest.mark.parametrize("name", FIELDS)
def test_a_receiver_honours_each(name: str, tmp_path: Path) -> None:
    run = asyncio.run if name in ON_REAL_SOCKETS else run_virtually
    run(HONOURED[name](tmp_path))


# --- a replay ---------------------------------------------------------------------------------------------------------

MS = 1_000_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two call legs from two addresses, a key press, and plain RTP to port 5004; then four seconds of one leg alone."""
    arrivals = []
    for k in range(300):
        at = T0 + k * 20 * MS
        arrivals.append(Arrival(at, packet(k), local_port=9000))
        if k < 60:
            other = packet(k, call=leg_id(1), payload_type=96)
            arrivals.append(Arrival(at + MS, other, source=(0xFFFF_C000_0201, 4000), local_port=9000))
            arrivals.append(Arrival(at + 2 * MS, packet(k, call=None), local_port=5004))
    arrivals += [Arrival(T0 + (6000 + 20 * k) * MS, data, local_port=9000) for k, data in enumerate(presses(300))]
    path = tmp_path_factory.mktemp("settings") / "a.pcap"
    writer = PcapWriter(path)
    writer.write(batch_of(arrivals))
    writer.close()
    return path


def plain_of(replayed: strep.Replay) -> strep.StreamReport:
    (report,) = [r for r in replayed.reports() if r.stream.local_port == 5004]
    return report


def other_of(replayed: strep.Replay) -> strep.StreamReport:
    (report,) = [r for r in replayed.reports() if r.stream.call_leg_id == leg_id(1)]
    return report


def pressed(recording: Path, **options: Any) -> set[str]:
    heard: list[str] = []

    class Hearing(strep.sinks.BaseSink):
        def event(self, event: strep.StreamEvent) -> None:
            heard.append(event.data["digit"])

    strep.replay(recording, sinks=[Hearing()], **options)
    return set(heard)


def latency_of(recording: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    configs: list[Any] = []
    real = Settings.engine_config
    monkeypatch.setattr(Settings, "engine_config", lambda *arguments: configs.append(real(*arguments)) or configs[-1])
    strep.replay(recording, **options)
    return int(configs[0].latency_ns // MS)


# by field: what it changes, as (given, how to look, without it, with it)
REPLAYED: dict[str, tuple[Any, Callable[[strep.Replay], Any], Any, Any]] = {
    "rx": (5004, lambda r: plain_of(r).stream.direction.label, "inbound", "inbound"),
    "tx": ("ADDR:5004", lambda r: plain_of(r).stream.direction.label, "inbound", "outbound"),
    "payload_types": ({96: "L16/16000"}, lambda r: str(other_of(r).stream.codec).split("/")[0], "None", "L16"),
    "allow": (["192.0.2.0/24"], lambda r: r.totals().rejected_by.get("source", 0) > 300, False, True),
    "call_legs": ([leg_id(1)], lambda r: r.totals().rejected_by.get("call_leg", 0) >= 300, False, True),
    "max_streams": (2, lambda r: r.totals().streams_started, 3, 2),
    "idle_timeout_s": (2.0, lambda r: other_of(r).end, "closed", "idle"),
}


@pytest.mark.parametrize("name", REPLAYED)
def test_a_replay_honours_each(name: str, recording: Path) -> None:
    value, look, without, with_it = REPLAYED[name]
    assert look(strep.replay(recording, sinks=[ArraySink()])) == without
    assert look(strep.replay(recording, sinks=[ArraySink()], **{name: value})) == with_it


def test_a_replay_honours_the_others(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(REPLAYED) | {"call_leg_id", "latency_ms", "pin", "redact"} == set(FIELDS) - set(NOT_FOR["replay"])
    named = strep.replay(recording, rx=5004, call_leg_id=str(leg_id(7)))
    assert plain_of(named).stream.call_leg_id == leg_id(7)
    assert (pressed(recording), pressed(recording, redact=True)) == ({"5"}, {"•"})
    assert latency_of(recording, monkeypatch) == 200
    assert latency_of(recording, monkeypatch, latency_ms=40.0) == 40


def test_a_replay_honours_who_a_stream_belongs_to(tmp_path: Path) -> None:
    moved = [Arrival(T0 + k * 20 * MS, packet(k), source=(0xFFFF_7F00_0001 + (k % 3 == 2), 4000)) for k in range(100)]
    writer = PcapWriter(tmp_path / "a.pcap")
    writer.write(batch_of(moved))
    writer.close()
    foreign = [strep.replay(tmp_path / "a.pcap", pin=pin).totals().rejected_by for pin in ("address", "network", "off")]
    assert [bool(rejected.get("foreign_source")) for rejected in foreign] == [True, False, False]
