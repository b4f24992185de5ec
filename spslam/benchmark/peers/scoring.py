"""Score a trajectory by our evaluator, whoever made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from spslam.benchmark.peers.inputs import PeerInput
from spslam.errors import SpslamError
from spslam.evaluation.association import MAX_DIFFERENCE_S
from spslam.evaluation.comparison import Conventions, compare_with
from spslam.evaluation.tracking_rate import measure_tracking_rate
from spslam.frame import Sensor
from spslam.trajectory import Trajectory, read_tum

# What a trajectory holds: a pose of each tracked frame, or of each keyframe.
Kind = Literal["frames", "keyframes"]
# Metrics of the trajectory of keyframes, beside those of all frames.
KEYFRAME_METRICS = {
    "ate_rmse_m": "keyframes_ate_rmse_m",
    "rpe_trans_m": "keyframes_rpe_trans_m",
    "matched_poses": "keyframes_matched_poses",
}
_ERRORS = ("ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "t_rel_percent", "r_rel_deg_per_100m")


def score(
    trajectory: Path, keyframes: Path, kind: Kind, given: PeerInput, sensor: Sensor
) -> dict[str, Any]:
    """Return the metrics of a run: tracking rate and errors, of all frames and of keyframes.

    A trajectory of keyframes alone has no tracking rate and no errors of frames: the first is left
    to the system's own count.

    Args:
        trajectory: file in TUM's format.
        keyframes: the same of keyframes; may be missing.
        kind: what `trajectory` holds.
        given: the input.
        sensor: the sensor: a single camera is aligned by Sim(3), others by SE(3).

    Raises:
        TrajectoryError: the trajectory cannot be read.
    """
    metrics: dict[str, Any] = {
        "frames": len(given.times),
        "scored": kind,
        "ground_truth_frame": None,
        **dict.fromkeys(_ERRORS),
    }
    if _is_empty(trajectory):
        # A system that ran and tracked nothing.
        return {**metrics, "tracked": 0, "tracking_rate": 0.0, "not_compared": "no pose"}
    estimate = read_tum(trajectory)
    if kind == "keyframes":
        return metrics | _of_keyframes(estimate, given, sensor)
    metrics |= _compared(estimate, given, sensor)
    metrics["frames"] = len(given.times)
    metrics["tracked"] = min(int(metrics["tracked"]), metrics["frames"])
    metrics["tracking_rate"] = metrics["tracked"] / max(metrics["frames"], 1)
    if keyframes.is_file():
        try:
            metrics |= _of_keyframes(read_tum(keyframes), given, sensor)
        except SpslamError as error:
            # Too few keyframes do not spoil the errors of the frames.
            metrics["keyframes_not_compared"] = str(error)
    return metrics


def _is_empty(trajectory: Path) -> bool:
    """Return whether a file of poses has comments and empty lines only."""
    with trajectory.open("rb") as file:
        return all(not line.strip() or line.lstrip().startswith(b"#") for line in file)


def _compared(estimate: Trajectory, given: PeerInput, sensor: Sensor) -> dict[str, Any]:
    if given.truth is None:
        covered = measure_tracking_rate(estimate, estimate, MAX_DIFFERENCE_S, given.times)
        return {**covered.as_metrics(), "not_compared": "no ground truth"}
    conventions = Conventions(align="sim3" if sensor == "mono" else "se3")
    return dict(compare_with("", estimate, given.truth, conventions, given.times).metrics)


def _of_keyframes(estimate: Trajectory, given: PeerInput, sensor: Sensor) -> dict[str, Any]:
    found = _compared(estimate, given, sensor)
    metrics = {new: found.get(old) for old, new in KEYFRAME_METRICS.items()}
    return {
        **metrics,
        "keyframes_poses": len(estimate),
        "keyframes_not_compared": found.get("not_compared"),
        "ground_truth_frame": found.get("ground_truth_frame"),
    }
