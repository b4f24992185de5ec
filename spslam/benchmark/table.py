"""A table as text, for Markdown and the page alike."""

from __future__ import annotations

from dataclasses import dataclass

from spslam.io.markdown import format_table

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Text in rows; `best` are the cells (row, column) to stress."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()

    def to_markdown(self) -> str:
        """Without the title."""
        cells = [
            [f"**{cell}**" if (y, x) in self.best else cell for x, cell in enumerate(row)]
            for y, row in enumerate(self.rows)
        ]
        return format_table(self.heads, cells)
