"""Compute the relative pose error: the error of the motion between two poses.

Defined by Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012; here over
a number of poses, a time, or a length of the true path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.summary import ErrorStatistics
from spslam.geometry import inverse, rotation_angle
from spslam.notices import counted
from spslam.trajectory import Trajectory, path_lengths
from spslam.typing import FloatArray, IntArray

Unit = Literal["frames", "s", "m"]

# Tolerance for sums of rounded steps, frames, seconds or metres: ten steps of 0.1 s make 1 s.
_ROUNDING = 1e-6
# Largest deviation of a motion from `Step.delta` with `all_pairs`, as a fraction of it.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Step:
    """Distance between the two poses of a relative error.

    Attributes:
        delta: distance between the two poses of a motion.
        unit: unit of `delta`: `frames` (associated poses), `s` (seconds), `m` (metres along the
            true path).
        all_pairs: True: a motion begins at every pose and ends at the pose nearest to `delta`;
            motions more than 10 % longer or shorter are left out. False: a motion begins at the
            end of the one before and ends at the first pose at or past `delta`.

    Raises:
        TrajectoryError: an unknown unit or an invalid delta.
    """

    delta: float = 1
    unit: Unit = "frames"
    all_pairs: bool = False

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise TrajectoryError(
                f"the unit of delta must be one of {', '.join(get_args(Unit))}, found {self.unit!r}"
            )
        if self.unit == "frames" and not (self.delta >= 1 and float(self.delta).is_integer()):
            raise TrajectoryError(
                f"delta must be a whole number of at least 1 frame, found {self.delta:g}"
            )
        if not 0 < self.delta < np.inf:
            raise TrajectoryError(f"delta must be more than 0 {self.unit}, found {self.delta:g}")

    def __str__(self) -> str:
        return (
            f"{self.delta:g} {'frame' if self.unit == 'frames' and self.delta == 1 else self.unit}"
        )


@dataclass(frozen=True, eq=False)
class RelativeError:
    """Relative pose error between associated poses one step apart.

    Attributes:
        translation: statistics in metres.
        rotation: statistics in degrees.
        step: distance between the two poses of a motion.
        pairs: number of compared motions.
    """

    translation: ErrorStatistics
    rotation: ErrorStatistics
    step: Step
    pairs: int


def relative_error(estimate: Trajectory, ground_truth: Trajectory, step: Step) -> RelativeError:
    """Compute the relative error of two trajectories whose poses correspond one to one.

    Raises:
        TrajectoryError: the trajectories are shorter than one step, or the step is in seconds and
            they have no times.
    """
    if len(ground_truth) < 2:
        raise TrajectoryError(
            f"a relative error needs at least 2 associated poses, found {len(ground_truth)}"
        )
    first, last = _pairs(ground_truth, step)
    if len(first) == 0:
        raise TrajectoryError(
            f"a relative error over {step} needs two associated poses that far apart, "
            f"found {counted(len(ground_truth), 'pose')} "
            f"in {np.ptp(ground_truth.timestamps):.4g} s on {ground_truth.path_length_m:.4g} m"
        )
    true, estimated = ground_truth.T_world_cam, estimate.T_world_cam
    error = inverse(inverse(true[first]) @ true[last]) @ (
        inverse(estimated[first]) @ estimated[last]
    )
    return RelativeError(
        translation=ErrorStatistics.of(np.linalg.norm(error[:, :3, 3], axis=1)),
        rotation=ErrorStatistics.of(np.degrees(rotation_angle(error[:, :3, :3]))),
        step=step,
        pairs=len(error),
    )


def _pairs(ground_truth: Trajectory, step: Step) -> tuple[IntArray, IntArray]:
    """Return the rows where the motions begin and end."""
    if step.unit == "s" and ground_truth.numbered:
        raise TrajectoryError(
            "a relative error over seconds needs times; KITTI's pose files have none: give --times"
        )
    at = {
        "frames": np.arange(len(ground_truth), dtype=np.float64),
        "s": ground_truth.timestamps,
        "m": path_lengths(ground_truth.positions),
    }[step.unit]
    return _nearest_pairs(at, step.delta) if step.all_pairs else _consecutive_pairs(at, step.delta)


def _consecutive_pairs(at: FloatArray, delta: float) -> tuple[IntArray, IntArray]:
    # A motion ends at a later pose than it begins at, however short the step.
    beyond = np.maximum(np.searchsorted(at, at + delta - _ROUNDING), np.arange(1, len(at) + 1))
    following = beyond.tolist()
    rows = [0]
    while following[rows[-1]] < len(at):
        rows.append(following[rows[-1]])
    chain = np.array(rows, dtype=np.int64)
    return chain[:-1], chain[1:]


def _nearest_pairs(at: FloatArray, delta: float) -> tuple[IntArray, IntArray]:
    first = np.arange(len(at) - 1)
    target = at[first] + delta
    after = np.clip(np.searchsorted(at, target - _ROUNDING), first + 1, len(at) - 1)
    # Take the earliest of several poses at one place, but not the start of the motion.
    before = np.maximum(np.searchsorted(at, at[after - 1]), first + 1)
    last = np.where(np.abs(at[before] - target) <= np.abs(at[after] - target), before, after)
    kept = np.abs(at[last] - target) <= _TOLERANCE * delta + _ROUNDING
    return first[kept], last[kept]
