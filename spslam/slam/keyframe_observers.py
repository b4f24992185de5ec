"""Who is told when keyframes go or change their size: what is kept relative to them must follow."""

from __future__ import annotations

from typing import Protocol

from spslam.map.map import Map
from spslam.slam.loop_closing import Rescaling
from spslam.slam.mapping import RemovedKeyframe


class KeyframeObserver(Protocol):
    """Keeps poses or lengths relative to keyframes."""

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """A keyframe was culled; another one stands in for it."""
        ...

    def keyframes_rescaled(self, rescaling: Rescaling) -> None:
        """A correction of the map changed the size around keyframes."""
        ...


class KeyframeObservers:
    """Passes what happens to keyframes on to all that follow them."""

    def __init__(self, *observers: KeyframeObserver) -> None:
        self._observers = observers

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframe_removed(slam_map, removed)

    def keyframes_rescaled(self, rescaling: Rescaling) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframes_rescaled(rescaling)
