"""The parent: owns the sockets, looks after the workers, adds up what they say."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from math import ceil
from os import PathLike
from pathlib import Path
from socket import SO_RCVBUF, SOL_SOCKET, socket
from types import TracebackType
from typing import Any, Final, Self

from .._codecs.payload_types import PayloadTypes
from .._delivery.event_queue import Broadcast
from .._edge.udp import UdpAddress, transport_named
from .._edge.udp.base import dropped_by_kernel
from .._edge.udp.ending import count_waiting, shut
from .._engine.sources.port_keys import PortRole
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, Totals, summary_of
from .._model.types import Codec
from .._receiver.receiver import Receiver, SocketStatus
from .._threads.incidents import Incident
from ..sinks import Sink
from .group import SteeringError, bind_group
from .merge import merge_sinks, merge_totals
from .nursery import Nursery, inside_nursery
from .process import WorkerProcess, WorkerStatus
from .worker import Spec

__all__ = ["Supervisor", "WorkerStatus"]

_log = logging.getLogger("strep")
_MOST: Final = 64
_UNEVEN: Final = 1.25  # of its even share of max_streams a worker takes this much: call_leg_ids do not spread evenly
_START_S: Final = 60.0
_COUNTING_S: Final = 1.0
_LOOK_S: Final = 0.5


class _Port:
    """An address and its sockets, one a worker: None where a worker has none."""

    def __init__(self, roles: list[PortRole], sockets: list[socket | None]) -> None:
        self.roles = roles
        self.sockets = sockets
        # what an incomplete group refused was never ours
        self.refused = {s: dropped_by_kernel(s) for s in self.present}

    @property
    def present(self) -> list[socket]:
        return [s for s in self.sockets if s is not None]

    @property
    def address(self) -> str:
        host, port = self.present[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def label(self) -> str:
        return (PortRole.BOTH if len(self.roles) > 1 else self.roles[0]).label

    @property
    def granted(self) -> int:
        return self.present[0].getsockopt(SOL_SOCKET, SO_RCVBUF)

    def shut(self) -> None:
        """Let nothing more in, for any worker."""
        for sock in self.present:
            shut(sock)

    def count_rest(self, index: int, until_s: float) -> int:
        """What this worker has not received."""
        sock = self.sockets[index]
        return 0 if sock is None else count_waiting(sock, until_s)

    def dropped(self, index: int) -> int:
        """By the kernel, of what was for this worker."""
        sock = self.sockets[index]
        return 0 if sock is None else max(0, dropped_by_kernel(sock) - self.refused[sock])


class Supervisor:
    """Receives on one port with several processes, one a core: what :class:`Receiver` does, ``workers`` times.

    ::

        def sinks(worker: int) -> list[strep.sinks.Sink]:
            return [strep.sinks.WavSink("calls/")]

        async with strep.Supervisor("udp:0.0.0.0:9000", workers=4, sinks=sinks) as supervisor:
            ...

    The kernel steers datagrams by call_leg_id (plain RTP: by SSRC), so all of a call leg meets in one worker; the pair
    of ports ``rx``, ``tx`` belongs to the last one. A worker that dies is replaced at once; what comes meanwhile waits
    in its socket, which this process holds, and the gap is counted. Where the kernel does not steer (not Linux, not
    permitted) one worker does it all; :attr:`fallback` says why.

    ``workers``  1 to 64
    ``sinks``    called in each worker with its index, 0 to ``workers`` - 1; returns the sinks of that worker. Pickled:
                 a function of a module or an instance of a class there. None: no sinks. A main module that starts a
                 supervisor does so under ``if __name__ == "__main__":``, for workers may import it.
    ``pcap``     worker i records to ``FILE-stem.i.pcap``, whoever replaces it to ``FILE-stem.i-2.pcap`` and so on
    ``max_streams``  of all workers together; each takes at most 1.25 times its even share
    The others are those of :class:`Receiver`. Streams are consumed where they are received: by sinks. Not on Windows.

    Raises ConfigurationError for wrong arguments; :meth:`start` also where sinks cannot be made, and BindError.
    """

    def __init__(
        self,
        listen: str | None = None,
        *,
        workers: int,
        rx: str | None = None,
        tx: str | None = None,
        call_leg_id: uuid.UUID | str | None = None,
        sinks: Callable[[int], Sequence[Sink]] | None = None,
        latency_ms: float | None = None,
        payload_types: Mapping[int, str | Codec] | None = None,
        allow: Sequence[str] = (),
        call_legs: Iterable[uuid.UUID | str] | None = None,
        max_streams: int = 20_000,
        idle_timeout_s: float = 60.0,
        pin: str = "address",
        pcap: str | PathLike[str] | None = None,
        transport: str = "auto",
        receive_buffer: int = 128 << 20,
        drain_s: float = 0.0,
        redact: bool = False,
    ) -> None:
        if not 1 <= workers <= _MOST:
            raise ConfigurationError(f"{workers} workers: choose 1 to {_MOST}, one a core")
        if sinks is not None and not callable(sinks):
            raise ConfigurationError("sinks are made in each worker: give a function that takes its index")
        self._options: dict[str, Any] = {
            "call_leg_id": call_leg_id,
            "latency_ms": latency_ms,
            "payload_types": None if payload_types is None else dict(payload_types),
            "allow": list(allow),
            "call_legs": None if call_legs is None else list(call_legs),
            "max_streams": max_streams,
            "idle_timeout_s": idle_timeout_s,
            "pin": pin,
            "redact": redact,
            "drain_s": drain_s,
            "transport": transport,
            "receive_buffer": receive_buffer,
        }
        # never started: it checks the arguments
        self._model = Receiver(listen, rx=rx, tx=tx, **self._options)
        self._transport = transport_named(transport).transport
        self._codecs = PayloadTypes(payload_types).codecs
        self._sinks = sinks
        self._pcap = None if pcap is None else Path(pcap)
        self._workers_wanted = workers if listen is not None else 1  # a pair of ports is one call leg
        self._requested = receive_buffer
        self._drain_s = drain_s
        self._ports: list[_Port] = []
        self._processes: list[WorkerProcess] = []
        self._looking: asyncio.Task[None] | None = None
        self._incidents: Broadcast[Incident] = Broadcast()
        self._nursery: Nursery | None = None
        self._stopped = False
        self._dropped_at_end: list[list[int]] = []  # by port and worker, once the sockets are closed
        self._after_end = 0
        self._unread: list[int] = []  # by worker, at the end
        self._described: list[tuple[str, str, int]] = []  # address, role, granted buffer of each port
        self.fallback: str | None = None
        """Why there is one worker only, where more were asked for."""
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        """Called in the event loop's thread with what sinks in workers post; each worker's in order."""

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Bind the sockets, start the workers; returns when all of them receive."""
        if inside_nursery():
            raise ConfigurationError(
                'this is a worker that imports the main module: start the supervisor under if __name__ == "__main__":'
            )
        if not hasattr(os, "fork"):
            raise ConfigurationError("workers are forked, which this system cannot do: use a Receiver")
        if self._processes or self._stopped:
            raise ConfigurationError("this supervisor has been started before: make a new one")
        self._bind()
        try:
            workers = len(self._ports[0].sockets)
            spec = self._spec(workers)
            self._nursery = Nursery(spec)
            await asyncio.to_thread(self._nursery.start)
            self._processes = [
                WorkerProcess(
                    i,
                    self._nursery,
                    [p.sockets[i] for p in self._ports],
                    spec.rows,
                    self._codecs,
                    self._tell,
                    self._tell_incident,
                )
                for i in range(workers)
            ]
            for process in self._processes:
                process.start()
            async with asyncio.timeout(_START_S):
                await asyncio.gather(*(process.ready() for process in self._processes))
            self._looking = asyncio.create_task(self._look(), name="strep-looking")
        except BaseException as error:
            await self.stop(0.5)
            if isinstance(error, TimeoutError):
                raise ConfigurationError(f"workers did not start within {_START_S:g} s") from error
            raise

    def _bind(self) -> None:
        planned: list[tuple[UdpAddress, list[PortRole]]] = []
        for address, role in self._model._addresses:
            if role == PortRole.TX and planned and planned[-1] == (address, [PortRole.RX]) and address.port:
                planned[-1][1].append(role)
            else:
                planned.append((address, [role]))
        try:
            try:
                self._bind_all(planned, self._workers_wanted)
            except SteeringError as error:
                self._close_ports()
                self.fallback = str(error)
                _log.warning("%s: one process does it all", error)
                self._bind_all(planned, 1)
            numbers = [port.present[0].getsockname()[1] for port in self._ports]
            if len(set(numbers)) < len(numbers):
                raise ConfigurationError(
                    f"one port on several addresses ({numbers}): streams are told apart by port, choose different ones"
                )
        except BaseException:
            self._close_ports()
            raise
        self._described = [(port.address, port.label, port.granted) for port in self._ports]

    def _bind_all(self, planned: list[tuple[UdpAddress, list[PortRole]]], workers: int) -> None:
        for address, roles in planned:
            self._ports.append(self._port(address, roles, workers))

    def _port(self, address: UdpAddress, roles: list[PortRole], workers: int) -> _Port:
        if roles == [PortRole.LISTEN]:
            return _Port(roles, [*bind_group(address, workers, self._requested)])
        return _Port(roles, [*[None] * (workers - 1), *bind_group(address, 1, self._requested)])

    def _close_ports(self) -> None:
        for port in self._ports:
            for sock in port.present:
                sock.close()
        self._ports = []

    def _spec(self, workers: int) -> Spec:
        share = self._options["max_streams"]
        if workers > 1:
            share = min(share, ceil(share / workers * _UNEVEN))
        ports = [
            [(r.label, p.address) for p in self._ports if p.sockets[i] is not None for r in p.roles]
            for i in range(workers)
        ]
        options = {**self._options, "max_streams": share}
        level = _log.getEffectiveLevel()
        return Spec(ports, options, self._sinks, self._pcap, share, level)

    async def stop(self, timeout_s: float = 2.5) -> None:
        """Let nothing more in, have the workers read what has come before and finish their files; safe to call twice.
        Who has not ended within ``timeout_s`` and ``drain_s`` is killed, and counted as dead. What nobody has read then
        is counted (dropped: unread)."""
        if self._stopped:
            return
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
        dropped = self._dropped()
        for port in self._ports:
            port.shut()
        await asyncio.gather(*(process.stop(timeout_s + self._drain_s) for process in self._processes))
        if self._nursery is not None:
            await asyncio.to_thread(self._nursery.close)
        until_s = time.monotonic() + _COUNTING_S
        self._unread = [sum(port.count_rest(p.index, until_s) for port in self._ports) for p in self._processes]
        self._after_end = sum(map(sum, self._dropped())) - sum(map(sum, dropped))
        self._close_ports()
        self._dropped_at_end = dropped
        self._incidents.end()

    async def _look(self) -> None:
        """Look after the workers: who does not go on is replaced."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for process in self._processes:
                process.look(_LOOK_S)

    def _tell_incident(self, incident: Incident) -> None:
        self._incidents.put(incident)

    def incidents(self) -> AsyncIterator[Incident]:
        """What happens to the workers: what their receivers tell (:meth:`Receiver.incidents`; ``data`` names the
        ``worker``), and "worker_replaced". From when it is asked for; ends with the supervisor."""
        return self._incidents.events()

    def _tell(self, event: dict[str, Any]) -> None:
        self.on_event(event)

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerStatus]:
        """The workers as they are at the moment, by index."""
        return [process.status() for process in self._processes]

    @property
    def sockets(self) -> list[SocketStatus]:
        """One entry an address: ``granted_buffer`` is each worker's, ``kernel_dropped`` that of all together."""
        return [
            SocketStatus(address, label, self._transport, self._requested, granted, sum(dropped))
            for (address, label, granted), dropped in zip(self._described, self._dropped(), strict=True)
        ]

    @property
    def live_streams(self) -> int:
        """How many streams live, in all workers; at most 0.1 s old."""
        return sum(process.live_streams for process in self._processes)

    def problems(self) -> list[str]:
        """What is wrong now, a sentence each: of every worker what :meth:`Receiver.problems` says, and workers that do
        not run or do not say anything; at most 0.1 s old."""
        if self._stopped or not self._processes:
            return [f"the supervisor {'has stopped' if self._stopped else 'has not been started'}"]
        return [problem for process in self._processes for problem in process.problems()]

    @property
    def healthy(self) -> bool:
        """Whether all workers receive and nothing is wrong: no :meth:`problems`."""
        return not self.problems()

    @property
    def last_read_age_s(self) -> float:
        """As of :class:`Receiver`, of the worker that has not read for longest."""
        return max((process.last_read_age_s for process in self._processes), default=0.0)

    def totals(self) -> Totals:
        """What became of every datagram, of all workers, those that died too; at most 0.1 s old."""
        totals = merge_totals(part for process in self._processes for part in process.totals())
        totals.kernel_dropped, totals.after_end = sum(map(sum, self._dropped())), self._after_end
        if unread := sum(self._unread):
            totals.datagrams += unread
            totals.dropped += unread
            totals.dropped_by = dict(
                sorted({**totals.dropped_by, "unread": totals.dropped_by.get("unread", 0) + unread}.items())
            )
        return totals

    def top(self, limit: int, key: str = "packets") -> list[StreamReport]:
        """The live streams with the most "packets", "lost" or "jitter": cheap with thousands; at most 0.1 s old."""
        found = [ranked for process in self._processes for ranked in process.top(limit, key)]
        return [report for _, report in sorted(found, key=lambda ranked: -ranked[0])[:limit]]

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: that of :class:`Receiver`, and ``workers``. Streams that were there when their
        worker died have the ``end`` "worker died"; ``restart_gap_packets`` is what was sent between a dead worker's
        last word on the stream and its successor's first packet of it."""
        sinks = merge_sinks(reports for process in self._processes for reports in process.sink_reports())
        summary = summary_of(self.totals(), (), lambda stream: [], sinks, self.sockets)
        streams = [entry for process in self._processes for entry in process.entries()]
        summary["streams"] = sorted(streams, key=lambda entry: entry["first_arrival_ns"])
        dropped = self._dropped()
        summary["workers"] = [
            {
                "index": process.index,
                "restarts": process.restarts,
                "datagrams": sum(totals["datagrams"] for totals in process.totals()) + unread,
                "kernel_dropped": sum(port[process.index] for port in dropped),
                "restart_gap_packets": process.restart_gap,
            }
            for process, unread in zip(self._processes, self._unread or [0] * len(self._processes), strict=True)
        ]
        return summary

    def _dropped(self) -> list[list[int]]:
        if not self._ports:
            return self._dropped_at_end
        return [[port.dropped(i) for i in range(len(port.sockets))] for port in self._ports]
