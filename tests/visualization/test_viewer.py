"""Viewers of a run: several at once, and failures of one of them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spslam import visualization
from spslam.visualization.viewer import Viewers


class Counting:
    def __init__(self, fails_at: int = -1, fails_to_close: bool = False) -> None:
        self.seen, self.closed, self._fails_at, self._fails_to_close = (
            0,
            0,
            fails_at,
            fails_to_close,
        )

    def update(self, slam: Any, frame: Any, result: Any) -> None:
        self.seen += 1
        if self.seen == self._fails_at:
            raise RuntimeError("the driver is gone")

    def close(self) -> None:
        self.closed += 1
        if self._fails_to_close:
            raise RuntimeError("gone already")


def look(viewers: Viewers, times: int) -> None:
    for _ in range(times):
        viewers.update(None, None, None)  # type: ignore[arg-type]


def test_a_failing_viewer_is_closed_and_the_others_continue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, fine = Counting(fails_at=2, fails_to_close=True), Counting()
    viewers = Viewers(failing, fine)
    with caplog.at_level(logging.ERROR):
        look(viewers, 5)
    viewers.close()
    assert (failing.seen, failing.closed) == (2, 1)
    assert (fine.seen, fine.closed) == (5, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "Counting failed and is closed; the run continues"
    ]
    assert "the driver is gone" in caplog.text


def test_a_viewer_that_fails_to_close_does_not_keep_the_others_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, fine = Counting(fails_to_close=True), Counting()
    Viewers(failing, fine).close()
    assert fine.closed == 1
    assert "gone already" in caplog.text


def test_an_interrupt_is_not_a_failure_of_a_viewer() -> None:
    class Interrupted(Counting):
        def update(self, slam: Any, frame: Any, result: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look(Viewers(Interrupted()), 1)


class Untouched:
    """Record the attributes that are read from it."""

    def __init__(self) -> None:
        self.__dict__["requested"] = []

    def __getattr__(self, name: str) -> Any:
        self.requested.append(name)
        return 0


def test_without_viewers_nothing_is_computed() -> None:
    slam, frame, result = shown = [Untouched() for _ in range(3)]
    null = Viewers()
    null.update(slam, frame, result)  # type: ignore[arg-type]
    null.close()
    assert [each.requested for each in shown] == [[], [], []]


def test_importing_viewers_loads_no_graphics_library() -> None:
    folder = Path(visualization.__file__).parent
    modules = sorted(f"spslam.visualization.{path.stem}" for path in folder.glob("*.py"))
    windows = {"browser", "live_window", "open3d_window", "render", "rerun_viewer", "viewer"}
    assert {f"spslam.visualization.{name}" for name in windows} <= set(modules)
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    if loaded := {'open3d', 'rerun', 'torch'} & set(sys.modules): "
        "sys.exit(f'{name} loads {loaded}')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
