"""Compare several estimates with the ground truth; results name the conventions used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from spslam.errors import TrajectoryError
from spslam.evaluation.association import MAX_DIFFERENCE_S
from spslam.evaluation.ate import PER_FRAME, Alignment, Evaluation, evaluate
from spslam.evaluation.rpe import Step
from spslam.evaluation.summary import Spread
from spslam.evaluation.tracking_rate import RECALL_DISTANCES_M, measure_tracking_rate, recall
from spslam.notices import notice
from spslam.trajectory import Trajectory, row_metrics
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)
# Difference between two tracking rates (fraction of the frames) from which a notice appears.
_NOTABLE = 0.005

Metrics = dict[str, float | int | str | None]

# Metrics that have a spread over several runs.
_SPREAD_OVER = (
    "tracking_rate",
    "ate_rmse_m",
    "rpe_trans_m",
    "rpe_rot_deg",
    "t_rel_percent",
    "r_rel_deg_per_100m",
)


@dataclass(frozen=True)
class Conventions:
    """Settings that metrics depend on; see `evaluate` and `recall`."""

    align: Alignment = "se3"
    max_difference: float = MAX_DIFFERENCE_S
    interpolated: bool = False
    step: Step = PER_FRAME
    recall_m: tuple[float, ...] = RECALL_DISTANCES_M


@dataclass(frozen=True, eq=False)
class Comparison:
    """One estimate against one ground truth.

    Attributes:
        name: name of the estimate.
        evaluation: errors; None if the two cannot be compared.
        metrics: metrics without nesting, with the keys of `metrics.json` if it has them;
            `not_compared` says why errors are missing.
    """

    name: str
    evaluation: Evaluation | None
    metrics: Metrics


def compare_with(
    name: str,
    estimate: Trajectory,
    ground_truth: Trajectory,
    conventions: Conventions,
    frame_times: FloatArray | None = None,
    missing: int = 0,
    frames_from: str = "",
) -> Comparison:
    """Compare an estimate with a ground truth; the result says why if they cannot be compared.

    Args:
        name: name of the estimate.
        estimate: estimated poses.
        ground_truth: true poses.
        conventions: settings of the comparison.
        frame_times: (F,) times of the frames, seconds; see `measure_tracking_rate`.
        missing: number of further frames of unknown time; see `measure_tracking_rate`.
        frames_from: file that `frame_times` were read from.
    """
    try:
        evaluation = evaluate(
            estimate,
            ground_truth,
            conventions.align,
            conventions.max_difference,
            conventions.interpolated,
            conventions.step,
        )
        covered = measure_tracking_rate(
            estimate, ground_truth, conventions.max_difference, frame_times, missing
        )
    except TrajectoryError as error:
        nothing: Metrics = {"tracked": len(estimate), "ground_truth_frame": ground_truth.frame}
        return Comparison(name, None, {"estimate": name, **nothing, "not_compared": str(error)})
    metrics: Metrics = {
        "estimate": name,
        **covered.as_metrics(),
        "frames_from": frames_from or None,
        **evaluation.as_metrics(),
        "scale_error_percent": evaluation.scale_error_percent,
        "drift_segments": 0 if evaluation.drift is None else len(evaluation.drift.length_m),
        "drift_segments_left_out": 0 if evaluation.drift is None else evaluation.drift.left_out,
        **recall(evaluation, covered.judged, conventions.recall_m),
        **row_metrics(estimate, "estimate"),
        **row_metrics(ground_truth, "ground_truth"),
    }
    if covered.rate_meanwhile - covered.tracking_rate > _NOTABLE:
        notice(
            _LOG,
            "frames_estimated",
            "%s: the number of frames is not known; the ground truth begins %.4g s before the "
            "estimate and ends %.4g s after it, and that time counts as not tracked. Over the "
            "estimate's own time %.1f %% are tracked; --times FILE counts the frames",
            name,
            covered.truth_before_s,
            covered.truth_after_s,
            100.0 * covered.rate_meanwhile,
        )
    return Comparison(name, evaluation, metrics)


def spread(comparisons: Sequence[Comparison]) -> dict[str, Spread]:
    """Return median, smallest and largest value of each metric over several runs.

    Runs that cannot be compared are not counted in `Spread.runs`.
    """
    columns = {
        key: [comparison.metrics.get(key) for comparison in comparisons] for key in _SPREAD_OVER
    }
    known = {
        key: [float(value) for value in values if value is not None]
        for key, values in columns.items()
    }
    return {key: Spread.of(values) for key, values in known.items() if values}


def as_document(comparisons: Sequence[Comparison], spreads: dict[str, Spread]) -> dict[str, object]:
    """Return the JSON document of comparisons: metrics, and drift per length and speed.

    Several comparisons become a list, with the spread beside it.
    """
    documents = [
        {**comparison.metrics, **_drift_bins(comparison.evaluation)} for comparison in comparisons
    ]
    if len(documents) == 1 and not spreads:
        return documents[0]
    facts = {"spread": {key: asdict(value) for key, value in spreads.items()}} if spreads else {}
    return {"comparisons": documents, **facts}


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return paths without the leading folders and the file name that all have in common."""
    parts = [path.absolute().parts for path in paths]
    if len(set(parts)) < 2:
        return [path.name for path in paths]
    first = _in_common(parts)
    last = min(_in_common([path[::-1] for path in parts]), min(map(len, parts)) - first - 1)
    return ["/".join(path[first : len(path) - last]) for path in parts]


def _in_common(paths: Sequence[tuple[str, ...]]) -> int:
    """Return the number of leading components that all paths have in common."""
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))


def _drift_bins(evaluation: Evaluation | None) -> dict[str, object]:
    if evaluation is None or evaluation.drift is None:
        return {}
    return {
        "drift_per_length_m": [asdict(found) for found in evaluation.drift.per_length()],
        "drift_per_speed_m_s": [asdict(found) for found in evaluation.drift.per_speed()],
    }
