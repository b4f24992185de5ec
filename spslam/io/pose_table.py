"""Text tables of poses from other programs: rows of numbers, and the meaning of the columns.

Names in a header decide; without them, the number of columns and the values decide. `Columns.doubt`
says which assumption was made for an ambiguous table.
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
from spslam.notices import counted
from spslam.timestamps import UNITS_PER_SECOND, TimeUnit, columns_of_times, date_as_seconds
from spslam.typing import BoolArray, FloatArray, IntArray

# Starts of comment lines.
_COMMENT = ("#", "%", "//")
# Header of `write_tum`: times are seconds, whatever the differences between them.
_OWN_HEADER = re.compile(r"# timestamp tx ty tz( qx qy qz qw)? \(frame: ")
# Brackets with their content, such as `[s]` in a column name.
_BRACKETS = re.compile(r"[\[({]([^\])}]*)[\])}]")
# Look-ahead for a position outside brackets.
_OUTSIDE_BRACKETS = r"(?![^\[(]*[\])])"
# Words in the names of columns, by meaning: rotation, position, name and axis without a separator.
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
# A number with a decimal comma.
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")
# Words of columns with times or frame numbers, and of units of time.
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
# Metres per unit of length, by the unit at the end of a column name.
_LENGTHS = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 1e-2),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 1e-3),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1e3),
}
# Words of columns in degrees, which are refused.
_LATITUDE, _LONGITUDE = (
    frozenset({"lat", "latitude"}),
    frozenset({"lon", "lng", "long", "longitude"}),
)
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
# Longest line of numbers, characters: far more than a pose needs.
_LONGEST_LINE = 1_000_000
# Lines above the rows that are searched for column names, and characters used of each.
_MOST_HEADINGS, _LONGEST_HEADING = 300, 4000
# Fraction of the rows that must fit a layout to recognize it.
_MOST_ROWS = 0.5
# Differences of integer timestamps that are nanoseconds: 0.1 ms to 10 s.
_NANOSECOND_STEPS = (1e5, 1e10)
# Smallest single integer timestamp that is read as nanoseconds.
_LEAST_NANOSECONDS = 1e15
# Largest memory of a table: bytes, or a multiple of the text's length if that is more.
_TABLE_MEMORY, _TABLE_GROWTH = 16_000_000, 8
# Number of values of a pose written row by row: 3×4 and 4×4.
_MATRIX, _MATRIX4 = 12, 16
# Number of columns of EuRoC's ground truth.
_EUROC_COLUMNS = 17


@dataclass(frozen=True, eq=False)
class TextTable:
    """Rows of numbers in a text file.

    Attributes:
        path: The file.
        heading: Lines above the first row, without comment signs.
        lines: (N,) line number of each row.
        values: (N, C) float64, NaN for missing values and text; C is the most frequent number of
            columns.
        commas: Whether commas or semicolons separate the columns.
        whole: Whether the first column is written without decimals.
        words: Number of lines without numbers below the first row.
        own: Whether spslam wrote the file.
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


def read_table(path: Path, expected: str = "a trajectory") -> TextTable:
    """Read a text table with spaces, tabs, commas or semicolons between its columns.

    Args:
        path: The file.
        expected: Expected content, for messages.

    Raises:
        TrajectoryError: The file cannot be read, is binary or has no row of numbers.
    """
    text = _text(path, expected)
    own = _OWN_HEADER.match(text.lstrip()[:100]) is not None
    # Arrays, because Python's number objects need ten times the memory of the text.
    cells_of_rows, numbers, widths = array("d"), array("q"), array("q")
    heading: deque[str] = deque(maxlen=_MOST_HEADINGS)
    words, whole, first = 0, True, ""
    separator: str | None = None
    for number, line in enumerate(map(str.strip, _lines(text)), start=1):
        if not line:
            continue
        comment = line.startswith(_COMMENT)
        if not comment and len(line) > _LONGEST_LINE:
            # Splitting it would need 40 times the memory of the line.
            raise TrajectoryError(
                f"{path}: expected a pose in line {number}, found {len(line)} characters: "
                "write each pose on its own line"
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
    """Yield the lines of a text as `str.splitlines` does, without a copy of the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield from text[start:end].splitlines()
        start = end


def _rectangle(path: Path, values: FloatArray, widths: IntArray, letters: int) -> FloatArray:
    """Make a table (N, C) from rows of different lengths.

    Args:
        path: The file, for messages.
        values: The numbers of all rows, one row after the other.
        widths: (N,) length of each row.
        letters: Length of the text, characters.

    Returns:
        The table with NaN for missing values; C is the most frequent length.
    """
    width = Counter(widths.tolist()).most_common(1)[0][0]
    if 8 * width * len(widths) > max(_TABLE_MEMORY, _TABLE_GROWTH * letters):
        raise TrajectoryError(
            f"{path}: expected rows of one length, found {len(widths)} of "
            f"{widths.min()} to {widths.max()} numbers"
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
        words = {token for name in _names(heading) for token in _tokens(name)}
        if words & _LATITUDE and words & _LONGITUDE:
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
        # Only comments can have non-ASCII characters, so any encoding will do.
        return data.decode("latin-1")


def _separator(line: str) -> str | None:
    """Return the separator of a line: `;`, `,`, None (spaces) or `,.` (spaces, decimal commas)."""
    cells = line.split()
    if len(cells) > 2 and "," in line and all(_DECIMAL_COMMA.fullmatch(cell) for cell in cells):
        return ",."
    return next((mark for mark in ";," if line.count(mark) > 1), None)


def _cells(line: str, separator: str | None) -> list[str]:
    if separator == ",.":
        return line.replace(",", ".").split()
    if separator is None:
        # A single comma is no separator of poses: `1.0, 2.0` is a list of two numbers.
        return line.replace(",", " ").replace(";", " ").split()
    line = line.rstrip(separator + " \t")
    cells = [cell.strip(" \t\"'") for cell in line.split(separator)]
    # With semicolons between columns, a comma is the decimal sign of many countries.
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
    """Return the column names in a line, each with its brackets."""
    if re.search(r"[,;\t]", _BRACKETS.sub("", heading)):
        names = [name.strip(" \"'") for name in re.split(rf"[,;\t]{_OUTSIDE_BRACKETS}", heading)]
    else:
        names = re.findall(r"[^\s\[({]+(?:\s*[\[({][^\])}]*[\])}])*", heading)
    # Skip a prefix, as in `format: timestamp tx …`.
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
    """Return the role of a column: x, y, z, qx, qy, qz, qw, time, number or an empty text."""
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
    """Return the columns that a line above the rows names; None if it names no position."""
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
        submap=names.index("submap") if "submap" in names[:width] else None,
    )


def _bare_quaternion(roles: list[str]) -> list[str]:
    """Name a quaternion in the roles: `w x y z` or `x y z w`, if there is another `x y z`."""
    if "qw" not in roles or "qx" in roles or roles.count("x") != 2:
        return roles
    at = roles.index("qw")
    for first in (at + 1, at - 3):
        if first >= 0 and roles[first : first + 3] == ["x", "y", "z"]:
            return [*roles[:first], "qx", "qy", "qz", *roles[first + 3 :]]
    return roles


def _metres(name: str) -> float:
    """Return the metres per unit of length in a column name (at its end or in brackets), or 1."""
    bracketed = [text.strip().lower() for text in _BRACKETS.findall(name)]
    return next(
        (_LENGTHS[word] for word in (*bracketed, *_tokens(name)[1:]) if word in _LENGTHS), 1.0
    )


def _named_time(names: list[str], roles: list[str]) -> tuple[int | None, int | None]:
    """Return the columns of the time and of the nanoseconds to add; None for a missing column."""
    times = [column for column, role in enumerate(roles) if role == "time"]
    # ROS has the time of recording and, in the header, the time of the message, which is the
    # pose's.
    times = [column for column in times if "header" in _tokens(names[column])] or times
    seconds = [column for column in times if _unit_of(names[column]) == "s"]
    rest = [column for column in times if _unit_of(names[column]) == "ns"]
    if seconds and rest:
        return seconds[0], rest[0]
    return (times[0] if times else None), None


# -- tables without names -------------------------------------------------------------------------


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
