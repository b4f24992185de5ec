"""A trajectory: camera poses over time, and the text formats it is exchanged in.

Readers sort poses by time with a warning in the log. Of poses with one stamp they keep the first, with a warning,
too: published ground truths hold such repetitions, and refusing them would help nobody.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import TrajectoryError
from spslam.files import write_atomic
from spslam.geometry import make_transform, orthonormalize, quaternion_to_rotation, rotation_to_quaternion

_log = logging.getLogger(__name__)

# Larger stamps cannot be seconds (5138 AD): some programs write EuRoC's nanoseconds into TUM's format.
_LARGEST_SECONDS = 1e11
_KITTI_COLUMNS = 12
_TUM_COLUMNS = 8
# How far a row of a pose file may be from a rotation: the least precise published files have four digits.
_ROTATION_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses in the order of time.

    Attributes:
        timestamps: (N,) float64, seconds, strictly increasing.
        T_world_cam: (N, 4, 4) float64, camera to world, metres (up to scale for mono).
        frame: which frame the poses speak of, in words ("left camera", "body", …).

    Raises:
        TrajectoryError: shapes disagree, or stamps do not increase.
    """

    timestamps: NDArray[np.float64]
    T_world_cam: NDArray[np.float64]
    frame: str = "camera"

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
        return len(self) > 1 and np.array_equal(self.timestamps, np.arange(len(self)))

    def select(self, rows: NDArray[np.int64]) -> Trajectory:
        """The poses of increasing row numbers (M,)."""
        return Trajectory(self.timestamps[rows], self.T_world_cam[rows], self.frame)


def path_lengths(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) float64: metres along the path of positions (N, 3) from the first to each; N at least 1."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    lengths: NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(steps)])
    return lengths


def read_tum(path: Path | str, frame: str = "camera") -> Trajectory:
    """Read TUM's format, lines of `seconds tx ty tz qx qy qz qw`; stamps in nanoseconds are recognised.

    Raises:
        TrajectoryError: the file cannot be read or holds something else.
    """
    numbers, values = _read_table(Path(path), None, _TUM_COLUMNS, "TUM: seconds tx ty tz qx qy qz qw")
    return _from_quaternions(Path(path), numbers, values, frame)


def read_euroc(path: Path | str) -> Trajectory:
    """Read EuRoC's ground truth, lines of `ns,tx,ty,tz,qw,qx,qy,qz[,…]`; poses of the body (IMU) frame.

    Raises:
        TrajectoryError: the file cannot be read or holds something else.
    """
    numbers, values = _read_table(Path(path), ",", _TUM_COLUMNS, "EuRoC: ns,tx,ty,tz,qw,qx,qy,qz", more=True)
    return _from_quaternions(Path(path), numbers, values[:, [0, 1, 2, 3, 5, 6, 7, 4]], "body")


def read_kitti(
    path: Path | str, timestamps: NDArray[np.float64] | None = None, frame: str = "left camera"
) -> Trajectory:
    """Read KITTI's format, lines of 12 numbers (the first three rows of `T_world_cam`).

    The format has no stamps: they are `timestamps` (N,), seconds, or else 0, 1, 2, ….

    Raises:
        TrajectoryError: the file cannot be read, holds something else, or has another length than `timestamps`.
    """
    path = Path(path)
    numbers, values = _read_table(path, None, _KITTI_COLUMNS, "KITTI: 12 numbers, the upper rows of a pose")
    rows = values.reshape(-1, 3, 4)
    deviation = np.abs(rows[:, :, :3] @ rows[:, :, :3].swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    bad = (deviation > _ROTATION_TOLERANCE) | (np.linalg.det(rows[:, :, :3]) < 0)
    if bad.any():
        raise TrajectoryError(f"{path}:{numbers[int(np.argmax(bad))]}: expected a pose, found no rotation matrix in it")
    if timestamps is None:
        timestamps = np.arange(len(rows), dtype=np.float64)
    if timestamps.shape != (len(rows),):
        raise TrajectoryError(f"{path}: {len(rows)} poses for {len(timestamps)} stamps: they must be as many")
    return _in_order(path, timestamps, orthonormalize(make_transform(rows[:, :, :3], rows[:, :, 3])), frame)


def read_trajectory(path: Path | str, timestamps: NDArray[np.float64] | None = None) -> Trajectory:
    """Read a trajectory in KITTI's, TUM's or EuRoC's format, recognised from its first line of numbers.

    Args:
        path: of the file.
        timestamps: (N,) seconds, for KITTI's format, which has none.

    Raises:
        TrajectoryError: the file cannot be read or is of none of the three; `timestamps` are not as many as its poses.
    """
    path = Path(path)
    lines = _data_lines(path)
    first = lines[0][1] if lines else ""
    if "," in first and len(first.split(",")) >= _TUM_COLUMNS:
        return read_euroc(path)
    columns = len(first.split())
    if columns == _TUM_COLUMNS:
        return read_tum(path)
    if columns == _KITTI_COLUMNS:
        return read_kitti(path, timestamps)
    raise TrajectoryError(
        f"{path}: expected a trajectory (TUM: 8 columns, KITTI: 12, EuRoC: 8 or more with commas), "
        + (f"found {columns} columns in line {lines[0][0]}" if lines else "found no line of numbers")
    )


def read_times(path: Path | str) -> NDArray[np.float64]:
    """Times (N,) of frames, seconds, from the first column of a list: KITTI's `times.txt`, TUM's `rgb.txt`, EuRoC's
    `cam0/data.csv`, whose nanoseconds are recognised.

    Raises:
        TrajectoryError: the file cannot be read, holds something else, or times do not increase.
    """
    path = Path(path)
    lines = [line for _, line in _data_lines(path)]
    try:
        # A line of nothing but a comma has no first word: it is no number either.
        stamps = _seconds(np.array([float(line.replace(",", " ").partition(" ")[0]) for line in lines]))
    except ValueError:
        stamps = np.empty(0)
    if len(stamps) == 0 or not np.isfinite(stamps).all() or (np.diff(stamps) <= 0).any():
        found = f"{len(lines)} lines, the first of them {lines[0][:40]!r}" if lines else "no line"
        raise TrajectoryError(f"{path}: expected increasing times of frames in the first column, found {found}")
    return stamps


def write_tum(path: Path | str, trajectory: Trajectory, scale: str = "") -> None:
    """Write TUM's format: stamps with 9 decimals, poses with 10 significant digits.

    Args:
        path: of the file.
        trajectory: to write.
        scale: where its size comes from, for the comment at the top.

    Raises:
        OutputError: the file cannot be written.
    """
    quaternions = rotation_to_quaternion(trajectory.T_world_cam[:, :3, :3])
    values = np.concatenate([trajectory.positions, quaternions], axis=1) + 0.0
    about = f"frame: {trajectory.frame}" + (f"; scale: {scale}" if scale else "")
    lines = [f"# timestamp tx ty tz qx qy qz qw ({' '.join(about.split())})"]
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
    write_atomic(path, "".join(" ".join(f"{value:.9e}" for value in row) + "\n" for row in rows.tolist()))


def _data_lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TrajectoryError(f"{path}: expected a text file with a trajectory, found binary data") from None
    except OSError as error:
        raise TrajectoryError(f"cannot read trajectory {path}: {error.strerror or error}") from None
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in stripped if line and not line.startswith(("#", "%"))]


def _read_table(
    path: Path, separator: str | None, columns: int, expected: str, more: bool = False
) -> tuple[list[int], NDArray[np.float64]]:
    """Line numbers and values (N, columns) of a text table; `more` columns are allowed and left out."""
    lines = _data_lines(path)
    if not lines:
        raise TrajectoryError(f"{path}: expected poses ({expected}), found no line of numbers")
    rows = []
    for number, line in lines:
        cells = line.split(separator)
        if len(cells) < columns or (len(cells) > columns and not more):
            raise TrajectoryError(f"{path}:{number}: expected {columns} columns ({expected}), found {len(cells)}")
        try:
            rows.append([float(cell) for cell in cells[:columns]])
        except ValueError:
            raise TrajectoryError(f"{path}:{number}: expected numbers ({expected}), found {line[:60]!r}") from None
    values = np.array(rows, dtype=np.float64)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise TrajectoryError(f"{path}:{lines[int(np.argmin(finite))][0]}: expected finite numbers, found nan or inf")
    return [number for number, _ in lines], values


def _from_quaternions(path: Path, numbers: list[int], values: NDArray[np.float64], frame: str) -> Trajectory:
    lengths = np.linalg.norm(values[:, 4:8], axis=1)
    bad = np.abs(lengths - 1.0) > _ROTATION_TOLERANCE
    if bad.any():
        at = int(np.argmax(bad))
        raise TrajectoryError(f"{path}:{numbers[at]}: expected a quaternion of length 1, found {lengths[at]:.4g}")
    stamps = _seconds(values[:, 0])
    return _in_order(path, stamps, make_transform(quaternion_to_rotation(values[:, 4:8]), values[:, 1:4]), frame)


def _seconds(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    return stamps / 1e9 if len(stamps) and np.median(np.abs(stamps)) > _LARGEST_SECONDS else stamps


def _in_order(path: Path, stamps: NDArray[np.float64], poses: NDArray[np.float64], frame: str) -> Trajectory:
    if (np.diff(stamps) < 0).any():
        _log.warning("%s: stamps are not in order; sorted", path)
    unique, first = np.unique(stamps, return_index=True)
    if len(unique) < len(stamps):
        _log.warning("%s: %d poses repeat a stamp; the first of each was kept", path, len(stamps) - len(unique))
    return Trajectory(unique, poses[first], frame)
