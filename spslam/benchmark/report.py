"""Write the files that are made from `results.json`."""

from __future__ import annotations

from spslam.benchmark.page import write_page
from spslam.benchmark.plots import write_plot
from spslam.benchmark.published import Published
from spslam.benchmark.results import Results
from spslam.benchmark.tables import to_markdown
from spslam.io.files import write_atomic


def write_reports(results: Results, published: list[Published], missing: list[str]) -> None:
    """Write `table.md`, `errors.png` and `report.html` beside `results.json`.

    Args:
        results: results of the suite.
        published: metrics published by others.
        missing: one line for each missing part of the suite.

    Raises:
        OutputError: a file cannot be written.
    """
    warnings = "".join(f"- {line}\n" for line in missing)
    write_atomic(
        results.folder / "table.md",
        to_markdown(results, published) + (f"\n{warnings}" if warnings else ""),
    )
    write_plot(results.folder / "errors.png", results, published)
    write_page(results.folder / "report.html", results, published, missing)
