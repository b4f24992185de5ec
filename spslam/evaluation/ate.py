"""Compare an estimated trajectory with the ground truth.

Computes the absolute trajectory error (Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM
Systems, IROS 2012), and the relative error and the drift of the same poses. Poses are associated
by time; every result contains the number of associated poses.
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
# Relative errors from one associated pose to the next.
PER_FRAME = Step()
# A notice appears if less than this fraction of the poses has a ground truth.
_MOSTLY = 0.5


@dataclass(frozen=True, eq=False)
class AbsoluteError:
    """Absolute trajectory error: distances between associated positions after alignment.

    Attributes:
        statistics: metres.
        errors_m: (M,) float64, metres.
        alignment: `se3`, `sim3`, `first-pose` or `none`.
        S_truth_estimate: (4, 4) float64, alignment from the estimate's world to the ground truth's.
        association: the M pairs of compared poses.
    """

    statistics: ErrorStatistics
    errors_m: FloatArray
    alignment: Alignment
    S_truth_estimate: FloatArray
    association: Association

    @property
    def scale(self) -> float:
        """Scale factor applied to the estimate; 1 unless aligned by `sim3`."""
        return float(similarity_scale(self.S_truth_estimate)) if self.alignment == "sim3" else 1.0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An estimate compared with the ground truth.

    Attributes:
        absolute: absolute error.
        relative: relative error, of the scale-corrected estimate if aligned by `sim3`; None if one
            of the two has positions only, because relative motions need rotations.
        drift: drift of the same estimate as in the KITTI benchmark; None if the path is too short
            or one of the two has positions only.
        aligned: the whole estimate in the ground truth's world, metres.
        ground_truth: the whole ground truth.
        reference: poses to which the association's `ground_truth` rows refer: `ground_truth`, or
            its poses interpolated at the timestamps of the estimate.
        path_length_m: length of the ground truth along the associated poses, metres.
        max_difference: largest time difference between associated poses, seconds.
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
        """Number of poses of the estimate that have a ground truth."""
        return len(self.absolute.association)

    @property
    def interpolated(self) -> bool:
        """Whether the ground truth was interpolated at the timestamps of the estimate."""
        return self.reference is not self.ground_truth

    @property
    def scale_error_percent(self) -> float | None:
        """Scale of the best Sim(3) alignment (Umeyama) minus one, in percent.

        A positive value means that the estimate is too small. None unless aligned by `se3`, or if
        rounding hides the scale.
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
        """Return the metrics for `metrics.json`, without nesting."""
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
            "association": f"{'interpolated' if self.interpolated else 'nearest'} within "
            f"{self.max_difference:g} s",
            "ground_truth_frame": self.ground_truth.frame,
        }


def ate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    max_difference: float = MAX_DIFFERENCE_S,
) -> AbsoluteError:
    """Compute the absolute trajectory error after alignment.

    `se3` and `sim3` align the associated positions (Umeyama, Least-squares estimation of
    transformation parameters between two point patterns, PAMI 1991), `first-pose` the first
    associated pose; `none` does not align.

    Raises:
        TrajectoryError: no associated poses; no rotations for `first-pose`; for `se3` and `sim3`,
            fewer than three associated poses, or all at one point or on one line, which makes the
            alignment ambiguous.
    """
    return _ate(estimate, ground_truth, associate(estimate, ground_truth, max_difference), align)


def rpe(
    estimate: Trajectory,
    ground_truth: Trajectory,
    align: Alignment = "se3",
    step: Step = PER_FRAME,
    max_difference: float = MAX_DIFFERENCE_S,
) -> RelativeError:
    """Compute the relative pose error between associated poses one step apart.

    Of the alignment, only the scale matters: `sim3` compares the scale-corrected estimate.

    Raises:
        TrajectoryError: as `relative_error`, with `sim3` also as `ate`; or one of the two has
            positions only.
    """
    if not (estimate.has_rotations and ground_truth.has_rotations):
        raise TrajectoryError(
            f"a relative error needs rotations: the {_without_rotations(estimate)} has "
            "positions only"
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
    """Compute absolute error, relative error and, on paths of 100 m and more, drift.

    Args:
        estimate: estimated poses.
        ground_truth: true poses.
        align: alignment of the estimate with the ground truth, see `ate`.
        max_difference: largest time difference between associated poses, seconds.
        interpolated: compare with the ground truth interpolated at the timestamps of the estimate
            (see `interpolate`) instead of its nearest poses.
        step: distance between the two poses of a relative error.

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
    # Measure along the whole ground truth: the path through a gap of the estimate may be curved.
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
    """Give a notice if a ground truth from a file covers less than half of the poses."""
    if truth.origin is None or matched >= _MOSTLY * len(estimate):
        return
    text = (
        "%s: only %d of %d poses have a true one within %g s (ground truth from %.3f to %.3f s, "
        "poses from %.3f to %.3f s): the errors are of these poses only"
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
    """Transform a trajectory to a new world by `S_new_world` (4, 4), in SE(3) or Sim(3)."""
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
                "cannot align by first-pose, which needs rotations: the "
                f"{_without_rotations(source)} has positions only; use --align se3, sim3 or none"
            )
        first: FloatArray = target.T_world_cam[0] @ inverse(source.T_world_cam[0])
        return first
    try:
        return umeyama(source.positions, target.positions, with_scale=align == "sim3")
    except ValueError as error:
        raise TrajectoryError(
            f"cannot align by {align}: {error}; only align none and first-pose work here"
        ) from None


def _matched(
    estimate: Trajectory, ground_truth: Trajectory, association: Association, scale: float
) -> tuple[Trajectory, Trajectory]:
    """Return the associated poses of both, one to one; the estimate is multiplied by `scale`."""
    estimated = estimate.select(association.estimate)
    poses = estimated.T_world_cam.copy()
    poses[:, :3, 3] *= scale
    true = ground_truth.select(association.ground_truth)
    return replace(estimated, T_world_cam=poses), true


def _without_rotations(estimate: Trajectory) -> str:
    return "ground truth" if estimate.has_rotations else "estimate"
