"""The command line, called in this process."""

from __future__ import annotations

import pytest

from spslam.cli.app import main

# Pictures and the report take three times as long as a run of a few frames.
WITHOUT_PICTURES = ("--outputs", "trajectory,map,ground-truth,frames,points")


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
