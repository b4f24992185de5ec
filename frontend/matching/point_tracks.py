"""Point tracks from frame to frame, as in SuperPoint's first release (DeTone et al., 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.frame import Features, unit_descriptors

from .matching import DescriptorMatcher


class PointTracks:
    """Tracks points by mutual nearest neighbours of the descriptors of consecutive frames.

    A point that is missing in one frame begins a new track.

    Args:
        length: L, the number of latest frames whose positions are kept.
        max_descriptor_distance: largest L2 distance of matching unit descriptors.

    Attributes:
        positions: (N, L, 2) float32, pixels: the positions of the latest frame's N keypoints in
            the last L frames, the latest first; NaN before the track began.
        lengths: (N,) int64: number of consecutive frames in each track, at least 1.
    """

    def __init__(self, length: int, max_descriptor_distance: float) -> None:
        self.positions: NDArray[np.float32] = np.zeros((0, length, 2), dtype=np.float32)
        self.lengths = np.zeros(0, dtype=np.int64)
        self._max_descriptor_distance = max_descriptor_distance
        self._matcher = DescriptorMatcher()
        self._descriptors: NDArray[np.float32] = np.zeros((0, 0), dtype=np.float32)

    def update(self, features: Features) -> None:
        """Add the keypoints of the next frame."""
        descriptors = unit_descriptors(features.descriptors)
        matches0 = self._matcher.match(
            self._descriptors, descriptors, self._max_descriptor_distance
        )
        before = np.flatnonzero(matches0 >= 0)
        now = matches0[before]
        positions = np.full((len(features), *self.positions.shape[1:]), np.nan, dtype=np.float32)
        positions[:, 0] = features.keypoints
        positions[now, 1:] = self.positions[before, :-1]
        lengths = np.ones(len(features), dtype=np.int64)
        lengths[now] += self.lengths[before]
        self.positions, self.lengths, self._descriptors = positions, lengths, descriptors
