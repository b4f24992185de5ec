"""Data of the charts in `report.html`: columns of plain numbers, embedded in the page as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from spslam.errors import Refusal
from spslam.evaluation.ate import Evaluation
from spslam.geometry import apply
from spslam.run.frames_csv import stage_names
from spslam.run.metrics import RunRecord
from spslam.slam.track_results import TrackState
from spslam.trajectory import Trajectory
from spslam.typing import BoolArray, FloatArray
from spslam.visualization.path_views import AXES, choose_views, during, gaps

if TYPE_CHECKING:
    from spslam.slam.system import Slam

Columns = dict[str, Any]

# Rows of a chart at most, about the pixels of a screen; longer runs show every n-th frame.
_MOST_ROWS = 3000
# Rounding step of positions, as a fraction of the extent of the path: far below a pixel.
_POSITION_STEP = 1e-5
# Names of the tracking states; a frame refers to them by index.
_STATES = [state.value for state in TrackState]


def chart_data(
    slam: Slam, record: RunRecord, trajectory: Trajectory, evaluation: Evaluation | Refusal
) -> Columns:
    """Return the columns of the charts, valid as JSON: None stands for unknown values and NaN.

    Times are seconds after the first frame. Positions come from `Evaluation.aligned` if the run
    was compared with a ground truth, else from the trajectory. Long columns keep every n-th row.
    """
    compared = isinstance(evaluation, Evaluation)
    shown = trajectory if isinstance(evaluation, Refusal) else evaluation.aligned
    truth = _truth(evaluation, trajectory)
    stamps = np.array([result.timestamp for result in record.results])
    metric = compared or (slam.map.origin is not None and slam.map.origin.metric)
    return {
        "unit": "m" if metric else "map units",
        "compared": compared,
        "states": _STATES,
        "axes": list(AXES),
        "views": [
            {
                "title": view.title,
                "across": view.across,
                "vertical": view.vertical,
                "turned": view.turned,
            }
            for view in choose_views(shown, truth)
        ],
        "frames": _frames(record, stamps),
        "path": _path(record, stamps, shown, evaluation),
        "truth": None if truth is None else _line(truth, stamps[0], gaps(truth.timestamps)),
        "keyframes": _keyframes(slam, stamps[0], evaluation),
        "loops": loop_rows(slam, stamps[0], evaluation),
        "losses": loss_rows(slam, record),
    }


def loss_rows(slam: Slam, record: RunRecord) -> list[Columns]:
    """Return the lost stretches of a run, one row each.

    A row has the first `frame` and the `last`, `from` and `to` in seconds after the first frame of
    the run, the number of `frames`, the `cause` and the `reason`.
    """
    rows = []
    indices = [result.index for result in record.results]
    begin = record.results[0].timestamp
    for loss in slam.statistics.losses:
        first = int(np.searchsorted(indices, loss.frame))
        last = record.results[min(first + max(loss.frames, 1), len(indices)) - 1]
        rows.append(
            {
                "frame": loss.frame,
                "last": last.index,
                "from": _round(loss.timestamp - begin, 4),
                "to": _round(last.timestamp - begin, 4),
                "frames": loss.frames,
                "cause": loss.cause,
                "reason": loss.reason.removeprefix(f"{loss.cause}: "),
            }
        )
    return rows


def loop_rows(slam: Slam, begin: float, evaluation: Evaluation | Refusal) -> list[Columns]:
    """Return the loop edges between keyframes of the main submap, one row each.

    A row has the two `frames`, their times `t` in seconds after `begin`, whether each is from an
    `earlier` session, their positions `ends`, and the number of `inliers`.
    """
    slam_map = slam.map
    pairs = np.stack([slam_map.loops["i"], slam_map.loops["j"]], axis=1)
    rows = slam_map.keyframe_rows(pairs.ravel()).reshape(-1, 2)
    keyframes = slam_map.keyframes
    inside = (keyframes["submap"][rows] == slam.main_submap).all(axis=1)
    ends = _to_shown(slam_map.T_world_keyframe[:, :3, 3], evaluation)
    return [
        {
            "frames": keyframes["frame"][pair].tolist(),
            "t": _round(keyframes["timestamp"][pair] - begin, 4),
            "earlier": (keyframes["session"][pair] != slam_map.session).tolist(),
            "ends": _round(ends[pair], 4),
            "inliers": int(inliers),
        }
        for pair, inliers in zip(rows[inside], slam_map.loops["inliers"][inside], strict=True)
    ]


def _frames(record: RunRecord, stamps: FloatArray) -> Columns:
    step = _step(len(stamps))
    results, laps = record.results[::step], record.stage_ms[::step]
    stages: Columns = {
        name: _round([lap.get(name, 0.0) for lap in laps], 2) for name in stage_names(record)
    }
    rest = np.array(record.frame_ms[::step]) - np.sum([*stages.values()], axis=0)
    return {
        "step": step,
        "index": [result.index for result in results],
        "t": _round(stamps[::step] - stamps[0], 4),
        "state": [_STATES.index(result.state.value) for result in results],
        # Keyframes of all frames: every n-th frame would leave out most of them.
        "keyframes": _round([r.timestamp - stamps[0] for r in record.results if r.is_keyframe], 4),
        "inliers": [result.inliers for result in results],
        "matches": [result.matches for result in results],
        "inlier_coverage": _round([result.inlier_coverage for result in results], 3),
        "reprojection": _round([result.median_error_px for result in results], 3),
        "ms": {**stages, "other": _round(np.maximum(rest, 0.0), 2)},
    }


def _path(
    record: RunRecord, stamps: FloatArray, shown: Trajectory, evaluation: Evaluation | Refusal
) -> Columns:
    step = _step(len(shown))
    errors = np.full(len(shown), np.nan)
    if isinstance(evaluation, Evaluation):
        errors[evaluation.absolute.association.estimate] = evaluation.absolute.errors_m
    indices = np.array([result.index for result in record.results])
    # Poses have the timestamps of their frames.
    rows = np.searchsorted(stamps, shown.timestamps).clip(max=len(stamps) - 1)
    return {
        "step": step,
        "index": indices[rows][::step].tolist(),
        "error": _round(errors[::step], 6),
        # The path breaks at frames without a pose.
        **_line(shown, stamps[0], np.diff(rows) > 1),
    }


def _line(trajectory: Trajectory, begin: float, broken: BoolArray) -> Columns:
    """Return the line through N poses: `t`, `xyz` and `breaks`.

    `t` are seconds after `begin`, `xyz` three columns of positions, `breaks` the rows after which
    the line breaks. `broken` (N-1,) says after which of the N poses it breaks.
    """
    step = _step(len(trajectory))
    pieces = np.concatenate([[0], np.cumsum(broken)])[: len(trajectory)][::step]
    return {
        "t": _round(trajectory.timestamps[::step] - begin, 4),
        "xyz": [
            _round_positions(column, trajectory.positions)
            for column in trajectory.positions[::step].T
        ],
        "breaks": np.flatnonzero(np.diff(pieces)).tolist(),
    }


def _keyframes(slam: Slam, begin: float, evaluation: Evaluation | Refusal) -> Columns:
    keyframes = slam.trajectory(keyframes_only=True)
    positions = _to_shown(keyframes.positions, evaluation)
    return {
        "t": _round(keyframes.timestamps - begin, 4),
        "xyz": [_round_positions(column, positions) for column in positions.T],
    }


def _truth(evaluation: Evaluation | Refusal, trajectory: Trajectory) -> Trajectory | None:
    if isinstance(evaluation, Refusal):
        return None
    return during(evaluation.ground_truth, trajectory.timestamps)


def _to_shown(positions: FloatArray, evaluation: Evaluation | Refusal) -> FloatArray:
    """Transform positions (N, 3) from the map's world to the world of the drawn path."""
    if isinstance(evaluation, Refusal):
        return positions
    return apply(evaluation.absolute.S_truth_estimate, positions)


def _step(rows: int) -> int:
    return max(1, -(-rows // _MOST_ROWS))


def _round_positions(column: FloatArray, everything: FloatArray) -> Any:
    extent = float(np.ptp(everything, axis=0).max()) if len(everything) else 1.0
    return _round(column, max(0, int(-np.floor(np.log10(max(extent, 1e-9) * _POSITION_STEP)))))


def _round(values: ArrayLike, decimals: int) -> Any:
    """Return rounded numbers as (lists of) floats; None for those that are not finite."""
    rounded = np.round(np.asarray(values, dtype=np.float64), decimals)
    if np.isfinite(rounded).all():
        return rounded.tolist()
    plain = rounded.astype(object)
    plain[~np.isfinite(rounded)] = None
    return plain.tolist()
