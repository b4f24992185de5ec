"""Callbacks for callers that want none."""

from __future__ import annotations


def ignore(*arguments: object) -> None:
    """Do nothing with what is reported."""


def never() -> bool:
    """Answer the question whether to stop: no."""
    return False
