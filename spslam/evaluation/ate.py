"""How far an estimated trajectory is from the ground truth.

The absolute trajectory error as defined by Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS
2012, and with it the relative error and the drift of the same poses. Poses are associated by time, and every result
says how many were.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.association import MAX_DIFFERENCE_S, Association, associate, interpolate
from spslam.evaluation.kitti_drift import Drift, drift
from spslam.evaluation.rotation_doubts import doubt_rotations, doubt_size
from spslam.evaluation.rpe import RelativeError, Step, relative_error
from spslam.evaluation.summary import ErrorStatistics
from spslam.geometry import apply, inverse, similarity_scale, umeyama
from spslam.notices import notice
from spslam.trajectory import Trajectory, path_lengths
from spslam.typing import FloatArray

Alignment = Literal["se3", "sim3", "first-pose", "none"]

_LOG = logging.getLogger(__name__)
PER_FRAME = Step()
# Share of the poses below which those with a ground truth are told.
_MOSTLY = 0.5


@dataclass(frozen=True, eq=False)
class AbsoluteError:
    """Absolute trajectory error: distances between associated positions after alignment.

    Attributes:
        statistics: metres.
        errors_m: (M,) float64, metres.
        alignment: `se3`, `sim3`, `first-pose` or `none`.
        S_truth_estimate: (4, 4) float64, the alignment: the estimate's world to the ground truth's.
        association: the M poses that were compared.
    """

    statistics: ErrorStatistics
    errors_m: FloatArray
    alignment: Alignment
    S_truth_estimate: FloatArray
    association: Association

    @property
    def scale(self) -> float:
        """Factor on the estimate; 1 unless aligned by `sim3`."""
        return float(similarity_scale(self.S_truth_estimate)) if self.alignment == "sim3" else 1.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An estimate compared with the ground truth.

    Attributes:
        absolute: the absolute error.
        relative: the relative error, of the scale-corrected estimate when aligned by `sim3`; None where one of the two
            has positions only: what moved how far is known in the frame of a pose only.
        drift: as the KITTI benchmark measures it, of the same estimate; None where the path is too short, or one of the
            two has positions only.
        aligned: the whole estimate in the ground truth's world, metres.
        ground_truth: the ground truth, all of it.
        reference: what the association's rows of the ground truth speak of: `ground_truth`, or its poses interpolated
            at the stamps of the estimate.
        path_length_m: length of the ground truth along the matched poses, metres.
        max_difference: how far associated poses may be apart, seconds.
    """

    absolute: AbsoluteError
    relative: RelativeError | None
    drift: Drift | None
    aligned: Trajectory
    ground_truth: Trajectory
    reference: Trajectory
    path_length_m: float
    max_difference: float

    @property
    def matched(self) -> int:
        """Poses of the estimate that have a ground truth."""
        return len(self.absolute.association)

    @property
    def interpolated(self) -> bool:
        """Whether the ground truth was interpolated at the stamps of the estimate."""
        return self.reference is not self.ground_truth

    @property
    def scale_error_percent(self) -> float | None:
        """By how much the estimate would have to grow to fit the ground truth best: the scale of Umeyama's Sim(3) minus
        one, percent. None unless it was aligned by `se3`: with `sim3` its size is nothing it could be wrong in; nor
        where it is lost in rounding.
        """
        if self.absolute.alignment != "se3":
            return None
        association = self.absolute.association
        source = self.aligned.positions[association.estimate]
        target = self.reference.positions[association.ground_truth]
        try:
            return 100.0 * (float(similarity_scale(umeyama(source, target, with_scale=True))) - 1.0)
        except ValueError:
            return None

    def as_metrics(self) -> dict[str, float | int | str | None]:
        """Flat figures for `metrics.json`."""
        absolute, relative = self.absolute.statistics, self.relative
        return {
            "ate_rmse_m": absolute.rmse,
            "ate_mean_m": absolute.mean,
            "ate_median_m": absolute.median,
            "ate_max_m": absolute.max,
            "rpe_trans_m": None if relative is None else relative.translation.rmse,
            "rpe_rot_deg": None if relative is None else relative.rotation.rmse,
            "rpe_over": None if relative is None else str(relative.step),
            "t_rel_percent": None if self.drift is None else self.drift.t_rel_percent,
            "r_rel_deg_per_100m": None if self.drift is None else self.drift.r_rel_deg_per_100m,
            "alignment": self.absolute.alignment,
            "scale": self.absolute.scale,
            "path_length_m": self.path_length_m,
            "compared": "positions" if relative is None else "positions and rotations",
            "matched_poses": self.matched,
            "association": f"{'interpolated' if self.interpolated else 'nearest'} within {self.max_difference:g} s",
            "ground_truth_frame": self.ground_truth.frame,
        }


def ate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    max_difference: float = MAX_DIFFERENCE_S,
) -> AbsoluteError:
    """Absolute trajectory error after alignment: with Umeyama's method over the associated positions (`se3`, `sim3`),
    by the first associated pose (`first-pose`), or not at all (`none`).

    Raises:
        TrajectoryError: no associated poses; with `first-pose`, no rotations; with `se3` and `sim3`, fewer than
            three, or an alignment that is ambiguous because all of them lie in one place or on one line.
    """
    return _ate(estimate, ground_truth, associate(estimate, ground_truth, max_difference), align)


def rpe(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    step: Step = PER_FRAME,
    max_difference: float = MAX_DIFFERENCE_S,
) -> RelativeError:
    """Relative pose error between *associated* poses that are a step apart.

    Only the scale of the alignment matters here: with `sim3` the scale-corrected estimate is compared.

    Raises:
        TrajectoryError: as `relative_error`; with `sim3` also as `ate`; one of the two has positions only.
    """
    if not (estimate.has_rotations and ground_truth.has_rotations):
        raise TrajectoryError(
            f"a relative error needs rotations: the {_without_rotations(estimate)} has positions only"
        )
    association = associate(estimate, ground_truth, max_difference)
    scale = _ate(estimate, ground_truth, association, align).scale if align == "sim3" else 1.0
    return relative_error(*_matched(estimate, ground_truth, association, scale), step)


def evaluate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    max_difference: float = MAX_DIFFERENCE_S,
    interpolated: bool = False,
    step: Step = PER_FRAME,
) -> Evaluation:
    """Compare an estimate with the ground truth: absolute error, relative error, and drift where the path is long.

    Args:
        estimate: to be judged.
        ground_truth: to be judged by.
        align: how the estimate is laid on the ground truth, see `ate`.
        max_difference: how far apart in time associated poses may be, seconds.
        interpolated: compare with the ground truth interpolated at the stamps of the estimate, see `interpolate`,
            instead of its nearest poses.
        step: over what relative errors are taken.

    Raises:
        TrajectoryError: as `interpolate`, `ate` and `relative_error`.
    """
    reference = (
        interpolate(ground_truth, estimate, max_difference) if interpolated else ground_truth
    )
    association = associate(estimate, reference, max_difference)
    _tell_unjudged(estimate, ground_truth, len(association), max_difference)
    absolute = _ate(estimate, reference, association, align)
    estimated, true = _matched(estimate, reference, association, absolute.scale)
    # Along all of the ground truth: the way through a gap of the estimate is no straight line.
    along_m = np.interp(
        true.timestamps, ground_truth.timestamps, path_lengths(ground_truth.positions)
    )
    rotations = estimated.has_rotations and true.has_rotations
    if rotations:
        doubt_rotations(estimated, true)
    if align != "sim3":
        doubt_size(estimated, true)
    return Evaluation(
        absolute=absolute,
        relative=relative_error(estimated, true, step) if rotations else None,
        drift=drift(estimated, true, along_m) if rotations else None,
        aligned=transform_trajectory(absolute.S_truth_estimate, estimate),
        ground_truth=ground_truth,
        reference=reference,
        path_length_m=true.path_length_m,
        max_difference=max_difference,
    )


def _tell_unjudged(
    estimate: Trajectory, truth: Trajectory, matched: int, max_difference: float
) -> None:
    """A notice where a ground truth from a file speaks of fewer than half of the poses."""
    if truth.origin is None or matched >= _MOSTLY * len(estimate):
        return
    text = (
        "%s: only %d of %d poses have a true one within %g s (the ground truth is of %.3f to %.3f s, the poses of %.3f "
        "to %.3f s): errors speak of these alone"
    )
    spans = (
        truth.timestamps[0],
        truth.timestamps[-1],
        estimate.timestamps[0],
        estimate.timestamps[-1],
    )
    left = len(estimate) - matched
    notice(
        _LOG,
        "poses_not_judged",
        text,
        truth.origin.path,
        matched,
        len(estimate),
        max_difference,
        *spans,
        count=left,
    )


def transform_trajectory(S_new_world: FloatArray, trajectory: Trajectory) -> Trajectory:
    """The same trajectory seen from another world, `S_new_world` (4, 4) a transform or similarity."""
    poses = S_new_world @ trajectory.T_world_cam
    poses[:, :3, :3] /= similarity_scale(S_new_world)
    if not trajectory.has_rotations:
        poses[:, :3, :3] = np.eye(3)
    return replace(trajectory, T_world_cam=poses)


def _ate(
    estimate: Trajectory, ground_truth: Trajectory, association: Association, align: Alignment
) -> AbsoluteError:
    if align not in get_args(Alignment):
        raise TrajectoryError(
            f"alignment must be one of {', '.join(get_args(Alignment))}, found {align!r}"
        )
    source, target = (
        estimate.select(association.estimate),
        ground_truth.select(association.ground_truth),
    )
    S_truth_estimate = _alignment(source, target, align)
    errors = np.linalg.norm(apply(S_truth_estimate, source.positions) - target.positions, axis=1)
    return AbsoluteError(ErrorStatistics.of(errors), errors, align, S_truth_estimate, association)


def _alignment(source: Trajectory, target: Trajectory, align: Alignment) -> FloatArray:
    if align == "none":
        return np.eye(4)
    if align == "first-pose":
        if not (source.has_rotations and target.has_rotations):
            raise TrajectoryError(
                f"cannot align by first-pose, which needs rotations: the {_without_rotations(source)} has positions "
                "only; use --align se3, sim3 or none"
            )
        first: FloatArray = target.T_world_cam[0] @ inverse(source.T_world_cam[0])
        return first
    try:
        return umeyama(source.positions, target.positions, with_scale=align == "sim3")
    except ValueError as error:
        raise TrajectoryError(
            f"cannot align by {align}: {error}; only align none and first-pose compare these"
        ) from None


def _matched(
    estimate: Trajectory, ground_truth: Trajectory, association: Association, scale: float
) -> tuple[Trajectory, Trajectory]:
    """The associated poses of both, one to one, the estimate's in the size of the truth."""
    estimated = estimate.select(association.estimate)
    poses = estimated.T_world_cam.copy()
    poses[:, :3, 3] *= scale
    true = ground_truth.select(association.ground_truth)
    return replace(estimated, T_world_cam=poses), true


def _without_rotations(estimate: Trajectory) -> str:
    return "ground truth" if estimate.has_rotations else "estimate"
