"""Two lists of time stamps of one clock: their pairs, their unit, and why they do not match."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from spslam.timestamps import (
    FASTEST_STEP_S,
    SLOWEST_POSE_STEP_S,
    UNIT_NAMES,
    UNITS_PER_SECOND,
    TimeUnit,
)

# Minimum fraction of the shorter list with a partner in the other list before a unit is accepted.
_FRACTION = 0.1
# Minimum ratio of that fraction to the fraction of the second-best unit.
_CLEARLY = 3.0
# Maximum time between partners, seconds; more if the other list has longer steps.
_NEAR_S = 0.01
# Minimum ratio of the shorter to the longer duration of two recordings of the same motion.
_MIN_DURATION_RATIO = 0.8
# Units per second of milliseconds, microseconds and nanoseconds.
_UNIT_FACTORS = (1e3, 1e6, 1e9)


def nearest(stamps: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.int64]:
    """Row of the nearest of `among` (M,) for each of `stamps` (N,).

    Of two equally near ones the earlier one is chosen.

    Args:
        stamps: (N,), in any order.
        among: (M,), sorted, M at least 1.
    """
    after = np.clip(np.searchsorted(among, stamps), 1, max(len(among) - 1, 1))
    if len(among) == 1:
        return np.zeros(len(stamps), dtype=np.int64)
    rows: NDArray[np.int64] = after - (stamps - among[after - 1] <= among[after] - stamps)
    return rows


def plausible(stamps: NDArray[np.float64], unit: TimeUnit) -> bool:
    """Whether the median step of stamps (N,) is 1 ms to 10 s in a unit, as between poses."""
    steps = np.diff(np.unique(stamps))
    return (
        len(steps) > 0
        and FASTEST_STEP_S
        <= float(np.median(steps)) / UNITS_PER_SECOND[unit]
        <= SLOWEST_POSE_STEP_S
    )


def plausible_units(stamps: NDArray[np.float64]) -> list[TimeUnit]:
    """The units in which stamps (N,) are `plausible`."""
    return [unit for unit in get_args(TimeUnit) if plausible(stamps, unit)]


def matched_fraction(stamps: NDArray[np.float64], clock: NDArray[np.float64]) -> float:
    """Fraction, 0 to 1, of the shorter of two lists with a partner in the other list.

    Partners are mutual nearest neighbours at most 10 ms, or half the median step of `clock`, apart.

    Args:
        stamps: (N,) seconds, in any order.
        clock: (M,) seconds, increasing.
    """
    stamps = np.unique(stamps)
    if len(stamps) == 0 or len(clock) == 0:
        return 0.0
    there = nearest(stamps, clock)
    back = nearest(clock, stamps)
    near = max(_NEAR_S, 0.5 * float(np.median(np.diff(clock)))) if len(clock) > 1 else _NEAR_S
    mutual = (back[there] == np.arange(len(stamps))) & (np.abs(clock[there] - stamps) <= near)
    return float(np.count_nonzero(mutual)) / min(len(stamps), len(clock))


def unit_by_clock(stamps: NDArray[np.float64], clock: NDArray[np.float64]) -> TimeUnit | None:
    """The unit in which stamps match a clock; None if no unit is clearly the best.

    Args:
        stamps: (N,), in an unknown unit.
        clock: (M,) seconds, increasing.
    """
    fractions = {
        unit: matched_fraction(stamps / UNITS_PER_SECOND[unit], clock)
        for unit in get_args(TimeUnit)
    }
    best, second = sorted(fractions, key=lambda unit: -fractions[unit])[:2]
    return (
        best
        if fractions[best] >= _FRACTION and fractions[best] >= _CLEARLY * fractions[second]
        else None
    )


def explain_apart(estimate: NDArray[np.float64], truth: NDArray[np.float64]) -> str:
    """Explain why no stamp of an estimate is near a stamp of the ground truth, and what to do.

    Args:
        estimate: (N,) seconds, increasing, N at least 1.
        truth: (M,) seconds, increasing, M at least 1.
    """
    # The times overlap, but the stamps interleave.
    if estimate[0] <= truth[-1] and truth[0] <= estimate[-1]:
        apart = float(np.abs(truth[nearest(estimate, truth)] - estimate).min())
        options = f"--max-difference {1.1 * apart:.2g} or --interpolate"
        return f"the nearest stamps are {apart:.4g} s apart: give `spslam eval` {options}"
    for factor in _UNIT_FACTORS:
        unit = next(unit for unit, per_second in UNITS_PER_SECOND.items() if per_second == factor)
        for longer, shorter, whose in (
            (estimate, truth, "the estimate"),
            (truth, estimate, "the ground truth"),
        ):
            if matched_fraction(longer / factor, shorter) >= _FRACTION:
                other = "ground truth" if whose == "the estimate" else "estimate"
                return (
                    f"the times of {whose} are {factor:,.0f} times the times of the {other}, "
                    f"as {UNIT_NAMES[unit]} are to seconds: give --time-unit {unit}"
                )
    durations = sorted((float(np.ptp(estimate)), float(np.ptp(truth))))
    offset = 0.5 * float((truth[0] + truth[-1]) - (estimate[0] + estimate[-1]))
    if durations[0] > 0 and durations[0] >= _MIN_DURATION_RATIO * durations[1]:
        return (
            f"both last about {durations[1]:.4g} s but lie {abs(offset):.6g} s apart, as with "
            f"two clocks: add {float(truth[0] - estimate[0]):.6f} s to the times of the estimate"
        )
    return "do both have stamps of the same clock? (KITTI's pose files have none)"
