"""Tables of text, for Markdown and HTML pages."""

from __future__ import annotations

from dataclasses import dataclass

from spslam.io.markdown import format_table

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Rows of text; the cells (row, column) in `best` are highlighted."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()

    def to_markdown(self) -> str:
        """Return the table as Markdown, without the title."""
        cells = [
            [f"**{cell}**" if (y, x) in self.best else cell for x, cell in enumerate(row)]
            for y, row in enumerate(self.rows)
        ]
        return format_table(self.heads, cells)
