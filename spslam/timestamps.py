"""Time stamps: their unit and statistics, by one rule for images, lists and trajectories."""

from __future__ import annotations

import calendar
import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spslam.errors import TimestampError
from spslam.notices import counted, notice

_LOG = logging.getLogger(__name__)

TimeUnit = Literal["s", "ms", "us", "ns"]
# Values of `--time-unit`; `frames` are frame numbers, which are divided by a frame rate.
TimeUnitChoice = Literal["auto", "s", "ms", "us", "ns", "frames"]
UNITS_PER_SECOND: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
# Maximum magnitude of a time stamp in any unit (nanoseconds since 1970 are 1.8e18); protects
# arithmetic from overflow.
LARGEST_STAMP = 1e20
# Names of the units in messages.
UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}

# Limits of the median time between frames of a plausible camera, seconds.
FASTEST_STEP_S = 1e-3
SLOWEST_STEP_S = 2.0
# Maximum median time between poses of a plausible trajectory, seconds: poses of keyframes are
# farther apart than frames.
SLOWEST_POSE_STEP_S = 10.0
# Maximum median step, seconds, for which a declared unit is accepted with a notice, although a
# camera is rarely that slow: time lapses, selected frames.
_LONGEST_DECLARED_STEP_S = 10.0
# The years 2000 and 2100 in seconds since 1970: a stamp between them is a date.
_YEAR_2000_S = 946_684_800.0
_YEAR_2100_S = 4_102_444_800.0
# Limits of the median step of stamps that are dates, seconds: wider than for a camera, because a
# date is evidence by itself.
_SHORTEST_DATED_STEP_S = 1e-4
_LONGEST_DATED_STEP_S = 10.0
# Separators of columns in a list of time stamps.
_SEPARATORS = re.compile(r"[\s,;]+")
# A date with time of day by ISO 8601, also with a blank instead of the T, or with slashes.
_DATE = re.compile(
    r"(?<![\d.])(\d{4})[-/](\d\d)[-/](\d\d)[T_ ](\d\d):(\d\d):(\d\d)(?:[.,](\d+))?"
    r"(?:Z|([+-])(\d\d):?(\d\d))?(?![\d:])"
)
# Minimum length of a gap, ratio to the median step.
_GAP = 1.5


def find_unit(
    stamps: NDArray[np.float64],
    declared: TimeUnit | None,
    what: str,
    slowest_step_s: float = SLOWEST_STEP_S,
) -> TimeUnit:
    """Find the unit of stamps from the steps between them.

    A unit fits if the median step is plausible for a camera and the stamps lie before the year
    2100. The first of these is chosen:

    1. the unit in which the stamps are dates since 2000,
    2. the declared unit, if it fits or if its median step is at most 10 s,
    3. the only unit that fits.

    A notice reports a unit other than the declared one.

    Args:
        stamps: (N,), in any order, equal ones allowed.
        declared: the unit that the format defines; None if it defines none, as in names of images.
        what: name of the list or folder, for messages.
        slowest_step_s: maximum plausible median step, seconds.

    Raises:
        TimestampError: several units fit, or none fits and none is declared.
    """
    finite = np.unique(stamps[are_stamps(stamps)])
    # The median: single stamps may be outliers.
    size = float(np.median(np.abs(finite))) if len(finite) else 0.0
    if len(finite) < 2:
        return _dated(size, None) or declared or "s"
    step = float(np.median(np.diff(finite)))
    unit = _dated(size, step)
    if unit is None:
        fitting = [name for name in get_args(TimeUnit) if _fits(name, step, size, slowest_step_s)]
        unit = _choose(fitting, declared, step, what)
    if declared is not None and unit != declared:
        notice(
            _LOG,
            "time_unit",
            "%s: time stamps are read as %s (%.4g a second), not as %s (one in %.3g s); "
            "--time-unit overrides this",
            what,
            UNIT_NAMES[unit],
            UNITS_PER_SECOND[unit] / step,
            UNIT_NAMES[declared],
            step / UNITS_PER_SECOND[declared],
        )
    return unit


def to_seconds(
    stamps: NDArray[np.float64],
    declared: TimeUnit | None,
    what: str,
    given: TimeUnit | None = None,
    slowest_step_s: float = SLOWEST_STEP_S,
) -> tuple[NDArray[np.float64], TimeUnit]:
    """Convert stamps to seconds.

    Args:
        stamps: (N,), in any order.
        declared: see `find_unit`.
        what: name of the list or folder, for messages.
        given: unit of the stamps; None: `find_unit` finds it.
        slowest_step_s: maximum plausible median step, seconds.

    Returns:
        Stamps (N,) in seconds, and the unit that they were in.

    Raises:
        TimestampError: see `find_unit`.
    """
    unit = given or find_unit(stamps, declared, what, slowest_step_s)
    return (stamps if unit == "s" else stamps / UNITS_PER_SECOND[unit]), unit


def are_stamps(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether numbers (...) are possible time stamps: finite and at most `LARGEST_STAMP`."""
    shown: NDArray[np.bool_] = np.abs(values) <= LARGEST_STAMP
    return shown


def date_seconds(
    year: str, month: str, day: str, hour: str, minute: str, second: str
) -> int | None:
    """Seconds since 1970 of a date and time of day in UTC, in digits; None if it does not exist."""
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC
        )
    except ValueError:
        return None
    return calendar.timegm(moment.timetuple())


def is_second_of_date(seconds: float) -> bool:
    """Whether seconds since 1970 are a date of this century."""
    return _YEAR_2000_S <= seconds <= _YEAR_2100_S


def date_as_seconds(line: str) -> str:
    """Replace a date and time of day at the start of a line by seconds since 1970.

    Dates look like `2011-09-26 13:02:25.594`, with `T` or a blank in between. A time zone behind
    (`Z`, `+02:00`) is used; without one the time is UTC.
    """
    return _DATE.sub(_date_in_seconds, line, count=1) if _DATE.match(line) else line


def _date_in_seconds(match: re.Match[str]) -> str:
    whole = date_seconds(*match.groups()[:6])
    if whole is None:
        return match[0]
    zone = 0
    if match[8] is not None:
        zone = (1 if match[8] == "+" else -1) * (3600 * int(match[9]) + 60 * int(match[10]))
    return f"{whole - zone}.{match[7] or 0}"


def stamp_column(lines: list[str], what: str) -> NDArray[np.float64]:
    """Read the column of time stamps (N,) from the lines of a list, in the unit of the file.

    Columns are separated by blanks, tabs, commas or semicolons. Of several columns (frame number,
    time, exposure), the one that a heading calls time or stamp is used. Otherwise it is the only
    one that increases and does not just count the lines, and a notice says so. Empty lines and
    lines that begin with `#` are skipped. Dates with a time of day become seconds since 1970.

    Args:
        lines: lines of the list.
        what: name of the list, for messages.

    Raises:
        TimestampError: there are no numbers, rows differ in length, or the column is not unique.
    """
    numbered = [
        (number, date_as_seconds(line.strip())) for number, line in enumerate(lines, start=1)
    ]
    numbered = [(number, line) for number, line in numbered if line]
    comments = [line.lstrip("# ") for _, line in numbered if line.startswith("#")]
    rows = [
        (number, _SEPARATORS.split(line.strip(",; \t")))
        for number, line in numbered
        if line[0] != "#"
    ]
    heading = _SEPARATORS.split(comments[-1]) if comments else []
    # A heading has words without a digit: a damaged number is no heading.
    if rows and not any(_is_number(cell) or re.search(r"\d", cell) for cell in rows[0][1]):
        heading = rows.pop(0)[1]
    if not rows:
        raise TimestampError(f"{what}: expected one time stamp a line, found no line of numbers")
    width = len(rows[0][1])
    values = []
    for number, cells in rows:
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) != width or not are_stamps(np.array(row)).all():
            expected = "one time stamp" if width == 1 else f"{width} numbers as in the lines before"
            raise TimestampError(
                f"{what}:{number}: expected {expected}, found {' '.join(cells)[:60]!r}"
            )
        values.append(row)
    table = np.array(values, dtype=np.float64)
    if width == 1:
        return np.ascontiguousarray(table[:, 0])
    named = [
        column
        for column, name in enumerate(heading)
        if "time" in name.lower() or "stamp" in name.lower()
    ]
    if len(heading) == width and len(named) == 1:
        return np.ascontiguousarray(table[:, named[0]])
    columns = columns_of_times(table)
    if len(columns) != 1:
        raise TimestampError(
            f"{what}: expected one time stamp a line, found {width} numbers a line and no single "
            "column of increasing times: keep the column of times only"
        )
    text = (
        "%s: of %d columns, number %d is read as the time stamps: it is the only one that "
        "increases and is no counter"
    )
    notice(_LOG, "time_column", text, what, width, columns[0] + 1)
    return np.ascontiguousarray(table[:, columns[0]])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def columns_of_times(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Columns of a table (N, C) that increase and do not just count the rows: possible times."""
    # NaN, also as the difference of infinities, neither increases nor counts.
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.diff(table, axis=0)
    increases = (steps >= 0).all(axis=0) & (np.count_nonzero(steps > 0, axis=0) > len(steps) / 2)
    counts = (table == np.round(table)).all(axis=0) & (
        np.count_nonzero(steps == 1, axis=0) > len(steps) / 2
    )
    return np.flatnonzero(increases & ~counts).astype(np.int64)


@dataclass(frozen=True)
class TimeSummary:
    """Statistics of the time stamps of a sequence.

    Attributes:
        unit: unit of the recording's time stamps: a `TimeUnit`, `frames`, or `container` for the
            stamps of a video.
        first_s, last_s: stamps of the first and last frame, seconds.
        rate_hz: frame rate by the median step, 1/s; None for fewer than two frames.
        gaps: number of steps longer than 1.5 × the median step.
        longest_gap_s: the longest gap, seconds; 0 without gaps.
        jitter_s: standard deviation of the steps that are no gaps, seconds.
        duplicates: number of entries left out because an earlier one has the same stamp.
        left_out: number of entries left out for any reason, including duplicates.
    """

    unit: str
    first_s: float
    last_s: float
    rate_hz: float | None
    gaps: int
    longest_gap_s: float
    jitter_s: float
    duplicates: int
    left_out: int

    def __str__(self) -> str:
        unit = {**UNIT_NAMES, "frames": "frame numbers", "container": "the video's own"}.get(
            self.unit, self.unit
        )
        gaps = (
            f"{counted(self.gaps, 'gap')} (longest {self.longest_gap_s:.4g} s)"
            if self.gaps
            else "no gaps"
        )
        return (
            f"{unit}, {self.first_s:.6f} to {self.last_s:.6f} s, "
            + (f"{self.rate_hz:.4g} a second, " if self.rate_hz is not None else "")
            + f"{gaps}, jitter {1e3 * self.jitter_s:.3g} ms, "
            f"{counted(self.duplicates, 'duplicate')}, {self.left_out} left out"
        )


def summarize_times(
    timestamps: NDArray[np.float64], unit: str, duplicates: int = 0, left_out: int = 0
) -> TimeSummary:
    """Summarise increasing stamps (N,), seconds, N at least 1."""
    steps = np.diff(timestamps)
    first, last = float(timestamps[0]), float(timestamps[-1])
    if len(steps) == 0:
        return TimeSummary(unit, first, last, None, 0, 0.0, 0.0, duplicates, left_out)
    median = float(np.median(steps))
    gaps = steps > _GAP * median
    return TimeSummary(
        unit=unit,
        first_s=first,
        last_s=last,
        # A step of almost 0 has no rate: dividing by it would overflow.
        rate_hz=1.0 / median if median > 1e-300 else None,
        gaps=int(np.count_nonzero(gaps)),
        longest_gap_s=float(steps[gaps].max()) if gaps.any() else 0.0,
        jitter_s=float(np.std(steps[~gaps])) if (~gaps).any() else 0.0,
        duplicates=duplicates,
        left_out=left_out,
    )


def _dated(size: float, step: float | None) -> TimeUnit | None:
    """The unit in which stamps of this size are dates since 2000 with a plausible step."""
    for unit, per_second in UNITS_PER_SECOND.items():
        is_date = _YEAR_2000_S <= size / per_second <= _YEAR_2100_S
        if is_date and (
            step is None or _SHORTEST_DATED_STEP_S <= step / per_second <= _LONGEST_DATED_STEP_S
        ):
            return unit
    return None


def _fits(unit: TimeUnit, step: float, size: float, slowest_step_s: float) -> bool:
    per_second = UNITS_PER_SECOND[unit]
    return (
        FASTEST_STEP_S <= step / per_second <= slowest_step_s and size / per_second <= _YEAR_2100_S
    )


def _choose(fitting: list[TimeUnit], declared: TimeUnit | None, step: float, what: str) -> TimeUnit:
    if declared in fitting:
        assert declared is not None
        return declared
    if (
        declared is not None
        and FASTEST_STEP_S <= step / UNITS_PER_SECOND[declared] <= _LONGEST_DECLARED_STEP_S
    ):
        return _doubted(declared, step, what)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        readings = " or ".join(
            f"{UNIT_NAMES[unit]} ({UNITS_PER_SECOND[unit] / step:.4g} a second)" for unit in fitting
        )
        raise TimestampError(
            f"{what}: time stamps are {step:.6g} apart, which may be {readings}: "
            "give --time-unit " + "|".join(fitting)
        )
    if declared is None:
        raise TimestampError(
            f"{what}: time stamps are {step:.6g} apart, which is no plausible camera in any unit "
            "(0.5 to 1,000 frames a second): give --time-unit s|ms|us|ns|frames"
        )
    return _doubted(declared, step, what)


def _doubted(declared: TimeUnit, step: float, what: str) -> TimeUnit:
    notice(
        _LOG,
        "time_step",
        "%s: time stamps are %.4g s apart, which is no plausible camera (0.5 to 1,000 frames a "
        "second); they are read as %s, --time-unit overrides this",
        what,
        step / UNITS_PER_SECOND[declared],
        UNIT_NAMES[declared],
    )
    return declared
