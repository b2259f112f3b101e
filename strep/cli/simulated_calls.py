"""Options of simulated calls: what their media are like, and what goes wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from .._codecs.listing import simulated_codecs
from ..simulate import Impairments
from .options import decorated

__all__ = ["PROBABILITY", "SimulatedCalls", "media_options"]

PROBABILITY: Final = click.FloatRange(0, 1)


@decorated
def media_options() -> list[Any]:
    """Of each call."""
    return [
        click.option("--codec", default="PCMU", show_default=True, metavar="NAME",
                     help=f'{simulated_codecs()}; also "opus/48000/2", "AMR;octet-align=1".'),
        click.option("--ptime", "ptime_ms", type=click.FloatRange(1, 200), default=20.0, show_default=True,
                     metavar="MS"),
        click.option("--loss", type=PROBABILITY, default=0.0, metavar="P", help="Probability that a packet is lost."),
        click.option("--duplicate", type=PROBABILITY, default=0.0, metavar="P", help="... that it comes twice."),
        click.option("--reorder", type=PROBABILITY, default=0.0, metavar="P", help="... that it is held back."),
        click.option("--jitter", "jitter_ms", type=click.FloatRange(0), default=0.0, metavar="MS",
                     help="Random delay, uniform 0 to MS."),
        click.option("--drift-ppm", type=click.FloatRange(-5000, 5000), default=0.0, metavar="X",
                     help="How much too fast the sender's clock runs."),
        click.option("--dtmf", default="", metavar="DIGITS",
                     help="Keys the callers press, as telephone-events (RFC 4733)."),
        click.option("--dtmf-at", "dtmf_at_s", type=click.FloatRange(0), default=1.0, show_default=True, metavar="S",
                     help="When, after the call's begin."),
        click.option("--seed", type=int, metavar="N", help="Same seed, same packets."),
        click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="WAV",
                     help="Speak this instead of the bundled voices."),
    ]  # fmt: skip


@dataclass(frozen=True)
class SimulatedCalls:
    """How many calls, and the values of :func:`media_options`."""

    calls: int
    codec: str
    ptime_ms: float
    loss: float
    duplicate: float
    reorder: float
    jitter_ms: float
    drift_ppm: float
    dtmf: str
    dtmf_at_s: float
    seed: int | None
    file: Path | None

    @property
    def impairments(self) -> Impairments:
        return Impairments(self.loss, self.duplicate, self.reorder, self.jitter_ms)
