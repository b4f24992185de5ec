"""A trajectory: camera poses over time, and the text formats it is exchanged in.

Readers take what there is: rows that are no poses, or repeat a stamp, are left out, counted and told; poses out of
order are sorted. Published ground truths hold all of these, and refusing them would help nobody.
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
from spslam.io.pose_table import read_table, time_column
from spslam.notices import notice
from spslam.timestamps import SLOWEST_POSE_STEP_S, TimeUnit, are_stamps, to_seconds

_log = logging.getLogger(__name__)

_KITTI_COLUMNS = 12


@dataclass(frozen=True, eq=False)
class FileOrigin:
    """What is known of the file that a trajectory was read from.

    Attributes:
        path: the file.
        rows: how many it has, headers not counted.
        left_out: why rows are not in the trajectory, and how many.
        order: how its quaternions were read; None where it has none.
        numbered: its poses have numbers instead of times.
        T_read_carried: (4, 4) float64, what maps the frame that the trajectory speaks of to the one the file does; None
            where they are the same.
    """

    path: Path
    rows: int
    left_out: Mapping[str, int]
    order: Order | None
    numbered: bool
    T_read_carried: NDArray[np.float64] | None = None

    @property
    def left_out_rows(self) -> int:
        """How many rows are not in the trajectory."""
        return sum(self.left_out.values())

    @property
    def reasons(self) -> str:
        """Why rows are not in the trajectory, in words; empty where all are."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses in the order of time.

    Attributes:
        timestamps: (N,) float64, seconds, strictly increasing.
        T_world_cam: (N, 4, 4) float64, camera to world, metres (up to scale for mono).
        frame: which frame the poses speak of, in words ("left camera", "body", …).
        has_rotations: whether rotations are known; where they are not, `T_world_cam` has unit matrices for them.
        origin: the file it was read from; None where it was computed.

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
                f"a trajectory needs (N,) stamps and (N, 4, 4) poses, found {self.timestamps.shape} "
                f"and {self.T_world_cam.shape}"
            )
        # Written so that a NaN is refused, too.
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
        """(N, 3) float64, camera centres in the world, metres."""
        positions: NDArray[np.float64] = self.T_world_cam[:, :3, 3]
        return positions

    @property
    def path_length_m(self) -> float:
        """Sum of the distances between consecutive positions, metres."""
        return float(path_lengths(self.positions)[-1]) if len(self) else 0.0

    @property
    def numbered(self) -> bool:
        """Whether the stamps only number the poses, 0, 1, 2, …, as those of a format without times do."""
        if self.origin is not None:
            return self.origin.numbered
        return len(self) > 1 and np.array_equal(self.timestamps, np.arange(len(self)))

    def select(self, rows: NDArray[np.int64]) -> Trajectory:
        """The poses of increasing row numbers (M,)."""
        return replace(self, timestamps=self.timestamps[rows], T_world_cam=self.T_world_cam[rows])


def carried(trajectory: Trajectory, T_frame_new: NDArray[np.float64], frame: str) -> Trajectory:
    """The same motion as poses of another frame that is fixed to the first.

    Args:
        trajectory: with rotations.
        T_frame_new: (4, 4), maps coordinates of the new frame to the trajectory's.
        frame: the new frame, in words.

    Raises:
        TrajectoryError: the trajectory has positions only, and the two frames are not in one place.
    """
    apart = float(np.linalg.norm(T_frame_new[:3, 3]))
    if not trajectory.has_rotations and apart > 0:
        raise TrajectoryError(
            f"positions of the {trajectory.frame} cannot be carried to the {frame}, {apart:.3g} m from it, without "
            "rotations"
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
    """A ground truth carried to another frame as by `carried`; one of positions only stays as it is, with a notice."""
    try:
        return carried(truth, T_frame_new, frame)
    except TrajectoryError as error:
        notice(
            _log,
            "truth_not_carried",
            "%s; it is compared as it is, and errors include the way between the two",
            error,
        )
        return truth


def row_figures(trajectory: Trajectory | None, what: str) -> dict[str, float | int | str | None]:
    """How many rows the file of a trajectory has, how many are left out, and why, with the keys of `metrics.json`."""
    origin = None if trajectory is None else trajectory.origin
    return {
        f"{what}_rows": None if origin is None else origin.rows,
        f"{what}_rows_left_out": None if origin is None else origin.left_out_rows,
        f"{what}_rows_left_out_because": None if origin is None else origin.reasons or None,
    }


def path_lengths(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) float64: metres along the path of positions (N, 3) from the first to each; N at least 1."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    lengths: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(steps)])
    return lengths


def read_tum(path: Path | str, frame: str = "camera", unit: TimeUnit | None = None) -> Trajectory:
    """Read TUM's format, lines of `seconds tx ty tz qx qy qz qw`; a header that names other columns, positions without
    rotations and other units are recognised.

    Args:
        path: of the file.
        frame: which frame its poses speak of.
        unit: of its stamps; None: found out.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or holds something else.
    """
    file = read_pose_file(path, real_part_first=False)
    return _trajectory(file, file_seconds(file, unit=unit), frame)


def read_euroc(path: Path | str) -> Trajectory:
    """Read EuRoC's ground truth, lines of `ns,tx,ty,tz,qw,qx,qy,qz[,…]`; poses of the body (IMU) frame.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or holds something else.
    """
    file = read_pose_file(path, real_part_first=True, unit="ns")
    return _trajectory(file, file_seconds(file), "body")


def read_kitti(
    path: Path | str, timestamps: NDArray[np.float64] | None = None, frame: str = "left camera"
) -> Trajectory:
    """Read KITTI's format, lines of 12 numbers (the first three rows of `T_world_cam`); 16, the number of the frame in
    front and positions alone are recognised.

    The format has no stamps: they are `timestamps` (N,), seconds, or else 0, 1, 2, ….

    Raises:
        TrajectoryError: the file cannot be read, holds something else, or has another length than `timestamps`.
    """
    file = read_pose_file(path)
    return _trajectory(file, file_seconds(file, timestamps), frame)


def read_trajectory(path: Path | str, timestamps: NDArray[np.float64] | None = None) -> Trajectory:
    """Read a trajectory in KITTI's, TUM's or EuRoC's format or one like them, recognised by itself.

    Args:
        path: of the file.
        timestamps: (N,) seconds, for formats that have none.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read or holds no trajectory; `timestamps` are not as many as
            its poses.
    """
    return read_trajectories([path], timestamps)[0]


def read_trajectories(
    paths: Sequence[Path | str],
    timestamps: NDArray[np.float64] | None = None,
    unit: TimeUnit | None = None,
) -> list[Trajectory]:
    """Read trajectories that are of one clock, as `read_trajectory` does; where the unit of one is in doubt, the others
    decide, see `seconds_together`.

    Raises:
        TrajectoryError, TimestampError: as `read_trajectory`.
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
    """The ground truth of a sequence, which is optional: None, with a notice, where it cannot be used.

    Args:
        path: of the file.
        frame_times: (F,) seconds of all frames of the sequence, increasing; formats without times get these, and they
            decide about the unit of other stamps.
        frame: which frame its poses speak of.
        real_part_first, unit: what the format of the data set defines about quaternions and stamps, see
            `read_pose_file`.
        row_a_frame: the format defines that each row is of the next frame; without times, too few or too many are taken
            as far as both go.
    """
    try:
        file = read_pose_file(path, real_part_first, unit)
        if file.stamps is None and not file.numbered and row_a_frame:
            file = _as_far_as_both_go(file, len(frame_times))
        return _trajectory(file, file_seconds(file, frame_times, np.unique(frame_times)), frame)
    except SpslamError as error:
        notice(
            _log, "ground_truth_unreadable", "the run goes on without its ground truth: %s", error
        )
        return None


def read_times(path: Path | str, unit: TimeUnit | None = None) -> NDArray[np.float64]:
    """Times (N,) of frames, seconds, from a list: KITTI's `times.txt`, TUM's `rgb.txt`, EuRoC's `cam0/data.csv`. The
    column is the one that a header names, or the first that increases and does not just count the frames.

    Args:
        path: of the list.
        unit: of the times; None: found out.

    Raises:
        TrajectoryError, TimestampError: the file cannot be read, holds something else, or times do not increase.
    """
    path = Path(path)
    table = read_table(path, "increasing times of frames")
    column, named = time_column(table)
    stamps = table.values[:, column]
    bad = ~are_stamps(stamps)
    bad[1:] |= ~(np.diff(stamps) > 0)
    if bad.any() or table.words:
        at = (
            f", in line {table.lines[int(np.argmax(bad))]} none that is later than the one before"
            if bad.any()
            else ""
        )
        raise TrajectoryError(
            f"{path}: expected increasing times of frames in column {column + 1}, found {len(stamps)} lines{at}"
            + (f" and {table.words} without numbers" if table.words else "")
        )
    declared: TimeUnit = named or ("ns" if table.commas and table.whole else "s")
    given = unit or ("s" if table.own else None)
    return to_seconds(stamps, declared, str(path), given, SLOWEST_POSE_STEP_S)[0]


def write_tum(path: Path | str, trajectory: Trajectory, scale: str = "") -> None:
    """Write TUM's format: stamps with 9 decimals, poses with 10 significant digits; no quaternions where rotations are
    not known.

    Args:
        path: of the file.
        trajectory: to write.
        scale: where its size comes from, for the comment at the top.

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
    """Write KITTI's format (no stamps): poses with 10 significant digits.

    Raises:
        OutputError: the file cannot be written.
    """
    # Adding zero turns -0.0 into 0.0.
    rows = trajectory.T_world_cam[:, :3, :].reshape(-1, _KITTI_COLUMNS) + 0.0
    write_atomic(
        path, "".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in rows.tolist())
    )


def _trajectory(
    file: PoseFile, stamps: NDArray[np.float64], frame: str | None = None
) -> Trajectory:
    """The poses of a file in the order of time, the first of those with one stamp."""
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
            "%s: positions only; absolute errors are given, relative and rotation errors and drift need rotations",
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
        "%s has %d poses for %d time stamps; used as far as both go",
        file.path,
        rows,
        frames,
    )
    kept = file.numbers < frames
    return replace(file, numbers=file.numbers[kept], T=file.T[kept], numbered=True)
