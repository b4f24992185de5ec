"""What a disturbance that was put into a recording did to a run (see `datasets/world/disturbed.py`).

The estimate is laid over the ground truth by the poses from before the disturbance alone: what it did later is not
aligned away. Poses, not positions, are aligned, so that a camera that stood still can be judged, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from spslam.evaluation.association import associate
from spslam.geometry import make_transform, orthonormalize
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

# Farther off than this, metres and share of the way gone so far, a camera is in a wrong place; drift is less.
WRONG_PLACE_M, WRONG_PLACE_SHARE = 1.0, 0.05
# A single camera that went less far than this has seen nothing from two sides, metres.
_STOOD_STILL_M = 0.01


@runtime_checkable
class Disturbed(Protocol):
    """A sequence with a disturbance. Attributes:
    disturbed_from: the first frame that it may show in.
    seen_again_from: the first frame that the camera can be found in again after it was dark or kidnapped; None: it was
        neither.
    """

    @property
    def disturbed_from(self) -> int: ...
    @property
    def seen_again_from(self) -> int | None: ...


@dataclass(frozen=True)
class Harm:
    """What became of it; figures of `metrics.json`.

    Attributes:
        disturbed_error_max_m: the largest error of a position from the disturbance on, metres; None where that cannot
            be told, as of a single camera that has no pose from before it.
        disturbed_wrong_frames: frames from the disturbance on with a pose in a wrong place; of a single camera that
            only stood still all poses.
        disturbed_found_after: frames from where the camera could be found again to the first pose in the right place;
            None: there was none, or nothing to be found again.
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
    """What the disturbance did.

    Args:
        stamps: (N,) seconds, of all frames in their order.
        scaled: whether the estimate's lengths are metres times a factor that is to be found.

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
    wrong = ~before & (errors > WRONG_PLACE_M + WRONG_PLACE_SHARE * ways)
    again = None
    if sequence.seen_again_from is not None:
        right = frames[~wrong & (frames >= sequence.seen_again_from)]
        again = int(right[0]) - sequence.seen_again_from if len(right) else None
    worst = float(errors[~before].max()) if not before.all() else None
    return Harm(worst, int(np.count_nonzero(wrong)), again)


def _moved(positions: FloatArray, found: FloatArray, true: FloatArray, scaled: bool) -> FloatArray:
    """Positions (N, 3) of the estimate in the world of the truth, by its poses (M, 4, 4) and the true ones."""
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
