"""Text tables of poses as other programs write them: rows of numbers, and which column holds what.

Names in a header decide; without them the number of columns and the values do. What is taken although it could be
something else is said in `Columns.doubt`.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spslam.errors import TrajectoryError
from spslam.io.given_files import read_given
from spslam.timestamps import UNITS_PER_SECOND, TimeUnit, columns_of_times, date_as_seconds
from spslam.typing import BoolArray, FloatArray, IntArray

_COMMENT = ("#", "%", "//")
# Written by `write_tum`: its times are seconds, however far apart.
_OWN_HEADER = re.compile(r"# timestamp tx ty tz( qx qy qz qw)? \(frame: ")
_BRACKETS = re.compile(r"[\[({]([^\])}]*)[\])}]")
_OUTSIDE_BRACKETS = r"(?![^\[(]*[\])])"
_QUATERNION = frozenset(
    {
        "q",
        "quat",
        "quaternion",
        "qvec",
        "rot",
        "rotation",
        "orientation",
        "orient",
        "ori",
        "att",
        "attitude",
    }
)
_POSITION = frozenset(
    {"t", "p", "pos", "position", "trans", "translation", "tvec", "loc", "location", "xyz"}
)
_GLUED = re.compile(r"(q|quat|rot|ori|t|p|pos|position|trans)([wxyz])")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")
_TIME = frozenset(
    {
        "time",
        "timestamp",
        "timestamps",
        "stamp",
        "stamps",
        "sec",
        "secs",
        "seconds",
        "nsec",
        "nsecs",
        "ts",
    }
)
_NUMBER = frozenset({"id", "index", "idx", "frame", "seq", "number", "num", "no", "image"})
_UNITS: dict[str, TimeUnit] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "usec", "usecs", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nsecs", "nanosec", "nanosecond", "nanoseconds"), "ns"),
}
# Metres in the units of length that names of columns end in.
_LENGTHS = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 1e-2),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 1e-3),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1e3),
}
_LATITUDE, _LONGITUDE = (
    frozenset({"lat", "latitude"}),
    frozenset({"lon", "lng", "long", "longitude"}),
)
# Share of rows with a unit quaternion by which one is found in another place than the usual one.
_NEARLY_ALL = 0.9
# EuRoC's frames of the body and the sensors on it, as its headers name positions and quaternions in them.
_BODY = re.compile(r"[pq]_rs_")
# How far from 1 the length of a quaternion, and from a rotation a matrix, may be: the least precise published files
# have two digits and four.
QUATERNION_TOLERANCE = 0.05
MATRIX_TOLERANCE = 0.01
# Parts of quaternions and matrices from here on are none: they overflow when they are multiplied.
LARGEST_PART = 1e50
# A table of poses has fewer columns than this, and each row of it is looked at as often as it has columns.
_MOST_COLUMNS = 1000
# Lines right above the rows that are looked at for names of columns, and letters of each.
# Longest line of numbers, letters: a thousand times what a pose takes.
_LONGEST_LINE = 1_000_000
_MOST_HEADINGS, _LONGEST_HEADING = 300, 4000
# A layout is recognised by at least this share of the rows.
_MOST_ROWS = 0.5
# Integers this far apart are nanoseconds of poses: 0.1 ms to 10 s.
_NANOSECOND_STEPS = (1e5, 1e10)
_LEAST_NANOSECONDS = 1e15
# Memory that a table may take whatever its size, bytes, and how many times that of the text.
_TABLE_MEMORY, _TABLE_GROWTH = 16_000_000, 8
_MATRIX, _MATRIX4 = 12, 16
_EUROC_COLUMNS = 17


@dataclass(frozen=True, eq=False)
class TextTable:
    """Rows of numbers in a text file.

    Attributes:
        path: the file.
        heading: the lines above the first row, without marks of comments.
        lines: (N,) line number of each row.
        values: (N, C) float64, NaN for what is missing or no number; C is the usual number of columns.
        commas: whether commas or semicolons stand between the columns.
        whole: whether the first column is written without decimals.
        words: lines among or below the rows that hold no numbers.
        own: spslam wrote it.
    """

    path: Path
    heading: tuple[str, ...]
    lines: IntArray
    values: FloatArray
    commas: bool
    whole: bool
    words: int
    own: bool


@dataclass(frozen=True)
class Columns:
    """Where a table has what; numbers of columns, counted from 0.

    Attributes:
        position: of x, y, z.
        quaternion: of x, y, z, w; None where rotations come as a matrix or not at all.
        matrix: first of twelve, a pose row by row; None where there is none.
        time: of the time stamp; None where there is none.
        nanoseconds: of what is to be added to the stamp, as ROS writes it.
        number: of the number of the frame.
        unit: of the stamps as the header or the format says it; None where neither does.
        sure: the unit is certain.
        body: the poses are of EuRoC's body frame.
        doubt: what was taken although it could be something else, for people; empty where nothing was.
        named: a header names the columns.
        metres: in the unit of the positions.
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

    @property
    def real_part_first(self) -> bool:
        """Whether the quaternion's w stands before its x, y, z."""
        return self.quaternion is not None and self.quaternion[3] < min(self.quaternion[:3])


def read_table(path: Path, expected: str = "a trajectory") -> TextTable:
    """Read a text table with blanks, tabs, commas or semicolons between its columns.

    Args:
        path: of the file.
        expected: what it should hold, for messages.

    Raises:
        TrajectoryError: the file cannot be read, is binary, or has no row of numbers.
    """
    text = _text(path, expected)
    own = _OWN_HEADER.match(text.lstrip()[:100]) is not None
    # Python's own numbers would take ten times as much memory as the text.
    cells_of_rows, numbers, widths = array("d"), array("q"), array("q")
    heading: deque[str] = deque(maxlen=_MOST_HEADINGS)
    words, whole, first = 0, True, ""
    separator: str | None = None
    for number, line in enumerate(map(str.strip, _lines(text)), start=1):
        if not line:
            continue
        comment = line.startswith(_COMMENT)
        if not comment and len(line) > _LONGEST_LINE:
            # Split, its cells would take 40 times as much memory as the line.
            raise TrajectoryError(
                f"{path}: expected a pose in line {number}, found {len(line)} letters: a pose has a line of its own"
            )
        line = date_as_seconds(line)
        cells = [] if comment else _cells(line, separator if first else _separator(line))
        values = [_number(cell) for cell in cells]
        if comment or not _is_row(cells, values):
            if not numbers:
                heading.append(line.lstrip("#%/ ")[:_LONGEST_HEADING])
            words += bool(numbers) and not comment
            continue
        if not first:
            first, separator = line, _separator(line)
        whole = whole and cells[0].lstrip("+-").isdigit()
        cells_of_rows.extend(values)
        numbers.append(number)
        widths.append(len(values))
    if not numbers:
        raise TrajectoryError(f"{path}: expected {expected}, found no line of numbers")
    table = _rectangle(path, np.asarray(cells_of_rows), np.asarray(widths), len(text))
    return TextTable(
        path,
        tuple(heading),
        np.array(numbers, np.int64),
        table,
        separator in (",", ";"),
        whole,
        words,
        own,
    )


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, as `str.splitlines`, without a copy of all."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield from text[start:end].splitlines()
        start = end


def _rectangle(path: Path, values: FloatArray, widths: IntArray, letters: int) -> FloatArray:
    """Rows of different length (their numbers, one after the other) as a table (N, C) as wide as most of them; NaN for
    what is missing.
    """
    width = Counter(widths.tolist()).most_common(1)[0][0]
    if 8 * width * len(widths) > max(_TABLE_MEMORY, _TABLE_GROWTH * letters):
        raise TrajectoryError(
            f"{path}: expected rows of one length, found {len(widths)} of {widths.min()} to {widths.max()} numbers"
        )
    table = np.full((len(widths), width), np.nan)
    starts = np.cumsum(widths) - widths
    usual = widths == width
    table[usual] = values[starts[usual, None] + np.arange(width)]
    for row in np.flatnonzero(~usual):
        found = values[starts[row] : starts[row] + min(widths[row], width)]
        table[row, : len(found)] = found
    return table


def find_columns(table: TextTable, real_part_first: bool | None = None) -> Columns:
    """Which column of a table of poses holds what.

    Args:
        table: that was read.
        real_part_first: what the format defines about quaternions, where nothing in the file says otherwise; None
            where the format is not known.

    Raises:
        TrajectoryError: it has too few columns for positions, or degrees instead of metres.
    """
    width = table.values.shape[1]
    if not 3 <= width <= _MOST_COLUMNS:
        raise TrajectoryError(
            f"{table.path}: expected a trajectory (TUM: 8 columns, KITTI: 12, EuRoC: 8 or more with commas, positions: "
            f"3 or 4), found {width} columns in line {table.lines[0]}"
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
        words = {token for name in _names(heading) for token in _tokens(name)}
        if words & _LATITUDE and words & _LONGITUDE:
            raise TrajectoryError(
                f"{table.path}: holds latitude and longitude, which are degrees: convert them to metres in a local "
                "frame (east, north, up)"
            )


def rotation_matrices_of(values: FloatArray, first: int) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Rotations (N, 3, 3) of poses written row by row from column `first` on, which of them are rotations (N,), and
    which hold only zeros or nothing (N,).
    """
    rows = values[:, first : first + _MATRIX].reshape(-1, 3, 4)[:, :, :3]
    # No rotation has numbers that overflow when they are multiplied.
    known: BoolArray = np.all(np.abs(rows) < LARGEST_PART, axis=(1, 2))
    safe = np.where(known[:, None, None], rows, 0.0)
    deviation = np.abs(safe @ safe.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    good = known & (deviation <= MATRIX_TOLERANCE) & (np.linalg.det(safe) > 0)
    empty: BoolArray = np.all(safe == 0, axis=(1, 2))
    return safe, good, empty


def time_column(table: TextTable) -> tuple[int, TimeUnit | None]:
    """Which column of a list of frames holds their times, and its unit where a header says it: the named one, else the
    first that increases and does not just count the frames, else the first.
    """
    values = table.values
    for heading in reversed(table.heading):
        names = _names(heading)
        times = [column for column, name in enumerate(names) if _is_time(_tokens(name))]
        if times and len(names) > 1 and times[0] < values.shape[1]:
            return times[0], _unit_of(names[times[0]])
        if len(names) == 1 and times:
            return 0, _unit_of(names[0])
    found = columns_of_times(values)
    return (int(found[0]) if len(found) else 0), None


# -- lines ----------------------------------------------------------------------------------------


def _text(path: Path, expected: str) -> str:
    try:
        data = read_given(path)
    except OSError as error:
        raise TrajectoryError(
            f"cannot read {path} ({expected}): {error.strerror or error}"
        ) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        raise TrajectoryError(f"{path}: expected a text file with {expected}, found binary data")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Only comments may hold such letters.
        return data.decode("latin-1")


def _separator(line: str) -> str | None:
    """What stands between the columns of a line: `;`, `,`, `,.` for blanks beside decimal commas, None for blanks."""
    cells = line.split()
    if len(cells) > 2 and "," in line and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells):
        return ",."
    return next((mark for mark in ";," if line.count(mark) > 1), None)


def _cells(line: str, separator: str | None) -> list[str]:
    if separator == ",.":
        return line.replace(",", ".").split()
    if separator is None:
        # One comma is none between columns of poses: `1.0, 2.0`, a list of two.
        return line.replace(",", " ").replace(";", " ").split()
    line = line.rstrip(separator + " \t")
    cells = [cell.strip(" \t\"'") for cell in line.split(separator)]
    # Where semicolons stand between columns, a comma is the decimal point of many countries.
    return [cell.replace(",", ".") for cell in cells] if separator == ";" else cells


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _is_row(cells: list[str], values: list[float]) -> bool:
    numbers = [
        value == value or cell.lower().lstrip("+-") == "nan"
        for cell, value in zip(cells, values, strict=True)
    ]
    return bool(numbers) and (numbers[0] or (2 * sum(numbers) >= len(numbers) and sum(numbers) > 1))


# -- names ----------------------------------------------------------------------------------------


def _names(heading: str) -> list[str]:
    """Names of columns in a line, with what stands in brackets behind each."""
    if re.search(r"[,;\t]", _BRACKETS.sub("", heading)):
        names = [name.strip(" \"'") for name in re.split(rf"[,;\t]{_OUTSIDE_BRACKETS}", heading)]
    else:
        names = re.findall(r"[^\s\[({]+(?:\s*[\[({][^\])}]*[\])}])*", heading)
    # `format: timestamp tx …`
    start = max((n + 1 for n, name in enumerate(names) if name.endswith(":")), default=0)
    return names[start:]


def _tokens(name: str) -> list[str]:
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", _BRACKETS.sub("", name))
    return [token for token in re.split(r"[^a-z0-9µμ]+", plain.lower()) if token]


def _is_time(tokens: list[str]) -> bool:
    return tokens == ["t"] or any(
        token in _TIME or token.startswith("timestamp") for token in tokens
    )


def _unit_of(name: str) -> TimeUnit | None:
    bracketed = [text.strip().lower() for text in _BRACKETS.findall(name)]
    return next(
        (_UNITS[word] for word in (*bracketed, *reversed(_tokens(name))) if word in _UNITS), None
    )


def _role(name: str) -> str:
    """`x`, `y`, `z` of a position, `qx`, `qy`, `qz`, `qw`, `time`, `number`, or nothing of these."""
    tokens = _tokens(name)
    if len(tokens) > 1 and tokens[-1] in _LENGTHS:
        tokens = tokens[:-1]
    if not tokens:
        return ""
    stem, part = tokens[:-1], tokens[-1]
    glued = _GLUED.fullmatch(part)
    if glued is not None:
        stem, part = [*stem, glued[1]], glued[2]
    elif part not in ("w", "x", "y", "z") and len(tokens) > 1 and tokens[0] in ("w", "x", "y", "z"):
        stem, part = tokens[1:], tokens[0]
    if part in ("w", "x", "y", "z"):
        kind = next((token for token in stem if token in _QUATERNION | _POSITION), None)
        if kind in _QUATERNION or stem == ["r"] or (not stem and part == "w"):
            return f"q{part}"
        return part if part != "w" and (kind in _POSITION or not stem) else ""
    if len(tokens) == 1 and (found := re.fullmatch(r"r([wxyz])", part)):
        return f"q{found[1]}"
    if _is_time(tokens):
        return "time"
    return "number" if _NUMBER.intersection(tokens) else ""


def _named(heading: str, table: TextTable) -> Columns | None:
    """The columns that a line above the rows names; None where it names no position."""
    names, width = _names(heading), table.values.shape[1]
    roles = _bare_quaternion([_role(name) for name in names])
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
        unit=None if time is None else _unit_of(names[time]),
        body=_BODY.search(heading.lower()) is not None,
        named=True,
        metres=_metres(names[at["x"]]),
    )


def _bare_quaternion(roles: list[str]) -> list[str]:
    """Roles of columns where `w x y z` or `x y z w` beside another `x y z` are the parts of a quaternion."""
    if "qw" not in roles or "qx" in roles or roles.count("x") != 2:
        return roles
    at = roles.index("qw")
    for first in (at + 1, at - 3):
        if first >= 0 and roles[first : first + 3] == ["x", "y", "z"]:
            return [*roles[:first], "qx", "qy", "qz", *roles[first + 3 :]]
    return roles


def _metres(name: str) -> float:
    """Metres in the unit that the name of a column of positions ends in or has in brackets; 1 where it has none."""
    bracketed = [text.strip().lower() for text in _BRACKETS.findall(name)]
    return next(
        (_LENGTHS[word] for word in (*bracketed, *_tokens(name)[1:]) if word in _LENGTHS), 1.0
    )


def _named_time(names: list[str], roles: list[str]) -> tuple[int | None, int | None]:
    """Columns of the time and of nanoseconds beside its seconds."""
    times = [column for column, role in enumerate(roles) if role == "time"]
    # ROS writes when a message was recorded and when it was made: the latter is the pose's.
    times = [column for column in times if "header" in _tokens(names[column])] or times
    seconds = [column for column in times if _unit_of(names[column]) == "s"]
    rest = [column for column in times if _unit_of(names[column]) == "ns"]
    if seconds and rest:
        return seconds[0], rest[0]
    return (times[0] if times else None), None


# -- tables without names -------------------------------------------------------------------------


def _counts(column: FloatArray) -> bool:
    """Whether a column numbers the rows: whole numbers, mostly one apart."""
    known = column[np.isfinite(column)]
    if len(known) < 2 or (known != np.round(known)).any() or known.min() < 0:
        return False
    return float(np.median(np.diff(known))) == 1.0


def _increases(column: FloatArray) -> bool:
    known = column[np.isfinite(column)]
    return len(known) > 1 and bool((np.diff(known) > 0).all())


def _unit_share(values: FloatArray, first: int) -> float:
    """Share of the rows that hold a quaternion of length 1 in four columns."""
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
    if width == 7 and _unit_share(values, 3) > _MOST_ROWS:
        return _with_quaternion(Columns((0, 1, 2)), 3, table, real_part_first)
    first = 1 if _number_in_front(values) else 0
    columns = Columns(
        (first + 1, first + 2, first + 3),
        time=first,
        # Numbers of frames, or seconds: that of the two which the frames have.
        number=0 if first or _counts(values[:, 0]) else None,
        body=_nanoseconds(table) and table.commas,
    )
    if width < first + 8:
        return columns
    if (
        _unit_share(values, first + 4) <= _MOST_ROWS
        and (found := _elsewhere(table, real_part_first)) is not None
    ):
        return found
    return _with_quaternion(columns, first + 4, table, real_part_first)


def _elsewhere(table: TextTable, real_part_first: bool | None) -> Columns | None:
    """Columns where a quaternion stands behind a position in another place than usual, and one other column may be the
    time; None where nothing is so.
    """
    values, width = table.values, table.values.shape[1]
    increasing = columns_of_times(values)
    for first in range(3, width - 3):
        times = [column for column in increasing if not first - 3 <= column < first + 4]
        if _unit_share(values, first) < _NEARLY_ALL or len(times) != 1:
            continue
        position = (first - 3, first - 2, first - 1)
        found = _with_quaternion(
            Columns(position, time=int(times[0])), first, table, real_part_first
        )
        taken = f"column {times[0] + 1} is read as the time, columns {first - 2} to {first + 4} as the pose"
        return replace(found, doubt="; ".join(filter(None, (taken, found.doubt))))
    return None


def _matrix_column(values: FloatArray) -> int | None:
    """First column of a pose row by row; None where there is no such thing."""
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
        _increases(values[:, 0]) and _unit_share(values, 4) > _MOST_ROWS
    ):
        return first
    return None


def _number_in_front(values: FloatArray) -> bool:
    """Whether a number of the frame stands before the time."""
    width = int(values.shape[1])
    if width < 5 or not (_counts(values[:, 0]) and _increases(values[:, 1])):
        return False
    if width < 9:
        return width == 5
    behind, here = _unit_share(values, 5) > _MOST_ROWS, _unit_share(values, 4) > _MOST_ROWS
    # Without quaternions on either side the numbers have to be enough.
    return behind if behind != here else not here


def _nanoseconds(table: TextTable) -> bool:
    """Whether the first column holds whole nanoseconds."""
    known = np.unique(table.values[np.isfinite(table.values[:, 0]), 0])
    if not table.whole or len(known) == 0:
        return False
    if len(known) == 1:
        return bool(known[0] >= _LEAST_NANOSECONDS)
    low, high = _NANOSECOND_STEPS
    return low <= float(np.median(np.diff(known))) <= high


def _add_rotations(columns: Columns, table: TextTable, real_part_first: bool | None) -> Columns:
    """Columns whose names leave the rotations open, with a quaternion where one stands behind the position."""
    behind = columns.position[2] + 1
    used = {columns.time, columns.number, columns.nanoseconds}
    if (
        used.intersection(range(behind, behind + 4))
        or _unit_share(table.values, behind) <= _MOST_ROWS
    ):
        return columns
    return _with_quaternion(columns, behind, table, real_part_first)


def _with_quaternion(
    columns: Columns, first: int, table: TextTable, real_part_first: bool | None
) -> Columns:
    """Columns with a quaternion from `first` on, whose order nothing names."""
    last = (first, first + 1, first + 2, first + 3)
    euroc = (
        _nanoseconds(table)
        and table.values.shape[1] > 8
        and (table.commas or table.values.shape[1] == _EUROC_COLUMNS)
    )
    if real_part_first is None or (euroc and not real_part_first):
        front = euroc or (_nanoseconds(table) and table.commas)
        # TUM's format is one with blanks; only commas leave the order open.
        open_order = table.commas or table.values.shape[1] != first + 4 or front
        known = euroc and table.values.shape[1] == _EUROC_COLUMNS and table.commas
        taken = "w x y z, as EuRoC writes them" if front else "x y z w, as TUM's format has them"
        doubt = f"quaternions are read as {taken}" if open_order and not known else ""
    else:
        front, doubt = real_part_first, ""
    order = (last[1], last[2], last[3], last[0]) if front else last
    return replace(columns, quaternion=order, doubt=doubt)


def seconds_of_parts(values: FloatArray, columns: Columns) -> FloatArray:
    """Stamps (N,) as the table has them; seconds and nanoseconds in two columns make one number of seconds."""
    assert columns.time is not None
    stamps = values[:, columns.time]
    if columns.nanoseconds is None:
        return stamps
    return stamps + values[:, columns.nanoseconds] / UNITS_PER_SECOND["ns"]
