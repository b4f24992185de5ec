"""The results of a finished run, from which its files are written."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import Refusal, SpslamError
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.evaluation.disturbance import Disturbed, judge
from spslam.interfaces import Sequence
from spslam.io.files import printable
from spslam.notices import Notice, notice
from spslam.run.metric_scale import Scaling
from spslam.run.metrics import Metrics, RunRecord, compute_metrics
from spslam.run.sample_frames import Sample
from spslam.trajectory import Trajectory

if TYPE_CHECKING:
    from spslam.slam.system import Slam

logger = logging.getLogger(__name__)


@dataclass
class Results:
    """Trajectory, evaluation and metrics of a run, and their inputs.

    Attributes:
        slam: the system after the run.
        sequence: the input.
        record: results and times of the frames.
        scaling: the metric scale of the map.
        samples: frames that the report shows.
        notices: of the run; the list grows while files are written.
        trajectory: of all tracked frames.
        align: alignment of the trajectory with the ground truth.
        evaluation: comparison with the ground truth; see `compare`.
        metrics: content of `metrics.json`.
    """

    slam: Slam
    sequence: Sequence
    record: RunRecord
    scaling: Scaling
    samples: list[Sample]
    notices: list[Notice]
    trajectory: Trajectory
    align: Alignment
    evaluation: Evaluation | Refusal
    metrics: Metrics

    @classmethod
    def of(
        cls,
        slam: Slam,
        sequence: Sequence,
        record: RunRecord,
        labels: dict[str, str],
        scaling: Scaling,
        samples: list[Sample],
        notices: list[Notice],
    ) -> Results:
        """Compute the results of a finished run; its metrics contain the `labels`."""
        trajectory, align = slam.trajectory(), _alignment(slam, sequence)
        evaluation = compare(trajectory, sequence, align)
        metrics = compute_metrics(
            sequence, record, trajectory, evaluation, slam.statistics, labels, scaling
        )
        if isinstance(sequence, Disturbed):
            stamps = np.array([result.timestamp for result in record.results])
            harm = judge(sequence, stamps, trajectory, sequence.ground_truth, align == "sim3")
            metrics |= {} if harm is None else asdict(harm)
        return cls(
            slam,
            sequence,
            record,
            scaling,
            samples,
            notices,
            trajectory,
            align,
            evaluation,
            metrics,
        )

    @property
    def title(self) -> str:
        """Title of plots, one line."""
        return printable(
            f"{self.sequence.name}, {self.sequence.sensor}, {self.slam.config.features.extractor}"
        )


def compare(trajectory: Trajectory, sequence: Sequence, align: Alignment) -> Evaluation | Refusal:
    """Evaluate the trajectory against the ground truth of the sequence.

    Args:
        trajectory: of all tracked frames.
        sequence: with or without ground truth.
        align: alignment with the ground truth.

    Returns:
        The evaluation; a refusal without ground truth, or if the evaluation failed.
    """
    if sequence.ground_truth is None:
        return Refusal("the sequence has no ground truth")
    try:
        return evaluate(trajectory, sequence.ground_truth, align)
    except Exception as error:
        if not isinstance(error, SpslamError):
            logger.info("traceback of the error", exc_info=True)
        reason = str(error) or type(error).__name__
        notice(
            logger, "ground_truth_not_compared", "no comparison with the ground truth: %s", reason
        )
        return Refusal(reason)


def _alignment(slam: Slam, sequence: Sequence) -> Alignment:
    """Return Sim(3) for a map without metric scale, else SE(3), which keeps errors of the scale."""
    origin = slam.map.origin
    metric = sequence.sensor != "mono" if origin is None else origin.metric
    return "se3" if metric else "sim3"
