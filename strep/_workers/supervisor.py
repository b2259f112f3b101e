"""The parent: owns the sockets, looks after the workers, adds up what they tell."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from math import ceil
from types import TracebackType
from typing import Any, Final, Self, Unpack

from .._delivery.event_queue import Broadcast
from .._edge.udp import transport_named
from .._model.exceptions import ConfigurationError
from .._model.report import StreamReport, Totals, summary_of
from .._receiver.settings import LATENCY_MS, Settings, SocketOptions, shows_settings
from .._receiver.sockets import SocketStatus
from .._threads.incidents import Incident
from .merge import merge_sinks, merge_totals
from .nursery import Nursery, inside_nursery
from .ports import PortPlan, SharedPorts, WorkerPorts
from .process import WorkerProcess, WorkerStatus
from .rings import SharedRings
from .spec import PostingSinks, SinkMaker, WorkerSpec

__all__ = ["Supervisor", "WorkerStatus"]

_log = logging.getLogger("strep")

_MAX_WORKERS: Final = 64
# of its even share of max_streams a worker takes this much: call_leg_ids do not spread evenly
_SHARE_OF_STREAMS: Final = 1.25
_START_TIMEOUT_S: Final = 60.0
_FAILED_START_S: Final = 0.5  # for stopping what has been started
_COUNTING_S: Final = 1.0  # for datagrams that nobody has read
_LOOK_S: Final = 0.5  # between two looks at the workers


class Supervisor:
    """Receives on one port with several processes, one a core: what :class:`Receiver` does, ``workers`` times.

    ::

        def sinks(worker: int) -> list[strep.sinks.Sink]:
            return [strep.sinks.WavSink("calls/")]

        async with strep.Supervisor("udp:0.0.0.0:9000", workers=4, sinks=sinks) as supervisor:
            ...

    The kernel steers datagrams by call_leg_id (plain RTP: by SSRC), so all of a call leg meets in one worker; the pair
    of ports ``rx``, ``tx`` belongs to the last one. A worker that dies is replaced at once; what comes meanwhile waits
    in its socket or ring, which this process holds, and the gap is counted. Where the kernel does not steer (not Linux,
    not permitted) one worker does it all; :attr:`fallback` says why.

    ``workers``  1 to 64
    ``sinks``    called in each worker with its index, 0 to ``workers`` - 1; returns the sinks of that worker. It is
                 pickled, so it is a function of a module, or an instance of a class there. None: no sinks. A main
                 module that starts a supervisor does so under ``if __name__ == "__main__":``, as workers may import it.
    ``pcap``     worker i records to ``FILE-stem.i.pcap``; a process that replaces it to ``FILE-stem.i-2.pcap``, and so
                 on
    ``max_streams``  of all workers together; each takes at most 1.25 times its even share

    The others are those of :class:`Receiver`. Streams are consumed where they are received: by sinks. Not on Windows.

    Raises ConfigurationError if an argument is wrong. :meth:`start` raises it if sinks cannot be made, and BindError.
    """

    @shows_settings("Supervisor")
    def __init__(
        self,
        listen: str | None = None,
        *,
        workers: int,
        sinks: SinkMaker | None = None,
        **options: Unpack[SocketOptions],
    ) -> None:
        self._set_up(Settings(listen, **options), workers, sinks)

    @classmethod
    def of(cls, settings: Settings, *, workers: int, sinks: SinkMaker | None = None) -> Self:
        """A supervisor with settings that exist already."""
        supervisor = cls.__new__(cls)
        supervisor._set_up(settings, workers, sinks)
        return supervisor

    def _set_up(self, settings: Settings, workers: int, sinks: SinkMaker | None) -> None:
        if not 1 <= workers <= _MAX_WORKERS:
            raise ConfigurationError(f"{workers} workers: choose 1 to {_MAX_WORKERS}, one a core")
        if sinks is not None and not (callable(sinks) or isinstance(sinks, PostingSinks)):
            raise ConfigurationError("sinks are made in each worker: give a function that takes its index")
        settings.refuse_for("Supervisor")
        self._settings = settings
        self._plans = [PortPlan(address, role.label, role.label == "listen") for address, role in settings.addresses()]
        self._transport = "ring" if settings.ring else transport_named(settings.transport).transport
        self._codecs = settings.engine_config({}, LATENCY_MS).payload_types.codecs
        self._sinks = sinks
        self._workers_wanted = workers if settings.listen is not None else 1  # a pair of ports is one call leg
        self._ports: WorkerPorts = SharedRings(settings.interface) if settings.ring else SharedPorts()
        self._processes: list[WorkerProcess] = []
        self._looking: asyncio.Task[None] | None = None
        self._incidents: Broadcast[Incident] = Broadcast()
        self._nursery: Nursery | None = None
        self._stopped = False
        self._after_end = 0  # datagrams
        self._unread: list[int] = []  # datagrams by worker, at the end
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        """Called in the event loop's thread with what sinks in workers post; each worker's in order."""

    @property
    def fallback(self) -> str | None:
        """Why there is one worker only, where more were asked for."""
        return self._ports.fallback

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
        self._ports.bind(self._plans, self._workers_wanted, self._settings.receive_buffer)
        try:
            spec = self._spec()
            self._nursery = Nursery(spec)
            await asyncio.to_thread(self._nursery.start)
            self._processes = [
                WorkerProcess(
                    i,
                    nursery=self._nursery,
                    fds=self._ports.descriptors_of(i),
                    rows=spec.rows,
                    codecs=self._codecs,
                    on_event=lambda event: self.on_event(event),  # users may set it at any time
                    on_incident=self._incidents.put,
                )
                for i in range(self._ports.workers)
            ]
            for process in self._processes:
                process.start()
            async with asyncio.timeout(_START_TIMEOUT_S):
                await asyncio.gather(*(process.ready() for process in self._processes))
            self._looking = asyncio.create_task(self._look(), name="strep-looking")
        except BaseException as error:
            await self.stop(_FAILED_START_S)
            if isinstance(error, TimeoutError):
                raise ConfigurationError(f"workers did not start within {_START_TIMEOUT_S:g} s") from error
            raise

    def _spec(self) -> WorkerSpec:
        workers, total = self._ports.workers, self._settings.max_streams
        share = total if workers == 1 else min(total, ceil(total / workers * _SHARE_OF_STREAMS))
        nowhere: dict[str, Any] = dict.fromkeys(("listen", "rx", "tx"))
        settings = tuple(
            replace(self._settings, max_streams=share, **nowhere | self._ports.addresses_of(i)) for i in range(workers)
        )
        return WorkerSpec(settings, self._sinks, _log.getEffectiveLevel())

    async def stop(self, timeout_s: float = 2.5) -> None:
        """Let nothing more in; have the workers read what has come before, and finish their files. Safe to call twice.

        A worker that has not ended within ``timeout_s`` and ``drain_s`` together is killed, and counted as dead. What
        nobody has read then is counted (dropped: unread)."""
        if self._stopped:
            return
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
        self._ports.shut()
        timeout_s += self._settings.drain_s
        await asyncio.gather(*(process.stop(timeout_s) for process in self._processes))
        if self._nursery is not None:
            await asyncio.to_thread(self._nursery.close)
        until_s = time.monotonic() + _COUNTING_S
        self._unread = [self._ports.count_rest(process.index, until_s) for process in self._processes]
        self._after_end = self._ports.count_after_end()
        self._ports.close()
        self._incidents.end()

    async def _look(self) -> None:
        """Look at the workers again and again: one that does not go on is replaced."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for process in self._processes:
                process.look(_LOOK_S)
            self._ports.dropped()  # of rings, workers do not ask the kernel themselves

    def incidents(self) -> AsyncIterator[Incident]:
        """What happens to the workers: the incidents of their receivers (:meth:`Receiver.incidents`; ``data`` names the
        ``worker``), and "worker_replaced". From when it is asked for; ends with the supervisor."""
        return self._incidents.events()

    # --- figures --------------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[WorkerStatus]:
        """The workers as they are at the moment, by index."""
        return [process.status() for process in self._processes]

    @property
    def sockets(self) -> list[SocketStatus]:
        """One entry an address: ``granted_buffer`` is each worker's, ``kernel_dropped`` that of all together. Rings
        have an entry of their own, as with a receiver."""
        found = self._ports.status(self._transport, self._settings.receive_buffer)
        skipped: Counter[str] = Counter()
        for process in self._processes:
            skipped.update(process.skipped)
        return [replace(one, skipped=dict(sorted(skipped.items()))) if one.role == "ring" else one for one in found]

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
        totals.kernel_dropped, totals.after_end = sum(self._ports.dropped()), self._after_end
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
        dropped = self._ports.dropped()
        summary["workers"] = [
            {
                "index": process.index,
                "restarts": process.restarts,
                "datagrams": sum(totals["datagrams"] for totals in process.totals()) + unread,
                "kernel_dropped": dropped[process.index],
                "restart_gap_packets": process.restart_gap,
            }
            for process, unread in zip(self._processes, self._unread or [0] * len(self._processes), strict=True)
        ]
        return summary
