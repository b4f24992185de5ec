"""Tables of disturbed recordings: errors caused by movers, and relocalization after losses."""

from __future__ import annotations

from collections.abc import Callable

from spslam.benchmark.metrics import METRICS, scale_of, spread_text
from spslam.benchmark.results import Group, Results
from spslam.benchmark.table import NOTHING, Table

DISTURBED = "disturbed_error_max_m"
_WRONG, _FOUND = "disturbed_wrong_frames", "disturbed_found_after"
# Kinds of disturbances after which the camera must be relocalized.
_LOSING = ("dark", "jump")


def disturbance_tables(results: Results) -> list[Table]:
    """Return a table of movers and one of dark frames and jumps, each only if not empty."""
    disturbed = [group for group in results.groups() if group.disturbances]
    losing = [group for group in disturbed if _loses(group)]
    moving = [group for group in disturbed if not _loses(group)]
    titles = {
        "Movers: largest position error from the disturbance on, and runs with a warning": (
            moving,
            _moved,
        ),
        "Dark frames and jumps: runs with a wrong pose, and runs relocalized (after frames)": (
            losing,
            _found,
        ),
    }
    return [_table(title, groups, cell) for title, (groups, cell) in titles.items() if groups]


def disturbance_notes(results: Results) -> list[str]:
    """Return the remarks on these tables."""
    if not any(group.disturbances for group in results.groups()):
        return []
    return [
        "Disturbed recordings are aligned by the poses before the disturbance only. A warning is a "
        "notice of the run or a lost frame. A wrong pose is off by more than 1 m plus 5 % of the "
        "path so far; a single camera that never moves is right if it makes no map."
    ]


def _loses(group: Group) -> bool:
    return any(text.startswith(_LOSING) for text in group.disturbances)


def _table(title: str, groups: list[Group], cell: Callable[[Group], str]) -> Table:
    extractors = list(dict.fromkeys(group.case.extractor for group in groups))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for group in groups:
        case = group.case
        name = case.sequence if case.config == "default" else f"{case.sequence}, {case.config}"
        rows.setdefault((name, case.sensor), {})[case.extractor] = cell(group)
    heads = ["disturbance", "sensor", *extractors]
    return Table(
        title,
        heads,
        [[*place, *(row.get(name, "") for name in extractors)] for place, row in rows.items()],
    )


def _moved(group: Group) -> str:
    """Return `4.1 (2.0–9.3) mm · warned 0/5`; for a camera that never moves, if it made a map."""
    runs, facts = len(group.rows), sum(row.warned for row in group.rows)
    spread = group.spread(DISTURBED)
    if spread is None:
        wrong = _wrong(group)
        return (
            f"started {wrong}/{runs}" if wrong else "no map" if group.tracked.max == 0 else NOTHING
        )
    factor, unit = scale_of(METRICS[DISTURBED].unit, [spread.max])
    fewer = "" if spread.runs == runs else f" in {spread.runs}/{runs}"
    return f"{spread_text(spread, factor)} {unit}{fewer} · warned {facts}/{runs}"


def _found(group: Group) -> str:
    """Return for example `wrong 0/5 · found 5/5 after 2 (1–7)`."""
    runs, after = len(group.rows), group.spread(_FOUND)
    found = 0 if after is None else after.runs
    # Numbers of frames, without a unit.
    span = (
        ""
        if after is None
        else f" after {after.median:g}" + (f" ({after.min:g}–{after.max:g})" if found > 1 else "")
    )
    return f"wrong {_wrong(group)}/{runs} · found {found}/{runs}{span}"


def _wrong(group: Group) -> int:
    return sum((row.figure(_WRONG) or 0) > 0 for row in group.rows)
