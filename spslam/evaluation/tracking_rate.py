"""How much of a sequence an estimate has a pose for: what has to stand beside any error, because an error over fewer
frames is an easier one.
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

# How near the truth a pose has to be to count as found: a room's and a street's measure, metres.
RECALL_DISTANCES_M = (0.1, 1.0)

_ROUNDING_S = 1e-6
# No camera takes more images, seconds.
_SHORTEST_STEP_S = 1e-9


@dataclass(frozen=True)
class Coverage:
    """Frames of a sequence with and without a pose.

    Attributes:
        frames: how many there were.
        tracked: how many of them have a pose.
        judged: how many of them have a ground truth.
        counted: whether the frames are known; else they are reckoned: as many as the estimate's usual step makes in the
            time of the ground truth.
        first_pose_delay_s: from the first frame, or the beginning of the ground truth, to the first pose, seconds.
        truth_before_s, truth_after_s: of reckoned frames, how much longer than the estimate the ground truth lasts at
            its beginning and end, seconds.
        share_meanwhile: of reckoned frames, share of those between the first and the last pose that have one, 0 to 1;
            0 for counted ones.
    """

    frames: int
    tracked: int
    judged: int
    counted: bool
    first_pose_delay_s: float
    truth_before_s: float = 0.0
    truth_after_s: float = 0.0
    share_meanwhile: float = 0.0

    @property
    def share_tracked(self) -> float:
        """Share of the frames that have a pose, 0 to 1."""
        return self.tracked / self.frames

    def as_metrics(self) -> dict[str, float | int | str | None]:
        """Flat figures, with the keys of `metrics.json` where it has them."""
        return {
            "frames": self.frames,
            "frames_are": "counted" if self.counted else "reckoned",
            "tracked": self.tracked,
            "share_tracked": self.share_tracked,
            "first_pose_delay_s": self.first_pose_delay_s,
        }


def coverage(
    estimate: Trajectory,
    ground_truth: Trajectory,
    max_difference: float,
    frame_times: FloatArray | None = None,
    missing: int = 0,
) -> Coverage:
    """How many of the frames have a pose.

    Args:
        estimate: the poses that were found, at least one.
        ground_truth: at least one pose.
        max_difference: how far from a frame's time its pose may be, seconds.
        frame_times: (F,) times of all frames, seconds, increasing.
        missing: how many more frames there were, of unknown time, without a pose.

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
        # Poses in a hole of the truth are right or wrong, nobody knows.
        unknown = within - int(np.count_nonzero(in_reach(stamps, truth, max_difference)))
        meanwhile = max(within, frames - round((before + after) / usual))
        return Coverage(
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
            f"no frame ({frame_times[0]:.3f} to {frame_times[-1]:.3f} s) is within {max_difference:g} s of a pose of "
            f"the estimate ({stamps[0]:.3f} to {stamps[-1]:.3f} s): are these the frames it was made from?"
        )
    judged = int(np.count_nonzero(in_reach(frame_times, truth, max_difference)))
    delay = float(stamps[0] - frame_times[0])
    # Times as large as dates are rounded.
    delay = delay if delay > _ROUNDING_S else 0.0
    return Coverage(len(frame_times) + missing, tracked, judged + missing, True, delay)


def _truth_beyond(stamps: FloatArray, truth: FloatArray) -> tuple[float, float]:
    """Seconds that a ground truth lasts longer than an estimate, before and after it; a single pose of the truth on a
    side, which is there to interpolate, is no time that the estimate could have been in.
    """
    step = float(np.median(np.diff(truth))) if len(truth) > 1 else 0.0
    before, after = float(stamps[0] - truth[0]), float(truth[-1] - stamps[-1])
    alone = (1.0 + 1e-6) * step
    return (before if before > alone else 0.0), (after if after > alone else 0.0)


def recall(
    evaluation: Evaluation, judged: int, distances_m: Sequence[float] = RECALL_DISTANCES_M
) -> dict[str, float | int | str | None]:
    """Share of the frames with a ground truth, 0 to 1, whose pose is within each distance of it after alignment; a
    frame without a pose is none of them.

    Args:
        evaluation: the estimate compared with the ground truth.
        judged: frames that have a ground truth.
        distances_m: metres.
    """
    errors = evaluation.absolute.errors_m
    # Truth that comes less often than frames leaves more poses with a truth than frames.
    of = max(judged, len(errors))
    return {
        recall_key(distance): float(np.count_nonzero(errors <= distance) / of)
        for distance in distances_m
    }


def recall_key(distance_m: float) -> str:
    """What the recall at a distance is called, `recall_0.1m`."""
    return f"recall_{distance_m:g}m"
