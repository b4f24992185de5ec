"""Find the number in the names of images that gives their times or their order."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.notices import notice
from spslam.timestamps import TimeUnit, date_seconds, is_second_of_date

_LOG = logging.getLogger(__name__)
NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_HEXADECIMAL = re.compile(r"[0-9a-f]{2,16}")
# A date with the time of day, and a fraction of the second: after a point or comma, or in 3, 6 or 9
# digits.
_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T]*(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)"
    r"(?:[.,](\d{1,9})|[-_]?(\d{9}|\d{6}|\d{3}))?(?!\d)"
)
# Numbers beside a counter are times if they are all at least this large.
_LIKELY_TIME = 10**6
# Numbers of digits of a fraction of a second: milli-, micro- or nanoseconds.
_FRACTIONS = (3, 6, 9)
# Largest number of patterns that count as kinds of images; with more, the names have no pattern.
MOST_KINDS = 6
# Number of digits of a fraction of a second in nanoseconds.
_NANOSECOND_DIGITS = 9
# Largest median step, in units of the last digit, at which digits after the second are a counter.
_COUNTED = 1.5
# Read nanoseconds with leading zeros added if the mean deviation of the steps from their median
# shrinks to less than this fraction.
_MORE_EVEN = 0.5


def name_patterns(paths: list[Path]) -> dict[str, list[Path]]:
    """Group files by their name without its numbers, and without the sign that some begin with."""
    signed = _some_signed(paths)
    patterns: dict[str, list[Path]] = {}
    for path in paths:
        patterns.setdefault("*".join(_parts(path, signed)[::2]), []).append(path)
    return patterns


def hexadecimal(paths: list[Path]) -> list[int] | None:
    """Return the values of names that are hexadecimal numbers of one length; else None."""
    stems = [path.stem.lower() for path in paths]
    if len({len(stem) for stem in stems}) != 1 or not all(map(_HEXADECIMAL.fullmatch, stems)):
        return None
    # A letter at the beginning (f0001, or c0001 and d0001 of two streams) makes few patterns, and
    # is no hexadecimal digit.
    return [int(stem, 16) for stem in stems] if len(name_patterns(paths)) > MOST_KINDS else None


@dataclass(frozen=True)
class NameNumbers:
    """The numbers in the names that give the times or the order.

    Attributes:
        numbers: N numbers, as they are written.
        unit: their unit, if the way they are written shows it; else None.
        order: (N,) int64, rows in the order of a counter that the names hold as well; None without
            such a counter.
    """

    numbers: list[str]
    unit: TimeUnit | None = None
    order: NDArray[np.int64] | None = None


def telling_numbers(paths: list[Path], folder: Path) -> NameNumbers | None:
    """Find the number in each name that gives its time or its place in the order.

    A date with the time of day gives seconds since 1970. Whole seconds followed by their fraction
    are read as one number. Beside a counter, a number that looks like a time is preferred. Notices
    report the choice.

    Args:
        paths: files of one pattern, at least one.
        folder: their folder, for messages.

    Returns:
        The numbers; None if no single number gives a time or an order.
    """
    if (dates := _dates(paths)) is not None:
        notice(
            _LOG, "dates_in_names", "%s: dates and times of day in names are read as UTC", folder
        )
        return NameNumbers(dates, "s")
    signed = _some_signed(paths)
    parts = [_parts(path, signed) for path in paths]
    if not parts or len(parts[0]) < 3 or any(part[::2] != parts[0][::2] for part in parts):
        return None
    columns = {index: [part[index] for part in parts] for index in range(1, len(parts[0]), 2)}
    varying = [index for index, column in columns.items() if len(set(column)) > 1]
    if len(varying) <= 1:
        column = columns[varying[0] if varying else len(parts[0]) - 2]
        if (padded := _padded_nanoseconds(column)) is not None:
            text = (
                "%s: digits after the point in names are read as nanoseconds (%s as %s), "
                "because then the steps are even"
            )
            notice(
                _LOG,
                "numbers_in_names",
                text,
                folder,
                *next(pair for pair in zip(column, padded, strict=True) if pair[0] != pair[1]),
            )
            return NameNumbers(padded, "s")
        return NameNumbers(column)
    if (seconds := _seconds_and_fraction(columns, parts[0])) is not None:
        text = "%s: two numbers of each name are read as whole seconds and their fraction"
        notice(_LOG, "numbers_in_names", text, folder)
        return NameNumbers(seconds, "s")
    chosen = _beside_counter({index: columns[index] for index in varying})
    if chosen is None:
        return None
    text = "%s: of the %d numbers that change from name to name, number %d (%s in %s) is taken"
    place = list(columns).index(chosen) + 1
    notice(
        _LOG,
        "numbers_in_names",
        text,
        folder,
        len(varying),
        place,
        columns[chosen][0],
        paths[0].name,
    )
    counters = [
        columns[index]
        for index in varying
        if index != chosen and _counts([float(n) for n in columns[index]])
    ]
    order = np.argsort(np.array(counters[0], dtype=np.float64), kind="stable") if counters else None
    return NameNumbers(columns[chosen], order=order)


def _some_signed(paths: list[Path]) -> bool:
    """Return whether only some names begin with `-`: then it is a minus sign, not a dash."""
    signs = {re.match(r"-\d", path.stem) is not None for path in paths}
    return len(signs) == 2


def _parts(path: Path, signed: bool) -> list[str]:
    """Split a name into text and numbers in turn, beginning and ending with text."""
    parts = NUMBER.split(path.stem)
    if signed and parts[0] == "-":
        parts[:2] = ["", f"-{parts[1]}"]
    return parts


def _dates(paths: list[Path]) -> list[str] | None:
    found = [_DATE.search(path.stem) for path in paths]
    seconds: list[str] = []
    for match in found:
        whole = None if match is None else date_seconds(*match.groups()[:6])
        if match is None or whole is None:
            return None
        fraction = match[7] or match[8]
        seconds.append(f"{whole}.{fraction}" if fraction else str(whole))
    # Dates alone are not enough for several images per second.
    if not len(set(seconds)) == len(seconds) > 1:
        return None
    digits = {len(match[8]) for match in found if match is not None and match[8]}
    if len(digits) == 1:
        # Refuse digits that look like a fraction of a second but are a counter.
        steps = np.diff(np.sort(np.array(seconds, dtype=np.float64))) * 10.0 ** digits.pop()
        return seconds if float(np.median(steps)) > _COUNTED else None
    return seconds


def _seconds_and_fraction(columns: dict[int, list[str]], names: list[str]) -> list[str] | None:
    """Join whole seconds and the next number, their fraction or nanoseconds; None if none fit."""
    for first in columns:
        whole, rest = columns[first], columns.get(first + 2)
        if rest is None or not all(number.lstrip("-").isdigit() for number in (*whole, *rest)):
            continue
        widths = {len(number) for number in rest}
        dated = all(is_second_of_date(int(number)) for number in whole)
        if names[first + 1] == "," or (dated and len(widths) == 1 and widths.issubset(_FRACTIONS)):
            return [f"{second}.{part}" for second, part in zip(whole, rest, strict=True)]
        if dated and _LIKELY_TIME <= max(map(int, rest)) < 10**_NANOSECOND_DIGITS:
            return [f"{second}.{int(part):09d}" for second, part in zip(whole, rest, strict=True)]
    return None


def _padded_nanoseconds(column: list[str]) -> list[str] | None:
    """Add the missing leading zeros of nanoseconds after the point: 1.5 becomes 1.000000005.

    None if the numbers are plain decimals: then the steps are more even without the zeros.
    """
    halves = [number.split(".") for number in column]
    widths = {len(half[1]) for half in halves if len(half) == 2}
    if (
        any(len(half) != 2 for half in halves)
        or max(widths) != _NANOSECOND_DIGITS
        or len(widths) == 1
    ):
        return None
    padded = [f"{whole}.{part:0>{_NANOSECOND_DIGITS}}" for whole, part in halves]
    spreads = []
    for numbers in (column, padded):
        steps = np.diff(np.sort(np.array(numbers, dtype=np.float64)))
        spreads.append(float(np.abs(steps - np.median(steps)).mean()))
    return padded if spreads[1] < _MORE_EVEN * spreads[0] else None


def _beside_counter(columns: dict[int, list[str]]) -> int | None:
    """Return the column of times beside one counter, or the counter; None without one counter."""
    values = {index: [float(number) for number in column] for index, column in columns.items()}
    counting = [index for index, numbers in values.items() if _counts(numbers)]
    if len(counting) != 1:
        return None
    order = sorted(range(len(values[counting[0]])), key=values[counting[0]].__getitem__)
    times = [
        index
        for index, column in columns.items()
        if index not in counting
        and (any("." in number for number in column) or min(values[index]) >= _LIKELY_TIME)
        and _mostly_increases([values[index][row] for row in order])
    ]
    return times[0] if len(times) == 1 else counting[0]


def _counts(numbers: list[float]) -> bool:
    """Return whether numbers are whole, not negative, all different, and mostly one apart."""
    ordered = sorted(numbers)
    steps = [later - earlier for earlier, later in pairwise(ordered)]
    return (
        ordered[0] >= 0
        and all(map(float.is_integer, numbers))
        and min(steps) > 0
        and 2 * steps.count(1) > len(steps)
    )


def _mostly_increases(numbers: list[float]) -> bool:
    rising = sum(later >= earlier for earlier, later in pairwise(numbers))
    return 10 * rising >= 9 * (len(numbers) - 1)
