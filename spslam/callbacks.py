"""Default callbacks that do nothing."""

from __future__ import annotations


def ignore(*arguments: object) -> None:
    """Ignore all arguments."""


def never() -> bool:
    """Return False: do not stop."""
    return False
