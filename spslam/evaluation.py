"""How far an estimated trajectory is from the ground truth.

Absolute and relative trajectory errors as defined by Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM
Systems, IROS 2012. Poses are associated by time, and every result says how many were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spslam.errors import TrajectoryError
from spslam.geometry import apply, inverse, rotation_angle, similarity_scale, umeyama
from spslam.trajectory import Trajectory

Alignment = Literal["se3", "sim3", "none"]

MAX_DIFFERENCE_S = 0.01


@dataclass(frozen=True, eq=False)
class Association:
    """Which poses of two trajectories belong together.

    Attributes:
        estimate, ground_truth: (M,) int64, row numbers, both strictly increasing.
    """

    estimate: NDArray[np.int64]
    ground_truth: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.estimate)


@dataclass(frozen=True)
class ErrorStatistics:
    """Summary of one kind of error, in its unit."""

    rmse: float
    mean: float
    median: float
    max: float


@dataclass(frozen=True, eq=False)
class AbsoluteError:
    """Absolute trajectory error: distances between associated positions after alignment.

    Attributes:
        statistics: metres.
        errors_m: (M,) float64, metres.
        alignment: `se3`, `sim3` or `none`.
        S_truth_estimate: (4, 4) float64, the alignment: the estimate's world to the ground truth's.
        association: the M poses that were compared.
    """

    statistics: ErrorStatistics
    errors_m: NDArray[np.float64]
    alignment: Alignment
    S_truth_estimate: NDArray[np.float64]
    association: Association

    @property
    def scale(self) -> float:
        """Factor on the estimate; 1 unless aligned by `sim3`."""
        return float(similarity_scale(self.S_truth_estimate)) if self.alignment == "sim3" else 1.0


@dataclass(frozen=True, eq=False)
class RelativeError:
    """Relative pose error between associated poses that are `delta` associated poses apart.

    Attributes:
        translation: statistics in metres.
        rotation: statistics in degrees.
        delta: distance in associated poses.
        pairs: how many motions were compared.
    """

    translation: ErrorStatistics
    rotation: ErrorStatistics
    delta: int
    pairs: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An estimate compared with the ground truth.

    Attributes:
        absolute: the absolute error.
        relative: the relative error at delta 1, of the scale-corrected estimate when aligned by `sim3`.
        aligned: the whole estimate in the ground truth's world, metres.
        ground_truth: the ground truth, all of it.
        path_length_m: length of the ground truth along the matched poses, metres.
        estimate_frames, ground_truth_frames: poses in either trajectory, matched or not.
    """

    absolute: AbsoluteError
    relative: RelativeError
    aligned: Trajectory
    ground_truth: Trajectory
    path_length_m: float
    estimate_frames: int
    ground_truth_frames: int

    @property
    def matched(self) -> int:
        """Poses of the estimate that have a ground truth."""
        return len(self.absolute.association)

    @property
    def share(self) -> float:
        """Share of the estimate's poses that have a ground truth, 0 to 1."""
        return self.matched / self.estimate_frames

    @property
    def scale_error_percent(self) -> float | None:
        """By how much the estimate would have to grow to fit the ground truth best: the scale of Umeyama's Sim(3) minus
        one, percent. None unless it was aligned by `se3`: with `sim3` its size is nothing it could be wrong in."""
        if self.absolute.alignment != "se3":
            return None
        association = self.absolute.association
        source = self.aligned.positions[association.estimate]
        target = self.ground_truth.positions[association.ground_truth]
        return 100.0 * (float(similarity_scale(umeyama(source, target, with_scale=True))) - 1.0)

    def as_metrics(self) -> dict[str, float | int | str]:
        """Flat figures for `metrics.json`."""
        absolute, relative = self.absolute.statistics, self.relative
        return {
            "ate_rmse_m": absolute.rmse,
            "ate_mean_m": absolute.mean,
            "ate_median_m": absolute.median,
            "ate_max_m": absolute.max,
            "rpe_trans_m": relative.translation.rmse,
            "rpe_rot_deg": relative.rotation.rmse,
            "alignment": self.absolute.alignment,
            "scale": self.absolute.scale,
            "path_length_m": self.path_length_m,
            "matched_poses": self.matched,
            "ground_truth_frame": self.ground_truth.frame,
        }


def associate(estimate: Trajectory, ground_truth: Trajectory, max_difference: float = MAX_DIFFERENCE_S) -> Association:
    """Pair poses that are each other's nearest in time, no more than `max_difference` seconds apart.

    The pairs are one to one and in order.

    Raises:
        TrajectoryError: no pose has a partner.
    """
    if len(estimate) == 0 or len(ground_truth) == 0:
        raise TrajectoryError(
            f"nothing to compare: {len(estimate)} poses in the estimate, {len(ground_truth)} in the ground truth"
        )
    forward = _nearest(estimate.timestamps, ground_truth.timestamps)
    backward = _nearest(ground_truth.timestamps, estimate.timestamps)
    difference = np.abs(ground_truth.timestamps[forward] - estimate.timestamps)
    # A hair of tolerance: stamps of 1.3e9 s are rounded to 2e-7 s.
    pairs = (backward[forward] == np.arange(len(estimate))) & (difference <= max_difference + 1e-6)
    if not pairs.any():
        raise TrajectoryError(
            f"no pose of the estimate ({_span(estimate)}) is within {max_difference:g} s of one of the ground truth "
            f"({_span(ground_truth)}): do both have stamps of the same clock? (KITTI's pose files have none)"
        )
    rows = np.flatnonzero(pairs).astype(np.int64)
    return Association(rows, forward[rows])


def ate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    max_difference: float = MAX_DIFFERENCE_S,
) -> AbsoluteError:
    """Absolute trajectory error after alignment with Umeyama's method over the associated positions.

    Raises:
        TrajectoryError: fewer than three associated poses, or an alignment that is ambiguous because all of
            them lie in one place or on one line.
    """
    return _ate(estimate, ground_truth, associate(estimate, ground_truth, max_difference), align)


def rpe(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    delta: int = 1,
    max_difference: float = MAX_DIFFERENCE_S,
) -> RelativeError:
    """Relative pose error over `delta` consecutive *associated* poses, pairs not overlapping.

    Only the scale of the alignment matters here: with `sim3` the scale-corrected estimate is compared.

    Raises:
        TrajectoryError: fewer than `delta` + 1 associated poses; with `sim3` also as `ate`.
    """
    association = associate(estimate, ground_truth, max_difference)
    scale = _ate(estimate, ground_truth, association, align).scale if align == "sim3" else 1.0
    return _rpe(estimate, ground_truth, association, scale, delta)


def evaluate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    max_difference: float = MAX_DIFFERENCE_S,
) -> Evaluation:
    """Compare an estimate with the ground truth: absolute error, and relative error per frame.

    Raises:
        TrajectoryError: as `ate` and `rpe`.
    """
    association = associate(estimate, ground_truth, max_difference)
    absolute = _ate(estimate, ground_truth, association, align)
    return Evaluation(
        absolute=absolute,
        relative=_rpe(estimate, ground_truth, association, absolute.scale, delta=1),
        aligned=transform_trajectory(absolute.S_truth_estimate, estimate),
        ground_truth=ground_truth,
        path_length_m=_path_length(ground_truth.positions[association.ground_truth]),
        estimate_frames=len(estimate),
        ground_truth_frames=len(ground_truth),
    )


def transform_trajectory(S_new_world: NDArray[np.float64], trajectory: Trajectory) -> Trajectory:
    """The same trajectory seen from another world, `S_new_world` (4, 4) a transform or similarity."""
    poses = S_new_world @ trajectory.T_world_cam
    poses[:, :3, :3] /= similarity_scale(S_new_world)
    return Trajectory(trajectory.timestamps, poses, trajectory.frame)


def _ate(estimate: Trajectory, ground_truth: Trajectory, association: Association, align: Alignment) -> AbsoluteError:
    if align not in get_args(Alignment):
        raise TrajectoryError(f"alignment must be one of {', '.join(get_args(Alignment))}, found {align!r}")
    source = estimate.positions[association.estimate]
    target = ground_truth.positions[association.ground_truth]
    S_truth_estimate = np.eye(4)
    if align != "none":
        try:
            S_truth_estimate = umeyama(source, target, with_scale=align == "sim3")
        except ValueError as error:
            raise TrajectoryError(f"cannot align by {align}: {error}; only align none compares these") from None
    errors = np.linalg.norm(apply(S_truth_estimate, source) - target, axis=1)
    return AbsoluteError(_statistics(errors), errors, align, S_truth_estimate, association)


def _rpe(
    estimate: Trajectory, ground_truth: Trajectory, association: Association, scale: float, delta: int
) -> RelativeError:
    if delta < 1:
        raise TrajectoryError(f"delta must be at least 1 frame, found {delta}")
    if len(association) <= delta:
        raise TrajectoryError(
            f"a relative error over {delta} frames needs at least {delta + 1} associated poses, "
            f"found {len(association)}"
        )
    steps = slice(None, None, delta)
    estimated = estimate.T_world_cam[association.estimate[steps]].copy()
    estimated[:, :3, 3] *= scale
    true = ground_truth.T_world_cam[association.ground_truth[steps]]
    error = inverse(inverse(true[:-1]) @ true[1:]) @ (inverse(estimated[:-1]) @ estimated[1:])
    return RelativeError(
        translation=_statistics(np.linalg.norm(error[:, :3, 3], axis=1)),
        rotation=_statistics(np.degrees(rotation_angle(error[:, :3, :3]))),
        delta=delta,
        pairs=len(error),
    )


def _statistics(errors: NDArray[np.float64]) -> ErrorStatistics:
    return ErrorStatistics(
        rmse=float(np.sqrt(np.mean(errors**2))),
        mean=float(np.mean(errors)),
        median=float(np.median(errors)),
        max=float(np.max(errors)),
    )


def _nearest(stamps: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row of the nearest of `among` (sorted) for each stamp; the earlier one of two as near."""
    after = np.clip(np.searchsorted(among, stamps), 1, max(len(among) - 1, 1))
    if len(among) == 1:
        return np.zeros(len(stamps), dtype=np.int64)
    nearest: NDArray[np.int64] = after - (stamps - among[after - 1] <= among[after] - stamps)
    return nearest


def _path_length(positions: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())


def _span(trajectory: Trajectory) -> str:
    return f"{trajectory.timestamps[0]:.3f} to {trajectory.timestamps[-1]:.3f} s"
