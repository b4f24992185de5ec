"""Read lists of images: lines with a time stamp and a file name, as in TUM RGB-D and EuRoC."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.io.given_files import read_given
from spslam.notices import counted, notice, plural
from spslam.timestamps import are_stamps, columns_of_times, date_as_seconds

from ..paths import reason

_LOG = logging.getLogger(__name__)
_IMAGE = re.compile(r"\.(png|jpe?g|bmp|tiff?|pgm|ppm|webp|exr|npy)$", re.IGNORECASE)
# Beginnings of lines that are comments.
_COMMENTS = ("#", "%", "//")


def read_image_list(
    path: Path, expected: str, comma: bool = False
) -> tuple[NDArray[np.float64], list[str], int]:
    """Read a list of images.

    Columns are separated by blanks, tabs, commas or semicolons; a heading is skipped. Of several
    numbers before the name, the time stamp is the one that increases and does not count lines.
    Notices report this choice and unused columns. Lines with nan or infinity as the time stamp are
    left out and counted.

    Args:
        path: the file of the list.
        expected: contents of a line, for messages.
        comma: whether the format separates columns by commas; blanks are then part of a name.

    Returns:
        Time stamps (N,) in the unit of the list, N file names, and the number of lines left out.

    Raises:
        DatasetError: the list cannot be read, holds no images, or a line holds something else.
    """
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"expected a list of images at {path}: cannot be read ({reason(error)})"
        ) from None
    numbered = [
        (number, date_as_seconds(line.strip())) for number, line in enumerate(lines, start=1)
    ]
    numbered = [
        (number, line) for number, line in numbered if line and not line.startswith(_COMMENTS)
    ]
    if numbered and _is_heading(numbered[0][1]):
        numbered = numbered[1:]
    if not numbered:
        raise DatasetError(f"{path} lists no images")
    rows = [_split(line, comma) for _, line in numbered]
    bad = [row for row, (numbers, name, _) in enumerate(rows) if not (numbers and name)]
    if bad or len({len(numbers) for numbers, _, _ in rows}) > 1:
        usual = len(rows[0][0])
        at = (
            bad[0] if bad else next(row for row, found in enumerate(rows) if len(found[0]) != usual)
        )
        raise DatasetError(
            f"{path}:{numbered[at][0]}: expected {expected}, found {numbered[at][1][:60]!r}"
        )
    if any(further for _, _, further in rows):
        text = "%s: the text after the first file name of a line is not read, such as %s"
        notice(
            _LOG,
            "further_columns",
            text,
            path,
            repr(next(more for _, _, more in rows if more)[:60]),
        )
    table = np.array([numbers for numbers, _, _ in rows])
    # Lists that were written on Windows separate folders by backslashes.
    stamps, names = (
        table[:, _time_column(table, path)],
        [name.replace("\\", "/") for _, name, _ in rows],
    )
    known = are_stamps(stamps)
    if unknown := int(np.count_nonzero(~known)):
        text = "%s: %d of %d lines %s no time stamp (nan, inf or beyond any clock) and %s left out"
        notice(
            _LOG,
            "no_stamp",
            text,
            path,
            unknown,
            len(known),
            plural(unknown, "has", "have"),
            plural(unknown, "is", "are"),
            count=unknown,
        )
    if not known.any():
        raise DatasetError(f"{path}: none of its {counted(len(known), 'line')} has a time stamp")
    kept = [name for name, there in zip(names, known, strict=True) if there]
    return np.ascontiguousarray(stamps[known]), kept, unknown


def _is_heading(line: str) -> bool:
    """Return whether a line is a heading: no word is a number or the name of an image."""
    cells = [cell.strip("\"' ") for cell in re.split(r"[\s,;]+", line) if cell.strip("\"' ")]
    return not any(_number(cell) is not None or _IMAGE.search(cell) for cell in cells)


def _split(line: str, comma: bool) -> tuple[list[float], str, str]:
    """Split a line into its numbers, the name of the file, and the rest behind both."""
    mark = next((mark for mark in ("\t", ";", ",") if mark in line), None)
    if mark == "," and not comma and _number(line.split()[0]) is not None:
        mark = None
    separator = re.compile(r"\s+") if mark is None else re.compile(rf"\s*{mark}\s*")
    numbers: list[float] = []
    rest, name = line, ""
    while rest:
        cell, *more = separator.split(rest, maxsplit=1)
        number = _number(cell.strip("\"'"))
        if number is None:
            if name:
                break
            name, rest = _name(rest, separator)
            continue
        if name and numbers:
            break
        numbers.append(number)
        rest = more[0] if more else ""
    if not name and len(numbers) == 1 and comma and "," not in line:
        # A stamp alone on a line is also the name of the file.
        return numbers, line, rest
    if not name and len(numbers) > 1:
        # The last number is the name: digits only, without an extension.
        return numbers[:-1], separator.split(line)[len(numbers) - 1].strip("\"'"), rest
    return numbers, name, rest


def _name(text: str, separator: re.Pattern[str]) -> tuple[str, str]:
    """Split a text into the file name at its beginning and the rest.

    The name ends with the first cell that has the extension of an image.
    """
    end = 0
    for gap in [*separator.finditer(text), None]:
        end = len(text) if gap is None else gap.start()
        if _IMAGE.search(text[:end].rstrip("\"'")):
            break
    return text[:end].strip("\"' "), separator.sub("", text[end:], count=1)


def _time_column(table: NDArray[np.float64], path: Path) -> int:
    width = table.shape[1]
    if width == 1:
        return 0
    found = columns_of_times(table[are_stamps(table).all(axis=1)])
    if len(found) != 1:
        raise DatasetError(
            f"{path}: expected one time stamp and a file name a line, found {width} numbers a line "
            "and no single column of increasing times among them: keep the column of times only"
        )
    text = (
        "%s: of %d numbers a line, number %d is used as the time stamp: "
        "only it increases and does not count"
    )
    notice(_LOG, "time_column", text, path, width, int(found[0]) + 1)
    return int(found[0])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
