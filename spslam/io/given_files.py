"""Reading of users' files: only regular files and pipes, in bounded time and memory."""

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

from spslam.notices import counted

# Largest content of a pipe, bytes: a pipe may have no end.
_MOST_FROM_PIPES = 64_000_000
# Longest wait for the next bytes of a pipe, seconds.
_LONGEST_SILENCE_S = 5.0
# Longest wait for a writer of a pipe, seconds.
_WRITER_WITHIN_S = 1.0
# Bytes of one read.
_CHUNK = 1 << 20
# Everything that `numpy.load` raises on invalid files. MemoryError: a header claims a huge array.
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
    """Read the bytes of a file or of a pipe (`<(zcat poses.gz)`).

    Args:
        path: The file.
        most_bytes: Largest size; None: unlimited for files, 64 MB for pipes.

    Raises:
        OSError: The file cannot be read, is a device or a pipe without a writer or an end, or is
            larger than `most_bytes`; `strerror` is the reason in words.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
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
    """Read a descriptor to its end; for a pipe, wait at most `patience_s` for the next bytes."""
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
            # The writer may be about to open the pipe.
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
    return f"{count / 1e6:.0f} MB" if count >= 1_000_000 else counted(count, "byte")
