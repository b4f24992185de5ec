"""The pose of each frame with its covariance: `poses.csv`."""

from __future__ import annotations

import csv
import io
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.geometry import rotation_to_quaternion
from spslam.io.files import write_atomic
from spslam.run.metrics import RunRecord
from spslam.typing import FloatArray

if TYPE_CHECKING:
    from spslam.slam.recorder import FramePoses

_POSE = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
# Rows and columns of the covariance: translation and rotation along the axes of the camera.
_AXES = ("tx", "ty", "tz", "rx", "ry", "rz")
# Columns of the upper triangle, row by row.
COVARIANCE_COLUMNS = tuple(
    f"cov_{row}_{column}" for row, column in combinations_with_replacement(_AXES, 2)
)
COLUMNS = ("frame", "timestamp", "state", "submap", *_POSE, *COVARIANCE_COLUMNS)
_UPPER = np.triu_indices(len(_AXES))


def write_poses(path: Path | str, record: RunRecord, poses: FramePoses) -> None:
    """Write one row per frame that was read; unknown values are empty.

    A pose maps camera to world coordinates of its submap in the final map. The covariance is of
    [translation, rotation] ξ in `T_world_cam · exp(ξ)`, in the axes of the camera: metres (map
    units if the map has no metric scale) and radians. It is that of the pose solver when the frame
    was tracked, against a map taken as exact.

    Args:
        path: of the file.
        record: of the run.
        poses: of its frames.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    rows = {stamp: row for row, stamp in enumerate(poses.timestamps.tolist())}
    values = np.concatenate(
        [poses.T_world_cam[:, :3, 3], rotation_to_quaternion(poses.T_world_cam[:, :3, :3])], axis=1
    )
    for result in record.results:
        what = [str(result.index), f"{result.timestamp:.9f}", result.state.value]
        row = rows.get(result.timestamp)
        if row is None:
            writer.writerow([*what, *[""] * (len(COLUMNS) - len(what))])
            continue
        covariance = _covariance(result.covariance, float(poses.scales[row]))
        numbers = [f"{value:.9e}" for value in (values[row] + 0.0).tolist()]
        writer.writerow([*what, str(poses.submaps[row]), *numbers, *covariance])
    write_atomic(path, text.getvalue())


def _covariance(covariance: FloatArray, scale: float) -> list[str]:
    """Return the upper triangle in today's lengths; empty texts if it is unknown.

    The solver's left perturbation of `T_cam_world` and the right one of `T_world_cam` differ in
    their sign only, so their covariance is the same. Neither depends on the axes of the world.
    """
    if not np.isfinite(covariance).all():
        return [""] * len(COVARIANCE_COLUMNS)
    units = np.array([scale, scale, scale, 1.0, 1.0, 1.0])
    scaled = covariance * np.outer(units, units)
    return [f"{value:.9e}" for value in scaled[_UPPER].tolist()]
