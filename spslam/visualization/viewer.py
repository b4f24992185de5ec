"""Those who look at a run while it goes on. They only read it, and nothing that happens to them ends it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from spslam.frame import Frame
    from spslam.slam.system import Slam
    from spslam.slam.tracking import TrackResult

_log = logging.getLogger(__name__)


class Viewer(Protocol):
    """Something that looks at a run; it never changes it."""

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None: ...
    def close(self) -> None: ...


class Viewers:
    """Any number of viewers of the same run. One that fails is closed and not asked again; the log says so, once."""

    def __init__(self, *viewers: Viewer) -> None:
        self._viewers = list(viewers)

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Let each of them look."""
        for viewer in list(self._viewers):
            if not _survives(viewer, partial(viewer.update, slam, frame, result)):
                self._viewers.remove(viewer)
                with suppress(Exception):
                    viewer.close()

    def close(self) -> None:
        """Close each of them."""
        for viewer in self._viewers:
            _survives(viewer, viewer.close)
        self._viewers.clear()


def _survives(viewer: Viewer, call: Callable[[], None]) -> bool:
    try:
        call()
    except Exception:
        _log.exception("%s failed and is closed; the run goes on", type(viewer).__name__)
        return False
    return True
