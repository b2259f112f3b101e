"""strep serve: a daemon that records the calls that webhooks tell of."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from .._edge.http import HttpLimits, HttpServer
from .._model.exceptions import ConfigurationError, MissingExtraError
from .._receiver.receiver import Receiver
from .._receiver.summary import losses
from ._serve_settings import Settings
from .events import EventSink, EventWriter, tell_incidents
from .limits import Descriptors, hide_key
from .lock import DirectoryLock
from .options import (
    EXIT_SINK,
    check_writable,
    console,
    drain_option,
    run_async,
    sink_failed,
    source_arguments,
    source_options,
    stop_on_signals,
)
from .output import Output, output_options
from .tables import totals_line

if TYPE_CHECKING:
    from ..control import CallControl
    from ..control.calls import CallState
    from ..control.session import Fork, ForkEvent
    from ..service import CallRecorder, Health

__all__ = ["serve"]

_BEAT_S: Final = 5.0
_BEATS_A_SUMMARY: Final = 2
_KEPT_SUMMARIES: Final = 10


@click.command()
@click.option("--listen", metavar="ADDR:PORT", default="0.0.0.0:9000", show_default=True, help="Where media come to.")
@click.option(
    "--webhook-listen",
    metavar="ADDR:PORT",
    default="127.0.0.1:8080",
    show_default=True,
    help="Where webhooks are taken, over HTTP; /healthz and /metrics too, but not through a proxy, unless "
    "--admin-listen is given.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Where the platform sends webhooks, like https://calls.example.com/webhooks: what stands before "
    "this program forwards it with the same path. Default: /webhooks at --webhook-listen.",
)
@click.option("--admin-listen", metavar="ADDR:PORT", help="Where /healthz and /metrics are instead.")
@click.option("--advertise", metavar="IP[:PORT]", required=True, help="Where the platform reaches --listen.")
@click.option("--allow-private", is_flag=True, help="Advertise a private address to the real API all the same.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR", help="Where files go."
)
@click.option("--answer", is_flag=True, help="Answer calls that come in; default: somebody else does.")
@click.option("--only-answered", is_flag=True, help="Fork calls when they are answered; default: as soon as known.")
@click.option(
    "--record-legs",
    type=click.Choice(["a", "b", "both"]),
    default="both",
    show_default=True,
    help="A: the leg of a session that came in, or was dialled first; B: those after it.",
)
@click.option(
    "--mode",
    type=click.Choice(["target", "rx_tx"]),
    default="target",
    show_default=True,
    help="STREP to one port; or plain RTP, to a pair of ports for each call.",
)
@click.option("--ports", metavar="LOW-HIGH", help="Ports for the pairs of --mode rx_tx.")
@click.option("--stream-type", type=click.Choice(["raw", "decrypted"]), help="decrypted: without SRTP (rx_tx only).")
@click.option("--allow-unannounced", is_flag=True, help="Record media too whose call no webhook told of.")
@click.option(
    "--stop-timeout",
    type=click.FloatRange(0.1, 60),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long stopping the forks may take at the end.",
)
@click.option(
    "--min-free",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    metavar="MIB",
    help="With less on the disk /healthz fails.",
)
@output_options
@source_options
@click.option(
    "--pcap", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Record every datagram raw."
)
@click.option("--transport", type=click.Choice(["auto", "recvmmsg", "portable"]), default="auto", show_default=True)
@click.option(
    "--receive-buffer",
    type=click.IntRange(1 << 12, 1 << 30),
    default=128 << 20,
    show_default=True,
    metavar="BYTES",
    help="Socket buffer to ask the kernel for.",
)
@drain_option()
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on stdout.")
def serve(**options: Any) -> None:
    """Take webhooks, fork each call to this machine, record it, and close its files when it is hung up.

    TELNYX_API_KEY and TELNYX_PUBLIC_KEY come from the environment, TELNYX_BASE_URL too where there is one. Ends on
    SIGTERM and SIGINT: stops its forks, finishes all files. Needs the extra serve; /metrics the extra metrics.
    """  # fmt: skip
    sys.setswitchinterval(0.0005)  # as capture
    gc.freeze()
    hide_key()
    sys.exit(run_async(lambda: _serve(Settings.of(options), options)))


async def _serve(settings: Settings, options: dict[str, Any]) -> int:
    """Everything that the command does; returns the exit code."""
    forks = logging.getLogger("strep.control.forks")
    before = forks.level
    forks.setLevel(logging.CRITICAL)  # the recorder tells of them, once a call
    check_writable(settings.out)
    try:
        with DirectoryLock(settings.out, "serve") as lock:
            return await _record_calls(settings, options, lock)
    finally:
        forks.setLevel(before)


async def _record_calls(settings: Settings, options: dict[str, Any], lock: DirectoryLock) -> int:
    from ..control import CallControl
    from ..control.asgi import webhook_app
    from ..control.session import ForkLimits
    from ..service import ADMIN, HEALTH, METRICS, CallBook, CallRecorder, Health, LegStreams, Router, told_by

    err = console()
    as_json = options.pop("as_json")
    descriptors = Descriptors.share(pairs=settings.mode == "rx_tx")
    writer = EventWriter() if as_json else None
    book = CallBook(only_answered=settings.only_answered, record_legs=settings.record_legs)
    own = {"session_of": book.session_of, "max_open_files": descriptors.files}
    output = Output.take_from({**options, **own})
    if output.session:
        raise ConfigurationError(
            "--session is for those whom no webhooks tell: leave it out, --layout session suffices"
        )
    output.warm_up()
    streams = LegStreams()
    sinks = [*output.sinks(settings.out), streams, *([EventSink(writer)] if writer is not None else [])]
    receiver = _receiver(settings, options, sinks, redact=output.redact)
    stop = stop_on_signals()
    servers: list[HttpServer] = []
    async with CallControl(allow_private=settings.allow_private) as control:
        _check_reach(control, settings)
        # the state machine takes 1.5 times as long at most
        limits = ForkLimits(idle_s=receiver.idle_timeout_s, stop_s=settings.stop_timeout_s / 1.5)

        def open_fork(state: CallState, on_event: Callable[[ForkEvent], object]) -> Fork:
            return control.fork(
                str(state.call_control_id), receiver, call_leg_id=state.call_leg_id, advertise=settings.advertise,
                mode=settings.mode, stream_type=settings.stream_type, limits=limits, on_event=on_event,
            )  # fmt: skip

        recorder = CallRecorder(
            receiver, streams, book, settings.out, open_fork,
            answer=control.answer if settings.answer else None, tell=writer or (lambda event: _tell(err, event)),
            since_ns=lock.since_ns,
        )  # fmt: skip
        health = Health(receiver, settings.out, control.forks.by_phase, min_free_bytes=settings.min_free_bytes)

        def hear(event: Any) -> None:
            control.forks.webhook(event)
            recorder.on_event(event)

        hooks = webhook_app(settings.public_key, hear)
        admin = {
            HEALTH: told_by(health.check),
            METRICS: _metrics(receiver, control, hooks.counts, recorder, lambda: _connections(servers)),
        }
        public: dict[str, Any] = {settings.path: hooks} | (admin if settings.admin is None else {})
        most = descriptors.http
        if settings.admin is not None:
            few = max(4, most // 16)  # who asks for health and figures are few, and no strangers
            servers.append(HttpServer(Router(admin), *settings.admin, limits=HttpLimits(few, few)))
            most -= few
        many = HttpLimits(max(4, most), max(2, most // 4))
        servers.insert(0, HttpServer(Router(public, ADMIN), *settings.webhooks, limits=many))

        def summary() -> dict[str, Any]:
            return recorder.summary(
                forks=control.forks.by_phase(), webhooks=asdict(hooks.counts), http=_connections(servers),
                api_requests=control.figures.as_dict(),
            )  # fmt: skip

        try:
            await receiver.start()
        except BaseException:
            for server in servers:
                await server.stop()
            raise
        beats = asyncio.create_task(_beat(health, recorder, summary))
        telling = None if writer is None else asyncio.create_task(tell_incidents(receiver, writer))
        try:
            await asyncio.to_thread(_put_aside, settings.out)
            await asyncio.to_thread(health.beat)
            for server in servers:
                await server.start()
            await recorder.start()
            health.serving = True
            _announce(err, receiver, settings, servers, writer)
            await stop.wait()
        finally:
            health.serving = False
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            for server in servers:
                await server.stop()
            await hooks.drain(1.0)
            await recorder.stop(settings.stop_timeout_s + 1.0)
            await receiver.stop()
            if telling is not None:
                await asyncio.wait([telling], timeout=1.0)
            await recorder.finish()
            last = summary()
            kept = True
            try:
                recorder.write_summary(last)
            except OSError as error:
                kept = False
                err.print(f"[red]summary.json cannot be written: {error}[/]", soft_wrap=True)
    if writer is not None:
        writer({"event": "summary", **last})
        writer.close()
    err.print(f"{recorder.outcomes['recorded']} calls recorded", soft_wrap=True)
    err.print(totals_line(receiver.totals(), 0), soft_wrap=True)
    for sentence in losses(receiver.totals(), last["sinks"]):
        err.print(f"[red]lost: {sentence}[/]", soft_wrap=True)
    unread = receiver.totals().dropped_by.get("unread")
    return EXIT_SINK if unread or not kept or sink_failed(last["sinks"]) else 0


def _check_reach(control: CallControl, settings: Settings) -> None:
    """Refuse now what the API's client would refuse for each call. Raises ConfigurationError."""
    from ..control._fork_route import advertised

    host, port = advertised(settings.advertise)
    where = f"udp:[{host}]:{port or 9}" if ":" in host else f"udp:{host}:{port or 9}"
    ports = {"target": where} if settings.mode == "target" else {"rx": where, "tx": where}
    try:
        control.check_fork(stream_type=settings.stream_type, **ports)
    except ConfigurationError as error:
        raise ConfigurationError(f"--advertise {settings.advertise}: {error}") from None


def _receiver(settings: Settings, options: dict[str, Any], sinks: list[Any], *, redact: bool) -> Receiver:
    plain = settings.mode == "rx_tx"
    host = settings.listen.removeprefix("udp:").rpartition(":")[0]
    return Receiver(
        None if plain else settings.listen,
        pairs=f"udp:{host}:{settings.ports or 0}" if plain else None,
        sinks=sinks,
        announced_only=not settings.allow_unannounced,
        **source_arguments(options),
        pcap=options["pcap"],
        transport=options["transport"],
        receive_buffer=options["receive_buffer"],
        drain_s=options["drain_s"],
        redact=redact,
    )


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
    err: Console, receiver: Receiver, settings: Settings, servers: list[HttpServer], writer: EventWriter | None
) -> None:
    webhooks = f"http://{servers[0].address}{settings.path}"
    admin = f"http://{servers[-1].address}"
    media = [socket.address for socket in receiver.sockets]
    if writer is not None:
        writer({"event": "serving", "media": media, "webhooks": webhooks, "admin": admin})
    for address in media:
        err.print(f"media: udp:{address}, advertised as {settings.advertise}", soft_wrap=True)
    if not media:
        err.print(f"media: a pair of ports ({settings.ports or 'any'}) for each call, at {settings.advertise}")
    err.print(f"webhooks: {webhooks}", soft_wrap=True)
    if settings.public_url is not None:
        err.print(f"the connection's webhook URL is to be {settings.public_url}", soft_wrap=True)
    err.print(f"health: {admin}/healthz", soft_wrap=True)


def _tell(err: Console, event: dict[str, Any]) -> None:
    if event["event"] == "leg":
        directions = " and ".join(event["directions"]) or "nothing"
        err.print(
            f"leg {event['call_leg_id']}: {directions}, {event['duration_s']:.1f} s → {event['file']}",
            soft_wrap=True,
            markup=False,
        )
