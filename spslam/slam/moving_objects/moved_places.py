"""Where in the image points moved by themselves during the last frames."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.spatial import cKDTree

from spslam.camera import Camera
from spslam.typing import BoolArray, FloatArray

# Number of frames for which a place is remembered.
_MEMORY_FRAMES = 20
# Largest distance from a point that moved, as a fraction of the longer side of the image.
_NEIGHBOURHOOD = 1 / 16


class MovedPlaces:
    """The pixels of the points that moved in each of the last frames."""

    def __init__(self) -> None:
        # Index of the frame and pixels (K, 2).
        self._places: deque[tuple[int, FloatArray]] = deque()

    def add(self, index: int, pixels: FloatArray) -> None:
        """Remember the pixels (K, 2) of the points that moved in a frame (index)."""
        self._places.append((index, pixels))
        while index - self._places[0][0] > _MEMORY_FRAMES:
            self._places.popleft()

    def any_lately(self, index: int) -> bool:
        """Whether points moved in this frame (index) or in one of the last frames."""
        return bool(self._lately(index))

    def are_near(self, pixels: FloatArray, index: int, camera: Camera) -> BoolArray:
        """(N,) which pixels (N, 2) of a frame (index) are near a point that moved lately."""
        places = self._lately(index)
        if not places:
            return np.zeros(len(pixels), dtype=bool)
        reach = _NEIGHBOURHOOD * max(camera.width, camera.height)
        nearest, _ = cKDTree(np.concatenate(places)).query(pixels, distance_upper_bound=reach)
        return np.asarray(np.isfinite(nearest))

    def _lately(self, index: int) -> list[FloatArray]:
        return [pixels for frame, pixels in self._places if index - frame <= _MEMORY_FRAMES]
