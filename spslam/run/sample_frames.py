"""Sample frames of a run with their keypoints, chosen during the run, whose length is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from spslam.frame import Frame, FrameAssociations
from spslam.slam.track_results import TrackState
from spslam.typing import FloatArray, UInt8Array

if TYPE_CHECKING:
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

# Maximum width of a sample's image, pixels.
_WIDTH = 640
# Quality of a sample's JPEG image, percent.
_JPEG_QUALITY = 70


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample frame of a run.

    Attributes:
        index: as in its `TrackResult`.
        timestamp: as in its `TrackResult`.
        state: as in its `TrackResult`.
        reason: as in its `TrackResult`.
        jpeg: grey image, at most 640 pixels wide.
        size: width and height of the frame, pixels.
        loose: (N, 2) float64, keypoints without a map point, pixels of the frame.
        seen: (M, 2) float64, keypoints with a map point, pixels of the frame.
        before: (M, 2) float64, keypoints of the same map points in the frame before, pixels; NaN if
            not seen there.
    """

    index: int
    timestamp: float
    state: TrackState
    reason: str
    jpeg: bytes
    size: tuple[int, int]
    loose: FloatArray
    seen: FloatArray
    before: FloatArray


class FrameSamples:
    """A `Viewer` that chooses sample frames: evenly spread ones, and the first of lost stretches.

    Args:
        even: maximum number of evenly spread frames.
        lost: maximum number of frames at which tracking was lost.
    """

    def __init__(self, even: int = 6, lost: int = 4) -> None:
        self._most_even, self._most_lost = even, lost
        self._even: list[Sample] = []
        self._lost: list[Sample] = []
        self._step, self._updates = 1, 0
        self._before: FrameAssociations | None = None
        self._state: TrackState | None = None

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Consider a frame; only frames that are kept take time."""
        associations = slam.associations
        assert associations is not None, "a frame was tracked"
        if self._state is TrackState.TRACKING and result.state is TrackState.LOST:
            if len(self._lost) < self._most_lost:
                self._lost.append(_sample(frame, result, associations, self._before))
        elif self._updates % self._step == 0:
            self._even.append(_sample(frame, result, associations, self._before))
            # The list is full: keep every second sample and double the step.
            if len(self._even) == 2 * self._most_even:
                self._even, self._step = self._even[::2], 2 * self._step
        self._before, self._state = associations, result.state
        self._updates += 1

    def close(self) -> None:
        """Do nothing."""

    def chosen(self) -> list[Sample]:
        """Return the samples in the order of their frames."""
        rows = (
            np.linspace(0, len(self._even) - 1, min(self._most_even, len(self._even)))
            .round()
            .astype(int)
        )
        return sorted(
            [*(self._even[row] for row in rows), *self._lost], key=lambda sample: sample.index
        )


def _sample(
    frame: Frame,
    result: TrackResult,
    associations: FrameAssociations,
    before: FrameAssociations | None,
) -> Sample:
    seen = associations.point_ids >= 0
    earlier = np.full((np.count_nonzero(seen), 2), np.nan)
    if before is not None:
        _, now, then = np.intersect1d(
            associations.point_ids[seen], before.point_ids, return_indices=True
        )
        earlier[now] = before.pixels[then]
    height, width = frame.image.shape
    return Sample(
        index=result.index,
        timestamp=result.timestamp,
        state=result.state,
        reason=result.reason,
        jpeg=_jpeg(frame.image),
        size=(width, height),
        # The image has lens distortion, the keypoints have not.
        loose=frame.camera.distort(associations.pixels[~seen]),
        seen=frame.camera.distort(associations.pixels[seen]),
        before=frame.camera.distort(earlier),
    )


def _jpeg(image: UInt8Array) -> bytes:
    height, width = image.shape
    size = (min(width, _WIDTH), max(1, round(height * min(width, _WIDTH) / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
