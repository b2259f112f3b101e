"""What ``speak``, ``playback_start`` and ``playback_stop`` ask for, checked as the contract says. Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from ._playlist import Content, Named, Remote, Source, Speech
from ._requests import Body, Command

__all__ = ["Play", "Stop", "parse_playback_start", "parse_playback_stop", "parse_speak"]

_STOPS: Final = ("current", "all")
_LEGS: Final = ("self", "opposite", "both")
_LONGEST_SPEECH: Final = 5000
_MOST_LOOPS: Final = 100
_LANGUAGES: Final = (
    "arb", "cmn-CN", "cy-GB", "da-DK", "de-DE", "en-AU", "en-GB", "en-GB-WLS", "en-IN", "en-US", "es-ES", "es-MX",
    "es-US", "fr-CA", "fr-FR", "hi-IN", "is-IS", "it-IT", "ja-JP", "ko-KR", "nb-NO", "nl-NL", "pl-PL", "pt-BR",
    "pt-PT", "ro-RO", "ru-RU", "sv-SE", "tr-TR",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Play:
    """Something to be heard. ``stop``: "current", "all" or None. ``loops``: None is for ever."""

    command: Command
    source: Source
    stop: str | None = None
    loops: int | None = 1
    overlay: bool = False
    legs: str = "self"


@dataclass(frozen=True, slots=True)
class Stop:
    """``what``: "current" or "all". ``overlay``: whether that of overlays is meant (newer descriptions of the API)."""

    command: Command
    what: str
    overlay: bool = False


def parse_speak(body: Any) -> Play:
    """Raises Refusal. A voice of a provider, as newer descriptions of the API have them, needs no language."""
    fields = Body(body)
    command = fields.command()
    text = fields.text("payload", required=True) or ""
    if len(text) > _LONGEST_SPEECH:
        fields.wrong("payload", f"payload must be at most {_LONGEST_SPEECH} characters long.")
    voice = fields.text("voice", required=True) or ""
    provided = all(voice.partition("."))
    if voice and voice not in ("male", "female") and not provided:
        fields.wrong("voice", "voice must be male or female.", "10032", "Invalid enumerated value")
    language = fields.text("language") if provided else fields.choice("language", _LANGUAGES, required=True)
    kind = fields.choice("payload_type", ("text", "ssml"))
    if fields.choice("service_level", ("basic", "premium")) == "basic":
        if language not in (None, "en-US"):
            fields.wrong("language", "Only en-US is allowed when service_level is basic.")
        if kind == "ssml":
            fields.wrong("payload_type", "Only text is allowed when service_level is basic.")
    stop, loops, legs = fields.choice("stop", _STOPS), _loops(fields), fields.choice("target_legs", _LEGS)
    fields.check()
    source = Speech(text, voice, language or "en-US", ssml=kind == "ssml")
    return Play(command, source, stop, loops, legs=legs or "self")


def parse_playback_start(body: Any) -> Play:
    """Raises Refusal. ``playback_content`` is of newer descriptions of the API."""
    fields = Body(body)
    command = fields.command()
    sources: dict[str, Source | None] = {
        "audio_url": _remote(fields), "media_name": _named(fields), "playback_content": _content(fields),
    }  # fmt: skip
    loops, overlay, stop = _loops(fields), fields.flag("overlay") or False, fields.choice("stop", _STOPS)
    legs = fields.choice("target_legs", _LEGS) or "self"
    fields.choice("audio_type", ("wav", "mp3"))
    given = [(name, source) for name, source in sources.items() if source is not None]
    if not fields.problems and not given:
        fields.wrong("audio_url", "Either audio_url or media_name is required.", "10004", "Missing required parameter")
    if len(given) > 1:
        fields.wrong(given[1][0], f"{given[0][0]} and {given[1][0]} cannot be used together.")
    if overlay and legs != "self":
        fields.wrong("target_legs", "target_legs is limited to self when overlay is enabled.")
    fields.check()
    source = given[0][1]
    return Play(command, source, stop, loops, overlay, legs)


def parse_playback_stop(body: Any) -> Stop:
    """Raises Refusal."""
    fields = Body(body)
    command = fields.command()
    what, overlay = fields.choice("stop", _STOPS) or "all", fields.flag("overlay") or False
    fields.check()
    return Stop(command, what, overlay)


def _loops(fields: Body) -> int | None:
    value = fields.raw("loop")
    if value == "infinity":
        return None
    if value is None:
        return 1
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4:
        value = int(value)  # the contract's type is string or integer
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_LOOPS:
        return value
    fields.wrong("loop", f"loop must be an integer from 1 to {_MOST_LOOPS}, or infinity.")
    return 1


def _remote(fields: Body) -> Remote | None:
    url = fields.text("audio_url")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        fine = False
    if not fine:
        fields.wrong("audio_url", "audio_url must be an http or https URL.", "10003", "Invalid URL")
        return None
    return Remote(url, kept=fields.flag("cache_audio") or False)


def _named(fields: Body) -> Named | None:
    name = fields.text("media_name")
    return None if name is None else Named(name)


def _content(fields: Body) -> Content | None:
    text = fields.text("playback_content")
    if text is None:
        return None
    try:
        return Content(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        fields.wrong("playback_content", "playback_content must be a valid Base-64 encoded string.")
        return None
