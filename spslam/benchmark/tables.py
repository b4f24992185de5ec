"""Tables of results, for Markdown and HTML pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spslam.benchmark.disturbance_tables import disturbance_notes, disturbance_tables
from spslam.benchmark.metrics import (
    METRICS,
    Metric,
    number,
    percent,
    percent_spread,
    scale_of,
    spread_text,
)
from spslam.benchmark.published import Published
from spslam.benchmark.results import Group, Results
from spslam.benchmark.table import NOTHING, Table
from spslam.errors import OutputError
from spslam.io.files import write_atomic

# Metrics in the table of all cases.
_SHOWN = ("ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "t_rel_percent", "fps")


def metric_tables(results: Results, published: list[Published]) -> list[Table]:
    """Return a table for each metric of the suite, then the tables of disturbed recordings.

    A table has a row for each sequence and sensor, a column for each front end, and columns of
    published metrics. A cell has the tracking rate before the metric.
    """
    usual = [group for group in results.groups() if not group.disturbances]
    tables = [
        _metric_table(METRICS[key], usual, published)
        for key in results.metrics
        if any(group.spread(key) for group in usual)
    ]
    return tables + disturbance_tables(results)


def case_table(results: Results) -> Table:
    """Return a table with a row for each case and the spread of its repeats."""
    keys = [key for key in _SHOWN if any(group.spread(key) for group in results.groups())]
    several_configs = len({group.case.config for group in results.groups()}) > 1
    heads = [
        "sequence",
        "sensor",
        "front end",
        *(["configuration"] if several_configs else []),
        "runs",
        "tracked",
    ]
    medians = {
        key: [spread.median for group in results.groups() if (spread := group.spread(key))]
        for key in keys
    }
    scales = {key: scale_of(METRICS[key].unit, medians[key]) for key in keys}
    heads += [f"{METRICS[key].title} {scales[key][1]}" for key in keys]
    rows = []
    for group in results.groups():
        case = group.case
        failed = len(group.failures)
        row = [
            case.sequence,
            case.sensor,
            case.extractor,
            *([case.config] if several_configs else []),
        ]
        row += [
            f"{len(group.rows)}{f', {failed} failed' if failed else ''}",
            percent_spread(group.tracked),
        ]
        rows.append(row + [_spread(group, key, scales[key][0]) for key in keys])
    return Table(
        "All metrics (speed: one core of a machine that may have had other load)", heads, rows
    )


def failure_table(results: Results) -> Table | None:
    """Return the table of failed runs with their reasons; None without failures."""
    rows = [
        [f"{row.case} #{row.repeat}", percent(row.tracking_rate), row.reason]
        for group in results.groups()
        for row in group.rows
        if row.reason is not None
    ]
    return Table("Failed runs", ["run", "tracked", "reason"], rows) if rows else None


def notes(results: Results, published: list[Published]) -> list[str]:
    """Return the remarks on the tables, one or two sentences each."""
    rows = list(results.rows.values())
    repeats = Counter(len(group.rows) for group in results.groups())
    most = max(repeats, default=1)
    found = []
    if most > 1:
        varied = sorted({row.varied for row in rows if row.repeat == most - 1})
        found.append(
            f"Median of up to {most} runs, minimum and maximum in brackets; without brackets one "
            "run. A run gives the same bytes whenever it is repeated, so each repeat has another "
            "seed, and in built-in worlds other textures and noise; "
            f"the last one: {' or '.join(varied)}."
        )
    else:
        found.append(
            "One run each: a second one gives the same bytes. "
            "The spread over other seeds is unknown."
        )
    usual = [row for group in results.groups() if not group.disturbances for row in group.rows]
    frames = {
        row.metrics["ground_truth_frame"]
        for row in usual
        if row.metrics and row.metrics["ground_truth_frame"]
    }
    if frames:
        found.append(
            "The tracking rate stands before each error. ATE is the RMSE after alignment by SE(3), "
            "of a single camera by Sim(3); RPE is over one frame. "
            f"True poses: of the {', the '.join(sorted(frames))}."
        )
    found += disturbance_notes(results)
    if any(row.reason is not None for row in rows):
        found.append("Failed runs count with the frames that they tracked.")
    used = [
        p
        for p in published
        if any(p.value(g, key) is not None for g in results.groups() for key in results.metrics)
    ]
    for system in used:
        found.append(
            f"{system.system}: {system.source}{f'; {system.note}' if system.note else ''}."
        )
    return found


def machines(results: Results) -> str:
    """Return the machines of the runs, with versions."""
    facts = Counter(
        f"{row.machine.get('processor') or row.machine.get('architecture')}, "
        f"{row.machine.get('cores')} cores"
        for row in results.rows.values()
        if row.machine
    )
    versions = dict.fromkeys(
        f"spslam {row.metrics['version_spslam']}, Python {row.metrics['version_python']}, "
        f"OpenVINO {row.metrics['version_openvino']}, OpenCV {row.metrics['version_opencv']}"
        for row in results.rows.values()
        if row.metrics
    )
    codes = {row.identity["code_sha256"][:8] for row in results.rows.values()}
    return (
        f"{'; '.join(facts)}. {'; '.join(versions)}; code {', '.join(sorted(codes))}. "
        "One thread a run."
    )


def to_markdown(results: Results, published: list[Published]) -> str:
    """Return the page `table.md`."""
    parts = [f"# {results.title}", f"Made by `spslam bench {results.suite}`. {machines(results)}"]
    parts.append(summary_markdown(results, published))
    tables = [case_table(results), failure_table(results)]
    parts += [f"## {table.title}\n\n{table.to_markdown()}" for table in tables if table is not None]
    return "\n\n".join(parts) + "\n"


def summary_markdown(results: Results, published: list[Published]) -> str:
    """Return the tables of the suite's metrics with the remarks."""
    tables = metric_tables(results, published)
    parts = [f"{table.title}\n\n{table.to_markdown()}" for table in tables]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes(results, published))])


def insert_markdown(path: Path, suite: str, text: str) -> None:
    """Replace the text between the two comments of a suite in a Markdown file.

    Raises:
        OutputError: the file has no such comments, or cannot be written.
    """
    before, after = check_markers(path, suite)
    write_atomic(path, f"{before}\n{text}\n{after}")


def check_markers(path: Path, suite: str) -> tuple[str, str]:
    """Return the text before and after a suite's tables, including the two comments.

    Raises:
        OutputError: the file has no such comments, or cannot be read.
    """
    begin, end = f"<!-- spslam bench {suite} -->", f"<!-- end of spslam bench {suite} -->"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise OutputError(
            f"{path} must have the line {begin} and below it the line {end}: "
            "the tables go between them"
        )
    return text[: text.index(begin) + len(begin)], text[text.index(end) :]


def _metric_table(metric: Metric, groups: Iterable[Group], published: list[Published]) -> Table:
    by_place: dict[tuple[str, str, str], dict[str, Group]] = {}
    for group in groups:
        case = group.case
        by_place.setdefault((case.sequence, case.sensor, case.config), {})[case.extractor] = group
    extractors = list(dict.fromkeys(name for row in by_place.values() for name in row))
    systems = [
        system
        for system in published
        if any(
            system.value(g, metric.key) is not None
            for row in by_place.values()
            for g in row.values()
        )
    ]
    several = len({config for _, _, config in by_place}) > 1
    first = 3 if several else 2
    heads = [
        "sequence",
        "sensor",
        *(["configuration"] if several else []),
        *extractors,
        *(s.system for s in systems),
    ]
    rows, best = [], set()
    for y, ((sequence, sensor, config), row) in enumerate(by_place.items()):
        spreads = {name: group.spread(metric.key) for name, group in row.items()}
        others = {s.system: s.value(next(iter(row.values())), metric.key) for s in systems}
        known = [spread.median for spread in spreads.values() if spread] + [
            v for v in others.values() if v is not None
        ]
        factor, unit = scale_of(metric.unit, known)
        cells = []
        for name in extractors:
            spread, found = spreads.get(name), row.get(name)
            if found is None:
                cells.append("")
            elif spread is None:
                cells.append(f"{percent_spread(found.tracked)} · {NOTHING}")
            else:
                cells.append(
                    f"{percent_spread(found.tracked)} · {spread_text(spread, factor)} {unit}"
                )
        cells += [
            NOTHING if (v := others[s.system]) is None else f"{number(factor * v)} {unit}"
            for s in systems
        ]
        rows.append([sequence, sensor, *([config] if several else []), *cells])
        x = _best(metric, row, extractors)
        if x is not None:
            best.add((y, first + x))
    return Table(f"{metric.title}, after the tracking rate", heads, rows, frozenset(best))


def _best(metric: Metric, row: dict[str, Group], extractors: list[str]) -> int | None:
    """Return the column of the best front end; None with fewer than two.

    Only front ends within 1 % of the largest tracking rate count, because errors over fewer frames
    tend to be smaller.
    """
    known = {
        name: spread
        for name, group in row.items()
        if (spread := group.spread(metric.key)) is not None
    }
    if len(known) < 2:
        return None
    most = max(row[name].tracked.median for name in known)
    candidates = [name for name in known if row[name].tracked.median >= most - 0.01]
    sign = 1 if metric.lower_is_better else -1
    return extractors.index(min(candidates, key=lambda name: sign * known[name].median))


def _spread(group: Group, key: str, factor: float) -> str:
    spread = group.spread(key)
    return NOTHING if spread is None else spread_text(spread, factor)
