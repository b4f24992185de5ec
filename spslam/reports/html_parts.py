"""What pages are put together from: the files in `page/`, and tables and tiles with their text escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from typing import Any

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page_file(name: str) -> str:
    """The text of a file in `page/`."""
    return (resources.files("spslam") / "page" / name).read_text(encoding="utf-8")


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A file in `page/` with what belongs in its {{places}}; nothing in the parts is taken for a place."""
    return _PLACE.sub(lambda place: parts[place[1]], page_file(template))


def tile(name: str, value: str, text: str) -> str:
    """A headline figure: name, value and explanation."""
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(text)}</small></dd></div>"


def table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table of text."""
    return table_of(heads, ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows))


def table_of(heads: Iterable[str], rows: Iterable[str]) -> str:
    """A table of rows that are markup already: each its `<td>…</td>` elements."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
