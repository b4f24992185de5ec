"""The metrics of a run: `metrics.json`."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from spslam import __version__
from spslam.errors import Refusal
from spslam.evaluation.association import in_reach
from spslam.evaluation.ate import Evaluation
from spslam.evaluation.tracking_rate import RECALL_DISTANCES_M, recall, recall_key
from spslam.interfaces import EQUAL_STAMP, LeftOut, Sequence, WideStage
from spslam.map.map import ARBITRARY
from spslam.notices import Notice
from spslam.run.metric_scale import Scaling
from spslam.timestamps import summarize_times
from spslam.trajectory import Trajectory, row_metrics

if TYPE_CHECKING:
    from spslam.slam.recorder import Statistics
    from spslam.slam.track_results import TrackResult

Figure = float | int | str | None
Metrics = dict[str, Figure | list[dict[str, Figure]]]

# Packages whose versions are reported.
_VERSIONED = (
    "torch",
    "openvino",
    "onnxruntime",
    "numpy",
    "opencv-python-headless",
    "g2opy",
    "scipy",
)


@dataclass
class RunRecord:
    """Results and times of the frames of a run.

    Attributes:
        results: tracking result of each frame that was read.
        frame_ms: time of feature extraction and tracking of each frame, milliseconds. Threads read
            and extract ahead of tracking: the frame rate follows from `done_s`.
        read_ms: time of reading each frame, milliseconds.
        stage_ms: time of each stage of each frame, milliseconds (see `Statistics.lap`).
        done_s: when each frame was done, seconds after the first frame was requested.
        begun_s: when the first frame was requested, seconds after the process started (see
            `process_age_s`).
        dropped: indices of frames that came while tracking was busy.
        latency_ms: time from each image of a live camera, or from the time at which a frame of a
            recording is due in real time, to its pose, milliseconds.
        latency_from: see `LiveSource`; `stamp` for a recording in real time, else empty.
        stopped: whether the user stopped the run.
        failure: the error that ended the run.
        causes: descriptions of faults of the input (see `InputChecks`).
    """

    results: list[TrackResult] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    stage_ms: list[dict[str, float]] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    begun_s: float = 0.0
    dropped: list[int] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    latency_from: str = ""
    stopped: bool = False
    failure: Exception | None = None
    causes: list[str] = field(default_factory=list)


def compute_metrics(
    sequence: Sequence,
    record: RunRecord,
    trajectory: Trajectory,
    evaluation: Evaluation | Refusal,
    statistics: Statistics,
    labels: dict[str, str],
    scaling: Scaling,
) -> Metrics:
    """Compute the metrics of `metrics.json`, flat except for the list of losses.

    Unknown metrics are None. Frames that cannot be decoded, were dropped in real time, or were left
    out (equal stamps, no partner) count as frames without a pose.

    Args:
        sequence: the input.
        record: of the run.
        trajectory: of all tracked frames.
        evaluation: result of `compare`.
        statistics: of the SLAM system.
        labels: copied unchanged (dataset, extractor, config, …).
        scaling: the metric scale of the map.
    """
    skipped, tracked = _skipped(sequence, record), len(trajectory)
    left_out = _left_out(sequence, record)
    missing = skipped + len(record.dropped) + len(left_out)
    frames = len(record.results) + missing
    metrics: Metrics = {
        "sequence": sequence.name,
        "source": sequence.source,
        "sensor": sequence.sensor,
        **labels,
        "frames": frames,
        "tracked": tracked,
        "tracking_rate": tracked / frames if frames else 0.0,
        "skipped_frames": skipped,
        "dropped_frames": len(record.dropped),
        "left_out_frames": len(left_out),
        "left_out_why": _reasons(left_out),
        **_times(sequence, record, left_out),
        "lost_frames": sum(result.state.value == "lost" for result in record.results),
        "first_tracked_frame": _first_tracked(record, trajectory),
        "initialisation_delay_s": _initialisation_delay(record),
        "start_to_first_pose_s": _start_to_first_pose(record),
        "tracking_begun_s": record.begun_s,
        "tracking_s": record.done_s[-1] if record.done_s else None,
        "ended": "failed" if record.failure else "stopped" if record.stopped else "complete",
        "keyframes": statistics.keyframes,
        "points": statistics.points,
        "loops": statistics.loops,
        "merges": statistics.merges,
        "submaps": statistics.submaps,
        "tracked_in_other_submaps": statistics.frames_elsewhere,
        "relocalisations": statistics.relocalisations,
        "frames_direction_only": statistics.frames_direction_only,
        **_matcher(statistics),
        "scale_source": scaling.source or None,
        "scale_applied": scaling.factor,
        "scale_refused": None if scaling.refusal is None else str(scaling.refusal),
        **_errors(sequence, trajectory, evaluation, scaling),
        **row_metrics(sequence.ground_truth, "ground_truth"),
        **_recall(record, missing, evaluation),
        **_losses_and_notices(sequence, record),
        "body_fixed_fraction": float(np.mean(list(statistics.left_out.values())))
        if statistics.left_out
        else 0.0,
        "body_fixed_frames": len(statistics.left_out),
        **_masks(sequence),
        "losses_count": len(statistics.losses),
        "losses": [asdict(loss) for loss in statistics.losses],
        **_timings(record, statistics),
        **_latency(record),
        "peak_rss_mb": peak_memory_mb(),
        **versions(),
    }
    return {key: _finite(value) for key, value in metrics.items()}


def _matcher(statistics: Statistics) -> Metrics:
    """Return how many pairs the learned matcher matched, by stage; empty without one."""
    pairs = statistics.learned_pairs
    if pairs is None:
        return {}
    return {f"learned_pairs_{stage}": pairs.get(stage, 0) for stage in WideStage.of_runs()}


def _masks(sequence: Sequence) -> Metrics:
    """Return the source of the masks and the masked fraction of the left images."""
    of_sequence: Callable[[], Metrics] | None = getattr(sequence, "mask_metrics", None)
    none: Metrics = {"mask_source": None, "masked_fraction": 0.0, "frames_without_mask": 0}
    return none if of_sequence is None else of_sequence()


def notice_metrics(notices: list[Notice]) -> Metrics:
    """Return the number of notices and their texts."""
    return {"notices_count": len(notices), "notices": [asdict(found) for found in notices]}


def versions() -> dict[str, str | None]:
    """Return the versions of spslam, Python and the packages that results depend on."""
    found: dict[str, str | None] = {
        "version_spslam": __version__,
        "version_python": platform.python_version(),
    }
    for name in _VERSIONED:
        key = "version_" + name.removesuffix("-python-headless")
        try:
            found[key] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[key] = None
    found["platform"] = platform.platform()
    return found


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process, 10⁶ bytes; None if the system has none."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # ru_maxrss is in bytes on macOS, in kibibytes elsewhere.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _skipped(sequence: Sequence, record: RunRecord) -> int:
    """Count the frames that could not be decoded, up to the last tracked one: reading is ahead."""
    if (record.stopped or record.failure) and record.results:
        return sum(index < record.results[-1].index for index, _ in sequence.skipped)
    return len(sequence.skipped)


def _left_out(sequence: Sequence, record: RunRecord) -> list[LeftOut]:
    """List the images left out of the sequence; if the run ended early, up to its last frame."""
    if (record.stopped or record.failure) and record.results:
        return [
            entry for entry in sequence.left_out if entry.stamp_s <= record.results[-1].timestamp
        ]
    return list(sequence.left_out)


def _reasons(left_out: list[LeftOut]) -> str | None:
    """Describe how many images were left out, by reason."""
    counts = Counter(entry.reason for entry in left_out)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or None


def _times(sequence: Sequence, record: RunRecord, left_out: list[LeftOut]) -> Metrics:
    """Summarize the time stamps of the frames; `time_stamps` is a line of text."""
    if not record.results:
        return {}
    stamps = np.array([result.timestamp for result in record.results])
    duplicates = sum(entry.reason == EQUAL_STAMP for entry in left_out)
    summary = summarize_times(stamps, sequence.time_unit, duplicates, len(left_out))
    return {
        "time_stamps": str(summary),
        **{f"time_{key}": value for key, value in asdict(summary).items()},
    }


def _first_tracked(record: RunRecord, trajectory: Trajectory) -> int | None:
    """Return the index of the first frame with a pose; mono may compute this pose later."""
    if len(trajectory) == 0:
        return None
    nearest = min(
        record.results, key=lambda result: abs(result.timestamp - trajectory.timestamps[0])
    )
    return nearest.index


def _initialisation_delay(record: RunRecord) -> float | None:
    """Return the seconds from the first frame to the first one that had a pose at once."""
    found = [result.timestamp for result in record.results if result.T_world_cam is not None]
    return found[0] - record.results[0].timestamp if found else None


def _start_to_first_pose(record: RunRecord) -> float | None:
    """Return the seconds from the start of the process to the first pose of a current frame."""
    done = (
        done
        for result, done in zip(record.results, record.done_s, strict=True)
        if result.T_world_cam is not None
    )
    first = next(done, None)
    return None if first is None else record.begun_s + first


def _recall(record: RunRecord, missing: int, evaluation: Evaluation | Refusal) -> Metrics:
    """Compute the fraction of frames near their true pose, of all frames with a true pose.

    Unreadable and dropped frames count as frames with a true pose.
    """
    if isinstance(evaluation, Refusal):
        return dict.fromkeys(map(recall_key, RECALL_DISTANCES_M))
    stamps = np.array([result.timestamp for result in record.results])
    judged = int(
        np.count_nonzero(
            in_reach(stamps, evaluation.ground_truth.timestamps, evaluation.max_difference)
        )
    )
    return {**recall(evaluation, judged + missing)}


def _errors(
    sequence: Sequence,
    trajectory: Trajectory,
    evaluation: Evaluation | Refusal,
    scaling: Scaling,
) -> Metrics:
    if isinstance(evaluation, Evaluation):
        return {**evaluation.as_metrics(), "scale_error_percent": evaluation.scale_error_percent}
    truth = sequence.ground_truth
    return {
        "ate_rmse_m": None,
        "rpe_trans_m": None,
        "rpe_rot_deg": None,
        "t_rel_percent": None,
        "r_rel_deg_per_100m": None,
        "alignment": None,
        "scale": None,
        "scale_error_percent": None,
        # The length is in metres only if the sensor or the map is metric.
        "path_length_m": trajectory.path_length_m if _metric(sequence, scaling) else None,
        "ground_truth_frame": None if truth is None else truth.frame,
        # Without ground truth there is nothing to compare with: no reason is needed.
        "not_compared": None if truth is None else evaluation.reason,
    }


def _metric(sequence: Sequence, scaling: Scaling) -> bool:
    return scaling.source != ARBITRARY if scaling.source else sequence.sensor != "mono"


def _losses_and_notices(sequence: Sequence, record: RunRecord) -> Metrics:
    """Summarize inliers, inlier coverage, reprojection error and pose uncertainty."""
    tracked = [result for result in record.results if result.T_world_cam is not None]
    unit = "map_units" if sequence.sensor == "mono" else "m"
    # The covariance is of a left perturbation, whose rotation does not move the camera centre.
    variances = np.array([np.trace(result.covariance[:3, :3]) for result in tracked])
    return {
        **_median_p5("inliers", [result.inliers for result in tracked]),
        **_median_p5("inlier_coverage", [result.inlier_coverage for result in tracked]),
        "reprojection_error_median_px": _median([result.median_error_px for result in tracked]),
        f"position_sigma_median_{unit}": _median(np.sqrt(variances)),
    }


def _median_p5(name: str, values: list[int] | list[float]) -> Metrics:
    return {
        f"{name}_median": _median(values),
        f"{name}_p5": float(np.percentile(values, 5)) if values else None,
    }


def _median(values: ArrayLike) -> float | None:
    """Return the median of the finite values."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else None


def _timings(record: RunRecord, statistics: Statistics) -> Metrics:
    stages = {"read": record.read_ms, **statistics.stage_ms}
    timings: Metrics = {"fps": len(record.results) / record.done_s[-1] if record.done_s else None}
    timings |= _median_p95("frame", record.frame_ms)
    for name, milliseconds in stages.items():
        # `frame` is the total of the stages.
        if name != "frame":
            timings |= _median_p95("stage_" + name.replace(" ", "_"), milliseconds)
    return timings


def _median_p95(name: str, milliseconds: list[float]) -> Metrics:
    if not milliseconds:
        return {f"{name}_median_ms": None, f"{name}_p95_ms": None}
    median, p95 = np.percentile(milliseconds, [50, 95])
    return {f"{name}_median_ms": float(median), f"{name}_p95_ms": float(p95)}


def _latency(record: RunRecord) -> Metrics:
    """Summarize the latency of a live camera or in real time; else empty."""
    if not record.latency_from:
        return {}
    return {**_median_p95("latency", record.latency_ms), "latency_from": record.latency_from}


def _finite(value: Figure | list[dict[str, Figure]]) -> Figure | list[dict[str, Figure]]:
    return None if isinstance(value, float) and not np.isfinite(value) else value
