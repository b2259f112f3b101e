"""strep doctor --call: fork a real call to this machine, look at what comes, say what is wrong, and stop the
fork."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from .._edge.udp.address import parse_address
from .._receiver.receiver import Receiver
from .exit_codes import EXIT_API, EXIT_DOCTOR
from .options import decorated
from .running import console

if TYPE_CHECKING:
    from ..control._diagnosis import Diagnosis

__all__ = ["CallOptions", "call_options", "check_call"]

_LOOK_S: Final = 0.05  # between two looks at what has come
_NEVER_S: Final = 3600.0  # the fork is not to be restarted meanwhile


@decorated
def call_options() -> list[Any]:
    """What only ``--call`` knows."""
    return [
        click.option("--call", metavar="CALL_CONTROL_ID",
                     help="Fork this call here instead, and say what comes or why not."),
        click.option("--advertise", metavar="IP[:PORT]", help="[call] Where the platform reaches this machine."),
        click.option("--mode", type=click.Choice(["target", "rx_tx"]), default="target", show_default=True,
                     help="[call] STREP to --listen, or plain RTP to two free ports."),
        click.option("--stream-type", type=click.Choice(["raw", "decrypted"]),
                     help="[call] decrypted: in mode rx_tx."),
        click.option("--wait", "wait_s", type=click.FloatRange(0.1, 600), default=10.0, show_default=True,
                     metavar="S", help="[call] How long to wait for both directions."),
        click.option("--base-url", metavar="URL", help="[call] Default: TELNYX_BASE_URL, else the real API."),
    ]  # fmt: skip


@dataclass(frozen=True)
class CallOptions:
    """The values of :func:`call_options`."""

    call: str | None  # its call_control_id
    advertise: str | None
    mode: Literal["target", "rx_tx"]
    stream_type: Any
    wait_s: float
    base_url: str | None


async def check_call(options: CallOptions, listen: str, *, as_json: bool) -> int:
    """Check ``options.call``; ``listen`` is where STREP is received. The exit code: 0 when media came, 7 when none did,
    5 when the API did not start the fork."""
    from ..control import APIError, CallControl, ForkLimits

    if options.mode == "target":
        ports: dict[str, Any] = {"listen": listen}
    else:
        ports = {"pairs": f"udp:{parse_address(listen).host}:0"}
    async with CallControl(base_url=options.base_url) as control, Receiver(**ports) as receiver:
        fork = control.fork(
            str(options.call), receiver, advertise=options.advertise, mode=options.mode,
            stream_type=options.stream_type,
            limits=ForkLimits(no_media_s=_NEVER_S, stall_s=_NEVER_S, max_restarts=0),
        )  # fmt: skip
        try:
            async with fork:
                if not as_json:
                    to = ", ".join(f"{name} {where}" for name, where in fork.addresses.items())
                    console().print(f"forking to {to}, waiting {options.wait_s:g} s at most", soft_wrap=True)
                deadline = time.monotonic() + options.wait_s
                while time.monotonic() < deadline and not fork.phase.over:
                    found = fork.diagnosis()
                    if found.media and not found.findings:
                        break
                    await asyncio.sleep(_LOOK_S)
                found = fork.diagnosis()
        except APIError as error:
            if as_json:
                click.echo(json.dumps({"media": False, "error": error.message}))
            click.echo(f"strep: {error}", err=True)
            return EXIT_API
    _print_diagnosis(found, as_json)
    return 0 if found.media else EXIT_DOCTOR


def _print_diagnosis(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        console().print(str(found), highlight=False, soft_wrap=True)
