"""Files that people give: read whole, but only what is a file, in bounded time and memory."""

from __future__ import annotations

import errno
import os
import select
import stat
import struct
import time
import tokenize
import zipfile
import zlib
from pathlib import Path

# What a pipe may give, bytes, and how long it may give nothing, seconds: nobody knows when one ends.
_MOST_FROM_PIPES = 64_000_000
_LONGEST_SILENCE_S = 5.0
# How long a pipe waits for somebody who writes to it, seconds.
_WRITER_WITHIN_S = 1.0
_CHUNK = 1 << 20
# All that `numpy.load` raises on what is none of its files; no memory, where a header claims more than there can be.
NO_ARRAYS = (
    *(
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        RuntimeError,
    ),
    *(SyntaxError, tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile),
)


def read_given(path: Path | str, most_bytes: int | None = None) -> bytes:
    """The bytes of a file, or of a pipe that somebody writes to (`<(zcat poses.gz)`).

    Args:
        path: of the file.
        most_bytes: that are read; None: as many as a file has.

    Raises:
        OSError: it cannot be read, is no file (a device, a pipe without a writer or end), or has more than
            `most_bytes`; `strerror` says so in words.
    """
    try:
        # Opening a pipe that nobody writes to would wait for somebody.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            if most_bytes is not None and status.st_size > most_bytes:
                raise _refusal(
                    path, f"it has {_size(status.st_size)}, expected at most {_size(most_bytes)}"
                )
            return _read_all(path, descriptor, most_bytes, None)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)):
            raise _refusal(path, "it is a device, no file")
        return _read_all(
            path,
            descriptor,
            min(most_bytes or _MOST_FROM_PIPES, _MOST_FROM_PIPES),
            _LONGEST_SILENCE_S,
        )
    finally:
        os.close(descriptor)


def _read_all(
    path: Path | str, descriptor: int, most_bytes: int | None, patience_s: float | None
) -> bytes:
    """Everything that a descriptor gives; of a pipe (`patience_s`), as soon as it gives it."""
    parts, count, begin = list[bytes](), 0, time.monotonic()
    while True:
        try:
            part = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            _wait(path, descriptor, patience_s)
            continue
        if (
            not part
            and patience_s is not None
            and count == 0
            and time.monotonic() < begin + _WRITER_WITHIN_S
        ):
            # Its writer may be about to open it.
            time.sleep(0.02)
            continue
        if not part:
            break
        parts.append(part)
        count += len(part)
        if most_bytes is not None and count > most_bytes:
            raise _refusal(path, f"it gives more than {_size(most_bytes)}")
    if patience_s is not None and count == 0:
        raise _refusal(path, "it is a pipe that nobody writes to")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _wait(path: Path | str, descriptor: int, patience_s: float | None) -> None:
    if not select.select([descriptor], [], [], patience_s)[0]:
        raise _refusal(path, f"it is a pipe that gave nothing for {patience_s:g} s")


def _refusal(path: Path | str, reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, str(path))


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1_000_000 else f"{count} bytes"
