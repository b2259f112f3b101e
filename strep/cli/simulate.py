"""strep simulate: forked calls without an account."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

import click
from rich.progress import Progress

from ..simulate import SimulationReport
from ..simulate import simulate as run_simulation
from .options import values_of
from .running import console, run_async
from .simulated_calls import SimulatedCalls, media_options
from .standin import API_OPTIONS, ApiOptions, api_options, serve_api

__all__ = ["simulate"]

_SENDING_OPTIONS: Final = {"to", "rx_to", "tx_to", "duration_s"}


@dataclass(frozen=True)
class _Sending:
    """Where calls are sent, and for how long: options that ``--api`` does not know."""

    to: str | None
    rx_to: str | None
    tx_to: str | None
    duration_s: float


@click.command()
@click.option("--to", metavar="udp:ADDR:PORT", help="Receiver of STREP.")
@click.option("--rx-to", metavar="udp:ADDR:PORT", help="Receiver of inbound plain RTP.")
@click.option("--tx-to", metavar="udp:ADDR:PORT", help="Receiver of outbound plain RTP.")
@click.option("--calls", type=click.IntRange(1, 10_000), default=3, show_default=True, metavar="N")
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
    default=6.0,
    show_default=True,
    metavar="S",
)
@media_options
@api_options
@click.option("--json", "as_json", is_flag=True, help="What was sent, as JSON on stdout; with --api events as lines.")
@click.pass_context
def simulate(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Fork simulated two-way calls to a receiver, in real time, with trouble on the way if asked for.

    With --api nothing is sent until somebody asks for it: a local server behaves like the call-control API, so that
    clients can be developed without an account. Options marked [api] are for that.
    """
    api = values_of(ApiOptions, options)
    calls = values_of(SimulatedCalls, options)
    _refuse_options_of_the_other(context, with_api=api.api is not None)
    if api.api is not None:
        run_async(lambda: serve_api(api, calls, console(), as_json=as_json))
    else:
        _send(values_of(_Sending, options), calls, as_json=as_json)


def _refuse_options_of_the_other(context: click.Context, *, with_api: bool) -> None:
    """Sending calls and serving an API have some options each for themselves. Raises UsageError."""
    wrong = _SENDING_OPTIONS if with_api else API_OPTIONS
    flags = {option.name: option.opts[0] for option in context.command.params}
    given = [
        str(flags[name])
        for name in wrong
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{min(given)} is {'not for' if with_api else 'only for'} a stand-in API (--api)")


def _send(sending: _Sending, calls: SimulatedCalls, *, as_json: bool) -> None:
    """Send calls, and say what was sent."""
    err = console()
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("sending", total=1.0)
        report = run_async(
            lambda: run_simulation(
                **asdict(sending), **asdict(calls), progress=lambda part: progress.update(task, completed=part)
            )
        )
    if as_json:
        click.echo(json.dumps(_as_dict(report)))
    err.print(
        f"sent {report.datagrams:,} datagrams of {len(report.streams)} streams in {report.elapsed_s:.1f} s; "
        f"{report.lost} withheld, {report.duplicates} doubled",
        soft_wrap=True,
    )


def _as_dict(report: SimulationReport) -> dict[str, Any]:
    streams = [
        {
            "call_leg_id": str(t.call_leg_id),
            "leg": t.leg.label,
            "direction": t.direction.label,
            "ssrc": t.ssrc,
            "packets_expected": t.expected,
            "packets_lost": t.lost,
            "duplicates": t.duplicates,
            "dtmf": "".join(k.key for k in t.keys),
        }
        for t in report.streams
    ]
    return {"datagrams": report.datagrams, "elapsed_s": report.elapsed_s, "streams": streams}
