"""Values of metrics, whose type includes text and None."""

from __future__ import annotations


def number(value: object) -> float:
    """A metric that is a number."""
    assert isinstance(value, int | float), value
    return float(value)
