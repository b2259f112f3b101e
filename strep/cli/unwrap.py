"""strep unwrap: captures for tools that do not know STREP."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .._receiver.unwrap import unwrap as run_unwrap
from .captures import tell_capture
from .exit_codes import EXIT_SINK
from .running import console

__all__ = ["unwrap"]


@click.command()
@click.argument("file", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path, dir_okay=False))
def unwrap(file: Path, out: Path) -> None:
    """Take the STREP headers off the datagrams of capture IN, so that every tool for RTP reads OUT (pcapng).

    The n-th call leg of the file is a conversation of 10.0.0.n and 10.128.0.n: inbound goes from the former to the
    latter, outbound back. The ports are 16384 and 32768, two more with each leg; RTCP has the ports after them. The
    comment on each packet tells call_leg_id, leg and direction. What is not STREP is kept as it is.

    For Wireshark, which does not look for RTP unless it is told: Analyze > Enabled Protocols > rtp_udp, or
    tshark --enable-heuristic rtp_udp. To look at STREP itself there: strep wireshark.
    """
    err = console()
    try:
        found = run_unwrap(file, out)
    except OSError as error:
        err.print(f"{out} cannot be written: {error.strerror}", soft_wrap=True, style="red")
        sys.exit(EXIT_SINK)
    others = f", {found.other:,} others kept as they were" if found.other else ""
    err.print(
        f"wrote {out}: {found.strep:,} datagrams of {len(found.legs):,} call legs unwrapped{others}",
        soft_wrap=True,
    )
    tell_capture(err, found.capture)
