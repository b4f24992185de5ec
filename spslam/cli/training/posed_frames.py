"""Frames of a sequence with their true poses, to evaluate relative poses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # Image (H, W), pose (4, 4), camera matrix (3, 3).
    PosedFrame = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]

# Largest time between a frame and its true pose, seconds.
_POSE_TOLERANCE_S = 0.01


def posed_frames(path: Path) -> Iterator[PosedFrame]:
    """Yield undistorted image, `T_world_cam` and camera matrix of each frame with a true pose.

    Raises:
        DatasetError: the sequence has no ground truth with rotations.
    """
    import numpy as np

    from spslam.datasets import open_sequence
    from spslam.datasets.calibration.lens_view import LensView
    from spslam.errors import DatasetError

    sequence = open_sequence(str(path), sensor="mono")
    truth = sequence.ground_truth
    if truth is None:
        raise DatasetError(f"{path} has no ground truth: it is needed to evaluate relative poses")
    if not truth.has_rotations:
        raise DatasetError(
            f"the ground truth of {path} has positions only: rotations are needed to evaluate "
            "relative poses"
        )
    for frame in sequence:
        nearest = int(np.abs(truth.timestamps - frame.timestamp).argmin())
        if abs(truth.timestamps[nearest] - frame.timestamp) <= _POSE_TOLERANCE_S:
            camera = frame.camera.without_distortion()
            image = frame.image
            if camera != frame.camera:
                image = LensView(frame.camera, camera.K).image(image)
            yield image, truth.T_world_cam[nearest], camera.K
