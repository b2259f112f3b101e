"""strep doctor --call: fork a real call here, look what comes, say what is wrong, and stop the fork."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from .._edge.udp import parse_address
from .._receiver.receiver import Receiver
from .options import EXIT_API, EXIT_DOCTOR, console

if TYPE_CHECKING:
    from ..control import Diagnosis

__all__ = ["check_call"]

_STEP_S: Final = 0.05


async def check_call(
    call_control_id: str,
    *,
    listen: str,
    advertise: str | None,
    mode: Literal["target", "rx_tx"],
    stream_type: Any,
    wait_s: float,
    base_url: str | None,
    as_json: bool,
) -> int:
    """The exit code: 0 when media came, 7 when none did, 5 when the API did not start the fork."""
    from ..control import APIError, CallControl, ForkLimits

    if mode == "target":
        ports: dict[str, Any] = {"listen": listen}
    else:
        ports = {"pairs": f"udp:{parse_address(listen).host}:0"}
    async with CallControl(base_url=base_url) as control, Receiver(**ports) as receiver:
        fork = control.fork(
            call_control_id, receiver, advertise=advertise, mode=mode, stream_type=stream_type,
            limits=ForkLimits(no_media_s=3600, stall_s=3600, max_restarts=0),
        )  # fmt: skip
        try:
            async with fork:
                if not as_json:
                    to = ", ".join(f"{name} {where}" for name, where in fork.addresses.items())
                    console().print(f"forking to {to}, waiting {wait_s:g} s at most", markup=False, soft_wrap=True)
                deadline = time.monotonic() + wait_s
                while time.monotonic() < deadline and not fork.phase.over:
                    found = fork.diagnosis()
                    if found.media and not found.findings:
                        break
                    await asyncio.sleep(_STEP_S)
                found = fork.diagnosis()
        except APIError as error:
            if as_json:
                click.echo(json.dumps({"media": False, "error": error.message}))
            click.echo(f"strep: {error}", err=True)
            return EXIT_API
    _tell(found, as_json)
    return 0 if found.media else EXIT_DOCTOR


def _tell(found: Diagnosis, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        console().print(str(found), markup=False, highlight=False, soft_wrap=True)
