"""strep fork: start and stop a fork of a call's media."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import EXIT_API
from .options import decorated
from .running import console

if TYPE_CHECKING:
    from ..control import APIError, CommandResult, SyncCallControl

__all__ = ["command_options", "fork", "run_command", "state_bytes"]


_stream_type = click.option(
    "--stream-type", type=click.Choice(["raw", "decrypted"]), help="decrypted: without SRTP (rx and tx)."
)


@decorated
def command_options() -> list[Any]:
    """Of each command to a call."""
    return [
        click.option("--client-state", metavar="TEXT", help="Comes back in every later webhook; sent as base64."),
        click.option("--command-id", metavar="UUID",
                     help="A repetition with the same one within 60 s has no effect."),
        click.option("--base-url", metavar="URL", help="Default: TELNYX_BASE_URL, else the real API."),
        click.option("--json", "as_json", is_flag=True, help="The outcome as JSON on stdout, of errors too."),
    ]  # fmt: skip


@click.group()
def fork() -> None:
    """Start and stop forking a call's media. The API key is taken from TELNYX_API_KEY.

    Exit code 5: the API refused, or could not be reached.
    """


@fork.command()
@click.argument("call_control_id")
@click.option("--target", metavar="udp:IP:PORT", help="Where both directions go, with the STREP header.")
@click.option("--rx", metavar="udp:IP:PORT", help="Where plain RTP of what the platform receives goes.")
@click.option("--tx", metavar="udp:IP:PORT", help="... of what it transmits.")
@click.option("--allow-private", is_flag=True, help="Fork to private addresses through the real API all the same.")
@_stream_type
@command_options
def start(
    call_control_id: str,
    target: str | None,
    rx: str | None,
    tx: str | None,
    allow_private: bool,
    stream_type: Any,
    client_state: str | None,
    command_id: str | None,
    base_url: str | None,
    as_json: bool,
) -> None:
    """Fork the call's media to --target, or to --rx and --tx."""
    where = target or " and ".join(f"{name} {to}" for name, to in (("rx", rx), ("tx", tx)) if to)
    run_command(
        base_url,
        as_json,
        lambda control: control.fork_start(
            call_control_id, target=target, rx=rx, tx=tx, stream_type=stream_type,
            client_state=state_bytes(client_state), command_id=command_id, allow_private=allow_private,
        ),
        f"forking {call_control_id} to {where}",
    )  # fmt: skip


@fork.command()
@click.argument("call_control_id")
@_stream_type
@command_options
def stop(
    call_control_id: str,
    stream_type: Any,
    client_state: str | None,
    command_id: str | None,
    base_url: str | None,
    as_json: bool,
) -> None:
    """Stop forking the call's media. Fine too when the call has ended."""
    run_command(
        base_url,
        as_json,
        lambda control: control.fork_stop(
            call_control_id, stream_type=stream_type, client_state=state_bytes(client_state), command_id=command_id
        ),
        f"no longer forking {call_control_id}",
    )


def state_bytes(text: str | None) -> bytes | None:
    """What --client-state is for the API."""
    return None if text is None else text.encode()


def run_command(
    base_url: str | None, as_json: bool, command: Callable[[SyncCallControl], CommandResult], done: str
) -> None:
    """Send it, and say what became of it; ``done`` is for people."""
    from ..control import APIError, SyncCallControl

    try:
        with SyncCallControl(base_url=base_url) as control:
            result = command(control)
    except APIError as error:
        if as_json:
            click.echo(json.dumps(_error_fields(error)))
        click.echo(f"strep: {error}", err=True)
        sys.exit(EXIT_API)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    text = "the call has already ended: nothing to stop" if result.already_ended else done
    console().print(text, soft_wrap=True)


def _error_fields(error: APIError) -> dict[str, Any]:
    from ..control import APIStatusError

    fields: dict[str, Any] = {
        "error": type(error).__name__, "message": error.message, "command_id": error.command_id,
        "attempts": error.attempts,
    }  # fmt: skip
    if isinstance(error, APIStatusError):
        fields |= {
            "status_code": error.status_code, "request_id": error.request_id,
            "errors": [asdict(detail) for detail in error.errors],
        }  # fmt: skip
    return fields
