"""The tracking result of each frame: `frames.csv`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.io.files import write_atomic
from spslam.run.metrics import RunRecord

if TYPE_CHECKING:
    from spslam.slam.track_results import TrackResult

# Columns before those of the stages.
_COLUMNS = (
    "frame", "timestamp", "state", "submap", "keyframe", "inliers", "matches", "inlier_coverage",
    "reprojection_error_px", "position_sigma", "read_ms", "frame_ms",
)  # fmt: skip


def stage_names(record: RunRecord) -> list[str]:
    """List the stages of the frames in order of first appearance, without the total `frame`."""
    return [
        name
        for name in dict.fromkeys(name for lap in record.stage_ms for name in lap)
        if name != "frame"
    ]


def write_frames(path: Path | str, record: RunRecord) -> None:
    """Write one row per frame that was read; unknown values are empty.

    The columns are the state, inliers and matches, the uncertainty of the pose, the milliseconds of
    each stage, and the reason of a failure.

    Args:
        path: of the file.
        record: of the run.

    Raises:
        OutputError: the file cannot be written.
    """
    stages = stage_names(record)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*_COLUMNS, *(f"stage_{name.replace(' ', '_')}_ms" for name in stages), "reason"]
    )
    rows = zip(record.results, record.read_ms, record.frame_ms, record.stage_ms, strict=True)
    for result, read_ms, frame_ms, lap in rows:
        times = [
            _number(value, 3) for value in (read_ms, frame_ms, *(lap.get(name) for name in stages))
        ]
        writer.writerow([*_what_was_seen(result), *times, result.reason])
    write_atomic(path, text.getvalue())


def _what_was_seen(result: TrackResult) -> list[str]:
    # The covariance is of a left perturbation, whose rotation does not move the camera centre.
    sigma = float(np.sqrt(np.trace(result.covariance[:3, :3])))
    return [
        str(result.index),
        f"{result.timestamp:.9f}",
        result.state.value,
        str(result.submap),
        str(int(result.is_keyframe)),
        str(result.inliers),
        str(result.matches),
        _number(result.inlier_coverage, 4),
        _number(result.median_error_px, 4),
        _number(sigma, 6),
    ]


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.{decimals}f}"
