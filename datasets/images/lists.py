"""Lists of images: lines with a time stamp and the name of a file, as TUM RGB-D's, EuRoC's and other recorders have."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.io.given_files import read_given
from spslam.notices import notice
from spslam.timestamps import are_stamps, columns_of_times, date_as_seconds

from ..paths import reason

_LOG = logging.getLogger(__name__)
_IMAGE = re.compile(r"\.(png|jpe?g|bmp|tiff?|pgm|ppm|webp|exr|npy)$", re.IGNORECASE)
_COMMENTS = ("#", "%", "//")


def read_image_list(
    path: Path, expected: str, comma: bool = False
) -> tuple[NDArray[np.float64], list[str], int]:
    """Time stamps (N,), in the unit of the list, file names of the images in a list, and how many lines were left out.

    Columns stand between blanks, tabs, commas or semicolons; a heading is skipped. Of several numbers in front of the
    name the time stamps are those that increase and do not count, which is told, as are further columns. Lines with
    nan or infinity for a time stamp are left out and counted.

    Args:
        path: of the list.
        expected: what a line should hold, for messages.
        comma: the format has commas between the columns, so that blanks are part of a name.

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
        text = "%s: what stands behind the first file name of a line is not read, such as %s"
        notice(
            _LOG,
            "further_columns",
            text,
            path,
            repr(next(more for _, _, more in rows if more)[:60]),
        )
    table = np.array([numbers for numbers, _, _ in rows])
    # Lists that were written on Windows have its separators of folders.
    stamps, names = (
        table[:, _time_column(table, path)],
        [name.replace("\\", "/") for _, name, _ in rows],
    )
    known = are_stamps(stamps)
    if not known.all():
        text = (
            "%s: %d of %d lines have no time stamp (nan, inf or beyond any clock) and are left out"
        )
        notice(
            _LOG,
            "no_stamp",
            text,
            path,
            np.count_nonzero(~known),
            len(known),
            count=int(np.count_nonzero(~known)),
        )
    if not known.any():
        raise DatasetError(f"{path}: none of its {len(known)} lines has a time stamp")
    kept = [name for name, there in zip(names, known, strict=True) if there]
    return np.ascontiguousarray(stamps[known]), kept, int(np.count_nonzero(~known))


def _is_heading(line: str) -> bool:
    """Whether a line names columns: words, none of them a number or an image."""
    cells = [cell.strip("\"' ") for cell in re.split(r"[\s,;]+", line) if cell.strip("\"' ")]
    return not any(_number(cell) is not None or _IMAGE.search(cell) for cell in cells)


def _split(line: str, comma: bool) -> tuple[list[float], str, str]:
    """Numbers, the name of the file, and what stands behind both, of a line."""
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
        # Where a stamp stands alone, it is the name, too.
        return numbers, line, rest
    if not name and len(numbers) > 1:
        # A name of digits only, without the ending of its format.
        return numbers[:-1], separator.split(line)[len(numbers) - 1].strip("\"'"), rest
    return numbers, name, rest


def _name(text: str, separator: re.Pattern[str]) -> tuple[str, str]:
    """The name of a file that a text begins with, up to the first cell that ends as images do, and what is behind."""
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
            f"{path}: expected one time stamp and a file name a line, found {width} numbers a line and no single "
            "column of increasing times among them: keep the column of times only"
        )
    text = "%s: of %d numbers a line, number %d is taken for the time stamps: only it increases and does not count"
    notice(_LOG, "time_column", text, path, width, int(found[0]) + 1)
    return int(found[0])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
