"""strep serve: a daemon that records the calls that webhooks tell of."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from .._edge.http import HttpLimits, HttpServer
from .._edge.udp.address import UdpAddress, parse_address
from .._model.exceptions import ConfigurationError, MissingExtraError, StrepError
from .._receiver.receiver import Receiver
from .._receiver.settings import Settings
from .._receiver.summary import losses
from .config import config_options, reloader, shown_config
from .events import EventSink, EventWriter, events_lost, write_incidents
from .exit_codes import EXIT_API, EXIT_SINK
from .key_check import check_key
from .limits import Descriptors, hide_key
from .lock import DirectoryLock
from .options import pcap_option, port_options, settings_of, socket_options, stream_options, values_of
from .output import Output, nats_options, output_options
from .results import check_writable, sink_failed
from .running import console, favor_receiving, run_async, stop_on_signals
from .serve_options import ServeOptions, public_key, serve_options
from .tables import totals_line
from .words import in_options

if TYPE_CHECKING:
    from ..catalogue import CatalogueWriter
    from ..control._answers import CallEvent
    from ..control._client import CallControl
    from ..control.calls import CallState
    from ..control.session import Fork, ForkEvent
    from ..service._book import CallBook
    from ..service._health import Health
    from ..service._owner import CallOwners
    from ..service._recorder import CallRecorder

__all__ = ["serve"]

_WAY: Final = "strep serve"
_BEAT_S: Final = 5.0  # between two looks at the disk
_BEATS_A_SUMMARY: Final = 2
_KEPT_SUMMARIES: Final = 10  # of earlier runs
_LONGEST_STOP: Final = 1.5  # times what a fork is given for it, by its state machine
_DRAIN_WEBHOOKS_S: Final = 1.0
_STOP_MARGIN_S: Final = 1.0
_LAST_INCIDENTS_S: Final = 1.0
_LAST_LEGS_S: Final = 5.0  # for the catalogue to be written
_EVENTS_A_PAGE: Final = 250
_EVENT_PAGES: Final = 4  # of the API's log of a call
_RELOADED: Final = ("only_answered", "record_legs", "min_free_mib")  # by SIGHUP
_ANY_PORT: Final = 9  # stands for one that is not known yet
_ADMIN_SHARE: Final = 16  # of connections: those who ask for health and figures are few, and no strangers


@click.command()
@config_options
@port_options(_WAY)
@serve_options
@output_options
@nats_options
@stream_options(_WAY)
@pcap_option(_WAY)
@socket_options(_WAY)
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
@click.pass_context
def serve(context: click.Context, /, as_json: bool, show_config: bool, **options: Any) -> None:
    """Take webhooks, fork each call to this machine, record it, and close its files when it is hung up.

    TELNYX_API_KEY and TELNYX_PUBLIC_KEY come from the environment, TELNYX_BASE_URL too where there is one. Ends on
    SIGTERM and SIGINT: stops its forks, finishes all files. SIGHUP reads --config again. Needs the extra serve;
    /metrics the extra metrics.
    """  # fmt: skip
    if show_config:
        click.echo(shown_config(context), nl=False)
        return
    favor_receiving()
    hide_key()
    plan = replace(_plan_of(options, as_json=as_json), reload=reloader(context))
    sys.exit(run_async(lambda: _serve(plan)))


@dataclass(frozen=True)
class _Plan:
    """What the command is asked for, checked."""

    own: ServeOptions
    settings: Settings
    output: Output
    book: CallBook
    descriptors: Descriptors
    public_key: str
    as_json: bool
    reload: Callable[[], dict[str, Any]] | None = None  # reads the file of options again


def _plan_of(options: dict[str, Any], *, as_json: bool) -> _Plan:
    """Raises ConfigurationError."""
    from ..service import CallBook

    own = values_of(ServeOptions, options)
    key = public_key()
    descriptors = Descriptors.share(pairs=own.mode == "rx_tx")
    book = CallBook(only_answered=own.only_answered, record_legs=own.record_legs)
    output = values_of(Output, options, session_of=book.session_of, max_open_files=descriptors.files)
    if output.session:
        raise ConfigurationError(
            "--session is for those whom no webhooks tell: leave it out, --layout session suffices"
        )
    settings = settings_of(_WAY, options, **own.port_settings(options["listen"]))
    return _Plan(own, settings, output, book, descriptors, key, as_json)


async def _serve(plan: _Plan) -> int:
    """Everything that the command does; returns the exit code."""
    check_writable(plan.own.out)
    with _quiet_forks(), DirectoryLock(plan.own.out, "serve") as lock:
        return await _record_calls(plan, lock.since_ns)


@contextlib.contextmanager
def _quiet_forks() -> Iterator[None]:
    """Forks log nothing meanwhile: the recorder tells of them, once a call."""
    log = logging.getLogger("strep.control.forks")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


async def _record_calls(plan: _Plan, since_ns: int) -> int:
    from ..control import CallControl
    from ..control.asgi import webhook_app
    from ..control.session import ForkLimits
    from ..service import CallRecorder, Health, LegStreams

    own, err = plan.own, console()
    writer = EventWriter() if plan.as_json else None
    plan.output.warm_up()
    streams = LegStreams()
    sinks = [*plan.output.sinks(own.out), streams, *([EventSink(writer)] if writer is not None else [])]
    receiver = Receiver.of(plan.settings, sinks)
    kept_legs = _catalogue(own)
    stop = stop_on_signals()
    servers: list[HttpServer] = []
    async with CallControl(allow_private=own.allow_private) as control:
        _check_reach(control, own)
        limits = ForkLimits(idle_s=receiver.idle_timeout_s, stop_s=own.stop_timeout_s / _LONGEST_STOP)

        def open_fork(state: CallState, on_event: Callable[[ForkEvent], object], command_id: str | None) -> Fork:
            return control.fork(
                str(state.call_control_id), receiver, call_leg_id=state.call_leg_id, advertise=own.advertise,
                mode=own.mode, stream_type=own.stream_type, command_id=command_id, limits=limits, on_event=on_event,
            )  # fmt: skip

        recorder = CallRecorder(
            receiver, streams, plan.book, own.out, open_fork, owners=_owners(control, receiver, own),
            answer=control.answer if own.answer else None, tell=writer or (lambda event: _print_leg(err, event)),
            since_ns=since_ns, keep=kept_legs.put if kept_legs is not None else lambda found, file: None,
        )  # fmt: skip
        health = Health(receiver, own.out, control.forks.by_phase, min_free_bytes=own.min_free_bytes)

        def on_webhook(event: Any) -> None:
            control.forks.webhook(event)
            recorder.on_event(event)

        _reload_on_hangup(plan, health, err)
        hooks = webhook_app(plan.public_key, on_webhook)
        metrics = _metrics(receiver, control, hooks.counts, recorder, lambda: _connections(servers))
        servers += _servers(plan, hooks, health, metrics)

        def summary() -> dict[str, Any]:
            return recorder.summary(
                forks=control.forks.by_phase(), webhooks=asdict(hooks.counts), http=_connections(servers),
                api_requests=control.figures.as_dict(),
                **({} if kept_legs is None else {"catalogue": kept_legs.figures()}),
            )  # fmt: skip

        try:
            await receiver.start()
        except BaseException:
            for server in servers:
                await server.stop()
            raise
        beats = asyncio.create_task(_beat(health, recorder, summary))
        incidents = None if writer is None else asyncio.create_task(write_incidents(receiver, writer))
        refusals: list[str] = []

        def on_refused(text: str) -> None:
            refusals.append(text)
            err.print(text, style="red", soft_wrap=True)
            stop.set()

        asking = asyncio.create_task(check_key(control, on_refused))
        try:
            await asyncio.to_thread(_put_aside, own.out)
            await asyncio.to_thread(health.beat)
            for server in servers:
                await server.start()
            if kept_legs is not None:
                kept_legs.start()
            await recorder.start()
            health.serving = True
            _announce(err, receiver, own, servers, writer)
            await stop.wait()
        finally:
            health.serving = False
            for task in (beats, asking):
                task.cancel()
            await asyncio.gather(beats, asking, return_exceptions=True)
            for server in servers:
                await server.stop()
            await hooks.drain(_DRAIN_WEBHOOKS_S)
            await recorder.stop(own.stop_timeout_s + _STOP_MARGIN_S)
            await receiver.stop()
            if incidents is not None:
                await asyncio.wait([incidents], timeout=_LAST_INCIDENTS_S)
            await recorder.finish()
            if kept_legs is not None:
                await asyncio.to_thread(kept_legs.stop, _LAST_LEGS_S)
            last = summary()
            kept = True
            try:
                recorder.write_summary(last)
            except OSError as error:
                kept = False
                err.print(f"summary.json cannot be written: {error}", style="red", soft_wrap=True)
    if writer is not None:
        writer({"event": "summary", **last})
        writer.close()
    err.print(f"{recorder.outcomes['recorded']} calls recorded", soft_wrap=True)
    err.print(totals_line(receiver.totals(), 0), soft_wrap=True)
    for sentence in losses(receiver.totals(), last["sinks"]):
        err.print(f"lost: {sentence}", style="red", soft_wrap=True)
    unread = receiver.totals().dropped_by.get("unread")
    if refusals:
        return EXIT_API
    return EXIT_SINK if unread or not kept or events_lost() or sink_failed(last["sinks"]) else 0


def _reload_on_hangup(plan: _Plan, health: Health, err: Console) -> None:
    """With a file of options, SIGHUP reads it again; what cannot be changed while it runs is named."""
    if plan.reload is None or sys.platform == "win32":
        return
    read, own = plan.reload, plan.own

    def reload() -> None:
        nonlocal own
        try:
            new = values_of(ServeOptions, read())
        except StrepError as error:
            err.print(f"the configuration stays as it is: {in_options(str(error))}", style="red", soft_wrap=True)
            return
        changed = [one.name for one in fields(ServeOptions) if getattr(new, one.name) != getattr(own, one.name)]
        plan.book.set_rules(only_answered=new.only_answered, record_legs=new.record_legs)
        health.min_free_bytes = new.min_free_bytes
        own = replace(own, **{name: getattr(new, name) for name in _RELOADED})
        done = [name for name in changed if name in _RELOADED]
        err.print(f"configuration read again: {', '.join(done) or 'nothing'} changed", soft_wrap=True)
        if rest := [name for name in changed if name not in _RELOADED]:
            err.print(f"changed too, and in force after a restart only: {', '.join(rest)}", style="red", soft_wrap=True)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _servers(plan: _Plan, hooks: Any, health: Health, metrics: Any) -> list[HttpServer]:
    """The server of webhooks, then that of health and figures, if it is another one. They share the descriptors."""
    from ..service import ADMIN, HEALTH, METRICS, Router, told_by

    own = plan.own
    admin = {HEALTH: told_by(health.check), METRICS: metrics}
    connections = plan.descriptors.http
    if own.admin_address is None:
        others = []
        public: dict[str, Any] = {own.path: hooks} | admin
    else:
        few = max(4, connections // _ADMIN_SHARE)
        connections -= few
        others = [HttpServer(Router(admin), *own.admin_address, limits=HttpLimits(few, few))]
        public = {own.path: hooks}
    limits = HttpLimits(max(4, connections), max(2, connections // 4))
    return [HttpServer(Router(public, ADMIN), *own.webhook_address, limits=limits), *others]


def _catalogue(own: ServeOptions) -> CatalogueWriter | None:
    """Keeps what is known of legs; None: nobody wants it. Raises ConfigurationError if it can never be opened."""
    url = own.catalogue_url
    if url is None:
        return None
    from ..catalogue import Catalogue, CatalogueError, CatalogueWriter

    opened: list[Catalogue] = []
    try:
        opened.append(Catalogue(url))
    except CatalogueError as error:
        if not error.passing:
            raise
    return CatalogueWriter(lambda: opened.pop() if opened else Catalogue(url), socket.gethostname())


def _check_reach(control: CallControl, own: ServeOptions) -> None:
    """Refuse now what the API's client would refuse for each call. Raises ConfigurationError."""
    from ..control._fork_route import advertised

    host, port = advertised(own.advertise)
    where = f"udp:{UdpAddress(host, port or _ANY_PORT)}"
    ports = {"target": where} if own.mode == "target" else {"rx": where, "tx": where}
    try:
        control.check_fork(stream_type=own.stream_type, **ports)
    except ConfigurationError as error:
        raise ConfigurationError(f"--advertise {own.advertise}: {error}") from None


def _owners(control: CallControl, receiver: Receiver, own: ServeOptions) -> CallOwners:
    """Who tells this service's calls from those of others that hear the same webhooks."""
    from ..control._fork_route import advertised
    from ..service import CallOwners

    async def events(call_leg_id: uuid.UUID) -> list[CallEvent]:
        found: list[CallEvent] = []
        for number in range(1, _EVENT_PAGES + 1):
            page = await control.call_events(call_leg_id=call_leg_id, page_number=number, page_size=_EVENTS_A_PAGE)
            found += page.events
            if len(page.events) < _EVENTS_A_PAGE:
                break
        return found

    def ours(addresses: frozenset[str], before: bool) -> bool:
        host, port = advertised(own.advertise)
        if before:
            return {parse_address(address).host for address in addresses} == {host}
        listening = [socket for socket in receiver.sockets if socket.role == "listen"]
        ports = [port] if port else [parse_address(socket.address).port for socket in listening]
        return addresses <= {str(UdpAddress(host, each)) for each in ports}

    return CallOwners(events, ours=ours, only_answered=own.only_answered)


def _connections(servers: list[HttpServer]) -> dict[str, int]:
    """What became of all connections."""
    counts: Counter[str] = Counter()
    for server in servers:
        counts.update(server.counts.as_dict())
    return dict(counts)


def _metrics(
    receiver: Receiver, control: CallControl, webhooks: Any, recorder: CallRecorder,
    connections: Callable[[], dict[str, int]],
) -> Any:  # fmt: skip
    """The application of /metrics; without its extra it says what is missing."""
    from ..service import told_by

    try:
        from ..metrics import collector, metrics_app

        collected = collector(
            receiver, requests=control.figures, webhooks=webhooks, forks=control.forks.by_phase,
            calls=lambda: recorder.outcomes, connections=connections,
        )  # fmt: skip
    except MissingExtraError as error:
        reason = str(error)
        return told_by(lambda: (501, {"reason": reason}))
    return metrics_app(collected)


async def _beat(health: Health, recorder: CallRecorder, summary: Callable[[], dict[str, Any]]) -> None:
    """Look at the disk, and keep the summary up to date, every few seconds until cancelled."""
    count = 0
    while True:
        await asyncio.sleep(_BEAT_S)
        await asyncio.to_thread(health.beat)
        count += 1
        if count % _BEATS_A_SUMMARY == 0:
            with contextlib.suppress(OSError):  # /healthz tells of the disk
                await asyncio.to_thread(recorder.write_summary, summary())


def _put_aside(out: Path) -> None:
    """Keep the last runs' summaries under names of their own."""
    path = out / "summary.json"
    with contextlib.suppress(OSError):
        if path.exists():
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(path.stat().st_mtime))
            os.replace(path, out / f"summary-{stamp}.json")
        for old in sorted(out.glob("summary-*.json"))[:-_KEPT_SUMMARIES]:
            old.unlink()


def _announce(
    err: Console, receiver: Receiver, own: ServeOptions, servers: list[HttpServer], writer: EventWriter | None
) -> None:
    webhooks = f"http://{servers[0].address}{own.path}"
    admin = f"http://{servers[-1].address}"
    media = [socket.address for socket in receiver.sockets if socket.role != "ring"]
    if writer is not None:
        writer({"event": "serving", "media": media, "webhooks": webhooks, "admin": admin})
    for address in media:
        err.print(f"media: udp:{address}, advertised as {own.advertise}", soft_wrap=True)
    if not media:
        err.print(f"media: a pair of ports ({own.ports or 'any'}) for each call, at {own.advertise}")
    err.print(f"webhooks: {webhooks}", soft_wrap=True)
    if own.public_url is not None:
        err.print(f"the connection's webhook URL is to be {own.public_url}", soft_wrap=True)
    err.print(f"health: {admin}/healthz", soft_wrap=True)


def _print_leg(err: Console, event: dict[str, Any]) -> None:
    if event["event"] == "leg":
        directions = " and ".join(event["directions"]) or "nothing"
        err.print(
            f"leg {event['call_leg_id']}: {directions}, {event['duration_s']:.1f} s → {event['file']}",
            soft_wrap=True,
        )
