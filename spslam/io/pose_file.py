"""Pose files: reading of poses, and conversion of their times to seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spslam.clocks import matched_fraction, plausible, plausible_units, unit_by_clock
from spslam.errors import TrajectoryError
from spslam.geometry import make_transform, orthonormalize, quaternion_to_rotation
from spslam.io.pose_table import (
    LARGEST_PART,
    QUATERNION_TOLERANCE,
    Columns,
    find_columns,
    rotation_matrices_of,
    seconds_of_parts,
)
from spslam.io.text_table import TextTable, read_table
from spslam.notices import counted, notice, plural
from spslam.timestamps import (
    LARGEST_STAMP,
    SLOWEST_POSE_STEP_S,
    UNIT_NAMES,
    UNITS_PER_SECOND,
    TimeUnit,
    to_seconds,
)
from spslam.typing import BoolArray, FloatArray, IntArray

_LOG = logging.getLogger(__name__)

# Reason for leaving out lines that have no numbers.
_WORDS = "without numbers"
# Largest coordinate of a position, metres (a tenth of a light year); rows beyond it are left out.
_FARTHEST_M = 1e15

Order = Literal["x y z w", "w x y z"]
LeaveOut = Callable[[str, BoolArray], None]


@dataclass(frozen=True, eq=False)
class PoseFile:
    """The poses of a file in the order of its rows; invalid rows are left out.

    Attributes:
        path: The file.
        stamps: (N,) float64 timestamps in the file's unit; None if it has no timestamps.
        numbers: (N,) int64 frame numbers; row numbers if the file has no frame numbers.
        numbered: Whether the file has frame numbers.
        T: (N, 4, 4) float64; rotations are identities if `has_rotations` is False.
        has_rotations: Whether the file has rotations.
        body: Whether the poses are those of EuRoC's body frame.
        unit: Unit of the timestamps according to header or format.
        sure: Whether the unit is certain.
        order: Order of the quaternions; None without quaternions.
        rows: Number of rows in the file.
        left_out: Number of rows that were left out, by reason.
    """

    path: Path
    stamps: FloatArray | None
    numbers: IntArray
    numbered: bool
    T: FloatArray
    has_rotations: bool
    body: bool
    unit: TimeUnit | None
    sure: bool
    order: Order | None
    rows: int
    left_out: Mapping[str, int]


def read_pose_file(
    path: Path | str, real_part_first: bool | None = None, unit: TimeUnit | None = None
) -> PoseFile:
    """Read a file of poses in TUM's, KITTI's or EuRoC's format or a similar one.

    The format is recognized from the content.

    Args:
        path: The file.
        real_part_first: Whether the format puts the quaternion's w first; None: unknown format.
        unit: Unit of time of the format; None: EuRoC's nanoseconds or TUM's seconds.

    Raises:
        TrajectoryError: The file cannot be read or has no pose.
    """
    path = Path(path)
    table = read_table(path)
    columns = find_columns(table, real_part_first)
    if columns.doubt:
        notice(
            _LOG,
            "quaternion_order",
            "%s: %s; a header that names its columns (qx qy qz qw) decides",
            path,
            columns.doubt,
        )
    values = table.values
    left_out = {_WORDS: table.words}
    kept: BoolArray = np.ones(len(values), dtype=bool)

    def leave_out(reason: str, bad: BoolArray) -> None:
        left_out[reason] = int(np.count_nonzero(kept & bad))
        np.logical_and(kept, ~bad, out=kept)

    stamped = [at for at in (columns.time, columns.nanoseconds, columns.number) if at is not None]
    positions = values[:, columns.position]
    known: BoolArray = np.all(np.isfinite(values[:, [*columns.position, *stamped]]), axis=1)
    leave_out("with nan, inf or too few numbers", ~known)
    beyond: BoolArray = np.any(np.abs(values[:, stamped]) > LARGEST_STAMP, axis=1)
    leave_out(f"with a time or number beyond {LARGEST_STAMP:g}", beyond)
    far: BoolArray = np.any(np.abs(positions) > _FARTHEST_M / columns.metres, axis=1)
    leave_out(f"more than {_FARTHEST_M:g} m away", far)
    if columns.submap is not None:
        submaps = values[:, columns.submap]
        ids, counts = np.unique(submaps[kept & np.isfinite(submaps)], return_counts=True)
        if len(ids) > 1:
            # Each submap has its own world; the first of the largest ones is the main one.
            main = ids[np.argmax(counts)]
            leave_out(f"of other submaps than {main:g}", submaps != main)
    rotations, has_rotations = _rotations(table, columns, kept, leave_out)
    if not kept.any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise TrajectoryError(
            f"{path}: expected poses, found none in "
            f"{counted(len(values) + table.words, 'row')}: {reasons}"
        )
    if columns.metres != 1:
        text = "%s: positions are multiplied by %g, because the unit in their column names is not m"
        notice(_LOG, "length_unit", text, path, columns.metres)
    poses = make_transform(rotations[kept], positions[kept] * columns.metres)
    if columns.matrix is not None and has_rotations:
        poses = orthonormalize(poses)
    numbers = (
        np.arange(len(values)) if columns.number is None else np.round(values[:, columns.number])
    )
    return PoseFile(
        path=path,
        stamps=None if columns.time is None else seconds_of_parts(values, columns)[kept],
        numbers=numbers[kept].astype(np.int64),
        numbered=columns.number is not None,
        T=poses,
        has_rotations=has_rotations,
        body=columns.body
        or (columns.quaternion is not None and columns.real_part_first and not columns.named),
        unit=columns.unit or unit or _unit_of_format(table, columns),
        sure=columns.sure,
        order=None
        if columns.quaternion is None
        else "w x y z"
        if columns.real_part_first
        else "x y z w",
        rows=len(values) + table.words,
        left_out={reason: count for reason, count in left_out.items() if count},
    )


def file_seconds(
    file: PoseFile,
    frame_times: FloatArray | None = None,
    clock: FloatArray | None = None,
    unit: TimeUnit | None = None,
) -> FloatArray:
    """Return the times (N,) of the poses of a file, seconds.

    For a file without timestamps, they are the times of its frame numbers or, without
    `frame_times`, the frame numbers themselves.

    Args:
        file: The file.
        frame_times: (F,) times of the numbered frames, seconds.
        clock: (M,) increasing times to compare with, seconds: they decide between units.
        unit: Unit of the timestamps, given by the user.

    Raises:
        TimestampError: Several units fit the timestamps, or no unit.
        TrajectoryError: Poses without timestamps and frames differ in number.
    """
    if file.stamps is None:
        return _times_of_frames(file, frame_times)
    numbers_fit = (
        frame_times is not None and file.numbered and _numbers_fit(file.numbers, len(frame_times))
    )
    if numbers_fit and clock is not None and matched_fraction(file.stamps, clock) == 0:
        notice(
            _LOG,
            "frame_numbers",
            "%s: the first column is read as frame numbers",
            file.path,
        )
        return _times_of_frames(file, frame_times)
    if unit is not None:
        return file.stamps / UNITS_PER_SECOND[unit]
    found = None if clock is None or file.sure else unit_by_clock(file.stamps, clock)
    if found is None:
        given: TimeUnit | None = "s" if file.sure else None
        return to_seconds(file.stamps, file.unit, str(file.path), given, SLOWEST_POSE_STEP_S)[0]
    if found != file.unit:
        notice(
            _LOG,
            "time_unit",
            "%s: time stamps are read as %s, which fits the other poses or images%s",
            file.path,
            UNIT_NAMES[found],
            "" if file.unit is None else f", not as {UNIT_NAMES[file.unit]}",
        )
    return to_seconds(file.stamps, file.unit, str(file.path), found)[0]


def seconds_together(
    files: Sequence[PoseFile], frame_times: FloatArray | None = None, unit: TimeUnit | None = None
) -> list[FloatArray]:
    """Return the times of the poses of several files with a common clock, seconds.

    The file with the most certain unit (the first of a tie) decides the units of the others.

    Args:
        files: The files.
        frame_times: As for `file_seconds`.
        unit: Unit of the files whose poses would be 1 ms to 10 s apart in it; of all files if there
            is no such file.

    Raises:
        TimestampError: As for `file_seconds`.
        TrajectoryError: As for `file_seconds`.
    """
    given = [unit if unit is not None and _may_be(file, unit) else None for file in files]
    if not any(given):
        given = [unit] * len(files)
    timed = [n for n, file in enumerate(files) if file.stamps is not None]
    if not timed:
        return [file_seconds(file, frame_times) for file in files]
    first = min(timed, key=lambda n: _doubt(files[n], given[n]))
    reference = file_seconds(files[first], frame_times, frame_times, given[first])
    clock = np.unique(reference)
    return [
        reference if n == first else file_seconds(file, frame_times, clock, given[n])
        for n, file in enumerate(files)
    ]


def tell_left_out(path: Path, rows: int, left_out: Mapping[str, int]) -> None:
    """Emit one notice about the rows of a file that were left out, if any."""
    count = sum(left_out.values())
    if count:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        notice(
            _LOG,
            "rows_left_out",
            "%s: %d of %d rows %s left out: %s",
            path,
            count,
            rows,
            plural(count, "is", "are"),
            reasons,
            count=count,
        )


def _may_be(file: PoseFile, unit: TimeUnit) -> bool:
    return file.stamps is not None and not file.sure and plausible(file.stamps, unit)


def _doubt(file: PoseFile, given: TimeUnit | None) -> int:
    """Return how uncertain the unit of a file is: 0 (certain) to 3."""
    assert file.stamps is not None
    if file.sure or given is not None:
        return 0
    possible = plausible_units(file.stamps)
    if len(possible) == 1:
        return 1
    return 2 if file.unit in possible else 3


def _unit_of_format(table: TextTable, columns: Columns) -> TimeUnit:
    # EuRoC's times are integer nanoseconds with commas between columns; all other formats, such as
    # TUM's, have seconds.
    return (
        "ns" if table.commas and table.whole and (columns.body or columns.real_part_first) else "s"
    )


def _rotations(
    table: TextTable, columns: Columns, kept: BoolArray, leave_out: LeaveOut
) -> tuple[FloatArray, bool]:
    """Return rotations (N, 3, 3) and whether the file has any; invalid rows are left out."""
    values = table.values
    count = len(values)
    nothing = np.broadcast_to(np.eye(3), (count, 3, 3)), False
    if columns.matrix is not None:
        rotations, good, empty = rotation_matrices_of(values, columns.matrix)
        bad_ones, empty_ones = "without a rotation matrix", "without a rotation"
    elif columns.quaternion is not None:
        quaternions = values[:, columns.quaternion]
        known: BoolArray = np.all(np.abs(quaternions) < LARGEST_PART, axis=1)
        quaternions = np.where(known[:, None], quaternions, 0.0)
        lengths = np.linalg.norm(quaternions, axis=1)
        empty = np.asarray(lengths == 0, dtype=bool)
        good = np.asarray(np.abs(lengths - 1.0) <= QUATERNION_TOLERANCE, dtype=bool)
        if not good[kept].any() and (columns.named or _equal_lengths(lengths[kept & ~empty])):
            # Scale quaternions of any length, if a header names them or all have the same length.
            good = ~empty
            if not columns.named:
                text = "%s: quaternions have length %.3g instead of 1 and are scaled"
                notice(
                    _LOG,
                    "quaternion_length",
                    text,
                    table.path,
                    float(np.median(lengths[kept & ~empty])),
                )
        rotations = np.broadcast_to(np.eye(3), (count, 3, 3)).copy()
        rotations[good] = quaternion_to_rotation(quaternions[good])
        bad_ones, empty_ones = (
            "with a quaternion that has not length 1",
            "without a quaternion (zeros, nan or nothing)",
        )
    else:
        return nothing
    if kept.any() and empty[kept].all():
        return nothing
    leave_out(empty_ones, empty)
    leave_out(bad_ones, ~good & ~empty)
    return rotations, True


def _equal_lengths(lengths: FloatArray) -> bool:
    """Return whether several lengths agree within the tolerance for unit quaternions."""
    return len(lengths) > 1 and float(np.ptp(lengths)) <= QUATERNION_TOLERANCE * float(
        np.median(lengths)
    )


def _times_of_frames(file: PoseFile, frame_times: FloatArray | None) -> FloatArray:
    numbers = file.numbers
    if frame_times is None:
        return numbers.astype(np.float64)
    if file.numbered:
        if not _numbers_in(numbers, len(frame_times)) and _numbers_in(
            numbers - 1, len(frame_times)
        ):
            notice(_LOG, "frame_numbers", "%s: frames are counted from 1", file.path)
            numbers = numbers - 1
        if not _numbers_in(numbers, len(frame_times)):
            raise TrajectoryError(
                f"{file.path}: frame numbers {numbers.min()} to {numbers.max()} "
                f"for {counted(len(frame_times), 'frame')}"
            )
        return frame_times[numbers]
    if file.rows - file.left_out.get(_WORDS, 0) != len(frame_times):
        raise TrajectoryError(
            f"{file.path}: {counted(file.rows, 'pose')} for "
            f"{counted(len(frame_times), 'stamp')}: expected equal numbers"
        )
    return frame_times[numbers]


def _numbers_fit(numbers: IntArray, count: int) -> bool:
    """Return whether all numbers are frame numbers, counted from 0 or from 1."""
    return _numbers_in(numbers, count) or _numbers_in(numbers - 1, count)


def _numbers_in(numbers: IntArray, count: int) -> bool:
    return bool(numbers.min() >= 0 and numbers.max() < count)
