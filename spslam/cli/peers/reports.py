"""The files and the output of `spslam bench peers` and of `spslam bench show` for its results."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from spslam.benchmark.results import Results


def show_peers(results: Results, markdown: Path | None, missing: Iterable[str] = ()) -> None:
    """Print the tables of finished runs, and write `table.md` beside `results.json`.

    Args:
        results: results of the suite.
        markdown: file with the suite's two comments; the tables go between them. None: none.
        missing: one line for each missing part of the suite.

    Raises:
        OutputError: a file cannot be written.
    """
    from spslam.benchmark.peers.tables import peer_markdown, peer_page
    from spslam.benchmark.tables import insert_markdown
    from spslam.io.files import write_atomic

    write_atomic(results.folder / "table.md", peer_page(results, missing))
    text = peer_markdown(results)
    typer.echo(text)
    if markdown is not None:
        insert_markdown(markdown, results.suite, text)
