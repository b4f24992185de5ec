"""A finished run: what its files are written from."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import SpslamError
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.evaluation.disturbance import Disturbed, judge
from spslam.interfaces import Sequence
from spslam.io.files import printable
from spslam.notices import Notice, notice
from spslam.run.metric_scale import Scaling
from spslam.run.metrics import Metrics, Record, compute_metrics
from spslam.run.sample_frames import Sample
from spslam.trajectory import Trajectory

if TYPE_CHECKING:
    from spslam.slam.system import Slam

logger = logging.getLogger(__name__)


@dataclass
class Results:
    """Trajectory, comparison and metrics of a run, and what they follow from.

    Attributes:
        scaling: how the map got its metric size.
        samples: frames that the report shows.
        notices: what was dropped, guessed, ignored, scaled or doubted; grows while files are written.
        trajectory: of all tracked frames.
        align: how the trajectory is aligned with the ground truth.
        evaluation: the comparison with the ground truth; see `compare`.
        metrics: what `metrics.json` holds.
    """

    slam: Slam
    sequence: Sequence
    record: Record
    scaling: Scaling
    samples: list[Sample]
    notices: list[Notice]
    trajectory: Trajectory
    align: Alignment
    evaluation: Evaluation | str | None
    metrics: Metrics

    @classmethod
    def of(
        cls,
        slam: Slam,
        sequence: Sequence,
        record: Record,
        labels: dict[str, str],
        scaling: Scaling,
        samples: list[Sample],
        notices: list[Notice],
    ) -> Results:
        """The results of a finished run; `labels` are taken over into its metrics."""
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
        """One line for pictures."""
        return printable(
            f"{self.sequence.name}, {self.sequence.sensor}, {self.slam.config.features.extractor}"
        )


def compare(
    trajectory: Trajectory, sequence: Sequence, align: Alignment
) -> Evaluation | str | None:
    """The trajectory against the sequence's ground truth; None without one, a line of text if they do not compare."""
    if sequence.ground_truth is None:
        return None
    try:
        return evaluate(trajectory, sequence.ground_truth, align)
    except Exception as error:
        if not isinstance(error, SpslamError):
            logger.info("the error in full", exc_info=True)
        reason = str(error) or type(error).__name__
        notice(
            logger, "ground_truth_not_compared", "no comparison with the ground truth: %s", reason
        )
        return reason


def _alignment(slam: Slam, sequence: Sequence) -> Alignment:
    """Sim(3) as long as lengths are not metres: an error of the scale must not be aligned away."""
    origin = slam.map.origin
    metric = sequence.sensor != "mono" if origin is None else origin.metric
    return "se3" if metric else "sim3"
