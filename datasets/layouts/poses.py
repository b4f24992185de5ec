"""The ground truth of a sequence in camera axes, as a table describes it.

A fault never ends a run: rows that are no poses are left out and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import SpslamError, TrajectoryError
from spslam.geometry import inverse, make_transform, orthonormalize, quaternion_to_rotation
from spslam.io.given_files import read_given
from spslam.io.pose_file import tell_left_out
from spslam.io.pose_table import MATRIX_TOLERANCE, QUATERNION_TOLERANCE
from spslam.io.text_table import read_table
from spslam.notices import notice
from spslam.timestamps import are_stamps
from spslam.trajectory import FileOrigin, Trajectory

from .cameras import read_rigid
from .files import Clock, first_of, numbered_files
from .schema import DIRECTIONS, Poses

_LOG = logging.getLogger(__name__)
# Largest magnitude of a number in a pose; rows beyond it are left out.
_LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """The frames of a sequence.

    Attributes:
        numbers: (F,) float64, numbers or stamps in the unit of the table.
        times: (F,) float64, seconds, increasing.
        unit: unit that the numbers were read in.
    """

    numbers: NDArray[np.float64]
    times: NDArray[np.float64]
    unit: str


def read_poses(folder: Path, poses: Poses, frames: FrameTimes, clock: Clock) -> Trajectory | None:
    """Read the ground truth as poses of the camera; None, with a notice, if it cannot be used.

    Returns None without a notice where the sequence has no ground truth.
    """
    source = first_of(folder, poses.file or poses.files or ())
    if source is None:
        return None
    try:
        numbers, T, left_out = _rows(folder, source, poses)
        rows = len(T) + sum(left_out.values())
        seconds = clock.pose_seconds(
            numbers + poses.add_to_numbers, frames.numbers, frames.times, frames.unit
        )
        return _trajectory(folder, source, poses, seconds, T, left_out, rows)
    except SpslamError as error:
        text = "the run continues without ground truth: %s"
        notice(_LOG, "ground_truth_unreadable", text, error)
        return None


def camera_axes(axes: Sequence[str]) -> NDArray[np.float64]:
    """Return (4, 4) float64 that maps coordinates of the camera to those of a frame with `axes`.

    Its determinant is -1 for left-handed axes.
    """
    out = np.eye(4)
    out[:3, :3] = [DIRECTIONS[axis] for axis in axes]
    return out


def _trajectory(
    folder: Path,
    source: Path,
    poses: Poses,
    seconds: NDArray[np.float64],
    T: NDArray[np.float64],
    left_out: Counter[str],
    rows: int,
) -> Trajectory:
    known = are_stamps(seconds)
    if missed := int(np.count_nonzero(~known)):
        left_out["without an image or a stamp"] = missed
    unique, first = np.unique(seconds[known], return_index=True)
    if repeated := int(np.count_nonzero(known)) - len(unique):
        left_out["that repeat a stamp"] = repeated
    if len(unique) == 0:
        raise TrajectoryError(f"{source}: expected poses, found none in {rows} rows")
    tell_left_out(source, rows, left_out)
    T_world_cam = _in_camera_axes(folder, poses, T[known][first])
    origin = FileOrigin(source, rows, dict(left_out), None, False)
    return Trajectory(unique, T_world_cam, poses.of, origin=origin)


def _in_camera_axes(folder: Path, poses: Poses, T: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert poses (N, 4, 4) in the axes of the table to those of the camera in the world.

    The world gets the same axes as the camera, which is a rigid motion of it, or for left-handed
    axes the mirror image without which no rotation would describe the poses.
    """
    if poses.maps == "world_to_camera":
        T = inverse(T)
    T = T.copy()
    T[:, :3, 3] *= poses.metres_per_unit
    T_axes_camera = camera_axes(poses.axes)
    T = T_axes_camera.T @ T @ T_axes_camera
    if poses.T_pose_camera is not None:
        T = T @ read_rigid(folder, poses.T_pose_camera)
    return T


def _rows(
    folder: Path, source: Path, poses: Poses
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counter[str]]:
    """Return numbers or stamps (N,), poses (N, 4, 4), and the rows left out, by reason."""
    if poses.files is not None:
        return _one_file_a_frame(folder, poses)
    table = read_table(source, "the poses of a ground truth")
    left_out = Counter({"without numbers": table.words}) if table.words else Counter[str]()
    values = table.values
    numbers = (
        values[:, poses.columns.index("stamp")]
        if "stamp" in poses.columns
        else _row_numbers(source, table.lines)
    )
    T, good = _poses_of(values, poses.columns, source)
    return _kept(numbers, T, good, left_out)


def _row_numbers(source: Path, lines: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (N,) float64: place of each row, which is its frame's, damaged rows counted, too.

    Args:
        source: the file.
        lines: (N,) number of the line of each row, the first is 1.
    """
    try:
        text = read_given(source).decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise TrajectoryError(f"{source}: cannot be read ({error.strerror or error})") from None
    counted = np.array([bool(line.strip()) and line.lstrip()[0] not in "#%/" for line in text])
    first = int(np.argmax(counted))
    if not any(letter.isdigit() for letter in text[first]):  # a heading
        counted[first] = False
    places: NDArray[np.float64] = (np.cumsum(counted) - 1.0)[lines - 1]
    return places


def _one_file_a_frame(
    folder: Path, poses: Poses
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counter[str]]:
    assert poses.files is not None
    found = numbered_files(folder, poses.files, "pose")
    rows, left_out = [], Counter[str]()
    for path in found.paths:
        try:
            rows.append(read_table(path, "a pose").values.ravel())
        except TrajectoryError:
            rows.append(np.zeros(0))
    width = int(np.median([len(row) for row in rows]))
    values = np.array([row if len(row) == width else np.full(width, np.nan) for row in rows])
    T, good = _poses_of(values, poses.columns, found.source)
    return _kept(found.numbers, T, good, left_out)


def _kept(
    numbers: NDArray[np.float64],
    T: NDArray[np.float64],
    good: NDArray[np.bool_],
    left_out: Counter[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64], Counter[str]]:
    if bad := int(np.count_nonzero(~good)):
        left_out["that are no pose (nan, inf, too few numbers or no rotation)"] = bad
    return numbers[good], T[good], left_out


def _poses_of(
    values: NDArray[np.float64], columns: Sequence[str], source: Path
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return poses (N, 4, 4) of a table (N, C), and which (N,) of them are poses."""
    first = len(columns) - 1
    counts = (first + 12, first + 16) if columns[-1] == "matrix" else (len(columns),)
    # More columns may follow quaternions; a matrix must fill the rest.
    fits = values.shape[1] in counts or (columns[-1] != "matrix" and values.shape[1] > len(columns))
    if not fits:
        expected = " or ".join(str(count) for count in counts)
        raise TrajectoryError(
            f"{source}: expected {expected} numbers a pose ({' '.join(columns)}), "
            f"found {values.shape[1]}"
        )
    numbers = [at for at, name in enumerate(columns) if name not in ("stamp", "skip", "matrix")]
    numbers += range(first, first + 12) if columns[-1] == "matrix" else ()
    good: NDArray[np.bool_] = np.asarray((np.abs(values[:, numbers]) < _LARGEST).all(axis=1))
    safe = np.where(good[:, None], values, 0.0)
    if columns[-1] == "matrix":
        T = make_transform(
            safe[:, first : first + 12].reshape(-1, 3, 4)[:, :, :3],
            safe[:, first : first + 12].reshape(-1, 3, 4)[:, :, 3],
        )
        R = T[:, :3, :3]
        deviation = np.abs(R @ R.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
        good &= (deviation <= MATRIX_TOLERANCE) & (np.linalg.det(R) > 0)
        T[~good] = np.eye(4)
        return orthonormalize(T), good
    q = safe[:, [columns.index(name) for name in ("qx", "qy", "qz", "qw")]]
    good &= np.abs(np.linalg.norm(q, axis=1) - 1.0) <= QUATERNION_TOLERANCE
    q = np.where(good[:, None], q, (0.0, 0.0, 0.0, 1.0))
    t = safe[:, [columns.index(name) for name in ("tx", "ty", "tz")]]
    return make_transform(quaternion_to_rotation(q), t), good
