"""strep speak, strep play, strep hush: what the party of a call hears."""

from __future__ import annotations

from typing import Any

import click

from .call_command import CallCommand, call_command

__all__ = ["hush", "play", "speak"]

_stop = click.option(
    "--stop", type=click.Choice(["current", "all"]),
    help="End what is heard now; all: and what waits. Default: wait for it.",
)  # fmt: skip


@click.command()
@click.argument("call_control_id")
@click.argument("text")
@click.option("--voice", default="female", show_default=True, metavar="VOICE", help="male, female, or a provider's.")
@click.option("--language", metavar="LANG", help="Like en-GB. Default: en-US.")
@click.option("--ssml", is_flag=True, help="TEXT is SSML.")
@_stop
@call_command
def speak(
    call_control_id: str,
    text: str,
    voice: str,
    language: str | None,
    ssml: bool,
    stop: Any,
    sent: CallCommand,
) -> None:
    """Say TEXT to the party of a call. The API key is taken from TELNYX_API_KEY."""
    sent.send(
        lambda control: control.speak(
            call_control_id, text, voice=voice, language=language, payload_type="ssml" if ssml else None, stop=stop,
            **sent.fields,
        ),
        f"speaking to {call_control_id}",
    )  # fmt: skip


@click.command()
@click.argument("call_control_id")
@click.argument("url")
@click.option("--loop", metavar="N", help="1 to 100 times, or infinity. Default: once.")
@click.option("--overlay", is_flag=True, help="Mixed with what is played already.")
@click.option("--legs", type=click.Choice(["self", "opposite", "both"]), help="Default: self.")
@_stop
@call_command
def play(
    call_control_id: str,
    url: str,
    loop: str | None,
    overlay: bool,
    legs: Any,
    stop: Any,
    sent: CallCommand,
) -> None:
    """Play the WAV or MP3 file at URL to the party of a call. The API key is taken from TELNYX_API_KEY."""
    loops: Any = int(loop) if loop and loop.isascii() and loop.isdigit() and len(loop) < 4 else loop
    sent.send(
        lambda control: control.playback_start(
            call_control_id, audio_url=url, loop=loops, overlay=overlay or None, target_legs=legs, stop=stop,
            **sent.fields,
        ),
        f"playing {url} to {call_control_id}",
    )  # fmt: skip


@click.command()
@click.argument("call_control_id")
@click.option("--stop", type=click.Choice(["current", "all"]), help="current: go on with what waits. Default: all.")
@call_command
def hush(call_control_id: str, stop: Any, sent: CallCommand) -> None:
    """End what is spoken or played to the party of a call. The API key is taken from TELNYX_API_KEY."""
    sent.send(
        lambda control: control.playback_stop(call_control_id, stop=stop, **sent.fields),
        f"nothing is spoken or played to {call_control_id} any more",
    )
