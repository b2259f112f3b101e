"""Audio and events of all streams to a NATS server, for any number of machines that listen."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from ..._model.exceptions import ConfigurationError
from ..._nats.link import import_nats
from ..._nats.names import Subjects, checked_name, checked_servers
from ...wire import WireMessage, WireWriter
from ...wire.layout import PREFERRED
from ..base import BaseSink
from .publisher import Publisher, Store
from .spool import Spool

if TYPE_CHECKING:
    from ..._model.blocks import BlockBatch
    from ..._model.report import StreamReport
    from ..._model.types import StreamEvent, StreamInfo
    from ..._threads.incidents import Incidents
    from ...wire.parts import Part

__all__ = ["NatsSink"]

_BEAT_S: Final = 5.0  # between messages that say only that this sender lives
_STUCK_S: Final = 10.0  # without a message stored: a replay waits no longer


class NatsSink(BaseSink):
    """Publishes what is received to NATS JetStream, where :class:`strep.remote.Receiver` and ``strep listen`` hear it.

    ``servers``     "nats://HOST:PORT", or several, with commas or as a list
    ``subject``     of the messages: SUBJECT.SHARDS.N; the stream that keeps them has the same name
    ``shards``      legs are divided into so many parts by call_leg_id; each tick makes one message a part. All who
                    publish to a subject must have the same
    ``payload``     "native": bytes as they came where a table decodes them (G.711, L16), else those and samples;
                    "pcm16": samples of all
    ``tick_s``      seconds between messages: what they cost, and how late they are
    ``spool_bytes`` what may wait here while the broker is gone, slow or full. Beyond that the oldest go: they are
                    counted here, and a gap (OVERRUN) for who listens; what happened (streams that begin and end,
                    events) is told still
    ``max_age_s``, ``max_bytes``, ``storage`` ("file" or "memory"), ``replicas``  of the stream, if it is made here
    ``options``     more arguments of ``nats.connect``: user_credentials, tls, token

    A thread of its own publishes: the receiver never waits for a broker. Messages of a shard are stored one after the
    other, none overtakes another, and none is stored twice (Nats-Msg-Id), whatever fails between. Raises
    ConfigurationError for wrong arguments, MissingExtraError without the extra ``nats``; a broker that is not there is
    waited for.
    """

    kind = "nats"
    prompt = False

    def __init__(
        self,
        servers: str | Sequence[str],
        subject: str = "strep",
        *,
        shards: int = 64,
        payload: Literal["native", "pcm16"] = "native",
        tick_s: float = 0.2,
        spool_bytes: int = 256 << 20,
        max_age_s: float = 300.0,
        max_bytes: int = 8 << 30,
        storage: Literal["file", "memory"] = "file",
        replicas: int = 1,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        import_nats()
        if payload not in ("native", "pcm16"):
            raise ConfigurationError(f'payload {payload!r}: "native" or "pcm16"')
        if storage not in ("file", "memory"):
            raise ConfigurationError(f'storage {storage!r}: "file" or "memory"')
        if not 0.01 <= tick_s <= 2:
            raise ConfigurationError(f"tick_s {tick_s:g}: 0.01 to 2 s, for example 0.2")
        if spool_bytes < 1 << 20 or max_bytes < 1 << 20:
            raise ConfigurationError("spool_bytes and max_bytes: 1 MiB (1 << 20) or more")
        if not 1 <= max_age_s <= 30 * 86_400 or not 1 <= replicas <= 5:
            raise ConfigurationError("max_age_s: 1 s to 30 days; replicas: 1 to 5")
        self._servers = checked_servers(servers)
        self._subjects = Subjects(checked_name("subject", subject, dots=True), shards)
        self._writer = WireWriter(uuid.uuid4().hex, shards, native=payload == "native")
        self._store = Store(max_age_s, max_bytes, storage, replicas)
        self._spool_bytes, self._tick_s, self._options = spool_bytes, tick_s, options
        self._spool = Spool(spool_bytes)
        self._lock = threading.Lock()  # of all below, and of the writer
        self._parts: list[Part] = []
        self._parts_bytes = 0
        self._over: list[StreamInfo] = []  # have ended
        self._beat_s = 0.0
        self.dropped_frames = 0
        self._incidents: Incidents | None = None
        self._publisher: Publisher | None = None

    @property
    def sender(self) -> str:
        """What readers know this sink by: another for each."""
        return self._writer.sender

    # --- called by the receiver -----------------------------------------------------------------------------------

    def report_to(self, incidents: Incidents) -> None:
        self._incidents = incidents
        self._publisher = Publisher(
            self._servers,
            self._subjects,
            self._store,
            self._writer.sender,
            spool=self._spool,
            tick_s=self._tick_s,
            options=self._options,
            make=self._messages,
            dropped=self._dropped,
            fault=lambda error: incidents.fault("nats", error),
        )

    def stream_started(self, stream: StreamInfo) -> None:
        with self._lock:
            self._writer.started(stream)

    def blocks(self, batch: BlockBatch) -> None:
        with self._lock:
            part = self._writer.part(batch)
            if self._parts_bytes + part.nbytes > self._spool_bytes and self._parts:
                self.dropped_frames += int(batch.frames.sum())  # the thread does not keep up
                return
            self._parts.append(part)
            self._parts_bytes += part.nbytes

    def event(self, event: StreamEvent) -> None:
        with self._lock:
            self._writer.event(event)

    def stream_ended(self, stream: StreamInfo, report: StreamReport) -> None:
        with self._lock:
            self._writer.ended(stream, report)
            self._over.append(stream)

    def wait_for_room(self) -> None:
        """Block until at most half of the spool waits (replays, which may wait); not for a broker that is gone."""
        began = time.monotonic()
        while self._publisher is not None and self._publisher.alive:
            if self._spool.bytes + self._parts_bytes <= self._spool_bytes // 2:
                return
            if time.monotonic() - max(began, self._publisher.last_s) > _STUCK_S:
                return
            time.sleep(0.01)

    def close(self, timeout_s: float) -> None:
        """Publish what waits, for at most ``timeout_s``; the rest counts as dropped."""
        if self._publisher is not None:
            self._publisher.close(timeout_s)
        with self._lock:
            self.dropped_frames += self._spool.frames()
            self.dropped_frames += sum(int(part.columns["frames"].sum()) for part in self._parts)
            self._parts.clear()

    def report(self) -> dict[str, Any]:
        """Figures so far. ``problem``: why nothing is published at the moment. ``waiting_bytes`` are in the spool;
        ``again`` counts messages that were sent once more, ``connections`` those to the broker; ``dropped_messages``
        found no room, ``dropped_records`` are events that found none."""
        publisher = self._publisher
        return {
            "kind": self.kind,
            "failed": None,
            "problem": publisher.problem if publisher else None,
            "dropped_frames": self.dropped_frames,
            "dropped_messages": publisher.dropped_messages if publisher else 0,
            "dropped_records": self._writer.dropped_records,
            "messages": publisher.published if publisher else 0,
            "bytes": publisher.published_bytes if publisher else 0,
            "again": publisher.again if publisher else 0,
            "connections": publisher.connections if publisher else 0,
            "waiting_bytes": self._spool.bytes + self._parts_bytes,
            "subject": self._subjects.base,
            "sender": self._writer.sender,
        }

    # --- in the thread that publishes -----------------------------------------------------------------------------

    def _messages(self) -> list[WireMessage]:
        now_s = time.monotonic()
        with self._lock:
            parts, self._parts, self._parts_bytes = self._parts, [], 0
            over, self._over = self._over, []
            beat = now_s - self._beat_s >= _BEAT_S and self._writer.streams > 0
            if beat:
                self._beat_s = now_s
            room = self._publisher.room if self._publisher is not None else 0
            self._writer.most_bytes = min(PREFERRED, room) if room else PREFERRED
            try:
                return self._writer.messages(parts, time.time_ns(), beat=beat)
            except Exception:
                self.dropped_frames += sum(int(part.columns["frames"].sum()) for part in parts)
                raise
            finally:
                self._writer.forget(over)

    def _dropped(self, message: WireMessage) -> None:
        with self._lock:
            self.dropped_frames += message.frames
            self._writer.tell_again(message)
