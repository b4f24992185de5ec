"""Viewers of a run in progress. They only read it, and their failures do not end it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spslam.frame import Frame
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

_log = logging.getLogger(__name__)


class Viewer(Protocol):
    """Shows or records a run; it never changes the run."""

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Show the state of `slam` after a frame."""
        ...

    def close(self) -> None:
        """Close the viewer."""
        ...


class Viewers:
    """Any number of viewers of a run. A viewer that fails is closed, and the log says so once."""

    def __init__(self, *viewers: Viewer) -> None:
        self._viewers = list(viewers)

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Update each viewer."""
        for viewer in list(self._viewers):
            if not _survives(viewer, partial(viewer.update, slam, frame, result)):
                self._viewers.remove(viewer)
                with suppress(Exception):
                    viewer.close()

    def close(self) -> None:
        """Close each viewer."""
        for viewer in self._viewers:
            _survives(viewer, viewer.close)
        self._viewers.clear()


def _survives(viewer: Viewer, call: Callable[[], None]) -> bool:
    try:
        call()
    except Exception:
        _log.exception("%s failed and is closed; the run continues", type(viewer).__name__)
        return False
    return True
