"""The figures of a run, as `metrics.json` has them."""

from __future__ import annotations

import platform
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from spslam import __version__
from spslam.evaluation.association import in_reach
from spslam.evaluation.ate import Evaluation
from spslam.evaluation.tracking_rate import RECALL_DISTANCES_M, recall, recall_key
from spslam.interfaces import EQUAL_STAMP, LeftOut, Sequence
from spslam.map.map import ARBITRARY
from spslam.notices import Notice
from spslam.run.metric_scale import Scaling
from spslam.timestamps import summarize_times
from spslam.trajectory import Trajectory, row_figures

if TYPE_CHECKING:
    from spslam.slam.recorder import Statistics
    from spslam.slam.tracking import TrackResult

Figure = float | int | str | None
Metrics = dict[str, Figure | list[dict[str, Figure]]]

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
class Record:
    """What a run left behind beside the map.

    Attributes:
        results: one of each frame that was read.
        frame_ms, read_ms: how long finding its features and tracking it, and reading it, took, milliseconds. Threads
            do both ahead of tracking: `done_s` tells how many frames a second come out.
        stage_ms: the same of each stage that it went through (see `Statistics.lap`).
        done_s: when it was done, seconds after the first frame was asked for.
        begun_s: when that was, seconds after the process began (see `process_age_s`).
        dropped: indices of frames that came while all were busy.
        stopped: whether somebody asked to stop before the end.
        failure: what ended the run before its time.
        causes: what is wrong with the input, in words (see `InputChecks`).
    """

    results: list[TrackResult] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    stage_ms: list[dict[str, float]] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    begun_s: float = 0.0
    dropped: list[int] = field(default_factory=list)
    stopped: bool = False
    failure: Exception | None = None
    causes: list[str] = field(default_factory=list)


def compute_metrics(
    sequence: Sequence,
    record: Record,
    trajectory: Trajectory,
    evaluation: Evaluation | str | None,
    statistics: Statistics,
    labels: dict[str, str],
    scaling: Scaling,
) -> Metrics:
    """The figures of `metrics.json`, flat but for the list of losses; None for what is not known.

    Frames that cannot be decoded, were dropped in real time, or were given and left out (equal stamps, no partner)
    count as frames without a pose.

    Args:
        evaluation: what `compare` returned.
        labels: taken over as they are (dataset, extractor, config, …).
        scaling: where the size of the map comes from.
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
        "share_tracked": tracked / frames if frames else 0.0,
        "skipped_frames": skipped,
        "dropped_frames": len(record.dropped),
        "left_out_frames": len(left_out),
        "left_out_why": _reasons(left_out),
        **_times(sequence, record, left_out),
        "lost_frames": sum(result.state.value == "lost" for result in record.results),
        "first_tracked_frame": _first_tracked(record, trajectory),
        "initialisation_delay_s": _initialisation_delay(record),
        "start_to_first_pose_s": _start_to_first_pose(record),
        "ended": "failed" if record.failure else "stopped" if record.stopped else "complete",
        "keyframes": statistics.keyframes,
        "points": statistics.points,
        "loops": statistics.loops,
        "merges": statistics.merges,
        "map_parts": statistics.parts,
        "tracked_in_other_parts": statistics.frames_elsewhere,
        "relocalisations": statistics.relocalisations,
        "scale_source": scaling.source or None,
        "scale_applied": scaling.factor,
        "scale_refused": None if scaling.refusal is None else str(scaling.refusal),
        **_errors(sequence, trajectory, evaluation, scaling),
        **row_figures(sequence.ground_truth, "ground_truth"),
        **_recall(record, missing, evaluation),
        **_health(sequence, record),
        "body_fixed_share": float(np.mean(list(statistics.left_out.values())))
        if statistics.left_out
        else 0.0,
        "body_fixed_frames": len(statistics.left_out),
        "losses_count": len(statistics.losses),
        "losses": [asdict(loss) for loss in statistics.losses],
        **_timings(record, statistics),
        "peak_rss_mb": peak_memory_mb(),
        **versions(),
    }
    return {key: _finite(value) for key, value in metrics.items()}


def notice_metrics(notices: list[Notice]) -> Metrics:
    """How many things were dropped, guessed, ignored, scaled or doubted, and each in words."""
    return {"notices_count": len(notices), "notices": [asdict(found) for found in notices]}


def versions() -> dict[str, str | None]:
    """Versions of spslam, Python and the packages that results depend on."""
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
    """Largest resident memory of this process so far, 10⁶ bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kibibytes elsewhere.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _skipped(sequence: Sequence, record: Record) -> int:
    """Frames that could not be decoded, up to the last one that was tracked: reading may have been ahead."""
    if (record.stopped or record.failure) and record.results:
        return sum(index < record.results[-1].index for index, _ in sequence.skipped)
    return len(sequence.skipped)


def _left_out(sequence: Sequence, record: Record) -> list[LeftOut]:
    """What the recording holds and is no frame, up to the last one that was tracked where the run ended early."""
    if (record.stopped or record.failure) and record.results:
        return [
            entry for entry in sequence.left_out if entry.stamp_s <= record.results[-1].timestamp
        ]
    return list(sequence.left_out)


def _reasons(left_out: list[LeftOut]) -> str | None:
    """How many images were left out for which reason, in words."""
    counts = Counter(entry.reason for entry in left_out)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or None


def _times(sequence: Sequence, record: Record, left_out: list[LeftOut]) -> Metrics:
    """What the time stamps of the frames looked like; in words under `time_stamps`."""
    if not record.results:
        return {}
    stamps = np.array([result.timestamp for result in record.results])
    duplicates = sum(entry.reason == EQUAL_STAMP for entry in left_out)
    summary = summarize_times(stamps, sequence.time_unit, duplicates, len(left_out))
    return {
        "time_stamps": str(summary),
        **{f"time_{key}": value for key, value in asdict(summary).items()},
    }


def _first_tracked(record: Record, trajectory: Trajectory) -> int | None:
    """Index of the first frame with a pose; for mono it may have got it frames later."""
    if len(trajectory) == 0:
        return None
    nearest = min(
        record.results, key=lambda result: abs(result.timestamp - trajectory.timestamps[0])
    )
    return nearest.index


def _initialisation_delay(record: Record) -> float | None:
    """Seconds from the first frame to the first one that was tracked when it came."""
    found = [result.timestamp for result in record.results if result.T_world_cam is not None]
    return found[0] - record.results[0].timestamp if found else None


def _start_to_first_pose(record: Record) -> float | None:
    """Seconds from the process's start until the first frame that was tracked when it came had its pose."""
    done = (
        done
        for result, done in zip(record.results, record.done_s, strict=True)
        if result.T_world_cam is not None
    )
    first = next(done, None)
    return None if first is None else record.begun_s + first


def _recall(record: Record, missing: int, evaluation: Evaluation | str | None) -> Metrics:
    """Frames that were found near the truth, of all that have one; unreadable and dropped ones count as if they had."""
    if not isinstance(evaluation, Evaluation):
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
    evaluation: Evaluation | str | None,
    scaling: Scaling,
) -> Metrics:
    if isinstance(evaluation, Evaluation):
        return {**evaluation.as_metrics(), "scale_error_percent": evaluation.scale_error_percent}
    return {
        "ate_rmse_m": None,
        "rpe_trans_m": None,
        "rpe_rot_deg": None,
        "t_rel_percent": None,
        "r_rel_deg_per_100m": None,
        "alignment": None,
        "scale": None,
        "scale_error_percent": None,
        # Metres only where the sensor or the map knows them.
        "path_length_m": trajectory.path_length_m if _metric(sequence, scaling) else None,
        "ground_truth_frame": sequence.ground_truth.frame
        if sequence.ground_truth is not None
        else None,
        "not_compared": evaluation,
    }


def _metric(sequence: Sequence, scaling: Scaling) -> bool:
    return scaling.source != ARBITRARY if scaling.source else sequence.sensor != "mono"


def _health(sequence: Sequence, record: Record) -> Metrics:
    """What the tracked frames saw of the map, and how sure their poses were when they were found."""
    tracked = [result for result in record.results if result.T_world_cam is not None]
    unit = "map_units" if sequence.sensor == "mono" else "m"
    # The rotation of a left perturbation moves no camera centre.
    variances = np.array([np.trace(result.covariance[:3, :3]) for result in tracked])
    return {
        **_median_p5("inliers", [result.inliers for result in tracked]),
        **_median_p5("coverage", [result.coverage for result in tracked]),
        "reprojection_error_median_px": _median([result.median_error_px for result in tracked]),
        f"position_sigma_median_{unit}": _median(np.sqrt(variances)),
    }


def _median_p5(name: str, values: list[int] | list[float]) -> Metrics:
    return {
        f"{name}_median": _median(values),
        f"{name}_p5": float(np.percentile(values, 5)) if values else None,
    }


def _median(values: ArrayLike) -> float | None:
    """Median of those that are known."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else None


def _timings(record: Record, statistics: Statistics) -> Metrics:
    stages = {"read": record.read_ms, **statistics.stage_ms}
    timings: Metrics = {"fps": len(record.results) / record.done_s[-1] if record.done_s else None}
    timings |= _median_p95("frame", record.frame_ms)
    for name, milliseconds in stages.items():
        # The whole of a frame is no stage of it.
        if name != "frame":
            timings |= _median_p95("stage_" + name.replace(" ", "_"), milliseconds)
    return timings


def _median_p95(name: str, milliseconds: list[float]) -> Metrics:
    if not milliseconds:
        return {f"{name}_median_ms": None, f"{name}_p95_ms": None}
    median, p95 = np.percentile(milliseconds, [50, 95])
    return {f"{name}_median_ms": float(median), f"{name}_p95_ms": float(p95)}


def _finite(value: Figure | list[dict[str, Figure]]) -> Figure | list[dict[str, Figure]]:
    return None if isinstance(value, float) and not np.isfinite(value) else value
