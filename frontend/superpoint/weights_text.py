"""Names and values of weights files as text of one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def listed(names: Iterable[Any], most: int) -> str:
    """List the first `most` names in one line."""
    return ", ".join(one_line(name, 80) for name in sorted(map(str, names))[:most]) or "nothing"


def one_line(found: object, most: int = 300) -> str:
    """Convert text to one line of printable characters, at most `most` of them."""
    text = "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}"
        for each in " ".join(str(found).split())
    )
    return text if len(text) <= most else text[: most - 3] + "..."
