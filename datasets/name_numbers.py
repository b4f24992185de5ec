"""The one number in each name of a folder of images that tells when the image was taken, or its place in the order."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from pathlib import Path

from spslam.notices import notice
from spslam.timestamps import TimeUnit, date_seconds, is_second_of_date

_LOG = logging.getLogger(__name__)
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
_HEXADECIMAL = re.compile(r"[0-9a-f]{2,16}")
# A date with the time of day, and a fraction of the second behind a point or comma or in 3, 6 or 9 digits.
_DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T]*(\d\d)[-_.:h]?(\d\d)[-_.:m]?(\d\d)"
    r"(?:[.,](\d{1,9})|[-_]?(\d{9}|\d{6}|\d{3}))?(?!\d)"
)
# Numbers from here on are no counters of images that stand beside a counter.
_LIKELY_TIME = 10**6
_FRACTIONS = (3, 6, 9)
_NANOSECOND_DIGITS = 9


def name_patterns(paths: list[Path]) -> dict[str, list[Path]]:
    """Files by their name without its numbers, and without the sign that some of them have in front."""
    signed = _some_signed(paths)
    patterns: dict[str, list[Path]] = {}
    for path in paths:
        patterns.setdefault("*".join(_parts(path, signed)[::2]), []).append(path)
    return patterns


def hexadecimal(paths: list[Path]) -> list[int] | None:
    """The numbers that names are if they are all hexadecimal, of one length and some with letters; else None."""
    stems = [path.stem.lower() for path in paths]
    if len({len(stem) for stem in stems}) != 1 or not all(map(_HEXADECIMAL.fullmatch, stems)):
        return None
    return None if all(stem.isdigit() for stem in stems) else [int(stem, 16) for stem in stems]


def telling_numbers(paths: list[Path], folder: Path) -> tuple[list[str], TimeUnit | None] | None:
    """The number of each name that tells its time or its place, and its unit where the way it is written says it; None
    where no single one does.

    Names that hold a date and the time of day tell seconds since 1970. Of several numbers that change from name to
    name, whole seconds and their fraction are one; beside a counter, a number that looks like a time wins. What was
    chosen is told.

    Args:
        paths: of one pattern, at least one.
        folder: of them, for messages.
    """
    if (dates := _dates(paths)) is not None:
        notice(_LOG, "dates_in_names", "%s: dates and times of day in names are read as UTC", folder)
        return dates, "s"
    signed = _some_signed(paths)
    parts = [_parts(path, signed) for path in paths]
    if not parts or len(parts[0]) < 3 or any(part[::2] != parts[0][::2] for part in parts):
        return None
    columns = {index: [part[index] for part in parts] for index in range(1, len(parts[0]), 2)}
    varying = [index for index, column in columns.items() if len(set(column)) > 1]
    if len(varying) <= 1:
        return columns[varying[0] if varying else len(parts[0]) - 2], None
    if (seconds := _seconds_and_fraction(columns, parts[0])) is not None:
        text = "%s: two numbers of each name are read as whole seconds and their fraction"
        notice(_LOG, "numbers_in_names", text, folder)
        return seconds, "s"
    chosen = _beside_counter({index: columns[index] for index in varying})
    if chosen is None:
        return None
    text = "%s: of the %d numbers that change from name to name, number %d (%s in %s) is taken"
    place = list(columns).index(chosen) + 1
    notice(_LOG, "numbers_in_names", text, folder, len(varying), place, columns[chosen][0], paths[0].name)
    return columns[chosen], None


def _some_signed(paths: list[Path]) -> bool:
    """Whether some names begin with the sign of a negative number and others do not: then it is no dash."""
    signs = {re.match(r"-\d", path.stem) is not None for path in paths}
    return len(signs) == 2


def _parts(path: Path, signed: bool) -> list[str]:
    """Text and numbers of a name in turn, beginning and ending with text."""
    parts = _NUMBER.split(path.stem)
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
    # Several images of a second need more than the second; so does a name's counter that looks like one's fraction.
    return seconds if len(set(seconds)) == len(seconds) > 1 else None


def _seconds_and_fraction(columns: dict[int, list[str]], names: list[str]) -> list[str] | None:
    """Seconds of each name where one number is whole seconds, and the next one their fraction or nanoseconds."""
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


def _beside_counter(columns: dict[int, list[str]]) -> int | None:
    """Which column tells times where another one counts; else the one that counts; None where none or several do."""
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
    """Whether numbers are whole, all different, and mostly one apart."""
    ordered = sorted(numbers)
    steps = [later - earlier for earlier, later in pairwise(ordered)]
    return (
        ordered[0] >= 0 and all(map(float.is_integer, numbers)) and min(steps) > 0 and 2 * steps.count(1) > len(steps)
    )


def _mostly_increases(numbers: list[float]) -> bool:
    rising = sum(later >= earlier for earlier, later in pairwise(numbers))
    return 10 * rising >= 9 * (len(numbers) - 1)
