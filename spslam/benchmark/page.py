"""`report.html` of a suite: its tables, its picture and a link to the page of every run, without a network."""

from __future__ import annotations

from html import escape
from pathlib import Path

from spslam.benchmark.figures import METRICS, number, percent, scale_of
from spslam.benchmark.plots import plot_svg
from spslam.benchmark.published import Published
from spslam.benchmark.results import RUNS, Results, Row
from spslam.benchmark.table import NOTHING, Table
from spslam.benchmark.tables import case_table, failure_table, machines, metric_tables, notes
from spslam.io.files import write_atomic
from spslam.reports.html_parts import fill, page_file, table, table_of, tile


def write_page(path: Path, results: Results, published: list[Published], missing: list[str]) -> None:
    """Write the page.

    Args:
        missing: what is not there of the suite, a line each.

    Raises:
        OutputError: the file cannot be written.
    """
    failures = failure_table(results)
    parts = {
        "title": escape(results.title),
        "subtitle": escape(f"spslam bench {results.suite}. {machines(results)}"),
        "warnings": "".join(f'<p class="note">{escape(text)}</p>' for text in missing),
        "tiles": "".join(_tiles(results)),
        "tables": "".join(_section(one) for one in metric_tables(results, published))
        + ("" if failures is None else _section(failures)),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes(results, published)),
        "plot": plot_svg(results, published),
        "cases": _markup(case_table(results)),
        "runs": _runs(results),
        "style": page_file("report.css"),
    }
    write_atomic(path, fill("suite.html", parts))


def _tiles(results: Results) -> list[str]:
    rows = list(results.rows.values())
    failed = [row for row in rows if row.reason is not None]
    whole = [row for row in rows if row.share_tracked >= 1]
    again = sum(row.attempts > 1 for row in rows)
    spent = sum(row.seconds for row in rows)
    hours = f"{spent / 3600:.1f} h" if spent >= 5400 else f"{spent / 60:.1f} min"
    return [
        tile("Runs", str(len(rows)), f"of {len(results.groups())} cases; {again} begun again after being killed"),
        tile("Failed", str(len(failed)), "they are rows like the others, with their reason"),
        tile("Every frame tracked", f"{len(whole)} of {len(rows)}", "runs"),
        tile("Time", hours, "of all runs together, one thread each"),
    ]


def _section(one: Table) -> str:
    return f"<section><h2>{escape(one.title)}</h2>{_markup(one)}</section>"


def _markup(one: Table) -> str:
    if not one.best:
        return table(one.heads, one.rows)
    return table_of(
        one.heads,
        (
            "".join(
                f"<td><b>{escape(cell)}</b></td>" if (y, x) in one.best else f"<td>{escape(cell)}</td>"
                for x, cell in enumerate(row)
            )
            for y, row in enumerate(one.rows)
        ),
    )


def _runs(results: Results) -> str:
    keys = [key for key in results.metrics if any(row.figure(key) is not None for row in results.rows.values())]
    heads = ["run", "what varies", "tracked", *(METRICS[key].title for key in keys), "s", "came out", "again with"]
    return table_of(heads, (_run(results, row, keys) for row in results.rows.values()))


def _run(results: Results, row: Row, keys: list[str]) -> str:
    cells = [row.varied, percent(row.share_tracked)]
    for key in keys:
        value = row.figure(key)
        factor, unit = scale_of(METRICS[key].unit, [value]) if value is not None else (1.0, "")
        cells.append(NOTHING if value is None else f"{number(factor * value)} {unit}")
    cells.append(f"{row.seconds:.0f}")
    name = escape(f"{row.case} #{row.repeat}")
    if (results.run_folder(row.id) / "report.html").is_file():
        name = f'<a href="{RUNS}/{escape(row.id)}/report.html">{name}</a>'
    outcome = '<td class="failed">' + escape(row.reason) if row.reason is not None else "<td>whole"
    return (
        f'<td class="short">{name}</td>'
        + "".join(f'<td class="short">{escape(cell)}</td>' for cell in cells)
        + f"{outcome}</td><td><code>{escape(row.command)}</code></td>"
    )
