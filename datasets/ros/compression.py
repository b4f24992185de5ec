"""Decompress parts of bags up to a limit: a bag may be damaged or made to fill the memory."""

from __future__ import annotations

import bz2
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from spslam.errors import DatasetError

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Largest decompressed message or chunk, bytes.
LARGEST_BYTES = 1 << 30
# Largest decompressed file, as a multiple of the compressed one (raw images: 2 to 20).
_LARGEST_RATIO = 1000
_PIECE = 1 << 20


def decompress(data: bytes, method: str, what: str, most: int = LARGEST_BYTES) -> bytes:
    """Decompress a whole chunk or message.

    Args:
        data: compressed bytes.
        method: `bz2`, `lz4`, `zstd`, or `none` or empty for data that are not compressed.
        what: the data, for messages.
        most: largest number of decompressed bytes.

    Raises:
        DatasetError: the method is unknown, the data are damaged, or larger than `most`.
    """
    if method in ("none", ""):
        return data
    decompressor = _decompressor(method, what)
    try:
        raw: bytes = decompressor.decompress(data, most + 1)
    except Exception as error:  # each package has its own errors, and EOFError, MemoryError
        raise DatasetError(
            f"{what} is damaged: {method}: {error or type(error).__name__}"
        ) from None
    if len(raw) > most:
        raise DatasetError(f"{what} has more than {most} bytes, expected fewer: is it damaged?")
    return raw


def decompress_begin(data: bytes, size: int) -> bytes:
    """Decompress the first `size` bytes of zstd data; fewer where the data are cut short.

    Raises:
        DatasetError: the data are damaged.
    """
    try:
        return bytes(_decompressor("zstd", "a message").decompress(data, size))
    except Exception as error:
        raise DatasetError(f"a message is damaged: zstd: {error}") from None


def decompress_file(source: Path, target: Path) -> None:
    """Decompress a zstd file.

    Raises:
        DatasetError: the file is damaged, or `_LARGEST_RATIO` times as large as it should be.
        OSError: a file cannot be read or written.
    """
    most = _LARGEST_RATIO * max(source.stat().st_size, _PIECE)
    with source.open("rb") as packed, target.open("wb") as file:
        _decompress_stream(packed, file, most, source)


def _decompress_stream(packed: BinaryIO, file: BinaryIO, most: int, source: Path) -> None:
    written = 0
    with _zstd().ZstdFile(packed, "rb") as stream:
        while True:
            try:
                piece = stream.read(_PIECE)
            except Exception as error:
                raise DatasetError(
                    f"{source} is cut short or damaged: zstd: {error or type(error).__name__}"
                ) from None
            if not piece:
                return
            written += len(piece)
            if written > most:
                raise DatasetError(f"{source} unpacks to more than {most} bytes: is it damaged?")
            file.write(piece)


def _decompressor(method: str, what: str) -> Any:
    makers: dict[str, Callable[[], Any]] = {
        "bz2": bz2.BZ2Decompressor,
        "lz4": lambda: _lz4().LZ4FrameDecompressor(),
        "zstd": lambda: _zstd().ZstdDecompressor(),
    }
    if method not in makers:
        raise DatasetError(
            f"{what} is compressed by {method[:40]!r}, expected one of {', '.join(makers)}"
        )
    return makers[method]()


def _lz4() -> Any:
    # Without types: import it by name.
    return importlib.import_module("lz4.frame")


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd
