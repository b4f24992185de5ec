"""`report.html` of a suite: tables, plot and links to the runs, without network access."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from spslam.benchmark.metrics import METRICS, number, percent, scale_of
from spslam.benchmark.plots import plot_svg
from spslam.benchmark.published import Published
from spslam.benchmark.results import RUNS, Results, Row
from spslam.benchmark.table import NOTHING
from spslam.benchmark.tables import case_table, failure_table, machines, metric_tables, notes
from spslam.io.files import write_atomic
from spslam.io.html import render_page
from spslam.notices import counted


def write_page(
    path: Path, results: Results, published: list[Published], missing: list[str]
) -> None:
    """Write the HTML page of a suite.

    Args:
        path: HTML file to write.
        results: results of the suite.
        published: metrics published by others.
        missing: one line for each missing part of the suite.

    Raises:
        OutputError: the file cannot be written.
    """
    failures = failure_table(results)
    keys = [
        key
        for key in results.metrics
        if any(row.figure(key) is not None for row in results.rows.values())
    ]
    page = render_page(
        "suite.html",
        title=results.title,
        subtitle=f"spslam bench {results.suite}. {machines(results)}",
        warnings=missing,
        headlines=_tiles(results),
        tables=[*metric_tables(results, published), *([] if failures is None else [failures])],
        remarks=notes(results, published),
        plot=Markup(plot_svg(results, published)),
        cases=case_table(results),
        run_heads=[
            "run",
            "what varies",
            "tracked",
            *(METRICS[k].title for k in keys),
            "s",
            "result",
            "command",
        ],
        runs=[_run(results, row, keys) for row in results.rows.values()],
    )
    write_atomic(path, page)


def _tiles(results: Results) -> list[tuple[str, str, str]]:
    rows = list(results.rows.values())
    failed = [row for row in rows if row.reason is not None]
    whole = [row for row in rows if row.tracking_rate >= 1]
    again = sum(row.attempts > 1 for row in rows)
    spent = sum(row.seconds for row in rows)
    hours = f"{spent / 3600:.1f} h" if spent >= 5400 else f"{spent / 60:.1f} min"
    return [
        (
            "Runs",
            str(len(rows)),
            f"of {counted(len(results.groups()), 'case')}; {again} restarted after being killed",
        ),
        ("Failed", str(len(failed)), "listed like the others, with the reason"),
        ("Every frame tracked", f"{len(whole)} of {len(rows)}", "runs"),
        ("Time", hours, "total of all runs, one thread each"),
    ]


def _run(results: Results, row: Row, keys: list[str]) -> dict[str, object]:
    cells = [row.varied, percent(row.tracking_rate)]
    for key in keys:
        value = row.figure(key)
        factor, unit = scale_of(METRICS[key].unit, [value]) if value is not None else (1.0, "")
        cells.append(NOTHING if value is None else f"{number(factor * value)} {unit}")
    cells.append(f"{row.seconds:.0f}")
    has_page = (results.run_folder(row.id) / "report.html").is_file()
    return {
        "name": f"{row.case} #{row.repeat}",
        "page": f"{RUNS}/{row.id}/report.html" if has_page else None,
        "cells": cells,
        "reason": row.reason,
        "command": row.command,
    }
