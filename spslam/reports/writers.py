"""Writers of the result files of a run, chosen by name."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from time import monotonic

import numpy as np

from spslam.callbacks import never
from spslam.config import Config
from spslam.errors import ConfigError, OutputError
from spslam.io.files import write_atomic
from spslam.map.colors import point_colors
from spslam.map.submaps import points_of
from spslam.notices import notice
from spslam.process.signals import results_kept
from spslam.reports import plotting
from spslam.reports.html_report import write_report
from spslam.reports.plots import plot_trajectory, write_ply
from spslam.run.frames_csv import write_frames
from spslam.run.metrics import notice_metrics
from spslam.run.output import CONFIG, GROUND_TRUTH, METRICS, OutputFolder, with_old_names
from spslam.run.poses_csv import write_poses
from spslam.run.results import Results
from spslam.slam.system import Slam
from spslam.trajectory import write_kitti, write_tum
from spslam.visualization.map_view import MapView
from spslam.visualization.render import render_scene
from spslam.visualization.saved_run import build_map_view, truth_in_map

logger = logging.getLogger(__name__)

# Characters of a library's error message that a notice shows at most; some fill pages.
_LONGEST_REASON = 200
# Seconds after a stop until no further picture or page is started.
PICTURES_AFTER_STOP_S = 3.0
# Suffixes of the files to which this limit applies.
_PICTURES = (".png", ".html")

# Writes a file to a path. The scene is built at its first use, and only once.
Write = Callable[[Path, Results, Callable[[], MapView]], object]


@dataclass(frozen=True)
class Writer:
    """A result file and the function that writes it.

    Attributes:
        output: name in `--outputs` that selects the file; several files may have the same one.
        file: name of the file.
        write: writes the file to a path; returns False if this machine cannot make it.
        needed: whether a run without the file has failed.
    """

    output: str
    file: str
    write: Write
    needed: bool = False


def _write_kitti(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    write_kitti(path, results.trajectory)


def _write_keyframes(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    write_tum(path, results.slam.trajectory(keyframes_only=True), results.scaling.source)


def _write_poses(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    write_poses(path, results.record, results.slam.frame_poses())


def _write_points(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    slam = results.slam
    ids = points_of(slam.map, slam.main_submap)
    points = slam.map.positions[slam.map.point_rows(ids)]
    write_ply(path, points, point_colors(slam.map, ids))


def _write_map(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    # A run that only localizes does not change the map.
    if not results.slam.localization_only:
        results.slam.save_map(path)


def _write_truth(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    """Write the ground truth of the run's time span, with at most one pose before and after."""
    truth, tracked = results.sequence.ground_truth, results.record.results
    if truth is None:
        return
    first = int(np.searchsorted(truth.timestamps, tracked[0].timestamp, side="right")) - 1
    end = int(np.searchsorted(truth.timestamps, tracked[-1].timestamp, side="left")) + 1
    during = truth.select(np.arange(max(first, 0), min(end, len(truth))))
    if len(during):
        write_tum(path, during)


def _plot_trajectory(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    truth = results.sequence.ground_truth
    plot_trajectory(path, results.trajectory, truth, results.align, title=results.title)


def _write_report(path: Path, results: Results, scene: Callable[[], MapView]) -> None:
    metrics = results.metrics | notice_metrics(results.notices)
    write_report(
        path,
        results.slam,
        results.record,
        results.trajectory,
        results.evaluation,
        metrics,
        results.samples,
    )


# In the order of writing. The map, the largest file, comes after the trajectories: they are kept
# if the disk fills up.
WRITERS = (
    Writer("trajectory", "trajectory.kitti", _write_kitti, needed=True),
    Writer("trajectory", "keyframes.tum", _write_keyframes, needed=True),
    Writer("trajectory", "poses.csv", _write_poses, needed=True),
    Writer("map", "map.npz", _write_map, needed=True),
    Writer("ground-truth", GROUND_TRUTH, _write_truth),
    Writer("frames", "frames.csv", lambda path, results, scene: write_frames(path, results.record)),
    Writer("points", "map.ply", _write_points),
    Writer("plots", "trajectory.png", _plot_trajectory),
    Writer("plots", "map.png", lambda path, results, scene: render_scene(path, scene())),
    Writer("report", "report.html", _write_report),
)
OUTPUTS = tuple(dict.fromkeys(writer.output for writer in WRITERS))


def preload(outputs: Iterable[str]) -> None:
    """Import in another thread what only the writers of these outputs need."""
    if "plots" in outputs:
        plotting.preload()


def parse_outputs(text: str) -> tuple[str, ...]:
    """Return the outputs named in a comma-separated list.

    Raises:
        ConfigError: a name is unknown, or the list is empty.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown or not names:
        found = f"no output {unknown[0]!r}" if unknown else "no name in --outputs"
        raise ConfigError(
            f"{found}: expected one or several of {', '.join(OUTPUTS)}, separated by commas"
        )
    return names


def write_results(
    output: OutputFolder,
    results: Results,
    outputs: Iterable[str] = OUTPUTS,
    stop: Callable[[], bool] = never,
) -> None:
    """Write every result file except the log.

    `trajectory.tum`, `config.yaml` and `metrics.json` are always written, and first. If another
    file cannot be written, a notice says why. If the run needs that file, `RunRecord.failure` is
    set.
    A stopped run publishes its results before it draws pictures, because the user waits.

    Args:
        output: folder of the run.
        results: results of the run; its metrics get the number of files that are not written.
        outputs: names from `OUTPUTS`.
        stop: called before each optional file; 3 s after it first returns True, no further picture
            or page is started.

    Raises:
        OutputError: trajectory, configuration or metrics cannot be written.
    """
    folder, record = output.partial, results.record
    scene = cache(partial(_scene, results))
    chosen = set(outputs)
    needed, optional = (
        [w for w in WRITERS if w.output in chosen and w.needed == kind] for kind in (True, False)
    )

    def write(writer: Writer) -> bool:
        return _succeeds(folder / writer.file, lambda path: writer.write(path, results, scene))

    write_tum(folder / "trajectory.tum", results.trajectory, results.scaling.source)
    write_atomic(folder / CONFIG, _config_as_run(results.slam).to_yaml())
    _write_metrics(folder / METRICS, results)
    missing = [writer.file for writer in needed if not write(writer)]
    # Windows cannot move a folder while its log is open.
    if record.stopped and os.name == "posix":
        folder = output.publish()
    left_out = _write_optional(folder, optional, write, stop)
    results.metrics["results_not_written"] = left_out + len(missing)
    if missing and record.failure is None:
        record.failure = OutputError(
            f"{' and '.join(missing)} could not be written, the other results are there"
        )
    # May fail on a full disk; then the metrics written before stay, nearly the same.
    _succeeds(folder / METRICS, lambda path: _write_metrics(path, results))


def _scene(results: Results) -> MapView:
    slam = results.slam
    return build_map_view(
        slam.map,
        slam.main_submap,
        slam.map.session,
        results.trajectory,
        truth_in_map(results.trajectory, results.evaluation),
        results.title,
        min_covisibility=slam.config.loop.min_covisibility,
    )


def _write_optional(
    folder: Path, writers: list[Writer], write: Callable[[Writer], bool], stop: Callable[[], bool]
) -> int:
    """Write files until a second stop or the time limit; return how many are missing."""
    failed = 0
    left = [writer.file for writer in writers]
    until: float | None = None
    try:
        with results_kept():
            for writer in writers:
                if stop():
                    until = until or monotonic() + PICTURES_AFTER_STOP_S
                    if Path(writer.file).suffix in _PICTURES and monotonic() >= until:
                        break
                failed += not write(writer)
                left.remove(writer.file)
    except KeyboardInterrupt:
        # Drop the unfinished file only; the results that matter are written.
        (folder / left[0]).unlink(missing_ok=True)
    if left:
        notice(
            logger,
            "stopped",
            "%s not written: the run was stopped",
            ", ".join(left),
            count=len(left),
        )
    return failed + len(left)


def _write_metrics(path: Path, results: Results) -> None:
    results.metrics |= notice_metrics(results.notices)
    metrics = with_old_names(results.metrics)
    write_atomic(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def _succeeds(path: Path, write: Callable[[Path], object]) -> bool:
    """Write an optional file; return whether it was written. A notice says why not."""
    try:
        return write(path) is not False
    except Exception as error:
        # No error of a library may cost the other results.
        logger.info("%s: the error in full", path.name, exc_info=True)
        # The folder is hidden and renamed soon: show the name of the file only.
        lines = str(error).replace(str(path), path.name).strip().splitlines()
        reason = lines[0][:_LONGEST_REASON] if lines else type(error).__name__
        notice(logger, "output_failed", "%s was not written: %s", path.name, reason)
        return False


def _config_as_run(slam: Slam) -> Config:
    """Return the configuration with the concurrency that the extractor used, if it was 0."""
    features = slam.config.features.model_copy(
        update={"max_concurrency": slam.preprocessor.max_concurrency}
    )
    return slam.config.model_copy(update={"features": features})
