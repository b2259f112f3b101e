"""Errors in the words of who reads them: options where the user typed options.

Whoever raises an error below the command line speaks to those who write Python, and names arguments. :func:`in_options`
is the one place where these become options.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Final

from .._receiver.settings import Settings
from .options import flag_of

__all__ = ["in_options"]

_OTHERS: Final = {
    "advertise": "--advertise",
    "mode": "--mode",
    "stream_type": "--stream-type",
    "client_state": "--client-state",
    "command_id": "--command-id",
    "base_url": "--base-url",
    "allow_private": "--allow-private",
    "target": "--target",
    "layout": "--layout",
    "sessions": "--session",
    "encoding": "--encoding",
    "conceal": "--conceal",
    "mute_keys": "--mute-keys",
    "shortest_s": "--shortest",
    "vad": "--vad",
    "stop_s": "--stop-timeout",
    "workers": "--workers",
    "call_control_id": "CALL_CONTROL_ID",
    "to": "--to",
    "rx_to": "--rx-to",
    "tx_to": "--tx-to",
    "audio_url": "URL",
    "voice": "--voice",
    "language": "--language",
    "loop": "--loop",
    "overlay": "--overlay",
    "target_legs": "--legs",
    "stop": "--stop",
}
"""Arguments of others than :class:`Settings`, by name: the option that they are."""

_NO_OPTIONS: Final = ("pairs", "announced_only", "pending_s")  # fields of Settings that no command takes

_PHRASES: Final = (
    (', rx= and tx=, or pairs="udp:0.0.0.0:20000-20999"', ", or rx= and tx="),
    ("the API takes a key, as api_key=", "the API takes a key, as TELNYX_API_KEY"),
    ("give api_key= or set TELNYX_API_KEY", "set TELNYX_API_KEY"),
    ("or pass allow_private=True", "or give --allow-private"),
    ("allow_private=True", "--allow-private"),
)


def _options() -> dict[str, str]:
    return {one.name: flag_of(one) for one in fields(Settings) if one.name not in _NO_OPTIONS} | _OTHERS


_OPTIONS: Final = _options()
# name= with a value, name= alone, or a name with _ before a value
_ARGUMENT: Final = re.compile(
    rf"""(?<![-\w./?&])(?P<name>{"|".join(sorted(_OPTIONS, key=len, reverse=True))})
    (?:(?P<sign>=)(?P<value>"[^"]*"|'[^']*'|[^\s,;:)"']*)|(?P<bare>(?=\s[\d"'-])))""",
    re.VERBOSE,
)


def in_options(text: str) -> str:
    """``text`` with options for the arguments that it names: ``listen="udp:0.0.0.0:9000"`` becomes
    ``--listen udp:0.0.0.0:9000``, and ``max_streams 0`` ``--max-streams 0``. Words of a sentence stay."""
    for phrase, ours in _PHRASES:
        text = text.replace(phrase, ours)

    def option(found: re.Match[str]) -> str:
        name = found["name"]
        if found["sign"] is None:
            return _OPTIONS[name] if "_" in name else name
        value = found["value"].strip("\"'")
        return f"{_OPTIONS[name]} {value}" if value and value not in ("True", "None") else _OPTIONS[name]

    return _ARGUMENT.sub(option, text)
