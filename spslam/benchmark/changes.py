"""Compare two sets of results: which metrics changed by more than the spread of the repeats."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spslam.benchmark.metrics import (
    FRACTION,
    METRICS,
    Metric,
    percent_spread,
    scale_of,
    spread_text,
)
from spslam.benchmark.results import Group, Results
from spslam.benchmark.table import Table
from spslam.errors import BenchmarkError
from spslam.evaluation.summary import Spread

# Metrics that are judged; speed is not, because it depends on the load of the machine.
_ERRORS = (
    "ate_rmse_m",
    "rpe_trans_m",
    "t_rel_percent",
    "disturbed_error_max_m",
    "disturbed_wrong_frames",
)
JUDGED = (FRACTION, *(METRICS[key] for key in _ERRORS))
# Repeats that the spread needs at least to be meaningful; with fewer, TOLERANCE_FEW applies.
ENOUGH_REPEATS = 3
# Medians that differ by at most this fraction of the first are the same, whatever the spread.
TOLERANCE = 0.10
# The same with fewer than ENOUGH_REPEATS repeats.
TOLERANCE_FEW = 0.25
# Tracking rates that differ by at most this fraction of the frames are the same.
FRACTION_TOLERANCE = 0.01


class Verdict(StrEnum):
    """Result of comparing one metric of a case."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    GONE = "gone"
    NEW = "new"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Change:
    """One metric of one case, before and after.

    Attributes:
        case: labels of the case.
        metric: the compared metric.
        before, after: spread over the repeats; None if missing.
        verdict: result of the comparison.
        why: reason of the verdict, as text.
    """

    case: str
    metric: Metric
    before: Spread | None
    after: Spread | None
    verdict: Verdict
    why: str

    @property
    def is_regression(self) -> bool:
        """Whether the change is a regression."""
        return self.verdict in (Verdict.WORSE, Verdict.GONE)


def compare(
    before: Results,
    after: Results,
    tolerance: float = TOLERANCE,
    tolerance_few: float = TOLERANCE_FEW,
) -> list[Change]:
    """Compare every metric of every case.

    Two medians differ if their distance exceeds both the larger spread (max minus min) and a
    tolerance: `tolerance` times the first median, or `tolerance_few` times it if either side has
    fewer than `ENOUGH_REPEATS` repeats. The tolerance of tracking rates is 1 % of the frames. If
    the tracking rates differ, errors are over different frames and are not judged. A case or
    metric that `after` lacks is a regression.

    Args:
        before: results to compare with.
        after: results to judge.
        tolerance: fraction of the first median.
        tolerance_few: the same with few repeats.

    Raises:
        BenchmarkError: the results have no case in common.
    """
    old = {group.case: group for group in before.groups()}
    new = {group.case: group for group in after.groups()}
    if not old.keys() & new.keys():
        raise BenchmarkError(f"{before.folder} and {after.folder} have no case in common")
    changes = []
    for case in dict.fromkeys((*old, *new)):
        if case not in new:
            changes.append(
                Change(str(case), FRACTION, old[case].tracked, None, Verdict.GONE, "no longer run")
            )
        elif case not in old:
            changes.append(
                Change(str(case), FRACTION, None, new[case].tracked, Verdict.NEW, "not run before")
            )
        else:
            changes += _compare_case(old[case], new[case], tolerance, tolerance_few)
    return changes


def comparison_table(changes: list[Change], everything: bool = False) -> Table:
    """Return the table of changes, the worst first; with `everything` also unchanged metrics."""
    order = [
        Verdict.WORSE,
        Verdict.GONE,
        Verdict.NOT_JUDGED,
        Verdict.BETTER,
        Verdict.NEW,
        Verdict.SAME,
    ]
    shown = [change for change in changes if everything or change.verdict is not Verdict.SAME]
    rows = [
        [
            c.verdict.value,
            c.case,
            c.metric.title,
            _text(c.metric, c.before, c),
            _text(c.metric, c.after, c),
            c.why,
        ]
        for c in sorted(shown, key=lambda change: order.index(change.verdict))
    ]
    return Table("Comparison", ["", "case", "metric", "before", "after", "by"], rows)


def _compare_case(old: Group, new: Group, tolerance: float, tolerance_few: float) -> list[Change]:
    few = min(len(old.rows), len(new.rows)) < ENOUGH_REPEATS
    relative = tolerance_few if few else tolerance
    fraction = _judge(str(old.case), FRACTION, old.tracked, new.tracked, FRACTION_TOLERANCE)
    changes = [fraction]
    for metric in JUDGED[1:]:
        before, after = old.spread(metric.key), new.spread(metric.key)
        if before is None and after is None:
            continue
        if before is None or after is None:
            verdict = Verdict.GONE if after is None else Verdict.NEW
            changes.append(
                Change(str(old.case), metric, before, after, verdict, "only one side has it")
            )
        elif fraction.verdict is not Verdict.SAME:
            # Errors over fewer frames tend to be smaller.
            changes.append(
                Change(
                    str(old.case),
                    metric,
                    before,
                    after,
                    Verdict.NOT_JUDGED,
                    "tracking rates differ",
                )
            )
        else:
            changes.append(
                _judge(str(old.case), metric, before, after, relative * abs(before.median))
            )
    return changes


def _judge(case: str, metric: Metric, before: Spread, after: Spread, least: float) -> Change:
    spread = max(before.max - before.min, after.max - after.min)
    moved = after.median - before.median
    limit = max(spread, least)
    factor, unit = scale_of(metric.unit, (before.median, after.median))
    limit_text = (
        f"{factor * limit:.3g} {unit} "
        f"({'spread of the repeats' if spread >= least else 'tolerance'})"
    )
    if abs(moved) <= limit:
        return Change(case, metric, before, after, Verdict.SAME, f"within {limit_text}")
    better = (moved < 0) == metric.lower_is_better
    verdict = Verdict.BETTER if better else Verdict.WORSE
    return Change(
        case,
        metric,
        before,
        after,
        verdict,
        f"{factor * moved:+.3g} {unit}, more than {limit_text}",
    )


def _text(metric: Metric, spread: Spread | None, change: Change) -> str:
    if spread is None:
        return "–"
    if metric is FRACTION:
        return percent_spread(spread)
    factor, unit = scale_of(
        metric.unit, [s.median for s in (change.before, change.after) if s is not None]
    )
    return f"{spread_text(spread, factor)} {unit}"
