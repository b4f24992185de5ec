"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(heads: Sequence[str], rows: Iterable[Iterable[object]], align: str = "") -> str:
    """A table without a line break at its end.

    Args:
        heads: name of each column.
        rows: cells, written with `str`.
        align: a letter per column, `l` or `r`; columns without a letter are left-aligned.
    """
    return "\n".join([format_head(heads, align), *map(format_row, rows)])


def format_head(heads: Sequence[str], align: str = "") -> str:
    """The two lines above the rows, for tables that are printed row by row; see `format_table`."""
    rule = ["---:" if letter == "r" else "---" for letter in align.ljust(len(heads), "l")]
    return f"{format_row(heads)}\n{format_row(rule)}"


def format_row(cells: Iterable[object]) -> str:
    """One line of a table; line breaks and `|` in cells would end them."""
    return (
        "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"
    )
