"""The figures that suites are about: names, units, and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spslam.evaluation.summary import Spread


@dataclass(frozen=True)
class Metric:
    """A figure of `metrics.json`.

    Attributes:
        key: its name there.
        title, unit: for tables.
        lower_is_better: which way is good.
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
        Metric("recall_0.1m", "within 0.1 m", "share", lower_is_better=False),
        Metric("recall_1m", "within 1 m", "share", lower_is_better=False),
        Metric("disturbed_error_max_m", "worst error when disturbed", "m"),
        Metric("disturbed_wrong_frames", "in a wrong place", "frames"),
        Metric("fps", "speed", "frames/s", lower_is_better=False),
    )
}
SHARE = Metric("share_tracked", "tracked", "share", lower_is_better=False)


def scale_of(unit: str, values: Iterable[float]) -> tuple[float, str]:
    """What to multiply by, and the unit to write, so that all `values` of one row are easy to read."""
    if unit == "m" and max(values, default=1.0) < 0.1:
        return 1000.0, "mm"
    return (100.0, "%") if unit == "share" else (1.0, unit)


def number(value: float) -> str:
    """Three digits that count, without an exponent where they can be read without."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:.0f}"
    return f"{value:#.3g}".removesuffix(".") if abs(value) > 1e-4 else f"{value:.1e}"


def spread_text(spread: Spread, factor: float = 1.0) -> str:
    """Median, and least and most where there are several: `1.43 (1.21–1.60)`."""
    median, least, most = (
        number(factor * value) for value in (spread.median, spread.min, spread.max)
    )
    return median if spread.runs == 1 else f"{median} ({least}–{most})"


def percent(share: float) -> str:
    """A share as a percentage; 100 % is said only where nothing is missing."""
    if share >= 1:
        return "100 %"
    return f"{min(100 * share, 99.9):.1f} %"


def percent_spread(spread: Spread) -> str:
    """The same of several."""
    if spread.min == spread.max:
        return percent(spread.median)
    return f"{percent(spread.median)} ({percent(spread.min)[:-2]}–{percent(spread.max)[:-2]})"
