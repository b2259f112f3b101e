"""strep fork: start and stop a fork of a call's media."""

from __future__ import annotations

from typing import Any

import click

from .call_command import CallCommand, call_command

__all__ = ["fork"]


_stream_type = click.option(
    "--stream-type", type=click.Choice(["raw", "decrypted"]), help="decrypted: without SRTP (rx and tx)."
)


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
@call_command
def start(
    call_control_id: str,
    target: str | None,
    rx: str | None,
    tx: str | None,
    allow_private: bool,
    stream_type: Any,
    sent: CallCommand,
) -> None:
    """Fork the call's media to --target, or to --rx and --tx."""
    where = target or " and ".join(f"{name} {to}" for name, to in (("rx", rx), ("tx", tx)) if to)
    sent.send(
        lambda control: control.fork_start(
            call_control_id, target=target, rx=rx, tx=tx, stream_type=stream_type,
            **sent.fields, allow_private=allow_private,
        ),
        f"forking {call_control_id} to {where}",
    )  # fmt: skip


@fork.command()
@click.argument("call_control_id")
@_stream_type
@call_command
def stop(call_control_id: str, stream_type: Any, sent: CallCommand) -> None:
    """Stop forking the call's media. Fine too when the call has ended."""
    sent.send(
        lambda control: control.fork_stop(call_control_id, stream_type=stream_type, **sent.fields),
        f"no longer forking {call_control_id}",
    )
