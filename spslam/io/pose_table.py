"""Tables of poses from other programs: the meaning of the columns.

Names in a header decide; without them, the number of columns and the values decide. `Columns.doubt`
says which assumption was made for an ambiguous table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from spslam.errors import TrajectoryError
from spslam.io.column_names import (
    LATITUDE,
    LONGITUDE,
    is_time,
    metres_of,
    name_bare_quaternion,
    role_of,
    split_names,
    time_unit_of,
    tokens_of,
)
from spslam.io.text_table import TextTable
from spslam.notices import counted
from spslam.timestamps import UNITS_PER_SECOND, TimeUnit, columns_of_times
from spslam.typing import BoolArray, FloatArray

# Fraction of the rows that must have a unit quaternion to accept one at an unusual position.
_NEARLY_ALL = 0.9
# Column names in EuRoC headers of positions (p) and rotations (q) of the body frame.
_BODY = re.compile(r"[pq]_rs_")
# Largest deviation of a quaternion's length from 1: some published files have only two digits.
QUATERNION_TOLERANCE = 0.05
# Largest deviation of a matrix from a rotation: some published files have only four digits.
MATRIX_TOLERANCE = 0.01
# Upper bound of entries of quaternions and matrices: products of larger ones could overflow.
LARGEST_PART = 1e50
# Largest number of columns of a table: the cost of finding a layout grows with rows times columns.
_MOST_COLUMNS = 1000
# Fraction of the rows that must fit a layout to recognize it.
_MOST_ROWS = 0.5
# Differences of integer timestamps that are nanoseconds: 0.1 ms to 10 s.
_NANOSECOND_STEPS = (1e5, 1e10)
# Smallest single integer timestamp that is read as nanoseconds.
_LEAST_NANOSECONDS = 1e15
# Number of values of a pose written row by row: 3×4 and 4×4.
_MATRIX, _MATRIX4 = 12, 16
# Number of columns of EuRoC's ground truth.
_EUROC_COLUMNS = 17


@dataclass(frozen=True)
class Columns:
    """The layout of a table: indices of columns, counted from 0.

    Attributes:
        position: Columns of x, y, z.
        quaternion: Columns of x, y, z, w; None if rotations are matrices or missing.
        matrix: First of twelve columns with a pose row by row; None without matrices.
        time: Column of the timestamp; None without timestamps.
        nanoseconds: Column of nanoseconds to add to the timestamp (ROS); None without one.
        number: Column of the frame number; None without one.
        unit: Unit of the timestamps according to header or format; None if unknown.
        sure: Whether the unit is certain.
        body: Whether the poses are those of EuRoC's body frame.
        doubt: The assumption made for an ambiguous table, for a message; empty without one.
        named: Whether a header names the columns.
        metres: Metres per unit of the positions.
        submap: Column of the submap whose world a pose refers to; None without one.
    """

    position: tuple[int, int, int]
    quaternion: tuple[int, int, int, int] | None = None
    matrix: int | None = None
    time: int | None = None
    nanoseconds: int | None = None
    number: int | None = None
    unit: TimeUnit | None = None
    sure: bool = False
    body: bool = False
    doubt: str = ""
    named: bool = False
    metres: float = 1.0
    submap: int | None = None

    @property
    def real_part_first(self) -> bool:
        """Whether the quaternion's w is before its x, y, z."""
        return self.quaternion is not None and self.quaternion[3] < min(self.quaternion[:3])


def find_columns(table: TextTable, real_part_first: bool | None = None) -> Columns:
    """Find the meaning of the columns of a table of poses.

    Args:
        table: The table.
        real_part_first: Whether the format puts the quaternion's w first; the file's header takes
            precedence. None: unknown format.

    Raises:
        TrajectoryError: It has too few columns for positions, or degrees instead of metres.
    """
    width = table.values.shape[1]
    if not 3 <= width <= _MOST_COLUMNS:
        raise TrajectoryError(
            f"{table.path}: expected a trajectory (TUM: 8 columns, KITTI: 12, EuRoC: 8 or more "
            f"with commas, positions: 3 or 4), found {counted(width, 'column')} in line "
            f"{table.lines[0]}"
        )
    columns = next(
        filter(None, (_named(heading, table) for heading in reversed(table.heading))), None
    )
    if columns is None:
        _refuse_degrees(table)
        columns = _unnamed(table, real_part_first)
    elif columns.quaternion is None and columns.matrix is None:
        columns = _add_rotations(columns, table, real_part_first)
    if table.own:
        columns = replace(columns, unit="s", sure=True)
    return columns


def _refuse_degrees(table: TextTable) -> None:
    for heading in table.heading:
        words = {token for name in split_names(heading) for token in tokens_of(name)}
        if words & LATITUDE and words & LONGITUDE:
            raise TrajectoryError(
                f"{table.path}: has latitude and longitude, which are degrees: convert them to "
                "metres in a local frame (east, north, up)"
            )


def rotation_matrices_of(values: FloatArray, first: int) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Return the rotation matrices of poses that are written row by row.

    Args:
        values: (N, C) table.
        first: First of twelve columns.

    Returns:
        Matrices (N, 3, 3), which of them (N,) are rotations, and which (N,) are zero or missing.
    """
    rows = values[:, first : first + _MATRIX].reshape(-1, 3, 4)[:, :, :3]
    # Products of larger numbers could overflow.
    known: BoolArray = np.all(np.abs(rows) < LARGEST_PART, axis=(1, 2))
    safe = np.where(known[:, None, None], rows, 0.0)
    deviation = np.abs(safe @ safe.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    good = known & (deviation <= MATRIX_TOLERANCE) & (np.linalg.det(safe) > 0)
    empty: BoolArray = np.all(safe == 0, axis=(1, 2))
    return safe, good, empty


def time_column(table: TextTable) -> tuple[int, TimeUnit | None]:
    """Find the column of the times in a list of frames.

    It is the column that a header names, else the first one that increases and does not just count
    the frames, else the first one.

    Returns:
        The column, and its unit if a header names it.
    """
    values = table.values
    for heading in reversed(table.heading):
        names = split_names(heading)
        times = [column for column, name in enumerate(names) if is_time(tokens_of(name))]
        if times and len(names) > 1 and times[0] < values.shape[1]:
            return times[0], time_unit_of(names[times[0]])
        if len(names) == 1 and times:
            return 0, time_unit_of(names[0])
    found = columns_of_times(values)
    return (int(found[0]) if len(found) else 0), None


def _named(heading: str, table: TextTable) -> Columns | None:
    """Return the columns that a line above the rows names; None if it names no position."""
    names, width = split_names(heading), table.values.shape[1]
    roles = name_bare_quaternion([role_of(name) for name in names])
    if "time" not in roles and "number" not in roles and len(names) == width - 1:
        names, roles = ["", *names], ["time", *roles]
    at = {
        role: roles.index(role)
        for role in ("x", "y", "z", "qx", "qy", "qz", "qw", "number")
        if role in roles
    }
    if not {"x", "y", "z"} <= at.keys() or max(at.values()) >= width:
        return None
    time, nanoseconds = _named_time(names, roles)
    if time is not None and time >= width:
        return None
    quaternion = (
        (at["qx"], at["qy"], at["qz"], at["qw"]) if {"qx", "qy", "qz", "qw"} <= at.keys() else None
    )
    return Columns(
        position=(at["x"], at["y"], at["z"]),
        quaternion=quaternion,
        time=time,
        nanoseconds=nanoseconds,
        number=at.get("number"),
        unit=None if time is None else time_unit_of(names[time]),
        body=_BODY.search(heading.lower()) is not None,
        named=True,
        metres=metres_of(names[at["x"]]),
        submap=names.index("submap") if "submap" in names[:width] else None,
    )


def _named_time(names: list[str], roles: list[str]) -> tuple[int | None, int | None]:
    """Return the columns of the time and of the nanoseconds to add; None for a missing column."""
    times = [column for column, role in enumerate(roles) if role == "time"]
    # ROS has the time of recording and, in the header, the time of the message, which is the
    # pose's.
    times = [column for column in times if "header" in tokens_of(names[column])] or times
    seconds = [column for column in times if time_unit_of(names[column]) == "s"]
    rest = [column for column in times if time_unit_of(names[column]) == "ns"]
    if seconds and rest:
        return seconds[0], rest[0]
    return (times[0] if times else None), None


def _counts(column: FloatArray) -> bool:
    """Return whether a column numbers the rows: integers, mostly increasing by one."""
    known = column[np.isfinite(column)]
    if len(known) < 2 or (known != np.round(known)).any() or known.min() < 0:
        return False
    return float(np.median(np.diff(known))) == 1.0


def _increases(column: FloatArray) -> bool:
    known = column[np.isfinite(column)]
    return len(known) > 1 and bool((np.diff(known) > 0).all())


def _unit_fraction(values: FloatArray, first: int) -> float:
    """Return the fraction of rows with a unit quaternion in four columns from `first` on."""
    if values.shape[1] < first + 4:
        return 0.0
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(values[:, first : first + 4], axis=1)
    return float(np.count_nonzero(np.abs(lengths - 1.0) <= QUATERNION_TOLERANCE)) / len(values)


def _unnamed(table: TextTable, real_part_first: bool | None) -> Columns:
    values, width = table.values, table.values.shape[1]
    matrix = _matrix_column(values)
    if matrix is not None:
        counted = matrix > 0 and _counts(values[:, 0])
        return Columns(
            (matrix + 3, matrix + 7, matrix + 11),
            matrix=matrix,
            time=0 if matrix > 0 and not counted else None,
            number=0 if counted else None,
        )
    if width == 3:
        return Columns((0, 1, 2))
    if width == 7 and _unit_fraction(values, 3) > _MOST_ROWS:
        return _with_quaternion(Columns((0, 1, 2)), 3, table, real_part_first)
    first = 1 if _number_in_front(values) else 0
    columns = Columns(
        (first + 1, first + 2, first + 3),
        time=first,
        # The first column can be frame numbers or seconds: the frames' times decide later.
        number=0 if first or _counts(values[:, 0]) else None,
        body=_nanoseconds(table) and table.commas,
    )
    if width < first + 8:
        return columns
    if (
        _unit_fraction(values, first + 4) <= _MOST_ROWS
        and (found := _elsewhere(table, real_part_first)) is not None
    ):
        return found
    return _with_quaternion(columns, first + 4, table, real_part_first)


def _elsewhere(table: TextTable, real_part_first: bool | None) -> Columns | None:
    """Find a position and a quaternion at an unusual place, if only one column can be the time.

    Returns:
        The columns, or None if there is no such place.
    """
    values, width = table.values, table.values.shape[1]
    increasing = columns_of_times(values)
    for first in range(3, width - 3):
        times = [column for column in increasing if not first - 3 <= column < first + 4]
        if _unit_fraction(values, first) < _NEARLY_ALL or len(times) != 1:
            continue
        position = (first - 3, first - 2, first - 1)
        found = _with_quaternion(
            Columns(position, time=int(times[0])), first, table, real_part_first
        )
        taken = (
            f"column {times[0] + 1} is read as the time, "
            f"columns {first - 2} to {first + 4} as the pose"
        )
        return replace(found, doubt="; ".join(filter(None, (taken, found.doubt))))
    return None


def _matrix_column(values: FloatArray) -> int | None:
    """Return the first column of poses that are written row by row, or None."""
    width = int(values.shape[1])
    if width not in (_MATRIX, _MATRIX + 1, _MATRIX4, _MATRIX4 + 1):
        return None
    first = width % 4
    if width >= _MATRIX4:
        last = values[:, first + _MATRIX : first + _MATRIX4]
        if (
            np.mean(np.abs(last - [0.0, 0.0, 0.0, 1.0]).max(axis=1) < MATRIX_TOLERANCE)
            <= _MOST_ROWS
        ):
            return None
    _, good, empty = rotation_matrices_of(values, first)
    if np.mean(good | empty) > _MOST_ROWS or not (
        _increases(values[:, 0]) and _unit_fraction(values, 4) > _MOST_ROWS
    ):
        return first
    return None


def _number_in_front(values: FloatArray) -> bool:
    """Return whether a column of frame numbers is before the time."""
    width = int(values.shape[1])
    if width < 5 or not (_counts(values[:, 0]) and _increases(values[:, 1])):
        return False
    if width < 9:
        return width == 5
    behind, here = _unit_fraction(values, 5) > _MOST_ROWS, _unit_fraction(values, 4) > _MOST_ROWS
    # Without quaternions at both places, the numbers alone decide.
    return behind if behind != here else not here


def _nanoseconds(table: TextTable) -> bool:
    """Return whether the first column has integer nanoseconds."""
    known = np.unique(table.values[np.isfinite(table.values[:, 0]), 0])
    if not table.whole or len(known) == 0:
        return False
    if len(known) == 1:
        return bool(known[0] >= _LEAST_NANOSECONDS)
    low, high = _NANOSECOND_STEPS
    return low <= float(np.median(np.diff(known))) <= high


def _add_rotations(columns: Columns, table: TextTable, real_part_first: bool | None) -> Columns:
    """Add a quaternion behind the position to named columns without rotations, if there is one."""
    behind = columns.position[2] + 1
    used = {columns.time, columns.number, columns.nanoseconds}
    if (
        used.intersection(range(behind, behind + 4))
        or _unit_fraction(table.values, behind) <= _MOST_ROWS
    ):
        return columns
    return _with_quaternion(columns, behind, table, real_part_first)


def _with_quaternion(
    columns: Columns, first: int, table: TextTable, real_part_first: bool | None
) -> Columns:
    """Add a quaternion from column `first` on, whose order the header does not name."""
    last = (first, first + 1, first + 2, first + 3)
    euroc = (
        _nanoseconds(table)
        and table.values.shape[1] > 8
        and (table.commas or table.values.shape[1] == _EUROC_COLUMNS)
    )
    if real_part_first is None or (euroc and not real_part_first):
        front = euroc or (_nanoseconds(table) and table.commas)
        # TUM's format, with spaces, has a fixed order; tables with commas do not.
        open_order = table.commas or table.values.shape[1] != first + 4 or front
        known = euroc and table.values.shape[1] == _EUROC_COLUMNS and table.commas
        taken = "w x y z, as EuRoC writes them" if front else "x y z w, as TUM's format has them"
        doubt = f"quaternions are read as {taken}" if open_order and not known else ""
    else:
        front, doubt = real_part_first, ""
    order = (last[1], last[2], last[3], last[0]) if front else last
    return replace(columns, quaternion=order, doubt=doubt)


def seconds_of_parts(values: FloatArray, columns: Columns) -> FloatArray:
    """Return timestamps (N,) in the table's unit; seconds and nanoseconds columns are added."""
    assert columns.time is not None
    stamps = values[:, columns.time]
    if columns.nanoseconds is None:
        return stamps
    return stamps + values[:, columns.nanoseconds] / UNITS_PER_SECOND["ns"]
