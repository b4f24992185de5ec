"""Observers of removed and rescaled keyframes: data kept relative to them must follow."""

from __future__ import annotations

from typing import Protocol

from spslam.map.map import Map
from spslam.slam.loops.loop_closing import ScaleCorrection
from spslam.slam.mapping import RemovedKeyframe


class KeyframeObserver(Protocol):
    """Keeps poses or lengths relative to keyframes."""

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """Handle a culled keyframe; its parent keyframe replaces it."""
        ...

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """Handle a correction of the map that changed the scale around keyframes."""
        ...


class KeyframeObservers:
    """Forwards events of keyframes to all observers."""

    def __init__(self, *observers: KeyframeObserver) -> None:
        self._observers = observers

    def keyframe_removed(self, slam_map: Map, removed: RemovedKeyframe) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframe_removed(slam_map, removed)

    def keyframes_rescaled(self, scale_correction: ScaleCorrection) -> None:
        """See `KeyframeObserver`."""
        for observer in self._observers:
            observer.keyframes_rescaled(scale_correction)
