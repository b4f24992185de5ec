"""Trajectories: camera poses over time, and their text formats.

Readers accept imperfect files, because published ground truths are imperfect: rows that are no
poses, or repeat a stamp, are left out, counted and reported; poses out of order are sorted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import SpslamError, TrajectoryError
from spslam.geometry import rotation_to_quaternion
from spslam.io.files import write_atomic
from spslam.io.pose_file import (
    Order,
    PoseFile,
    file_seconds,
    read_pose_file,
    seconds_together,
    tell_left_out,
)
from spslam.io.pose_table import time_column
from spslam.io.text_table import read_table
from spslam.notices import counted, notice
from spslam.timestamps import SLOWEST_POSE_STEP_S, TimeUnit, are_stamps, to_seconds

_log = logging.getLogger(__name__)

# Columns of EuRoC's ground truth.
_EUROC_HEADER = (
    "#timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],q_RS_z []"
)
# Numbers per line of KITTI's format: a (3, 4) matrix.
_KITTI_COLUMNS = 12


@dataclass(frozen=True, eq=False)
class FileOrigin:
    """The file that a trajectory was read from.

    Attributes:
        path: path of the file.
        rows: number of its rows without headers.
        left_out: number of rows that are not in the trajectory, by reason.
        order: order in which its quaternions were read; None without quaternions.
        numbered: whether its poses have numbers instead of times.
        T_read_carried: (4, 4) float64, maps coordinates of the trajectory's frame to the frame of
            the file; None if they are the same.
    """

    path: Path
    rows: int
    left_out: Mapping[str, int]
    order: Order | None
    numbered: bool
    T_read_carried: NDArray[np.float64] | None = None

    @property
    def left_out_rows(self) -> int:
        """Number of rows that are not in the trajectory."""
        return sum(self.left_out.values())

    @property
    def reasons(self) -> str:
        """Why rows are not in the trajectory, with their numbers; empty if all are in it."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses in the order of time.

    Attributes:
        timestamps: (N,) float64, seconds, strictly increasing.
        T_world_cam: (N, 4, 4) float64, camera to world, metres (up to scale for mono).
        frame: name of the frame that the poses describe ("left camera", "body", …).
        has_rotations: whether rotations are known; otherwise `T_world_cam` has unit matrices.
        origin: the file it was read from; None if it was computed.

    Raises:
        TrajectoryError: shapes disagree, or stamps do not increase.
    """

    timestamps: NDArray[np.float64]
    T_world_cam: NDArray[np.float64]
    frame: str = "camera"
    has_rotations: bool = True
    origin: FileOrigin | None = None

    def __post_init__(self) -> None:
        n = len(self.timestamps)
        if self.timestamps.shape != (n,) or self.T_world_cam.shape != (n, 4, 4):
            raise TrajectoryError(
                f"a trajectory needs (N,) stamps and (N, 4, 4) poses, "
                f"found {self.timestamps.shape} and {self.T_world_cam.shape}"
            )
        # `not … all`: refuses NaN, too.
        if not (np.diff(self.timestamps) > 0).all():
            at = int(np.argmin(np.diff(self.timestamps) > 0))
            raise TrajectoryError(
                f"a trajectory's stamps must increase, found {self.timestamps[at]:.9f} s "
                f"before {self.timestamps[at + 1]:.9f} s"
            )

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Camera centres in the world (N, 3) float64, metres."""
        positions: NDArray[np.float64] = self.T_world_cam[:, :3, 3]
        return positions

    @property
    def path_length_m(self) -> float:
        """Sum of the distances between consecutive positions, metres."""
        return float(path_lengths(self.positions)[-1]) if len(self) else 0.0

    @property
    def numbered(self) -> bool:
        """Whether the stamps just count the poses, 0, 1, 2, …, as in a format without times."""
        if self.origin is not None:
            return self.origin.numbered
        return len(self) > 1 and np.array_equal(self.timestamps, np.arange(len(self)))

    def select(self, rows: NDArray[np.int64]) -> Trajectory:
        """The trajectory of increasing row numbers (M,)."""
        return replace(self, timestamps=self.timestamps[rows], T_world_cam=self.T_world_cam[rows])


def carried(trajectory: Trajectory, T_frame_new: NDArray[np.float64], frame: str) -> Trajectory:
    """Convert a trajectory to the poses of another frame that is rigidly attached to its frame.

    Args:
        trajectory: the trajectory.
        T_frame_new: (4, 4), maps coordinates of the new frame to the trajectory's frame.
        frame: name of the new frame.

    Raises:
        TrajectoryError: the trajectory has positions only, and the two frames are apart.
    """
    apart = float(np.linalg.norm(T_frame_new[:3, 3]))
    if not trajectory.has_rotations and apart > 0:
        raise TrajectoryError(
            f"positions of the {trajectory.frame} cannot be converted to the {frame}, "
            f"{apart:.3g} m away, without rotations"
        )
    if not trajectory.has_rotations:
        return replace(trajectory, frame=frame)
    origin = trajectory.origin
    if origin is not None:
        before = np.eye(4) if origin.T_read_carried is None else origin.T_read_carried
        origin = replace(origin, T_read_carried=before @ T_frame_new)
    return replace(
        trajectory, T_world_cam=trajectory.T_world_cam @ T_frame_new, frame=frame, origin=origin
    )


def carried_truth(truth: Trajectory, T_frame_new: NDArray[np.float64], frame: str) -> Trajectory:
    """Convert a ground truth as `carried` does; if that is impossible, keep it, with a notice."""
    try:
        return carried(truth, T_frame_new, frame)
    except TrajectoryError as error:
        notice(
            _log,
            "truth_not_carried",
            "%s; it is compared unconverted, and errors include this distance",
            error,
        )
        return truth


def row_metrics(trajectory: Trajectory | None, what: str) -> dict[str, float | int | str | None]:
    """Number of rows in a trajectory's file, and of rows left out, with the keys of `metrics.json`.

    Args:
        trajectory: the trajectory, or None.
        what: prefix of the keys.
    """
    origin = None if trajectory is None else trajectory.origin
    return {
        f"{what}_rows": None if origin is None else origin.rows,
        f"{what}_rows_left_out": None if origin is None else origin.left_out_rows,
        f"{what}_rows_left_out_because": None if origin is None else origin.reasons or None,
    }


def path_lengths(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Path lengths (N,) float64, metres, from the first of positions (N, 3) to each; N ≥ 1."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    lengths: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(steps)])
    return lengths


def read_tum(path: Path | str, frame: str = "camera", unit: TimeUnit | None = None) -> Trajectory:
    """Read TUM's format: lines of `seconds tx ty tz qx qy qz qw`.

    A header that names other columns, positions without rotations, and other units are recognised.

    Args:
        path: path of the file.
        frame: name of the frame that its poses describe.
        unit: unit of its stamps; None: it is found.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or has another format.
    """
    file = read_pose_file(path, real_part_first=False)
    return _trajectory(file, file_seconds(file, unit=unit), frame)


def read_euroc(path: Path | str) -> Trajectory:
    """Read EuRoC's ground truth: lines of `ns,tx,ty,tz,qw,qx,qy,qz[,…]`, poses of the body (IMU).

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or has another format.
    """
    file = read_pose_file(path, real_part_first=True, unit="ns")
    return _trajectory(file, file_seconds(file), "body")


def read_kitti(
    path: Path | str, timestamps: NDArray[np.float64] | None = None, frame: str = "left camera"
) -> Trajectory:
    """Read KITTI's format: lines of 12 numbers, the first three rows of `T_world_cam`.

    Lines of 16 numbers, with a frame number in front, or of positions alone are recognised.

    Args:
        path: path of the file.
        timestamps: (N,) seconds, because the format has no stamps; None: 0, 1, 2, ….
        frame: name of the frame that its poses describe.

    Raises:
        TrajectoryError: the file cannot be read, has another format, or another number of poses
            than `timestamps`.
    """
    file = read_pose_file(path)
    return _trajectory(file, file_seconds(file, timestamps), frame)


def read_trajectory(path: Path | str, timestamps: NDArray[np.float64] | None = None) -> Trajectory:
    """Read a trajectory in KITTI's, TUM's, EuRoC's or a similar format, which is recognised.

    Args:
        path: path of the file.
        timestamps: (N,) seconds, for formats without stamps.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or is no trajectory, or it has
            another number of poses than `timestamps`.
    """
    return read_trajectories([path], timestamps)[0]


def read_trajectories(
    paths: Sequence[Path | str],
    timestamps: NDArray[np.float64] | None = None,
    unit: TimeUnit | None = None,
) -> list[Trajectory]:
    """Read trajectories of one clock, as `read_trajectory` does.

    If the unit of one is ambiguous, the others decide (see `seconds_together`).

    Args:
        paths: paths of the files.
        timestamps: (N,) seconds, for formats without stamps.
        unit: unit of the stamps; None: it is found.

    Raises:
        TrajectoryError, TimestampError: see `read_trajectory`.
    """
    files = [read_pose_file(path) for path in paths]
    seconds = seconds_together(files, timestamps, unit)
    return [_trajectory(file, stamps) for file, stamps in zip(files, seconds, strict=True)]


def read_ground_truth(
    path: Path,
    frame_times: NDArray[np.float64],
    frame: str,
    real_part_first: bool | None = None,
    unit: TimeUnit | None = None,
    row_a_frame: bool = False,
) -> Trajectory | None:
    """Read the optional ground truth of a sequence; None, with a notice, if it cannot be used.

    Args:
        path: path of the file.
        frame_times: (F,) seconds of all frames of the sequence, increasing. A format without stamps
            gets these; for other formats they determine the unit.
        frame: name of the frame that its poses describe.
        real_part_first: order of quaternions in the data set's format, see `read_pose_file`.
        unit: unit of stamps in the data set's format, see `read_pose_file`.
        row_a_frame: each row belongs to the next frame by the format. Without stamps, surplus rows
            or frames at the end are then ignored.
    """
    try:
        file = read_pose_file(path, real_part_first, unit)
        if file.stamps is None and not file.numbered and row_a_frame:
            file = _as_far_as_both_go(file, len(frame_times))
        return _trajectory(file, file_seconds(file, frame_times, np.unique(frame_times)), frame)
    except SpslamError as error:
        notice(_log, "ground_truth_unreadable", "the run continues without ground truth: %s", error)
        return None


def read_times(path: Path | str, unit: TimeUnit | None = None) -> NDArray[np.float64]:
    """Read the times (N,) of frames, seconds, from a list.

    Such lists are KITTI's `times.txt`, TUM's `rgb.txt` and EuRoC's `cam0/data.csv`. The column is
    the one that a header names, or the first one that increases and does not just count the frames.

    Args:
        path: path of the list.
        unit: unit of the times; None: it is found.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read, has another format, or the times
            do not increase.
    """
    path = Path(path)
    table = read_table(path, "increasing times of frames")
    column, named = time_column(table)
    stamps = table.values[:, column]
    bad = ~are_stamps(stamps)
    bad[1:] |= ~(np.diff(stamps) > 0)
    if bad.any() or table.words:
        at = (
            f", in line {table.lines[int(np.argmax(bad))]} a time not later than the one before"
            if bad.any()
            else ""
        )
        raise TrajectoryError(
            f"{path}: expected increasing times of frames in column {column + 1}, "
            f"found {counted(len(stamps), 'line')}{at}"
            + (f" and {table.words} without numbers" if table.words else "")
        )
    declared: TimeUnit = named or ("ns" if table.commas and table.whole else "s")
    given = unit or ("s" if table.own else None)
    return to_seconds(stamps, declared, str(path), given, SLOWEST_POSE_STEP_S)[0]


def write_tum(path: Path | str, trajectory: Trajectory, scale: str = "") -> None:
    """Write TUM's format: stamps with 9 decimals, poses with 10 significant digits.

    Quaternions are omitted if the trajectory has no rotations.

    Args:
        path: path of the file.
        trajectory: the trajectory.
        scale: source of the metric scale, for the comment at the top.

    Raises:
        OutputError: the file cannot be written.
    """
    about = f"frame: {trajectory.frame}" + (f"; scale: {scale}" if scale else "")
    names, values = "timestamp tx ty tz", trajectory.positions + 0.0
    if trajectory.has_rotations:
        quaternions = rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3])
        names, values = (
            f"{names} qx qy qz qw",
            np.concatenate([trajectory.positions, quaternions], axis=1) + 0.0,
        )
    lines = [f"# {names} ({' '.join(about.split())})"]
    for stamp, row in zip(trajectory.timestamps.tolist(), values.tolist(), strict=True):
        lines.append(f"{stamp:.9f} " + " ".join(f"{value:.9e}" for value in row))
    write_atomic(path, "\n".join(lines) + "\n")


def write_kitti(path: Path | str, trajectory: Trajectory) -> None:
    """Write KITTI's format, without stamps: poses with 10 significant digits.

    Raises:
        TrajectoryError: the trajectory has positions only.
        OutputError: the file cannot be written.
    """
    _check_rotations(path, trajectory, "KITTI's")
    # + 0.0 turns -0.0 into 0.0.
    rows = trajectory.T_world_cam[:, :3, :].reshape(-1, _KITTI_COLUMNS) + 0.0
    write_atomic(
        path, "".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in rows.tolist())
    )


def write_euroc(path: Path | str, trajectory: Trajectory) -> None:
    """Write the format of EuRoC's ground truth: nanoseconds, positions, quaternions w x y z.

    Numbers of poses have all their digits. The poses are those of the trajectory's frame, whatever
    the names of the columns say.

    Raises:
        TrajectoryError: the trajectory has positions only.
        OutputError: the file cannot be written.
    """
    _check_rotations(path, trajectory, "EuRoC's")
    quaternions = rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3])
    values = np.concatenate([trajectory.positions, np.roll(quaternions, 1, axis=1)], axis=1) + 0.0
    lines = [_EUROC_HEADER]
    for stamp, row in zip(trajectory.timestamps.tolist(), values.tolist(), strict=True):
        # Text, because a product with 1e9 rounds stamps since 1970 to 256 ns.
        nanoseconds = int(f"{stamp:.9f}".replace(".", ""))
        lines.append(",".join([str(nanoseconds), *map(repr, row)]))
    write_atomic(path, "\n".join(lines) + "\n")


def write_csv(path: Path | str, trajectory: Trajectory) -> None:
    """Write `timestamp,tx,ty,tz,qx,qy,qz,qw` with a header: seconds, and all digits.

    Quaternions are omitted if the trajectory has no rotations.

    Raises:
        OutputError: the file cannot be written.
    """
    names = ["timestamp", "tx", "ty", "tz"]
    columns = [trajectory.timestamps[:, None], trajectory.positions]
    if trajectory.has_rotations:
        names += ["qx", "qy", "qz", "qw"]
        columns.append(rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3]))
    rows = (np.concatenate(columns, axis=1) + 0.0).tolist()
    lines = [",".join(names), *(",".join(map(repr, row)) for row in rows)]
    write_atomic(path, "\n".join(lines) + "\n")


def _check_rotations(path: Path | str, trajectory: Trajectory, format_name: str) -> None:
    if not trajectory.has_rotations:
        raise TrajectoryError(
            f"cannot write {path}: {format_name} format needs rotations, and the trajectory has "
            "positions only"
        )


def _trajectory(
    file: PoseFile, stamps: NDArray[np.float64], frame: str | None = None
) -> Trajectory:
    """The poses of a file in the order of time, and the first one of each stamp."""
    if (np.diff(stamps) < 0).any():
        notice(_log, "poses_out_of_order", "%s: stamps are not in order; sorted", file.path)
    unique, first = np.unique(stamps, return_index=True)
    left_out = dict(file.left_out)
    if len(unique) < len(stamps):
        left_out["that repeat a stamp"] = len(stamps) - len(unique)
    tell_left_out(file.path, file.rows, left_out)
    if not file.has_rotations:
        notice(
            _log,
            "positions_only",
            "%s: positions only; absolute errors are computed, but relative and rotation errors "
            "and drift need rotations",
            file.path,
        )
    numbered = file.stamps is None and np.array_equal(file.numbers, stamps)
    return Trajectory(
        unique,
        file.T[first],
        frame or ("body" if file.body else "left camera" if file.stamps is None else "camera"),
        file.has_rotations,
        FileOrigin(file.path, file.rows, left_out, file.order, numbered),
    )


def _as_far_as_both_go(file: PoseFile, frames: int) -> PoseFile:
    rows = int(file.rows)
    if rows == frames:
        return file
    notice(
        _log,
        "ground_truth_length",
        "%s has %s for %s; the surplus at the end is ignored",
        file.path,
        counted(rows, "pose"),
        counted(frames, "time stamp"),
    )
    kept = file.numbers < frames
    return replace(file, numbers=file.numbers[kept], T=file.T[kept], numbered=True)
