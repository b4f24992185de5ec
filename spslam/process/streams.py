"""Standard output and error that never fail: if full, closed, without a reader or ASCII only."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

# Descriptors of standard input, output and error.
_STANDARD = (0, 1, 2)
# ASCII replacements of the other characters in spslam's output.
_REPLACEMENTS = {
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
# Braille characters, which Rich uses for spinners.
_TURNING = range(0x2800, 0x2900)
# Name of the codec error handler.
_ERRORS = "spslam.replace"


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    found = "".join(
        "*" if ord(sign) in _TURNING else _REPLACEMENTS.get(sign) or _escaped(sign) for sign in text
    )
    return found, error.end


def _escaped(sign: str) -> str:
    return sign.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(_ERRORS, _replace)


def writable(text: str, encoding: str) -> str:
    r"""Replace characters that an encoding lacks by similar ASCII ones, or by `\u2603`."""
    if text.isascii():
        return text
    return text.encode(encoding, _ERRORS).decode(encoding)


class TolerantStream(io.TextIOBase):
    """A text stream that never fails: after an error, all text is dropped.

    It has no `buffer`, so that no code can bypass it.

    Args:
        stream: The stream it writes to; None: all text is dropped.

    Attributes:
        failure: Why text was dropped; None: no text was dropped, or the stream has no reader.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Name of the codec error handler."""
        return _ERRORS

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the descriptor of the stream.

        Raises:
            io.UnsupportedOperation: Text is dropped, so there is no descriptor.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Write text, or drop it after an error; return its length."""
        if not isinstance(text, str):
            raise TypeError(f"expected str, found {type(text).__name__}")
        if self._stream is not None:
            try:
                self._stream.write(writable(text, self.encoding))
            except (OSError, ValueError) as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; an error starts the dropping of text."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        # On Windows, a closed pipe raises EINVAL.
        closed = isinstance(error, BrokenPipeError) or (
            os.name == "nt" and getattr(error, "errno", 0) == errno.EINVAL
        )
        if not closed:
            self.failure = error
        # At exit, the interpreter would try to write the buffered text again and report the error.
        with suppress(OSError, ValueError):
            number = self.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        self._stream = None


@contextmanager
def tolerant_streams() -> Iterator[tuple[TolerantStream, TolerantStream]]:
    """Make standard output and error tolerant within the context.

    Standard descriptors that are closed are opened to the null device. Otherwise the next opened
    file would get the descriptor, and the output of C libraries.
    """
    for number in _STANDARD:
        try:
            os.fstat(number)
        except OSError:
            # This takes the lowest free descriptor, which is `number`.
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
