"""Pairs of ports that are opened and closed while a receiver runs, and legs that are announced and ended."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import virtual
from live import EDGES, run_on, samples_of, send_paced, until
from support import LEG, leg_id, packet, payload_of, pcmu
from virtual import edge_of, in_memory, run_virtually, send

import strep
from strep._edge.udp import UdpAddress
from strep._model.exceptions import AddressError, BindError, ConfigurationError
from strep._receiver.pairs import PortPair, PortPool, parse_ports
from strep.sinks import ArraySink, WavSink

pytestmark = pytest.mark.realtime


def plain(count: int, first: int = 0, ssrc: int = 1) -> list[bytes]:
    return [packet(first + k, call=None, ssrc=ssrc) for k in range(count)]


def audio_of(sequences: range) -> np.ndarray:
    return np.concatenate([pcmu(payload_of(s)) for s in sequences])


async def feed(pair: PortPair, count: int, first: int = 0) -> None:
    await asyncio.gather(
        send_paced(("127.0.0.1", pair.rx), plain(count, first, ssrc=2 * first + 1)),
        send_paced(("127.0.0.1", pair.tx), plain(count, first, ssrc=2 * first + 2)),
    )


async def delivered(receiver: strep.Receiver, count: int) -> None:
    await until(lambda: receiver.totals().delivered >= count)


@pytest.mark.parametrize(("transport", "loop"), EDGES)
def test_pairs_come_and_go_while_it_runs(transport: str, loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        receiver = strep.Receiver(pairs="udp:127.0.0.1:0", sinks=[WavSink(tmp_path)], transport=transport)
        async with receiver:
            first, second = await receiver.open_pair(LEG), await receiver.open_pair()
            assert len({*first.ports, *second.ports}) == 4
            assert sorted(receiver.pairs, key=id) == sorted([first, second], key=id)
            await asyncio.gather(feed(first, 60), feed(second, 50))
            await delivered(receiver, 220)
            assert receiver.close_pair(first) == 2
            assert receiver.close_pair(first) == 0
            assert receiver.live_streams == 2
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.bind(("127.0.0.1", first.rx))  # it is free
            third = await receiver.open_pair(leg_id(1))
            await feed(third, 40)
            await delivered(receiver, 300)
        ends = {(r.stream.name if r.stream.call_leg_id else "?", r.stream.stem, r.packets_received, r.end)
                for r in receiver.reports()}  # fmt: skip
        assert ends == {
            (str(LEG), "a-inbound", 60, "stopped"), (str(LEG), "a-outbound", 60, "stopped"),
            ("?", "inbound", 50, "closed"), ("?", "outbound", 50, "closed"),
            (str(leg_id(1)), "a-inbound", 40, "closed"), (str(leg_id(1)), "a-outbound", 40, "closed"),
        }  # fmt: skip
        assert receiver.totals().unaccounted == 0
        assert receiver.pairs == []

    run_on(loop, main())
    for leg, count in ((LEG, 60), (leg_id(1), 40)):
        for name in ("a-inbound", "a-outbound"):
            np.testing.assert_array_equal(samples_of(tmp_path / str(leg) / f"{name}.wav"), audio_of(range(count)))


@pytest.mark.sockets
async def test_the_same_ports_serve_one_leg_after_another(port_range: range) -> None:
    base = port_range[0]
    sink = ArraySink()
    async with strep.Receiver(pairs=f"udp:127.0.0.1:{base}-{base + 3}", sinks=[sink]) as receiver:
        used = []
        for number in range(6):
            pair = await receiver.open_pair(leg_id(number) if number % 2 else None)
            used.append(pair.ports)
            await feed(pair, 20 + number, first=1000 * number)
            await delivered(receiver, sum(2 * (20 + n) for n in range(number + 1)))
            assert receiver.close_pair(pair) == 2
        assert len({port for ports in used for port in ports}) <= 4
        assert used[0] != used[1]  # the longest unused first
    assert [r.packets_received for r in receiver.reports()] == [20 + n for n in range(6) for _ in range(2)]
    assert all(r.end == "stopped" and r.packets_lost == 0 for r in receiver.reports())
    assert len({r.stream.leg_name for r in receiver.reports()}) == 6


@pytest.mark.sockets
async def test_ports_run_out_and_come_back(port_range: range) -> None:
    base = port_range[0]
    async with strep.Receiver(pairs=f"udp:127.0.0.1:{base}-{base + 2}") as receiver:
        pair = await receiver.open_pair()
        for _ in range(3):  # the third port is given back each time
            with pytest.raises(BindError):
                await receiver.open_pair()
        receiver.close_pair(pair)
        again = await receiver.open_pair()
        assert set(again.ports) <= set(range(base, base + 3))
    with pytest.raises(ConfigurationError, match="stopped"):
        await receiver.open_pair()


def test_the_pool_gives_each_port_once_and_passes_over_those_that_others_have() -> None:
    pool = PortPool("127.0.0.1", range(10, 16))

    def bind(address: UdpAddress) -> tuple[int, str]:
        if address.port in (11, 13):
            raise BindError("taken")
        return address.port, str(address)

    taken = [pool.take(bind)[0] for _ in range(4)]
    assert taken == [10, 12, 14, 15]
    with pytest.raises(BindError, match="taken"):
        pool.take(bind)
    pool.give_back(14)
    assert (pool.free, pool.take(bind)) == (3, (14, "127.0.0.1:14"))
    with pytest.raises(ConfigurationError, match="99"):
        pool.give_back(99)


@pytest.mark.parametrize("text", ["udp:0.0.0.0:9000", "udp:0.0.0.0:0-5", "1.2.3.4:9-5", "udp:1.2.3.4:5-70000", "9-10"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(AddressError):
        parse_ports(text)
    assert parse_ports("udp:[::1]:20000-20001") == ("::1", range(20_000, 20_002))


@pytest.mark.sockets
async def test_what_the_kernel_drops_of_a_closed_pair_stays_counted() -> None:
    async with strep.Receiver(pairs="udp:127.0.0.1:0", receive_buffer=2304) as receiver:
        pair = await receiver.open_pair()
        sent = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in plain(3000):  # the loop does not run meanwhile
                sent += sender.sendto(data, ("127.0.0.1", pair.rx)) > 0
        receiver.close_pair(pair)
        totals = receiver.totals()
        if totals.kernel_dropped == 0 and totals.datagrams == sent:
            pytest.skip("the kernel had room for all")
        assert totals.kernel_dropped + totals.datagrams == sent
    assert receiver.totals().kernel_dropped == totals.kernel_dropped


@pytest.mark.sockets
async def test_a_recording_knows_the_roles_of_ports_that_were_opened_later(tmp_path: Path) -> None:
    async with strep.Receiver("udp:127.0.0.1:0", pairs="udp:127.0.0.1:0", pcap=tmp_path / "a.pcap") as receiver:
        pair = await receiver.open_pair()
        await feed(pair, 30)
        await delivered(receiver, 60)
    again = strep.replay(tmp_path / "a.pcap")
    assert [(r.stream.stem, r.packets_received) for r in again.reports()] == [("inbound", 30), ("outbound", 30)]


def test_legs_are_announced_forgotten_and_ended(tmp_path: Path) -> None:
    async def main() -> None:
        sink = WavSink(tmp_path)
        async with in_memory(sinks=[sink], announced_only=True) as receiver:
            await send(receiver, [packet(k) for k in range(30)])
            await virtual.until(lambda: receiver.totals().buffered == 30)
            assert receiver.live_streams == 0
            receiver.announce(str(LEG))
            assert receiver.live_streams == 1  # at once, with what had come
            await send(receiver, [packet(k) for k in range(30, 60)])
            await virtual.until(lambda: receiver.totals().delivered >= 60)
            assert receiver.end(LEG) == 1
            assert [(r.packets_received, r.end) for r in receiver.reports()] == [(60, "stopped")]
            await send(receiver, [packet(k) for k in range(60, 70)])
            await virtual.until(lambda: receiver.totals().rejected_by.get("ended") == 10)
            receiver.forget(LEG)
            with pytest.raises(ConfigurationError, match="UUID"):
                receiver.announce("no uuid")
        np.testing.assert_array_equal(samples_of(tmp_path / str(LEG) / "a-inbound.wav"), audio_of(range(60)))
        with pytest.raises(ConfigurationError, match="pending_s"):
            in_memory(pending_s=0)

    run_virtually(main())


def test_who_sends_to_a_pair_before_anything_is_forked_to_it_is_a_stranger(tmp_path: Path) -> None:
    async def main() -> None:
        async with in_memory(None, pairs="udp:127.0.0.1:0", sinks=[WavSink(tmp_path)]) as receiver:
            pair = await receiver.open_pair(LEG)
            for port in pair.ports:
                await edge_of(receiver).send_paced(("127.0.0.1", port), plain(4))
            await virtual.until(lambda: receiver.live_streams == 2)
            assert receiver.end_strangers(pair) == 2
            assert receiver.end_strangers(pair) == 0
            await edge_of(receiver).send_paced(("127.0.0.1", pair.rx), plain(40, 100, ssrc=9))
            await virtual.until(lambda: receiver.totals().datagrams == 48)
        assert [r.end for r in receiver.reports()] == ["evicted", "evicted", "closed"]
        assert receiver.sinks[0].files(receiver.reports()[2].stream) == [f"{LEG}/a-inbound.wav"]
        assert receiver.sinks[0].report()["files"] == 1

    run_virtually(main())


@pytest.mark.sockets
async def test_pairs_that_come_and_go_under_traffic_lose_nothing_uncounted() -> None:
    """Every datagram that was sent to an open port is received, dropped by the kernel, or counted as too late."""
    sent = 0
    stop = False

    async def traffic(sender: socket.socket, open_pairs: list[PortPair]) -> None:
        nonlocal sent
        for k in range(10_000):
            if stop:
                return
            for pair in list(open_pairs):
                for port in pair.ports:
                    sent += sender.sendto(packet(k, call=None, ssrc=port), ("127.0.0.1", port)) > 0
            await asyncio.sleep(0.002)

    async with strep.Receiver(pairs="udp:127.0.0.1:0", sinks=[ArraySink()]) as receiver:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            open_pairs = [await receiver.open_pair() for _ in range(6)]
            sending = asyncio.create_task(traffic(sender, open_pairs))
            for number in range(20):
                await asyncio.sleep(0.02)
                pair = open_pairs.pop(number % len(open_pairs))
                assert receiver.close_pair(pair) <= 2
                if number % 4:
                    open_pairs.append(await receiver.open_pair())
            stop = True
            await sending
    totals = receiver.totals()
    assert totals.datagrams + totals.kernel_dropped + totals.after_end == sent
    assert totals.datagrams == sent  # nobody sends to a port that is being closed
    assert (totals.unaccounted, totals.faults) == (0, {})


@pytest.mark.sockets
async def test_a_broken_port_of_a_pair_is_told_and_the_other_pairs_go_on() -> None:
    async with strep.Receiver(pairs="udp:127.0.0.1:0") as receiver:
        first, second = await receiver.open_pair(), await receiver.open_pair()
        group: Any = receiver._parts.sockets.group
        (broken,) = [p.fileno() for p in receiver._parts.sockets._roles if p.local_port == first.rx]
        fill = group._fill

        def failing(number: int, at: int, most: int) -> int:
            if number == broken:
                raise OSError(errno.ENETDOWN, "Network is down")
            return int(fill(number, at, most))

        group._fill = failing
        await feed(first, 30)
        await until(lambda: len(receiver.problems()) == 1)
        assert f"udp:127.0.0.1:{first.rx} cannot be read: " in receiver.problems()[0]
        await feed(second, 40)
        await delivered(receiver, 30 + 80)  # its other port too
        assert receiver.totals().datagrams == 110
        group._fill = fill
        await delivered(receiver, 60 + 80)
        await until(lambda: not receiver.problems())
        assert set(receiver.totals().faults) == {"socket"}
    assert (receiver.totals().datagrams, receiver.totals().unaccounted) == (140, 0)
