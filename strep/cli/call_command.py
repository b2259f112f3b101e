"""A command to a call: what all of them take, sent, and what became of it told."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from .exit_codes import EXIT_API
from .options import decorated
from .running import console

if TYPE_CHECKING:
    from ..control import APIError, CommandResult, SyncCallControl

__all__ = ["CallCommand", "call_command"]


@dataclass(frozen=True)
class CallCommand:
    """The options that each command to a call has."""

    client_state: str | None
    command_id: str | None
    base_url: str | None
    as_json: bool

    @property
    def fields(self) -> dict[str, Any]:
        """Of them, what the API gets."""
        state = None if self.client_state is None else self.client_state.encode()
        return {"client_state": state, "command_id": self.command_id}

    def send(self, command: Callable[[SyncCallControl], CommandResult], done: str) -> None:
        """Send it, and say what became of it; ``done`` is for people."""
        from ..control import APIError, SyncCallControl

        try:
            with SyncCallControl(base_url=self.base_url) as control:
                result = command(control)
        except APIError as error:
            if self.as_json:
                click.echo(json.dumps(_error_fields(error)))
            click.echo(f"strep: {error}", err=True)
            sys.exit(EXIT_API)
        if self.as_json:
            click.echo(json.dumps(asdict(result)))
        text = "the call has already ended: nothing to stop" if result.already_ended else done
        console().print(text, soft_wrap=True)


def call_command(function: Callable[..., None]) -> Callable[..., None]:
    """These options for a command; its function gets them as one argument, ``sent``."""

    @_options
    @functools.wraps(function)
    def command(
        client_state: str | None, command_id: str | None, base_url: str | None, as_json: bool, **options: Any
    ) -> None:
        function(sent=CallCommand(client_state, command_id, base_url, as_json), **options)

    return command


@decorated
def _options() -> list[Any]:
    """Of each command to a call."""
    return [
        click.option("--client-state", metavar="TEXT", help="Comes back in every later webhook; sent as base64."),
        click.option("--command-id", metavar="UUID",
                     help="A repetition with the same one within 60 s has no effect."),
        click.option("--base-url", metavar="URL", help="Default: TELNYX_BASE_URL, else the real API."),
        click.option("--json", "as_json", is_flag=True, help="The outcome as JSON on stdout, of errors too."),
    ]  # fmt: skip


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
