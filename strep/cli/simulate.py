"""strep simulate: forked calls without an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from .._codecs.listing import simulated_codecs
from ..simulate import simulate as run_simulation
from .options import console, run_async
from .standin import API_OPTIONS, api_options, serve_api

__all__ = ["simulate"]

_PROBABILITY = click.FloatRange(0, 1)


@click.command()
@click.option("--to", metavar="udp:ADDR:PORT", help="Receiver of STREP.")
@click.option("--rx-to", metavar="udp:ADDR:PORT", help="Receiver of inbound plain RTP.")
@click.option("--tx-to", metavar="udp:ADDR:PORT", help="Receiver of outbound plain RTP.")
@click.option("--calls", type=click.IntRange(1, 10_000), default=3, show_default=True, metavar="N")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), default=6.0, show_default=True, metavar="S")
@click.option(
    "--codec",
    default="PCMU",
    show_default=True,
    metavar="NAME",
    help=f'{simulated_codecs()}; also "opus/48000/2", "AMR;octet-align=1".',
)
@click.option("--ptime", type=click.FloatRange(1, 200), default=20.0, show_default=True, metavar="MS")
@click.option("--loss", type=_PROBABILITY, default=0.0, metavar="P", help="Probability that a packet is lost.")
@click.option("--duplicate", type=_PROBABILITY, default=0.0, metavar="P", help="... that it comes twice.")
@click.option("--reorder", type=_PROBABILITY, default=0.0, metavar="P", help="... that it is held back.")
@click.option("--jitter", type=click.FloatRange(0), default=0.0, metavar="MS", help="Random delay, uniform 0 to MS.")
@click.option(
    "--drift-ppm",
    type=click.FloatRange(-5000, 5000),
    default=0.0,
    metavar="X",
    help="How much too fast the sender's clock runs.",
)
@click.option("--dtmf", default="", metavar="DIGITS", help="Keys the callers press, as telephone-events (RFC 4733).")
@click.option(
    "--dtmf-at",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="S",
    help="When, after the call's begin.",
)
@click.option("--seed", type=int, metavar="N", help="Same seed, same packets.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="WAV",
    help="Speak this instead of the bundled voices.",
)
@api_options
@click.option("--json", "as_json", is_flag=True, help="What was sent, as JSON on stdout; with --api events as lines.")
@click.pass_context
def simulate(context: click.Context, /, as_json: bool, api: str | None, **options: Any) -> None:
    """Fork simulated two-way calls to a receiver, in real time, with trouble on the way if asked for.

    With --api nothing is sent until somebody asks for it: a local server behaves like the call-control API, so that
    clients can be developed without an account. Options marked [api] are for that.
    """
    err = console()
    given = {name for name in options if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    wrong = given & (set(API_OPTIONS) if api is None else {"to", "rx_to", "tx_to", "duration"})
    if wrong:
        name = "--" + min(wrong).replace("_", "-")
        raise click.UsageError(f"{name} is {'only for' if api is None else 'not for'} a stand-in API (--api)")
    if api is not None:
        run_async(lambda: serve_api(api, options, err, as_json=as_json))
        return
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("sending", total=1.0)
        report = run_async(
            lambda: run_simulation(
                options["to"],
                rx_to=options["rx_to"],
                tx_to=options["tx_to"],
                calls=options["calls"],
                duration_s=options["duration"],
                codec=options["codec"],
                ptime_ms=options["ptime"],
                loss=options["loss"],
                duplicate=options["duplicate"],
                reorder=options["reorder"],
                jitter_ms=options["jitter"],
                drift_ppm=options["drift_ppm"],
                dtmf=options["dtmf"],
                dtmf_at_s=options["dtmf_at"],
                seed=options["seed"],
                file=options["file"],
                progress=lambda part: progress.update(task, completed=part),
            )
        )
    if as_json:
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
        click.echo(json.dumps({"datagrams": report.datagrams, "elapsed_s": report.elapsed_s, "streams": streams}))
    err.print(
        f"sent {report.datagrams:,} datagrams of {len(report.streams)} streams in {report.elapsed_s:.1f} s; "
        f"{report.lost} withheld, {report.duplicates} doubled",
        soft_wrap=True,
    )
