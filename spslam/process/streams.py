"""Standard output and error that no work ends of: full, closed, read by nobody any more, or of few characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

_STANDARD = (0, 1, 2)
# What our lines have beside ASCII.
_ALIKE = {
    "·": "-",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "°": " deg",
    "²": "2",
    "³": "3",
    "…": "...",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "±": "+-",
    "σ": "sigma",
    "µ": "u",
    "μ": "u",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "\xa0": " ",
    "●": "*",
    "✓": "+",
}
# Braille, of which Rich makes things that turn.
_TURNING = range(0x2800, 0x2900)
_ERRORS = "spslam.alike"


def _alike(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    found = "".join(
        "*" if ord(sign) in _TURNING else _ALIKE.get(sign) or _escaped(sign) for sign in text
    )
    return found, error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _alike)


def writable(text: str, encoding: str) -> str:
    """Text that an encoding has all of: other signs become ones that look alike in ASCII, or `\\u2603`."""
    if text.isascii():
        return text
    return text.encode(encoding, _ERRORS).decode(encoding)


class TolerantStream(io.TextIOBase):
    """A text stream that takes everything; what cannot be written, and all after it, is dropped.

    It has no `buffer`: whoever looks for one would write past it.

    Args:
        stream: where it writes; None: nowhere.

    Attributes:
        failure: why something was dropped; None: nothing was. That nobody reads it any more is no failure.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return _ERRORS

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"expected str, found {type(text).__name__}")
        if self._stream is not None:
            try:
                self._stream.write(writable(text, self.encoding))
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        # Windows says of a pipe that is closed that the argument is invalid.
        closed = isinstance(error, BrokenPipeError) or (
            os.name == "nt" and getattr(error, "errno", 0) == errno.EINVAL
        )
        if not closed:
            self.failure = error
        # What the stream holds back it would try to write again when the interpreter ends, and complain.
        with suppress(OSError, ValueError):
            number = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        self._stream = None


@contextmanager
def tolerant_streams() -> Iterator[tuple[TolerantStream, TolerantStream]]:
    """Standard output and error are tolerant inside.

    What was closed when the process began is opened, to nowhere: the next file would get its number, and with it what C
    libraries print.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            # The lowest that is free is taken, which this one is.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    streams = TolerantStream(sys.stdout), TolerantStream(sys.stderr)
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", streams)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
