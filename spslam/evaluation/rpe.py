"""Relative pose error: how far the motion between two poses is from the true one.

As defined by Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012, over a number of poses, a
time, or a length of the true path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.summary import ErrorStatistics
from spslam.geometry import inverse, rotation_angle
from spslam.trajectory import Trajectory, path_lengths
from spslam.typing import FloatArray, IntArray

Unit = Literal["frames", "s", "m"]

# Steps of 0.1 s ten times are a second, whatever the last bit says: a microsecond or micrometre does not count.
_ROUNDING = 1e-6
# How much longer or shorter than asked for a motion may be where it has a free choice of its end.
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Step:
    """Over what relative errors are taken.

    Attributes:
        delta: how far the two poses of a motion are apart.
        unit: of `delta`: `frames` (associated poses), `s` (seconds), `m` (metres along the true path).
        all_pairs: a motion begins at every pose, else where the one before ended. With `s` and `m`, the former end at
            the pose nearest to `delta` and are left out where that is more than 10 % off, the latter at the first one
            past it.

    Raises:
        TrajectoryError: an unknown unit or a delta that is none.
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
    """Relative pose error between associated poses that are a step apart.

    Attributes:
        translation: statistics in metres.
        rotation: statistics in degrees.
        step: over what.
        pairs: how many motions were compared.
    """

    translation: ErrorStatistics
    rotation: ErrorStatistics
    step: Step
    pairs: int


def relative_error(estimate: Trajectory, ground_truth: Trajectory, step: Step) -> RelativeError:
    """Relative error of trajectories whose poses belong together one to one.

    Raises:
        TrajectoryError: too few poses, or too short a path or time, for one motion; seconds of trajectories that have
            no times.
    """
    if len(ground_truth) < 2:
        raise TrajectoryError(
            f"a relative error needs at least 2 associated poses, found {len(ground_truth)}"
        )
    first, last = _pairs(ground_truth, step)
    if len(first) == 0:
        raise TrajectoryError(
            f"a relative error over {step} needs two associated poses that are so far apart, found {len(ground_truth)} "
            f"poses in {np.ptp(ground_truth.timestamps):.4g} s on {ground_truth.path_length_m:.4g} m"
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
    """Rows where the motions begin and end."""
    if step.unit == "s" and ground_truth.numbered:
        raise TrajectoryError(
            "a relative error over seconds needs times, and KITTI's pose files have none: give --times"
        )
    at = {
        "frames": np.arange(len(ground_truth), dtype=np.float64),
        "s": ground_truth.timestamps,
        "m": path_lengths(ground_truth.positions),
    }[step.unit]
    return _nearest_pairs(at, step.delta) if step.all_pairs else _consecutive_pairs(at, step.delta)


def _consecutive_pairs(at: FloatArray, delta: float) -> tuple[IntArray, IntArray]:
    # However short the step, a motion ends at another pose than it begins at.
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
    # The earliest of several poses in one place, but never the motion's own beginning.
    before = np.maximum(np.searchsorted(at, at[after - 1]), first + 1)
    last = np.where(np.abs(at[before] - target) <= np.abs(at[after] - target), before, after)
    kept = np.abs(at[last] - target) <= _TOLERANCE * delta + _ROUNDING
    return first[kept], last[kept]
