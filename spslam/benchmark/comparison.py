"""Two tables against each other: what got better or worse by more than repeats differ among themselves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from spslam.benchmark.figures import METRICS, SHARE, Metric, percent_spread, scale_of, spread_text
from spslam.benchmark.results import Group, Results
from spslam.benchmark.table import Table
from spslam.errors import BenchmarkError
from spslam.evaluation.summary import Spread

# Of which figures are judged; speed is not: it hangs on what else the machine did.
_ERRORS = (
    "ate_rmse_m",
    "rpe_trans_m",
    "t_rel_percent",
    "disturbed_error_max_m",
    "disturbed_wrong_frames",
)
JUDGED = (SHARE, *(METRICS[key] for key in _ERRORS))
# Repeats of which at least so many say how far runs differ.
ENOUGH_REPEATS = 3
# Medians that differ by less, relative to the first one, are the same whatever the repeats say.
TOLERANCE = 0.10
# With fewer repeats.
TOLERANCE_FEW = 0.25
# Of the frames.
SHARE_TOLERANCE = 0.01


class Verdict(StrEnum):
    """Of a case and a figure."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    GONE = "gone"
    NEW = "new"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Change:
    """One figure of one case, before and after.

    Attributes:
        case: in words.
        metric: the figure.
        before, after: spreads; None where there is none.
        verdict: what became of it.
        why: what decided, in words.
    """

    case: str
    metric: Metric
    before: Spread | None
    after: Spread | None
    verdict: Verdict
    why: str

    @property
    def is_regression(self) -> bool:
        """Whether it counts as one."""
        return self.verdict in (Verdict.WORSE, Verdict.GONE)


def compare(
    before: Results,
    after: Results,
    tolerance: float = TOLERANCE,
    tolerance_few: float = TOLERANCE_FEW,
) -> list[Change]:
    """Every case of either, figure by figure.

    The medians differ if they are farther apart than the larger of both spreads (most minus least), and farther than
    `tolerance` times the first; with fewer than `ENOUGH_REPEATS` on either side, than `tolerance_few` times the first.
    Shares of tracked frames: than a hundredth of the frames. Where the shares differ, errors are of other frames and
    not judged. A case, or its error, that the second does not have any more is a regression.

    Raises:
        BenchmarkError: they have no case in common.
    """
    old = {group.case: group for group in before.groups()}
    new = {group.case: group for group in after.groups()}
    if not old.keys() & new.keys():
        raise BenchmarkError(f"{before.folder} and {after.folder} have no case in common")
    changes = []
    for case in dict.fromkeys((*old, *new)):
        if case not in new:
            changes.append(
                Change(
                    str(case), SHARE, old[case].tracked, None, Verdict.GONE, "no run of it any more"
                )
            )
        elif case not in old:
            changes.append(
                Change(
                    str(case), SHARE, None, new[case].tracked, Verdict.NEW, "no run of it before"
                )
            )
        else:
            changes += _compare_case(old[case], new[case], tolerance, tolerance_few)
    return changes


def comparison_table(changes: list[Change], everything: bool = False) -> Table:
    """What changed, the worst first; `everything`: what did not, too."""
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
    return Table("Comparison", ["", "case", "figure", "before", "after", "by"], rows)


def _compare_case(old: Group, new: Group, tolerance: float, tolerance_few: float) -> list[Change]:
    few = min(len(old.rows), len(new.rows)) < ENOUGH_REPEATS
    relative = tolerance_few if few else tolerance
    share = _judge(str(old.case), SHARE, old.tracked, new.tracked, SHARE_TOLERANCE)
    changes = [share]
    for metric in JUDGED[1:]:
        before, after = old.spread(metric.key), new.spread(metric.key)
        if before is None and after is None:
            continue
        if before is None or after is None:
            verdict = Verdict.GONE if after is None else Verdict.NEW
            changes.append(
                Change(str(old.case), metric, before, after, verdict, "only one of both has it")
            )
        elif share.verdict is not Verdict.SAME:
            # Over fewer frames an error is an easier one.
            changes.append(
                Change(
                    str(old.case),
                    metric,
                    before,
                    after,
                    Verdict.NOT_JUDGED,
                    "other frames are tracked",
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
    limit_text = f"{factor * limit:.3g} {unit} ({'spread of the repeats' if spread >= least else 'tolerance'})"
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
    if metric is SHARE:
        return percent_spread(spread)
    factor, unit = scale_of(
        metric.unit, [s.median for s in (change.before, change.after) if s is not None]
    )
    return f"{spread_text(spread, factor)} {unit}"
