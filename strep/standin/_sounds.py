"""Gets what is to be heard: speech of espeak-ng or a tone in its place, files of this machine and of others, as clips.

What it fetches, runs and decodes is bounded in time and size; what fails is no clip, and a line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urljoin

import httpx

from .._model.exceptions import ConfigurationError, StrepError
from .._model.types import Codec
from ._playlist import Clip, Content, Named, Remote, Source, Speech
from ._waves import I16, decode_file, to_clip, tone_of

__all__ = ["Sounds", "SpeechBy"]

log = logging.getLogger("strep.standin")

SpeechBy = Literal["auto", "espeak", "tone"]

_FETCH_S: Final = 10.0
_LARGEST_FILE_BYTES: Final = 16 << 20
_MOST_REDIRECTS: Final = 3
_SPEAK_S: Final = 20.0
_LARGEST_SPEECH_BYTES: Final = 64 << 20
_AT_ONCE: Final = 8
_KEPT: Final = 256  # clips
_ESPEAK: Final = "espeak-ng"
# of the contract's languages, those whose names espeak-ng does not have
_VOICES: Final = {
    "arb": "ar", "cmn-CN": "cmn", "en-AU": "en-gb", "en-GB-WLS": "en-gb", "en-IN": "en-gb", "es-ES": "es",
    "es-MX": "es-419", "es-US": "es-419", "fr-CA": "fr", "nb-NO": "nb", "pt-PT": "pt", "pt-BR": "pt-br",
    "en-US": "en-us", "en-GB": "en-gb",
}  # fmt: skip


class _UnplayableError(Exception):
    """It cannot be heard, and why."""


class Sounds:
    """``load`` gives the clip of a source. ``media``: files by the name that ``media_name`` asks for. ``speech``: by
    whom; "auto" is espeak-ng if it is installed. ``transport``: how to reach others, for tests.

    Raises ConfigurationError for "espeak" where it is not installed.
    """

    def __init__(
        self,
        codec: Codec,
        frames: int,
        *,
        media: Mapping[str, str | PathLike[str]] | None = None,
        speech: SpeechBy = "auto",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if speech not in ("auto", "espeak", "tone"):
            raise ConfigurationError(f"speech={speech!r}: there are 'auto', 'espeak' and 'tone'")
        self._espeak = None if speech == "tone" else shutil.which(_ESPEAK)
        if speech == "espeak" and self._espeak is None:
            raise ConfigurationError(f"speech='espeak': {_ESPEAK} is not installed (Debian's package has that name)")
        self._codec, self._frames = codec, frames
        self._media = dict(media or {})
        self._transport = transport
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[Source, Clip] = OrderedDict()
        self._under_way: dict[Source, asyncio.Future[Clip | None]] = {}

    async def load(self, source: Source) -> Clip | None:
        """Its clip; None for what cannot be heard. The same speech for many calls is one clip, made once."""
        if source in self._kept:
            self._kept.move_to_end(source)
            return self._kept[source]
        if not isinstance(source, Speech) and not (isinstance(source, Remote) and source.kept):
            return await self._load(source)
        if source in self._under_way:
            return await asyncio.shield(self._under_way[source])
        self._under_way[source] = task = asyncio.ensure_future(self._load(source))
        try:
            clip = await asyncio.shield(task)
        finally:
            task.cancel()
            self._under_way.pop(source, None)
        if clip is not None:
            self._kept[source] = clip
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return clip

    async def _load(self, source: Source) -> Clip | None:
        try:
            async with self._slots:
                samples = await self._samples(source)
            if not samples.size:
                raise _UnplayableError("there is no sound in it")
        except (_UnplayableError, StrepError) as error:
            log.warning("%r cannot be heard: %s", source, error)
            return None
        return to_clip(samples, self._codec, self._frames)

    async def _samples(self, source: Source) -> I16:
        match source:
            case Speech():
                return await self._speech(source)
            case Remote():
                return await self._decoded(await self._fetched(source.url))
            case Named():
                if source.name not in self._media:
                    raise _UnplayableError(f"no media of that name: there are {', '.join(self._media) or 'none'}")
                return await self._decoded(await asyncio.to_thread(_read, Path(self._media[source.name])))
            case Content():
                return await self._decoded(source.data)

    async def _decoded(self, data: bytes) -> I16:
        return await asyncio.to_thread(decode_file, data, self._codec.sample_rate)

    # --- speech -------------------------------------------------------------------------------------------------------

    async def _speech(self, speech: Speech) -> I16:
        if self._espeak is not None:
            with contextlib.suppress(StrepError):  # what it wrote is no sound
                return await self._decoded(await self._spoken(self._espeak, speech))
            log.warning("%s cannot speak %s with the voice %r: a tone is heard", _ESPEAK, speech.language, speech.voice)
        return tone_of(speech.text, self._codec.sample_rate)

    async def _spoken(self, program: str, speech: Speech) -> bytes:
        """A WAV file; nothing where the program fails."""
        language = _VOICES.get(speech.language, speech.language.split("-")[0])
        variant = "+m3" if speech.voice == "male" else "+f3"
        command = [
            program,
            "-v",
            language + variant,
            *(["-m"] if speech.ssml else []),
            "-b",
            "1",
            "--stdin",
            "--stdout",
        ]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 20,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_SPEAK_S):
                return await _piped(process, speech.text.encode("utf-8", "replace"))
        except (TimeoutError, OSError):
            return b""
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    # --- files --------------------------------------------------------------------------------------------------------

    async def _fetched(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(_FETCH_S):
                return await self._fetch(url)
        except TimeoutError:
            raise _UnplayableError(f"not there within {_FETCH_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _UnplayableError(f"{type(error).__name__}: {error}") from None

    async def _fetch(self, url: str) -> bytes:
        for _ in range(1 + _MOST_REDIRECTS):
            if not url.startswith(("http://", "https://")):
                raise _UnplayableError("neither http nor https")
            secure = not url.startswith("http://")  # reading certificates takes long: not where none are needed
            client = httpx.AsyncClient(timeout=_FETCH_S, verify=secure, trust_env=False, transport=self._transport)
            async with client, client.stream("GET", url, follow_redirects=False) as response:
                if response.has_redirect_location:
                    url = urljoin(url, response.headers["location"])
                    continue
                if not response.is_success:
                    raise _UnplayableError(f"the server says {response.status_code}")
                data = bytearray()
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > _LARGEST_FILE_BYTES:
                        raise _UnplayableError(f"more than {_LARGEST_FILE_BYTES >> 20} MiB")
                return bytes(data)
        raise _UnplayableError(f"more than {_MOST_REDIRECTS} redirections")


async def _piped(process: asyncio.subprocess.Process, text: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        return b""
    process.stdin.write(text)
    process.stdin.close()
    data = bytearray()
    while piece := await process.stdout.read(1 << 16):
        data += piece
        if len(data) > _LARGEST_SPEECH_BYTES:
            return b""
    return bytes(data) if await process.wait() == 0 else b""


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise _UnplayableError(str(error)) from None
    if len(data) > _LARGEST_FILE_BYTES:
        raise _UnplayableError(f"more than {_LARGEST_FILE_BYTES >> 20} MiB")
    return data
