"""Opens capture files: regular ones as memory maps; compressed ones and pipes by way of a file without a name."""

from __future__ import annotations

import mmap
import shutil
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from os import PathLike, fstat
from typing import IO, Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..._model.exceptions import CaptureFileError, MissingExtraError
from ..._model.extras import install

__all__ = ["opened"]

_CHUNK_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = 1 << 15
_SPARE_BYTES: Final = 256 << 20  # of the disk for temporary files, that unpacking leaves to others
_MAGICS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_UNREADABLE: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}
_MOST_MAGIC: Final = 8
_LONGEST_ZSTD_WINDOW: Final = 1 << 31  # what zstd --long=31 makes


class _Source:
    """The first bytes, which were read to know what the file is, then the rest."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._file.read(_CHUNK_BYTES if size < 0 else size)


def opened(path: str | PathLike[str], skipped: Counter[str]) -> npt.NDArray[np.uint8]:
    """The bytes of a capture file, unpacked, uint8 (n,). ``-`` is standard input. Compressed files that are cut or
    damaged are read to there, and that is counted in ``skipped``.

    Raises OSError; CaptureFileError for what cannot be unpacked; MissingExtraError.
    """
    standard = str(path) == "-"
    with open(0 if standard else path, "rb", closefd=not standard) as file:
        regular = stat.S_ISREG(fstat(file.fileno()).st_mode)
        begin = file.tell() if regular else 0
        head = file.read(_MOST_MAGIC)
        for magic, name in _UNREADABLE.items():
            if head.startswith(magic):
                raise CaptureFileError(f"it is packed with {name}: unpack it first (not so for gzip, zstd, lz4)")
        packed = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)
        if regular and packed is None and not begin:
            return _mapped(file)
        source = _Source(head, file)
        with tempfile.TemporaryFile(prefix="strep-") as unpacked:
            for part in _plain(source) if packed is None else _unpacked(source, packed, skipped):
                if shutil.disk_usage(tempfile.gettempdir()).free < len(part) + _SPARE_BYTES:
                    raise CaptureFileError(
                        f"there is no room to unpack it in {tempfile.gettempdir()} (TMPDIR names another directory)"
                    )
                unpacked.write(part)
            unpacked.flush()
            return _mapped(unpacked)


def _mapped(file: Any) -> npt.NDArray[np.uint8]:
    """The map is closed with the last array over it."""
    size = fstat(file.fileno()).st_size
    if not size:
        return np.zeros(0, np.uint8)
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _plain(source: _Source) -> Iterator[bytes]:
    while part := source.read():
        yield part


def _unpacked(source: _Source, packed: str, skipped: Counter[str]) -> Iterator[bytes]:
    unpack, damages = {"gzip": _gzip, "zstd": _zstd, "lz4": _lz4}[packed]()
    try:
        if not (yield from unpack(source)):
            skipped["truncated_compression"] += 1
    except damages:
        skipped["damaged_compression"] += 1


_Unpacker = tuple[Callable[[_Source], Generator[bytes, None, bool]], tuple[type[Exception], ...]]


def _gzip() -> _Unpacker:
    """RFC 1952: members, one behind the other. Zeros may stand behind the last one, as on tapes."""

    def unpack(source: _Source) -> Generator[bytes, None, bool]:
        data = source.read()
        while data.strip(b"\0"):
            member = zlib.decompressobj(wbits=31)
            while not member.eof:
                yield member.decompress(data, _CHUNK_BYTES)
                data = member.unconsumed_tail
                if not data and not member.eof and not (data := source.read()):
                    return False
            data = member.unused_data or source.read()
        return True

    return unpack, (zlib.error,)


def _zstd() -> _Unpacker:
    """RFC 8878."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError(_needs("zstd")) from error

    def unpack(source: _Source) -> Generator[bytes, None, bool]:
        unpacker = zstandard.ZstdDecompressor(max_window_size=_LONGEST_ZSTD_WINDOW)
        reader = unpacker.stream_reader(cast(IO[bytes], source), read_across_frames=True)
        while part := reader.read(_SMALL_BYTES):  # what was read when damage comes is lost
            yield part
        return True  # it does not tell whether the last frame was whole

    return unpack, (zstandard.ZstdError,)


def _lz4() -> _Unpacker:
    """The frame format, as lz4 and Wireshark write it."""
    try:
        import lz4.frame  # it has no types
    except ImportError as error:
        raise MissingExtraError(_needs("lz4")) from error

    def unpack(source: _Source) -> Generator[bytes, None, bool]:
        data = source.read()
        while data:
            frame = lz4.frame.LZ4FrameDecompressor()
            while not frame.eof:
                yield frame.decompress(data, _CHUNK_BYTES)
                data = b""
                if frame.needs_input and not frame.eof and not (data := source.read()):
                    return False
            data = frame.unused_data or source.read()
        return True

    return unpack, (RuntimeError, EOFError)


def _needs(name: str) -> str:
    return f"it is packed with {name}: {install('captures')}, or unpack it first"
