"""A run: track the frames of a sequence with `Slam` and write the results to a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from spslam.callbacks import ignore, never
from spslam.errors import DatasetError, InputError, RunStoppedError
from spslam.interfaces import LiveSource, Sequence
from spslam.notices import counted, notice
from spslam.process.machine import process_age_s
from spslam.process.signals import results_kept
from spslam.reports.writers import OUTPUTS, preload, write_results
from spslam.run.input_checks import InputChecks
from spslam.run.metric_scale import ScaleRequest, Scaling, TagSize, apply_scale
from spslam.run.metrics import Metrics, RunRecord
from spslam.run.no_pose import no_pose_error
from spslam.run.output import OutputFolder, RunLog
from spslam.run.prefetch import prepared, track_prefetched
from spslam.run.results import Results
from spslam.run.sample_frames import FrameSamples
from spslam.run.tag_scale import TagSightings
from spslam.visualization.viewer import Viewer, Viewers

if TYPE_CHECKING:
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

logger = logging.getLogger(__name__)

# Number of latest frames over which the displayed frame rate is averaged.
_RECENT_FRAMES = 20


@dataclass(frozen=True)
class Status:
    """The progress of a run after a frame.

    Attributes:
        done: number of frames that were tracked, skipped or dropped until now.
        total: number of all frames; None for a live camera without a limit.
        result: result of the latest frame.
        fps: frames per second over the latest frames, including reading.
        keyframes, points: size of the map.
    """

    done: int
    total: int | None
    result: TrackResult
    fps: float
    keyframes: int
    points: int


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, its metrics, and how it ended (see `RunRecord`)."""

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
    on_frame: Callable[[Status], None] = ignore,
    stop: Callable[[], bool] = never,
    scale: ScaleRequest | None = None,
    realtime: bool = False,
    outputs: Iterable[str] = OUTPUTS,
) -> RunResult:
    """Track a sequence and publish the results in `output`.

    After a failure, the results until then are published, and the outcome holds the failure. A run
    without a single tracked frame publishes nothing.

    Args:
        slam: the system.
        sequence: the frames.
        output: the folder.
        viewer: shows the run.
        labels: entries that are copied to `metrics.json`.
        log: log of the run; it is written to `log.txt`.
        on_frame: called after each frame.
        stop: called after each frame, while waiting for one, and after each rendered picture;
            returns whether to stop.
        scale: source of the metric scale of a single camera's map; None: no scale.
        realtime: see `track_all`.
        outputs: which files to write, see `write_results`.

    Raises:
        Exception: the run failed before its first frame was tracked.
        RunStoppedError: the run was stopped before its first frame was tracked.
        OutputError: results cannot be written.
    """
    try:
        log.open(output.partial / "log.txt")
        logger.info(
            "%s (%s), %s, %s",
            sequence.name,
            sequence.source,
            "live" if (total := number_of_frames(sequence)) is None else counted(total, "frame"),
            sequence.sensor,
        )
        samples = FrameSamples()
        tags = TagSightings(scale.dictionary) if isinstance(scale, TagSize) else None
        viewers = Viewers(viewer, samples, *([] if tags is None else [tags]))
        if not (realtime or isinstance(sequence, LiveSource)):
            # Beside the compilation of the network; in real time it would delay frames.
            preload(outputs)
        record = track_all(slam, sequence, viewers, on_frame, stop, realtime)
        _check_worth_writing(sequence, record)
        try:
            slam.finish()
            scaling = apply_scale(scale, slam, _stamps(record), sequence.ground_truth, tags)
            results = Results.of(
                slam, sequence, record, labels, scaling, samples.chosen(), log.notices
            )
            write_results(output, results, outputs, stop)
        except Exception:
            # A broken map may be a consequence of the earlier failure: report the earlier one.
            if record.failure is None:
                raise
            raise record.failure from None
        log.close()
        with results_kept():
            folder = output.publish()
    finally:
        log.close()
        output.discard()
    return RunResult(
        folder,
        results.metrics,
        record.stopped,
        _failure(slam, sequence, record, results.metrics, scaling),
    )


def track_all(
    slam: Slam,
    sequence: Sequence,
    viewer: Viewer,
    on_frame: Callable[[Status], None] = ignore,
    stop: Callable[[], bool] = never,
    realtime: bool = False,
) -> RunRecord:
    """Track every frame of a sequence, while threads read and extract the next frames.

    It raises no error: `RunRecord.failure` holds it, beside the results until then.

    Args:
        slam: the system.
        sequence: the frames.
        viewer: shows the run.
        on_frame: called after each frame.
        stop: called after each frame and while waiting for one; returns whether to stop.
        realtime: frames arrive at the times of their stamps; frames for which there is no time are
            dropped and counted. A live camera is always followed in real time.
    """
    record = RunRecord(begun_s=process_age_s())
    checks = InputChecks(slam.config)
    record.causes = checks.causes
    begin = perf_counter()
    live = isinstance(sequence, LiveSource)
    on_drop = (lambda frame: record.dropped.append(frame.index)) if realtime or live else None
    try:
        with prepared(
            sequence, slam.preprocessor.observe, on_drop, slam.preprocessor.max_concurrency, stop
        ) as frames:
            for item in frames:
                checks.see(item.frame, getattr(sequence, "depth_scale", None))
                result, frame_ms = track_prefetched(slam, item)
                record.done_s.append(perf_counter() - begin)
                if item.frame.captured_s is not None:
                    record.latency_ms.append((monotonic() - item.frame.captured_s) * 1e3)
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
            text = "stopped after frame %d: writing the results; stop again to discard them"
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
    if realtime:
        record.latency_from = "stamp"
    if isinstance(sequence, LiveSource):
        # Reading is ahead: frames after the last tracked one do not count.
        last = record.results[-1].index if record.results else -1
        dropped = {index for index in (*record.dropped, *sequence.dropped) if index < last}
        record.dropped, record.latency_from = sorted(dropped), sequence.latency_from
    return record


def number_of_frames(sequence: Sequence) -> int | None:
    """Return the number of frames of a sequence; None for a live camera without a limit."""
    return sequence.max_frames if isinstance(sequence, LiveSource) else len(sequence)


def _check_worth_writing(sequence: Sequence, record: RunRecord) -> None:
    """Raise the error that ended a run if it has no useful results."""
    if not record.results and record.stopped:
        raise RunStoppedError(
            f"{sequence.name}: stopped before a frame was done; nothing is written"
        )
    if not record.results:
        raise record.failure or DatasetError(f"{sequence.name} has no frames")
    # Every pose would be wrong.
    if isinstance(record.failure, InputError):
        raise record.failure


def _stamps(record: RunRecord) -> dict[int, float]:
    """The time of each frame, seconds, by its index."""
    return {result.index: result.timestamp for result in record.results}


def _failure(
    slam: Slam, sequence: Sequence, record: RunRecord, metrics: Metrics, scaling: Scaling
) -> Exception | None:
    """The failure of a run with results; None if it did not fail."""
    if record.failure is not None or record.stopped:
        return record.failure
    if metrics["tracked"] == 0:
        return no_pose_error(sequence, record, slam.statistics.no_pose, _is_nearest_only(slam))
    return scaling.refusal


def _is_nearest_only(slam: Slam) -> bool:
    """Whether frames were sought in a saved map without the matcher that their weights have."""
    from spslam.factory import has_matcher

    if not slam.localization_only or slam.statistics.learned_pairs is not None:
        return False
    return has_matcher(slam.config.features)


def _status(slam: Slam, sequence: Sequence, record: RunRecord) -> Status:
    recent = record.done_s[-_RECENT_FRAMES:] if len(record.done_s) > 1 else [0.0, *record.done_s]
    return Status(
        done=len(record.results) + len(sequence.skipped) + len(record.dropped),
        total=number_of_frames(sequence),
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
