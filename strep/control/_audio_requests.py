"""Builds the requests that make a call hear something: ``speak``, ``playback_start``, ``playback_stop``. Pure.

Each function is a method of the two clients, as those of ``_requests`` are. Newer descriptions of the API have more
than the contract these are compared with: voices of providers, ``playback_content``, ``audio_type``, ``cache_audio``,
and ``overlay`` of ``playback_stop``; they are sent when they are given.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from .._model.exceptions import ConfigurationError
from ._answers import CommandResult
from ._requests import Request, Site, command

__all__ = ["LANGUAGES", "LONGEST_SPEECH", "playback_start", "playback_stop", "speak"]

Stop = Literal["current", "all"]
Legs = Literal["self", "opposite", "both"]

LONGEST_SPEECH: Final = 5000  # characters of a payload
LANGUAGES: Final = frozenset((
    "arb", "cmn-CN", "cy-GB", "da-DK", "de-DE", "en-AU", "en-GB", "en-GB-WLS", "en-IN", "en-US", "es-ES", "es-MX",
    "es-US", "fr-CA", "fr-FR", "hi-IN", "is-IS", "it-IT", "ja-JP", "ko-KR", "nb-NO", "nl-NL", "pl-PL", "pt-BR",
    "pt-PT", "ro-RO", "ru-RU", "sv-SE", "tr-TR",
))  # fmt: skip
"""What the voices "male" and "female" speak."""

_GENDERS: Final = ("male", "female")
_STOPS: Final = ("current", "all")
_LEGS: Final = ("self", "opposite", "both")
_MOST_LOOPS: Final = 100


def speak(
    site: Site,
    call_control_id: str,
    payload: str,
    *,
    voice: str = "female",
    language: str | None = None,
    payload_type: Literal["text", "ssml"] | None = None,
    service_level: Literal["basic", "premium"] | None = None,
    stop: Stop | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Request[CommandResult]:
    """Say something to the party of a call.

    payload: text, or SSML with ``payload_type="ssml"``; 5,000 characters at most. voice: "male" or "female", which
    speak one of 29 languages (default en-US); or, in the newer API, one of a provider's, like "AWS.Polly.Joanna".
    service_level: "basic" knows en-US and text only. stop: what is heard now goes on, and this waits in the queue
    (None); "current" ends the former, and the next of the queue is heard; "all" empties the queue too. client_state,
    command_id: as for ``fork_start``. extra: other fields of the API, sent as they are.

    The webhooks ``call.speak.started`` and ``call.speak.ended`` tell what becomes of it. Raises ConfigurationError,
    before anything is sent, for what cannot work, CallEndedError when the call is over, other APIErrors as they come.
    """
    if not isinstance(payload, str) or not payload.strip():
        raise ConfigurationError("payload: give the text to be spoken, or SSML; there is nothing in it")
    if len(payload) > LONGEST_SPEECH:
        raise ConfigurationError(
            f"payload: {len(payload)} characters, {LONGEST_SPEECH} at most; say it in several commands, which queue"
        )
    _choice("payload_type", payload_type, ("text", "ssml"))
    _choice("service_level", service_level, ("basic", "premium"))
    _choice("stop", stop, _STOPS)
    _check_voice(voice, language)
    if language is None and voice in _GENDERS:
        language = "en-US"
    if service_level == "basic":
        if language not in (None, "en-US"):
            raise ConfigurationError(f"service_level='basic' speaks en-US only, not {language}: choose 'premium'")
        if payload_type == "ssml":
            raise ConfigurationError("service_level='basic' takes text only, no SSML: choose 'premium'")
    body = {
        "payload": payload, "voice": voice, "language": language, "payload_type": payload_type,
        "service_level": service_level, "stop": stop,
    }  # fmt: skip
    return command("speak", call_control_id, _with(body, extra), client_state, command_id)


def playback_start(
    site: Site,
    call_control_id: str,
    *,
    audio_url: str | None = None,
    media_name: str | None = None,
    playback_content: bytes | str | None = None,
    loop: int | Literal["infinity"] | None = None,
    overlay: bool | None = None,
    stop: Stop | None = None,
    target_legs: Legs | None = None,
    audio_type: Literal["wav", "mp3"] | None = None,
    cache_audio: bool | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Request[CommandResult]:
    """Play a WAV or MP3 file to the party of a call.

    One of: audio_url (http or https, where the platform reaches it), media_name (of a file that was uploaded to the
    account), playback_content (in the newer API: the file itself, as bytes, or as text that is base64 already).
    loop: 1 to 100 times, or "infinity". overlay: mixed with what is played already, which must be something that was
    started without it; on the leg itself only. target_legs: "self", "opposite" or "both". stop: as for ``speak``.
    audio_type, cache_audio: of the newer API. client_state, command_id, extra: as for ``speak``.

    The webhooks ``call.playback.started`` and ``call.playback.ended`` tell what becomes of it. Raises as ``speak``
    does.
    """
    sources = {"audio_url": audio_url, "media_name": media_name, "playback_content": playback_content}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "nothing to play"
        raise ConfigurationError(f"{what}: give one of audio_url=, media_name= and playback_content=")
    if audio_url is not None:
        _check_url(audio_url)
    if media_name is not None and (not isinstance(media_name, str) or not media_name.strip()):
        raise ConfigurationError(f"media_name={media_name!r}: give the name of a file that was uploaded to the account")
    if loop is not None and loop != "infinity" and not (type(loop) is int and 1 <= loop <= _MOST_LOOPS):
        raise ConfigurationError(f"loop={loop!r}: from 1 to {_MOST_LOOPS} times, or 'infinity'")
    _choice("stop", stop, _STOPS)
    _choice("target_legs", target_legs, _LEGS)
    _choice("audio_type", audio_type, ("wav", "mp3"))
    for name, flag in (("overlay", overlay), ("cache_audio", cache_audio)):
        _check_flag(name, flag)
    if overlay and target_legs not in (None, "self"):
        raise ConfigurationError(f"overlay=True is heard on the leg itself only, not with target_legs={target_legs!r}")
    body = {
        "audio_url": audio_url, "media_name": media_name, "playback_content": _content(playback_content),
        "loop": loop, "overlay": overlay, "stop": stop, "target_legs": target_legs, "audio_type": audio_type,
        "cache_audio": cache_audio,
    }  # fmt: skip
    return command("playback_start", call_control_id, _with(body, extra), client_state, command_id)


def playback_stop(
    site: Site,
    call_control_id: str,
    *,
    stop: Stop | None = None,
    overlay: bool | None = None,
    client_state: bytes | str | None = None,
    command_id: str | uuid.UUID | None = None,
) -> Request[CommandResult]:
    """Stop what is spoken or played to the party of a call.

    stop: "all" empties the queue too (the API's default), "current" goes on with the next of the queue. overlay: in the
    newer API, whether what was started with it is meant. A call that has already ended is a success, and the result
    says so (``already_ended``).
    """
    _choice("stop", stop, _STOPS)
    _check_flag("overlay", overlay)
    body = {"stop": stop, "overlay": overlay}
    return command("playback_stop", call_control_id, body, client_state, command_id, ended=True)


def _check_voice(voice: str, language: str | None) -> None:
    if not isinstance(voice, str) or (voice not in _GENDERS and not all(voice.partition("."))):
        raise ConfigurationError(
            f"voice={voice!r}: there are 'male' and 'female', and those of providers, like 'AWS.Polly.Joanna'"
        )
    if language is None:
        return
    if voice in _GENDERS and language not in LANGUAGES:
        raise ConfigurationError(f"language={language!r}: the voice {voice!r} speaks {', '.join(sorted(LANGUAGES))}")
    if not isinstance(language, str) or not language.strip():
        raise ConfigurationError(f"language={language!r}: give one like 'en-US'")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        fine = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    except ValueError:
        fine = False
    if not fine or " " in url:
        raise ConfigurationError(f"audio_url={url!r}: give a URL like https://example.com/greeting.wav")


def _content(content: bytes | str | None) -> str | None:
    if content is None:
        return None
    if isinstance(content, bytes | bytearray | memoryview):
        if not len(content):
            raise ConfigurationError("playback_content: give a WAV or MP3 file; there is nothing in it")
        return base64.b64encode(content).decode()
    try:
        empty = not base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"playback_content is not base64 ({error}): give the file's bytes, which are encoded for you"
        ) from None
    if empty:
        raise ConfigurationError("playback_content: give a WAV or MP3 file; there is nothing in it")
    return content


def _choice(name: str, value: str | None, among: Collection[str]) -> None:
    if value is not None and value not in among:
        raise ConfigurationError(f"{name}={value!r}: there are {' and '.join(map(repr, among))}")


def _check_flag(name: str, value: bool | None) -> None:
    if not isinstance(value, bool | None):
        raise ConfigurationError(f"{name}={value!r}: True or False")


def _with(body: dict[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    own = {*body, "client_state", "command_id"}
    if twice := sorted(own & (extra or {}).keys()):
        raise ConfigurationError(f"extra has {', '.join(twice)}, which have arguments of their own")
    return {**body, **(extra or {})}
