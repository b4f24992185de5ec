"""The command line, called in this process, also within limits of time and memory."""

from __future__ import annotations

import contextlib
import io
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from spslam.cli.app import main

# Pictures and the report take three times as long as a run of a few frames.
WITHOUT_PICTURES = ("--outputs", "trajectory,map,ground-truth,frames,points")
# Processor time, which does not depend on the load of the machine.
MOST_SECONDS = 10.0
# Limit as a multiple of the input size, and the base memory of a command (with its imports), bytes.
MOST_GROWTH, LEAST_MEMORY = 10, 24_000_000


def call(*arguments: str) -> int:
    """The exit code of the command line, called in this process."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The single error line of a wrong call."""
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


@contextlib.contextmanager
def bounded(size: int) -> Iterator[None]:
    """Bound time and memory for an input of `size` bytes; warnings of NumPy are errors."""
    begin = time.process_time()
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < MOST_SECONDS
    assert peak < max(MOST_GROWTH * size, LEAST_MEMORY), f"{peak} bytes for {size}"


@dataclass(frozen=True)
class Answer:
    """Exit code and output of the command line."""

    code: int
    out: str
    err: str


def answer(size: int, *arguments: str) -> Answer:
    """Call the command line in this process with files of `size` bytes.

    It must succeed or fail with one line.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with bounded(size), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    lines = [line for line in err.getvalue().split("\n") if line and not line.startswith("note: ")]
    assert len(lines) == (0 if code == 0 else 1), err.getvalue()
    assert code in (0, 2) and all(
        line.startswith("error: ") and len(line) < 3000 for line in lines
    ), err.getvalue()
    return Answer(code, out.getvalue(), err.getvalue())
