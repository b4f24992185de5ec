import ast
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from spslam.notices import Notice, NoticeHandler, counted, notice, shown_notices

LOGGER = logging.getLogger("spslam.somewhere")


def test_notices_are_shown_and_kept_once_each_with_their_counts() -> None:
    shown: list[Notice] = []
    with shown_notices(shown.append) as handler:
        for _ in range(2):
            notice(LOGGER, "duplicate_stamps", "%d of %d images\nare left out", 3, 60, count=3)
        LOGGER.warning("a plain warning of the log")
        notice(LOGGER, "time_unit", "read as %s", "ns")
    notice(LOGGER, "later", "nobody listens any more")
    expected = [
        Notice("duplicate_stamps", 3, "3 of 60 images are left out"),
        Notice("time_unit", 1, "read as ns"),
    ]
    assert shown == handler.notices == expected


def test_a_notice_is_a_warning_of_the_calling_module(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        notice(LOGGER, "topic", "text")
    assert [(record.name, record.levelname, record.funcName) for record in caplog.records] == [
        ("spslam.somewhere", "WARNING", "test_a_notice_is_a_warning_of_the_calling_module")
    ]
    assert NoticeHandler().notices == []


@pytest.mark.parametrize(
    ("count", "words", "expected"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (np.int64(1), ("image",), "1 image"),
        (2, ("image",), "2 images"),
        (1, ("entry", "entries"), "1 entry"),
        (3, ("entry", "entries"), "3 entries"),
        (1, ("run has", "runs have"), "1 run has"),
        (5, ("run has", "runs have"), "5 runs have"),
    ],
)
def test_numbers_stand_with_what_they_count(
    count: int, words: tuple[str, ...], expected: str
) -> None:
    assert counted(count, *words) == expected


# Lengths that are at least 2 where they are printed.
NEVER_ONE = {"len(names)", "len(stamps)", "len(kinds)", "len(text)", "len(line)", "len(found)"}
NEVER_ONE |= {"len(clear)", "len(disparity)", "len(still_fractions) + 1", "len(data)"}


def test_lengths_in_messages_are_counted() -> None:
    """A length may be 1, so that a plural after it may be wrong."""
    root = Path(__file__).resolve().parents[1]
    wrong = [
        f"{path.relative_to(root)}:{line}: {{{length}}}{words}"
        for package in ("spslam", "backend", "datasets", "frontend")
        for path in (root / package).rglob("*.py")
        for line, length, words in lengths_in_text(path.read_text(encoding="utf-8"))
        if length not in NEVER_ONE and re.match(r" [a-z]+[a-rt-z]s\b", words)
    ]
    assert not wrong, "use spslam.notices.counted"


def test_lengths_in_messages_are_found() -> None:
    text = 'print(f"{path}: {len(rows)} rows are left out", f"{len(rows)}")'
    assert lengths_in_text(text) == [(1, "len(rows)", " rows are left out")]


def lengths_in_text(code: str) -> list[tuple[int, str, str]]:
    """Return line, expression and following text of each `{len(…)}` in the f-strings of code."""
    if "{len(" not in code and "{np.count_nonzero(" not in code:
        return []
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    length = ast.unparse(value.value)
                    if re.match(r"(len|np\.count_nonzero)\(", length):
                        found.append((value.lineno, length, str(text.value)))
    return found
