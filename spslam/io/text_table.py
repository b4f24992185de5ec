"""Text tables of numbers: rows with spaces, tabs, commas or semicolons between the columns."""

from __future__ import annotations

import re
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spslam.errors import TrajectoryError
from spslam.io.given_files import read_given
from spslam.timestamps import date_as_seconds
from spslam.typing import FloatArray, IntArray

# Starts of comment lines.
_COMMENT = ("#", "%", "//")
# Header of `write_tum`: times are seconds, whatever the differences between them.
_OWN_HEADER = re.compile(r"# timestamp tx ty tz( qx qy qz qw)? \(frame: ")
# A number with a decimal comma.
_DECIMAL_COMMA = re.compile(r"[-+]?\d+(,\d+)?([eE][-+]?\d+)?")
# Longest line of numbers, characters: far more than a pose needs.
_LONGEST_LINE = 1_000_000
# Lines above the rows that are searched for column names, and characters used of each.
_MOST_HEADINGS, _LONGEST_HEADING = 300, 4000
# Largest memory of a table: bytes, or a multiple of the text's length if that is more.
_TABLE_MEMORY, _TABLE_GROWTH = 16_000_000, 8


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
