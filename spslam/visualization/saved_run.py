"""The scene of a run, from its map in memory or from its folder."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from spslam.errors import MapError, OutputError, Refusal, SpslamError, TrajectoryError
from spslam.evaluation.ate import Alignment, Evaluation, evaluate, transform_trajectory
from spslam.geometry import inverse
from spslam.io.given_files import read_given
from spslam.io.structured_text import one_line
from spslam.map.covisibility import covisible_pairs
from spslam.map.export import choose_submap
from spslam.map.io import load_map
from spslam.map.map import Map
from spslam.map.submaps import points_of
from spslam.notices import notice
from spslam.run.output import GROUND_TRUTH, METRICS, RUN_LABELS, read_metrics, read_run_config
from spslam.slam.track_results import TrackState
from spslam.trajectory import Trajectory, read_tum
from spslam.typing import BoolArray, FloatArray, IntArray
from spslam.visualization.map_view import MapView
from spslam.visualization.path_views import during

_LOG = logging.getLogger(__name__)

# File name of a run's table of frames.
FRAMES = "frames.csv"
# Maximum difference of equal stamps, seconds; TUM's format rounds to 1e-9.
_SAME_STAMP_S = 1e-8


def build_map_view(
    slam_map: Map,
    submap: int,
    session: int,
    trajectory: Trajectory,
    truth: Trajectory | None = None,
    title: str = "",
    *,
    min_covisibility: int,
) -> MapView:
    """Build the scene of a submap.

    Args:
        slam_map: the map.
        submap: the submap, in whose world the trajectory is.
        session: the session of the trajectory; contents of other sessions are shown from the start.
        trajectory: poses of the tracked frames.
        truth: ground truth in the same world, see `truth_in_map`.
        title: title, one line.
        min_covisibility: minimum number of shared points of two connected keyframes, see
            `LoopConfig`.
    """
    keyframes, points = slam_map.keyframes, slam_map.points
    rows = np.flatnonzero(keyframes["submap"] == submap)
    point_rows = slam_map.point_rows(points_of(slam_map, submap))
    ids = keyframes["id"]
    times = np.where(keyframes["session"] == session, keyframes["timestamp"], -np.inf)
    born = points["born"][point_rows]
    # A point of a culled keyframe gets the time of the previous keyframe.
    before = np.searchsorted(ids, born, side="right") - 1
    born_times = times[np.maximum(before, 0)] if len(ids) else np.zeros(0)
    distance = points["distance"][point_rows]
    origin = slam_map.origin
    return MapView(
        slam_map.positions[point_rows].copy(),
        slam_map.T_world_keyframe[rows].copy(),
        trajectory.T_world_cam,
        np.zeros((0, 4, 4)) if truth is None else truth.T_world_cam,
        point_times=np.where(before < 0, -np.inf, born_times),
        keyframe_times=times[rows],
        times=trajectory.timestamps,
        truth_times=np.zeros(0) if truth is None else truth.timestamps,
        point_ages=born.astype(np.float64),
        covisible=_inside(covisible_pairs(slam_map, min_covisibility), rows),
        loops=_inside(
            np.stack(
                [slam_map.keyframe_rows(slam_map.loops[end]) for end in ("i", "j")], axis=1
            ).astype(np.int64),
            rows,
        ),
        depth=float(np.median(distance)) if len(distance) else 0.0,
        unit="m" if origin is not None and origin.metric else "map units",
        title=title,
    )


def truth_in_map(trajectory: Trajectory, evaluation: Evaluation | Refusal) -> Trajectory | None:
    """The ground truth during the trajectory, in the map's world; None without an evaluation."""
    if isinstance(evaluation, Refusal):
        return None
    moved = transform_trajectory(
        inverse(evaluation.absolute.S_truth_estimate), evaluation.ground_truth
    )
    return during(moved, trajectory.timestamps)


def load_map_view(folder: Path | str) -> MapView:
    """Load the scene of a run from its folder, with the ground truth aligned as in `metrics.json`.

    For a run that only localized in a map, keyframes and points come from the file of that map.

    Raises:
        OutputError: the folder is missing or holds no run.
        MapError, TrajectoryError: a file of the run is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(
            "expected the folder of a run (spslam run --out DIR), found "
            f"{'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    metrics = read_metrics(folder)
    trajectory = _read_trajectory(folder / "trajectory.tum", "left camera")
    title = ", ".join(one_line(str(metrics[key])) for key in RUN_LABELS)
    slam_map = load_map(_map_path(folder, metrics)).map
    truth_file = folder / GROUND_TRUTH
    truth = None
    if truth_file.is_file() and len(trajectory) and metrics.get("alignment") in get_args(Alignment):
        try:
            evaluation = evaluate(trajectory, read_tum(truth_file, unit="s"), metrics["alignment"])
            truth = truth_in_map(trajectory, evaluation)
        except SpslamError as error:
            notice(
                _LOG,
                "ground_truth_unreadable",
                "the run is shown without ground truth: %s",
                error,
            )
    if metrics.get("mode") == "localize":
        # The map has no keyframes of this run.
        session, submap = -1, _submap_of_frames(slam_map, folder / FRAMES)
    else:
        session = int(slam_map.keyframes["session"].max(initial=0))
        submap = _submap_of(
            slam_map, session, _read_trajectory(folder / "keyframes.tum", "").timestamps
        )
    least = read_run_config(folder).loop.min_covisibility
    return build_map_view(
        slam_map, submap, session, trajectory, truth, title, min_covisibility=least
    )


@dataclass(frozen=True, eq=False)
class RunFrames:
    """The frames of a run.

    Attributes:
        file: the file that lists them.
        times: (F,) float64, seconds, of the frames that were read.
        missing: number of other frames: unreadable, dropped or left out, or of unknown time.
    """

    file: Path
    times: FloatArray
    missing: int


def frames_beside(path: Path, trajectory: Trajectory) -> RunFrames | None:
    """Read the frames of the run that wrote a trajectory, from the files beside it.

    Returns None if the files are missing or belong to another run.

    Args:
        path: path of the trajectory.
        trajectory: its contents.
    """
    if path.name != "trajectory.tum":
        return None
    file = path.parent / FRAMES
    try:
        metrics = read_metrics(path.parent)
        if not file.is_file():
            return _counted_frames(path.parent / METRICS, metrics, trajectory)
        times = np.unique([float(row["timestamp"]) for row in _frame_rows(file)])
        missing = sum(
            int(metrics.get(key, 0))
            for key in ("skipped_frames", "dropped_frames", "left_out_frames")
        )
    except (SpslamError, OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error):
        return None
    if (
        len(times) == 0
        or missing < 0
        or not np.isfinite(times).all()
        or not _in(trajectory.timestamps, times).all()
    ):
        return None
    return RunFrames(file, times, missing)


def _counted_frames(
    file: Path, metrics: dict[str, Any], trajectory: Trajectory
) -> RunFrames | None:
    """The frames of a run without a table of frames: only times of frames with a pose are known."""
    frames, tracked = int(metrics["frames"]), int(metrics["tracked"])
    if tracked != len(trajectory) or not 0 < tracked <= frames:
        return None
    return RunFrames(file, trajectory.timestamps, frames - tracked)


def _frame_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a run's table of frames."""
    return iter(csv.DictReader(io.StringIO(read_given(path).decode("utf-8"), newline="")))


def _map_path(folder: Path, metrics: dict[str, Any]) -> Path:
    own = folder / "map.npz"
    if own.is_file() or metrics.get("mode") != "localize":
        return own
    other = Path(str(metrics.get("map_file")))
    if not os.path.isfile(other):  # noqa: PTH113 - False for what cannot be a path, too
        raise MapError(
            f"{folder} is of a run in the map {other}, which does not exist "
            f"(seen from {Path.cwd()})"
        )
    return other


def _read_trajectory(path: Path, frame: str) -> Trajectory:
    """Read a trajectory that may be empty."""
    try:
        if not read_given(path).partition(b"\n")[2].strip():
            return Trajectory(np.zeros(0), np.zeros((0, 4, 4)), frame)
    except OSError as error:
        raise TrajectoryError(f"cannot read trajectory {path}: {error.strerror or error}") from None
    return read_tum(path, frame, "s")


def _submap_of_frames(slam_map: Map, path: Path) -> int:
    """The submap in which most frames of a localization run were tracked."""
    try:
        tracked = (row for row in _frame_rows(path) if row["state"] == TrackState.TRACKING.value)
        submaps = [int(row.get("submap") or row["part"]) for row in tracked]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise OutputError(f"{path} cannot be read or was not written by a run: {error}") from None
    return choose_submap(slam_map, _most_frequent(submaps) if submaps else None)


def _submap_of(slam_map: Map, session: int, stamps: FloatArray) -> int:
    """The submap of most keyframes of a session with these stamps; without any, the largest."""
    keyframes = slam_map.keyframes
    candidates = np.flatnonzero(keyframes["session"] == session)
    found = candidates[_in(keyframes["timestamp"][candidates], stamps)]
    return (
        _most_frequent(keyframes["submap"][found].tolist())
        if len(found)
        else choose_submap(slam_map)
    )


def _most_frequent(submaps: list[int]) -> int:
    """The most frequent submap, the lowest of equals; numbers in files may be arbitrary."""
    return Counter(sorted(submaps)).most_common(1)[0][0]


def _in(values: FloatArray, known: FloatArray) -> BoolArray:
    """Whether values (N,) are among known ones (sorted)."""
    if len(known) == 0:
        return np.zeros(len(values), dtype=bool)
    at = np.searchsorted(known, values)
    near = [
        np.abs(known[np.clip(at + step, 0, len(known) - 1)] - values) < _SAME_STAMP_S
        for step in (-1, 0)
    ]
    either: BoolArray = near[0] | near[1]
    return either


def _inside(pairs: IntArray, rows: IntArray) -> IntArray:
    """Keep the pairs (E, 2) of keyframe rows inside `rows` (sorted), as positions in `rows`."""
    pairs = pairs[np.isin(pairs, rows).all(axis=1)]
    return np.searchsorted(rows, pairs)
