"""Stream compressed files, keeping the content before the point where one is truncated.

The standard library's readers raise at a truncation and lose the buffer before it, and that of
`zstandard` mistakes it for the end; so this module drives the decompressors block by block.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from dataset_builders.errors import DataError

COMPRESSIONS = (".gz", ".zst", ".xz")
"""Suffixes of compressed files that can be read."""

_BUFFER = 2**20  # bytes per output block
_INPUT = 2**16  # compressed bytes per read
# zstandard has no output limit: up to 128 KiB for every 4 bytes of input, so 16 MiB.
_INPUT_ZSTD = 2**9

OnDamage = Callable[[str], None]
"""Receives one line about a compressed stream that is cut short or damaged."""


def open_binary(file: Path, on_damage: OnDamage) -> BinaryIO:
    """Open a file for reading, decompressed if its suffix says so.

    Args:
        file: The file.
        on_damage: Called once if the compressed stream is truncated or damaged; what came before is
            read as if the file ended there.

    Raises:
        DataError: The file is not in the compression format that its suffix names; raised on read.
    """
    if file.suffix not in COMPRESSIONS:
        return file.open("rb")
    raw = _Decompressing(file, on_damage)
    return io.BufferedReader(raw, _BUFFER)


class _Decompressing(io.RawIOBase):
    """Decompressed content of a file of one or more frames."""

    def __init__(self, file: Path, on_damage: OnDamage) -> None:
        self._file = file
        self._handle = file.open("rb")
        self._on_damage = on_damage
        self._new = _decompressor(file.suffix)
        self._errors = _errors(file.suffix)
        self._current: Any = self._new()
        self._input = b""
        self._output = memoryview(b"")
        self._fed = False  # whether the current frame has begun
        self._total = 0  # bytes of output so far
        self._ended = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._handle.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._output and not self._ended:
            try:
                self._output = memoryview(self._step())
            except self._errors as error:
                self._broken(f"damaged ({error})")
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        self._total += count
        return count

    def _step(self) -> bytes:
        if self._current.eof:
            # Frames may follow each other, as `cat` joins them; zeros may pad the end.
            self._input = self._current.unused_data.lstrip(b"\0")
            self._current, self._fed = self._new(), False
        if not self._input and not self._take_more():
            return b""
        self._fed = True
        data, self._input = self._input, b""
        output: bytes = self._current.decompress(data, _BUFFER)
        self._input = getattr(self._current, "unconsumed_tail", b"")
        return output

    def _take_more(self) -> bool:
        if not getattr(self._current, "needs_input", True):
            return True  # output of the given input is pending
        self._input = self._handle.read(_INPUT_ZSTD if self._file.suffix == ".zst" else _INPUT)
        if not self._fed:
            self._input = self._input.lstrip(b"\0") if self._total else self._input
        if not self._input:
            if self._fed or not self._total:
                self._broken("cut short")
            self._ended = True
        return bool(self._input)

    def _broken(self, how: str) -> None:
        self._ended = True
        if not self._total and how != "cut short":
            raise DataError(f"{self._file}: not readable as {self._file.suffix}: {how}")
        self._on_damage(f"compressed stream {how} after {self._total:,} bytes of content")


def _decompressor(suffix: str) -> Callable[[], Any]:
    if suffix == ".gz":
        return lambda: zlib.decompressobj(wbits=31)  # 31: with the header of gzip
    if suffix == ".xz":
        return lzma.LZMADecompressor
    import zstandard

    return lambda: _Zstd(zstandard.ZstdDecompressor().decompressobj())


class _Zstd:
    """zstandard's decompressor with the signature of the standard library's."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)

    def decompress(self, data: bytes, _: int) -> bytes:
        return bytes(self._inner.decompress(data))


def _errors(suffix: str) -> tuple[type[Exception], ...]:
    if suffix == ".gz":
        return (zlib.error,)
    if suffix == ".xz":
        return (lzma.LZMAError,)
    import zstandard

    return (zstandard.ZstdError,)
