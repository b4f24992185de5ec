"""Several estimates against the ground truth, each with the conventions its figures are computed by."""

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
from spslam.evaluation.tracking_rate import RECALL_DISTANCES_M, coverage, recall
from spslam.notices import notice
from spslam.trajectory import Trajectory, row_figures
from spslam.typing import FloatArray

_LOG = logging.getLogger(__name__)
# A difference between shares of tracked frames that is worth a line.
_NOTABLE = 0.005

Figures = dict[str, float | int | str | None]

_SPREAD_OVER = (
    "share_tracked",
    "ate_rmse_m",
    "rpe_trans_m",
    "rpe_rot_deg",
    "t_rel_percent",
    "r_rel_deg_per_100m",
)


@dataclass(frozen=True)
class Conventions:
    """What figures depend on beside the trajectories; see `evaluate` and `recall`."""

    align: Alignment = "se3"
    max_difference: float = MAX_DIFFERENCE_S
    interpolated: bool = False
    step: Step = PER_FRAME
    recall_m: tuple[float, ...] = RECALL_DISTANCES_M


@dataclass(frozen=True, eq=False)
class Comparison:
    """One estimate against one ground truth.

    Attributes:
        name: of the estimate.
        evaluation: None where the two cannot be compared.
        figures: flat, with the keys of `metrics.json` where it has them; `not_compared` says why there are none.
    """

    name: str
    evaluation: Evaluation | None
    figures: Figures


def compare_with(
    name: str,
    estimate: Trajectory,
    ground_truth: Trajectory,
    conventions: Conventions,
    frame_times: FloatArray | None = None,
    missing: int = 0,
    frames_from: str = "",
) -> Comparison:
    """Compare an estimate with a ground truth; one that cannot be compared is told as such, not left out.

    Args:
        name: of the estimate.
        estimate: to be judged.
        ground_truth: to be judged by.
        conventions: how.
        frame_times, missing: (F,) times of the frames, seconds, and how many more there were; see `coverage`.
        frames_from: the file that says so.
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
        covered = coverage(estimate, ground_truth, conventions.max_difference, frame_times, missing)
    except TrajectoryError as error:
        nothing: Figures = {"tracked": len(estimate), "ground_truth_frame": ground_truth.frame}
        return Comparison(name, None, {"estimate": name, **nothing, "not_compared": str(error)})
    figures: Figures = {
        "estimate": name,
        **covered.as_metrics(),
        "frames_from": frames_from or None,
        **evaluation.as_metrics(),
        "scale_error_percent": evaluation.scale_error_percent,
        "drift_segments": 0 if evaluation.drift is None else len(evaluation.drift.length_m),
        "drift_segments_left_out": 0 if evaluation.drift is None else evaluation.drift.left_out,
        **recall(evaluation, covered.judged, conventions.recall_m),
        **row_figures(estimate, "estimate"),
        **row_figures(ground_truth, "ground_truth"),
    }
    if covered.share_meanwhile - covered.share_tracked > _NOTABLE:
        notice(
            _LOG,
            "frames_reckoned",
            "%s: how many frames there were is not known; the ground truth begins %.4g s before the estimate and ends "
            "%.4g s after it, and all of that counts as not tracked. Over the estimate's own time %.1f %% are tracked; "
            "--times FILE counts the frames",
            name,
            covered.truth_before_s,
            covered.truth_after_s,
            100.0 * covered.share_meanwhile,
        )
    return Comparison(name, evaluation, figures)


def spread(comparisons: Sequence[Comparison]) -> dict[str, Spread]:
    """Median, smallest and largest of the figures of several runs; each says over how many, for a run that cannot be
    compared has none.
    """
    columns = {
        key: [comparison.figures.get(key) for comparison in comparisons] for key in _SPREAD_OVER
    }
    known = {
        key: [float(value) for value in values if value is not None]
        for key, values in columns.items()
    }
    return {key: Spread.of(values) for key, values in known.items() if values}


def as_document(comparisons: Sequence[Comparison], spreads: dict[str, Spread]) -> dict[str, object]:
    """What is written as JSON: the figures and the drift per length and speed of one comparison, or a list of them with
    the spread.
    """
    documents = [
        {**comparison.figures, **_drift_bins(comparison.evaluation)} for comparison in comparisons
    ]
    if len(documents) == 1 and not spreads:
        return documents[0]
    told = {"spread": {key: asdict(value) for key, value in spreads.items()}} if spreads else {}
    return {"comparisons": documents, **told}


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells files apart: their paths without the folders and the file name that all of them share."""
    parts = [path.absolute().parts for path in paths]
    if len(set(parts)) < 2:
        return [path.name for path in paths]
    first = _in_common(parts)
    last = min(_in_common([path[::-1] for path in parts]), min(map(len, parts)) - first - 1)
    return ["/".join(path[first : len(path) - last]) for path in parts]


def _in_common(paths: Sequence[tuple[str, ...]]) -> int:
    """How many parts all paths begin with."""
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False)))


def _drift_bins(evaluation: Evaluation | None) -> dict[str, object]:
    if evaluation is None or evaluation.drift is None:
        return {}
    return {
        "drift_per_length_m": [asdict(found) for found in evaluation.drift.per_length()],
        "drift_per_speed_m_s": [asdict(found) for found in evaluation.drift.per_speed()],
    }
