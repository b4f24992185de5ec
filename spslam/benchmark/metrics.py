"""Metrics of benchmark suites: names, units and number formats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spslam.evaluation.summary import Spread


@dataclass(frozen=True)
class Metric:
    """A metric of `metrics.json`.

    Attributes:
        key: its key in `metrics.json`.
        title, unit: heading and unit in tables; a `fraction` is shown in percent.
        lower_is_better: whether smaller values are better.
    """

    key: str
    title: str
    unit: str
    lower_is_better: bool = True


METRICS = {
    metric.key: metric
    for metric in (
        Metric("ate_rmse_m", "ATE", "m"),
        Metric("rpe_trans_m", "RPE", "m"),
        Metric("rpe_rot_deg", "RPE", "°"),
        Metric("t_rel_percent", "drift", "%"),
        Metric("r_rel_deg_per_100m", "drift", "°/100 m"),
        Metric("recall_0.1m", "within 0.1 m", "fraction", lower_is_better=False),
        Metric("recall_1m", "within 1 m", "fraction", lower_is_better=False),
        Metric("disturbed_error_max_m", "worst error when disturbed", "m"),
        Metric("disturbed_wrong_frames", "in a wrong place", "frames"),
        Metric("fps", "speed", "frames/s", lower_is_better=False),
    )
}
FRACTION = Metric("tracking_rate", "tracked", "fraction", lower_is_better=False)


def scale_of(unit: str, values: Iterable[float]) -> tuple[float, str]:
    """Return the factor and unit in which all `values` of a row are easy to read."""
    if unit == "m" and max(values, default=1.0) < 0.1:
        return 1000.0, "mm"
    return (100.0, "%") if unit == "fraction" else (1.0, unit)


def number(value: float) -> str:
    """Format a number with three significant digits; below 1e-4 with an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:.0f}"
    return f"{value:#.3g}".removesuffix(".") if abs(value) > 1e-4 else f"{value:.1e}"


def spread_text(spread: Spread, factor: float = 1.0) -> str:
    """Format median, and minimum and maximum of several runs: `1.43 (1.21–1.60)`."""
    median, least, most = (
        number(factor * value) for value in (spread.median, spread.min, spread.max)
    )
    return median if spread.runs == 1 else f"{median} ({least}–{most})"


def percent(fraction: float) -> str:
    """Format a fraction as a percentage; 100 % only if it is complete."""
    if fraction >= 1:
        return "100 %"
    return f"{min(100 * fraction, 99.9):.1f} %"


def percent_spread(spread: Spread) -> str:
    """Format the spread of fractions as percentages."""
    if spread.min == spread.max:
        return percent(spread.median)
    return f"{percent(spread.median)} ({percent(spread.min)[:-2]}–{percent(spread.max)[:-2]})"
