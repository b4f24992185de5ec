"""Compute the tracking rate: the fraction of the frames that have a pose.

It belongs beside every error, because errors over fewer frames tend to be smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.association import in_reach
from spslam.evaluation.ate import Evaluation
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

# Largest errors of poses that count in the recall, metres: 0.1 suits a room, 1 a street.
RECALL_DISTANCES_M = (0.1, 1.0)

# Delays of the first pose up to this are rounding errors of large timestamps, seconds.
_ROUNDING_S = 1e-6
# Lower limit of the time between frames, seconds; avoids a division by zero.
_SHORTEST_STEP_S = 1e-9


@dataclass(frozen=True)
class TrackingRate:
    """Numbers of frames with and without a pose.

    Attributes:
        frames: number of frames.
        tracked: number of frames with a pose.
        judged: number of frames with a ground truth.
        counted: whether the times of the frames are known. If not, `frames` is estimated from the
            time of the ground truth and the median time between poses.
        first_pose_delay_s: time from the first frame, or from the start of the ground truth, to the
            first pose, seconds.
        truth_before_s, truth_after_s: for estimated frames, time that the ground truth begins
            before the estimate and ends after it, seconds; else 0.
        rate_meanwhile: for estimated frames, tracking rate between the first and the last pose, 0
            to 1; else 0.
    """

    frames: int
    tracked: int
    judged: int
    counted: bool
    first_pose_delay_s: float
    truth_before_s: float = 0.0
    truth_after_s: float = 0.0
    rate_meanwhile: float = 0.0

    @property
    def tracking_rate(self) -> float:
        """Tracking rate: fraction of the frames that have a pose, 0 to 1."""
        return self.tracked / self.frames

    def as_metrics(self) -> dict[str, float | int | str | None]:
        """Return the metrics without nesting, with the keys of `metrics.json` if it has them."""
        return {
            "frames": self.frames,
            "frames_are": "counted" if self.counted else "estimated",
            "tracked": self.tracked,
            "tracking_rate": self.tracking_rate,
            "first_pose_delay_s": self.first_pose_delay_s,
        }


def measure_tracking_rate(
    estimate: Trajectory,
    ground_truth: Trajectory,
    max_difference: float,
    frame_times: FloatArray | None = None,
    missing: int = 0,
) -> TrackingRate:
    """Count the frames that have a pose.

    Args:
        estimate: estimated poses, at least one.
        ground_truth: true poses, at least one.
        max_difference: largest time difference between a frame and its pose, seconds.
        frame_times: (F,) times of all frames, seconds, increasing; None: not known.
        missing: number of further frames of unknown time, without a pose.

    Raises:
        TrajectoryError: no frame has a pose.
    """
    stamps, truth = estimate.timestamps, ground_truth.timestamps
    if frame_times is None:
        within = int(
            np.count_nonzero(
                (stamps >= truth[0] - max_difference) & (stamps <= truth[-1] + max_difference)
            )
        )
        usual = (
            max(float(np.median(np.diff(stamps))), _SHORTEST_STEP_S) if len(stamps) > 1 else np.inf
        )
        before, after = _truth_beyond(stamps, truth)
        begin, end = max(truth[0], stamps[0] - before), min(truth[-1], stamps[-1] + after)
        frames = max(within, 1 + round((end - begin) / usual))
        # Poses in a gap of the truth cannot be judged.
        unknown = within - int(np.count_nonzero(in_reach(stamps, truth, max_difference)))
        meanwhile = max(within, frames - round((before + after) / usual))
        return TrackingRate(
            frames,
            within,
            frames - unknown,
            False,
            before,
            before,
            after,
            within / max(meanwhile, 1),
        )
    tracked = int(np.count_nonzero(in_reach(frame_times, stamps, max_difference)))
    if tracked == 0:
        raise TrajectoryError(
            f"no frame ({frame_times[0]:.3f} to {frame_times[-1]:.3f} s) is within "
            f"{max_difference:g} s of a pose of the estimate ({stamps[0]:.3f} to "
            f"{stamps[-1]:.3f} s): are these the frames it was made from?"
        )
    judged = int(np.count_nonzero(in_reach(frame_times, truth, max_difference)))
    delay = float(stamps[0] - frame_times[0])
    # Timestamps that count seconds since 1970 are rounded.
    delay = delay if delay > _ROUNDING_S else 0.0
    return TrackingRate(len(frame_times) + missing, tracked, judged + missing, True, delay)


def _truth_beyond(stamps: FloatArray, truth: FloatArray) -> tuple[float, float]:
    """Return the time that the truth begins before the estimate and ends after it, seconds.

    A single pose of the truth on a side does not count: it may exist for interpolation only.
    """
    step = float(np.median(np.diff(truth))) if len(truth) > 1 else 0.0
    before, after = float(stamps[0] - truth[0]), float(truth[-1] - stamps[-1])
    alone = (1.0 + 1e-6) * step
    return (before if before > alone else 0.0), (after if after > alone else 0.0)


def recall(
    evaluation: Evaluation, judged: int, distances_m: Sequence[float] = RECALL_DISTANCES_M
) -> dict[str, float | int | str | None]:
    """Compute the recall: the fraction of judged frames with an error within each distance.

    Errors are position errors after alignment; frames without a pose count as not recalled.

    Args:
        evaluation: the estimate compared with the ground truth.
        judged: number of frames that have a ground truth.
        distances_m: largest errors, metres.

    Returns:
        Recall of each distance, 0 to 1, by `recall_key`.
    """
    errors = evaluation.absolute.errors_m
    # A truth rarer than the frames may match more poses than there are judged frames.
    of = max(judged, len(errors))
    return {
        recall_key(distance): float(np.count_nonzero(errors <= distance) / of)
        for distance in distances_m
    }


def recall_key(distance_m: float) -> str:
    """Return the name of the recall at a distance, for example `recall_0.1m`."""
    return f"recall_{distance_m:g}m"
