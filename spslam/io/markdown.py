"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(heads: Sequence[str], rows: Iterable[Iterable[object]], align: str = "") -> str:
    """Return a table without a line break at its end.

    Args:
        heads: Name of each column.
        rows: Cells, written with `str`.
        align: One letter per column, `l` or `r`; columns without a letter are left-aligned.
    """
    return "\n".join([format_head(heads, align), *map(format_row, rows)])


def format_head(heads: Sequence[str], align: str = "") -> str:
    """Return the two lines above the rows of a table that is printed row by row.

    For the arguments, see `format_table`.
    """
    rule = ["---:" if letter == "r" else "---" for letter in align.ljust(len(heads), "l")]
    return f"{format_row(heads)}\n{format_row(rule)}"


def format_row(cells: Iterable[object]) -> str:
    """Return one row of a table, with line breaks and `|` in cells replaced."""
    return (
        "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"
    )
