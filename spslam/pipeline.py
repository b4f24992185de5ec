"""One run from the first frame to the last file: tracking, figures, results."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import DatasetError, InputError, OutputError, RunStoppedError, SpslamError
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.evaluation.disturbance import Disturbed, judge
from spslam.interfaces import Sequence
from spslam.io.files import printable, write_atomic
from spslam.notices import Notice, notice
from spslam.process.machine import process_age_s
from spslam.process.signals import results_kept
from spslam.reports.html_report import write_report
from spslam.reports.plots import plot_trajectory, write_ply
from spslam.run.frames_csv import write_frames
from spslam.run.input_checks import InputChecks
from spslam.run.metric_scale import ScaleRequest, Scaling, apply_scale
from spslam.run.metrics import Metrics, Record, compute_metrics, notice_metrics
from spslam.run.output import GROUND_TRUTH, OutputFolder, RunLog
from spslam.run.prefetch import prepared, track_prepared
from spslam.run.sample_frames import FrameSamples, Sample
from spslam.trajectory import Trajectory, write_kitti, write_tum
from spslam.visualization.render import render_scene
from spslam.visualization.saved_run import build_scene, truth_in_map
from spslam.visualization.scene import Scene
from spslam.visualization.viewer import Viewer, Viewers

if TYPE_CHECKING:
    from spslam.config import Config
    from spslam.slam.system import Slam
    from spslam.slam.tracking import TrackResult

logger = logging.getLogger(__name__)

_RECENT_FRAMES = 20
_NUMBER = re.compile(r"\d+(\.\d+)?")
# Of an error that a library made, which may go on for pages, characters.
_LONGEST_REASON = 200
# A run that was stopped begins no picture later than so long after: people do not wait longer.
_PICTURES_S = 3.0
_PICTURES = (".png", ".html")


@dataclass(frozen=True)
class Status:
    """How far a run is, after a frame.

    Attributes:
        done, total: frames tracked, skipped or dropped so far, and all.
        result: of the latest frame.
        fps: frames a second over the last few, reading included.
        keyframes, points: size of the map.
    """

    done: int
    total: int
    result: TrackResult
    fps: float
    keyframes: int
    points: int


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder, its figures, and how it ended (see `Record`)."""

    folder: Path
    metrics: Metrics
    stopped: bool
    failure: Exception | None


def run(
    slam: Slam,
    sequence: Sequence,
    output: OutputFolder,
    viewer: Viewer,
    labels: dict[str, str],
    log: RunLog,
    on_frame: Callable[[Status], None] = lambda status: None,
    stop: Callable[[], bool] = lambda: False,
    scale: ScaleRequest | None = None,
    realtime: bool = False,
) -> Outcome:
    """Track a sequence and publish the results in `output`.

    What was computed before a failure is published, too, and the failure is in the outcome. Without a single frame
    there is nothing to publish.

    Args:
        labels: taken over into `metrics.json`.
        log: goes to `log.txt`.
        on_frame: called after each frame.
        stop: asked after each frame and while one is waited for, and again for each picture.
        scale: what the size of a single camera's map is known from.
        realtime: see `track_all`.

    Raises:
        Exception: what made the run fail before its first frame was done.
        RunStoppedError: it was stopped before that.
        OutputError: results cannot be written.
    """
    try:
        log.open(output.partial / "log.txt")
        logger.info("%s (%s), %d frames, %s", sequence.name, sequence.source, len(sequence), sequence.sensor)
        samples = FrameSamples()
        record = track_all(slam, sequence, Viewers(viewer, samples), on_frame, stop, realtime)
        if not record.results:
            if record.stopped:
                raise RunStoppedError(f"{sequence.name}: stopped before a frame was done; nothing is written")
            raise record.failure or DatasetError(f"{sequence.name} has no frames")
        if isinstance(record.failure, InputError):
            # Every pose would be wrong.
            raise record.failure
        try:
            slam.finish()
            stamps = {result.index: result.timestamp for result in record.results}
            scaling = apply_scale(scale, slam, stamps, sequence.ground_truth)
            metrics = write_results(
                output, slam, sequence, record, labels, scaling, samples.chosen(), log.notices, stop
            )
        except Exception:
            # A broken map may well be what the run failed of: that comes first.
            if record.failure is None:
                raise
            raise record.failure from None
        log.close()
        with results_kept():
            folder = output.publish()
    finally:
        log.close()
        output.discard()
    failure = record.failure
    if failure is None and metrics["tracked"] == 0 and not record.stopped:
        failure = _no_pose_error(sequence, record, slam.statistics.no_pose)
    if failure is None and not record.stopped:
        failure = scaling.refusal
    return Outcome(folder, metrics, record.stopped, failure)


def track_all(
    slam: Slam,
    sequence: Sequence,
    viewer: Viewer,
    on_frame: Callable[[Status], None] = lambda status: None,
    stop: Callable[[], bool] = lambda: False,
    realtime: bool = False,
) -> Record:
    """Track every frame of a sequence, while threads read the next ones and find their features.

    Nothing is raised for what goes wrong on the way: it is in `Record.failure`, beside all that was done before it.

    Args:
        realtime: frames come when their stamps say; those that nobody has time for are dropped and counted.
    """
    record = Record(begun_s=process_age_s())
    checks = InputChecks(slam.config)
    record.causes = checks.causes
    begin = perf_counter()
    on_drop = (lambda frame: record.dropped.append(frame.index)) if realtime else None
    try:
        with prepared(sequence, slam.observe, on_drop, slam.observes_at_once, stop) as frames:
            for item in frames:
                checks.see(item.frame, getattr(sequence, "depth_scale", None))
                result, frame_ms = track_prepared(slam, item)
                record.done_s.append(perf_counter() - begin)
                record.results.append(result)
                record.frame_ms.append(frame_ms)
                record.read_ms.append(item.read_ms)
                record.stage_ms.append(slam.statistics.lap())
                _log_frame(result, frame_ms)
                viewer.update(slam, item.frame, result)
                on_frame(_status(slam, sequence, record))
                if stop():
                    break
            record.stopped = stop()
        if record.stopped and record.results:
            text = "stopped after frame %d: what is there is written; stopping it again drops it"
            notice(logger, "stopped", text, record.results[-1].index)
        checks.finish(getattr(sequence, "depth_scale", None))
    except InputError as error:
        record.failure = InputError(f"{sequence.name}: {error}")
        logger.error("the run ends early: %s", record.failure)
    except Exception as error:
        record.failure = error
        logger.exception("the run ends early")
    finally:
        viewer.close()
    return record


def compare(trajectory: Trajectory, sequence: Sequence, align: Alignment) -> Evaluation | str | None:
    """The trajectory against the sequence's ground truth; None where there is none, a line that says why where the two
    cannot be compared."""
    if sequence.ground_truth is None:
        return None
    try:
        return evaluate(trajectory, sequence.ground_truth, align)
    except Exception as error:
        if not isinstance(error, SpslamError):
            logger.info("the error in full", exc_info=True)
        reason = str(error) or type(error).__name__
        notice(logger, "ground_truth_not_compared", "no comparison with the ground truth: %s", reason)
        return reason


def write_results(
    output: OutputFolder,
    slam: Slam,
    sequence: Sequence,
    record: Record,
    labels: dict[str, str],
    scaling: Scaling,
    samples: list[Sample],
    notices: list[Notice],
    stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Write every result file but the log; returns what is in `metrics.json`.

    What a run is for comes first: trajectory, figures, then the other trajectories and the map, without which it is a
    failure (`Record.failure`) but not lost. What shows it in other ways is tried file by file. A notice says what could
    not be written, and why. The results of a run that was stopped are published before that: who stopped it may not
    wait for pictures.

    Args:
        notices: what was dropped, guessed, ignored, scaled or doubted; grows while this goes on.
        stop: asked for each file that shows results in other ways; soon after it said so, no more are made.

    Raises:
        OutputError: trajectory or figures cannot be written.
    """
    folder = output.partial
    trajectory = slam.trajectory()
    align = _alignment(slam, sequence)
    evaluation = compare(trajectory, sequence, align)
    metrics = compute_metrics(sequence, record, trajectory, evaluation, slam.statistics, labels, scaling)
    if isinstance(sequence, Disturbed):
        stamps = np.array([result.timestamp for result in record.results])
        harm = judge(sequence, stamps, trajectory, sequence.ground_truth, align == "sim3")
        metrics |= {} if harm is None else asdict(harm)
    write_tum(folder / "trajectory.tum", trajectory, scaling.source)
    write_atomic(folder / "config.yaml", _config_as_run(slam).to_yaml())
    _write_metrics(folder, metrics, notices)
    # The map is the largest by far: where it finds no room the others are kept.
    wanted: list[tuple[str, Callable[[Path], object]]] = [
        ("trajectory.kitti", lambda path: write_kitti(path, trajectory)),
        ("keyframes.tum", lambda path: write_tum(path, slam.keyframe_trajectory(), scaling.source)),
        *([("map.npz", slam.save_map)] if slam.mapping else []),
    ]
    missing = [name for name, write in wanted if not _tried(folder / name, write)]
    # Elsewhere no folder can be moved while its log is open.
    if record.stopped and os.name == "posix":
        folder = output.publish()

    title = printable(f"{sequence.name}, {sequence.sensor}, {slam.config.features.extractor}")
    truth = sequence.ground_truth

    @cache
    def scene() -> Scene:
        shown = truth_in_map(trajectory, evaluation)
        return build_scene(slam.map, slam.main_part, slam.map.session, trajectory, shown, title)

    optional: list[tuple[str, Callable[[Path], object]]] = [
        (GROUND_TRUTH, lambda path: _write_truth(path, truth, record)),
        ("frames.csv", lambda path: write_frames(path, record)),
        ("map.ply", lambda path: write_ply(path, scene().points)),
        ("trajectory.png", lambda path: plot_trajectory(path, trajectory, truth, align, title=title)),
        ("map.png", lambda path: render_scene(path, scene())),
        (
            "report.html",
            lambda path: write_report(
                path, slam, record, trajectory, evaluation, metrics | notice_metrics(notices), samples
            ),
        ),
    ]
    metrics["results_not_written"] = _write_optional(folder, optional, stop) + len(missing)
    if missing and record.failure is None:
        record.failure = OutputError(f"{' and '.join(missing)} could not be written, the other results are there")
    # Another file may have taken the last of the room: what is there says nearly the same.
    _tried(folder / "metrics.json", lambda path: _write_metrics(folder, metrics, notices))
    return metrics


def _write_optional(folder: Path, files: list[tuple[str, Callable[[Path], object]]], stop: Callable[[], bool]) -> int:
    """Write the files that a run goes on without, until it is stopped once more or for long enough; how many are not
    there."""
    failed: list[str] = []
    left = [name for name, _ in files]
    until: float | None = None
    try:
        with results_kept():
            for name, write in files:
                if stop():
                    until = until or monotonic() + _PICTURES_S
                    if Path(name).suffix in _PICTURES and monotonic() >= until:
                        break
                if not _tried(folder / name, write):
                    failed.append(name)
                left.remove(name)
    except KeyboardInterrupt:
        # What matters is written: it is not dropped for a picture.
        (folder / left[0]).unlink(missing_ok=True)
    if left:
        notice(logger, "stopped", "%s not written: the run was stopped", ", ".join(left), count=len(left))
    return len(failed) + len(left)


def _write_metrics(folder: Path, metrics: Metrics, notices: list[Notice]) -> Metrics:
    metrics |= notice_metrics(notices)
    write_atomic(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    return metrics


def _tried(path: Path, write: Callable[[Path], object]) -> bool:
    """Write a file that a run goes on without; whether it is there. A notice says why it is not."""
    try:
        return write(path) is not False
    except Exception as error:
        # Whatever a library makes of this machine, it may not cost the other results.
        logger.info("%s: the error in full", path.name, exc_info=True)
        # The folder is a hidden one, which has another name soon.
        lines = str(error).replace(str(path), path.name).strip().splitlines()
        reason = lines[0][:_LONGEST_REASON] if lines else type(error).__name__
        notice(logger, "output_failed", "%s was not written: %s", path.name, reason)
        return False


def _write_truth(path: Path, ground_truth: Trajectory | None, record: Record) -> None:
    """The ground truth while the run lasted, in its own world, with at most one pose before and after it."""
    if ground_truth is None:
        return
    first = int(np.searchsorted(ground_truth.timestamps, record.results[0].timestamp, side="right")) - 1
    end = int(np.searchsorted(ground_truth.timestamps, record.results[-1].timestamp, side="left")) + 1
    truth = ground_truth.select(np.arange(max(first, 0), min(end, len(ground_truth))))
    if len(truth):
        write_tum(path, truth)


def _config_as_run(slam: Slam) -> Config:
    """The configuration with the concurrency that the extractor had, which may have been left open."""
    features = slam.config.features.model_copy(update={"max_concurrency": slam.observes_at_once})
    return slam.config.model_copy(update={"features": features})


def _alignment(slam: Slam, sequence: Sequence) -> Alignment:
    """Sim(3) as long as lengths are not metres: an error of the scale must not be aligned away."""
    origin = slam.map.origin
    metric = sequence.sensor != "mono" if origin is None else origin.metric
    return "se3" if metric else "sim3"


def _status(slam: Slam, sequence: Sequence, record: Record) -> Status:
    recent = record.done_s[-_RECENT_FRAMES:] if len(record.done_s) > 1 else [0.0, *record.done_s]
    return Status(
        done=len(record.results) + len(sequence.skipped) + len(record.dropped),
        total=len(sequence),
        result=record.results[-1],
        fps=(len(recent) - 1) / max(recent[-1] - recent[0], 1e-6),
        keyframes=slam.statistics.keyframes,
        points=slam.statistics.points,
    )


def _log_frame(result: TrackResult, ms: float) -> None:
    logger.info(
        "frame %d at %.6f s: %s, %d of %d matches, %.1f ms%s",
        result.index,
        result.timestamp,
        result.state.value,
        result.inliers,
        result.matches,
        ms,
        f", {result.reason}" if result.reason else "",
    )


def _no_pose_error(sequence: Sequence, record: Record, cause: str) -> SpslamError:
    """Why not one frame was tracked, in one line; `cause` where that is known, else what most frames say."""
    if sequence.sensor == "mono" and len(record.results) == 1:
        return DatasetError(f"{sequence.name}: a single camera needs at least 2 frames to start, found 1")
    if not cause:
        cause = _most_frequent([result.reason for result in record.results if result.reason])
    causes = "; ".join([*record.causes, cause])
    return DatasetError(
        f"{sequence.name}: none of {len(record.results)} frames could be tracked; {causes}; log.txt tells of each frame"
    )


def _most_frequent(reasons: list[str]) -> str:
    """The reason given most often, whatever its numbers, as the latest frame of those gave it."""
    if not reasons:
        return "no reason given"
    kinds = [_NUMBER.sub("#", reason) for reason in reasons]
    # The latest of equally frequent ones: the first frame cannot but wait for a second.
    most = max(dict.fromkeys(reversed(kinds)), key=kinds.count)
    latest = next(reason for reason, kind in zip(reasons[::-1], kinds[::-1], strict=True) if kind == most)
    return f"{kinds.count(most)} times: {latest}"
