"""Measure the effect of a synthetic disturbance on a run (see `datasets/world/disturbed.py`).

The estimate is aligned with the ground truth by the poses before the disturbance only, so that the
alignment does not hide the damage. Poses are aligned, not positions, because the camera may stand
still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from spslam.evaluation.association import associate
from spslam.geometry import make_transform, orthonormalize
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

# A pose is in a wrong place if its error exceeds the sum of 1 m and 5 % of the path length until
# then; drift is less.
WRONG_PLACE_M, WRONG_PLACE_FRACTION = 1.0, 0.05
# Path length below which a single camera has no parallax, metres: it cannot build a map.
_STOOD_STILL_M = 0.01


@runtime_checkable
class Disturbed(Protocol):
    """A sequence with a disturbance.

    Attributes:
        disturbed_from: index of the first frame that the disturbance may affect.
        seen_again_from: index of the first frame in which the camera can be relocalized after dark
            frames or a jump; None if there are no such frames.
    """

    @property
    def disturbed_from(self) -> int:
        """Index of the first frame that the disturbance may affect."""
        ...

    @property
    def seen_again_from(self) -> int | None:
        """Index of the first frame that can be relocalized after dark frames or a jump."""
        ...


@dataclass(frozen=True)
class Harm:
    """Effect of a disturbance, as metrics of `metrics.json`.

    Attributes:
        disturbed_error_max_m: largest position error from the disturbance on, metres; None if not
            measurable, for example if no pose precedes the disturbance.
        disturbed_wrong_frames: number of frames from the disturbance on with a pose in a wrong
            place; for a single camera that never moves, every pose counts.
        disturbed_found_after: frames from `Disturbed.seen_again_from` to the first correct pose;
            None without such a pose, or if the camera was neither dark nor moved by a jump.
    """

    disturbed_error_max_m: float | None
    disturbed_wrong_frames: int
    disturbed_found_after: int | None


def judge(
    sequence: Disturbed,
    stamps: FloatArray,
    estimate: Trajectory,
    truth: Trajectory | None,
    scaled: bool,
) -> Harm | None:
    """Measure the effect of a disturbance.

    Args:
        sequence: the disturbed sequence.
        stamps: (N,) timestamps of all frames in order, seconds.
        estimate: estimated poses.
        truth: true poses.
        scaled: whether the scale of the estimate is unknown.

    Returns:
        None without a ground truth with rotations.
    """
    if truth is None or not truth.has_rotations:
        return None
    pairs = associate(estimate, truth) if len(estimate) else None
    if pairs is None or not len(pairs):
        return Harm(None, 0, None)
    found, true = estimate.T_world_cam[pairs.estimate], truth.T_world_cam[pairs.ground_truth]
    frames = np.searchsorted(stamps, estimate.timestamps[pairs.estimate] - 1e-6)
    before = frames < sequence.disturbed_from
    ways = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(true[:, :3, 3], axis=0), axis=1))]
    )
    if scaled and ways[-1] < _STOOD_STILL_M:
        return Harm(None, len(found), None)
    if not before.any() or (scaled and np.ptp(true[before, :3, 3], axis=0).max() < _STOOD_STILL_M):
        return Harm(None, 0, None)
    errors = np.linalg.norm(
        _moved(found[:, :3, 3], found[before], true[before], scaled) - true[:, :3, 3], axis=1
    )
    wrong = ~before & (errors > WRONG_PLACE_M + WRONG_PLACE_FRACTION * ways)
    again = None
    if sequence.seen_again_from is not None:
        right = frames[~wrong & (frames >= sequence.seen_again_from)]
        again = int(right[0]) - sequence.seen_again_from if len(right) else None
    worst = float(errors[~before].max()) if not before.all() else None
    return Harm(worst, int(np.count_nonzero(wrong)), again)


def _moved(positions: FloatArray, found: FloatArray, true: FloatArray, scaled: bool) -> FloatArray:
    """Align positions (N, 3) with the truth by estimated and true poses (M, 4, 4)."""
    turn = true[:, :3, :3] @ found[:, :3, :3].swapaxes(1, 2)
    R = orthonormalize(make_transform(turn.mean(axis=0), np.zeros(3)))[:3, :3]
    centre_found, centre_true = found[:, :3, 3].mean(axis=0), true[:, :3, 3].mean(axis=0)
    scale = 1.0
    if scaled:
        turned = (found[:, :3, 3] - centre_found) @ R.T
        scale = float(
            np.sum(turned * (true[:, :3, 3] - centre_true)) / max(np.sum(turned**2), 1e-12)
        )
    moved: FloatArray = scale * (positions - centre_found) @ R.T + centre_true
    return moved
