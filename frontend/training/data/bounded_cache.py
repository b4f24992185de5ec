"""A cache that never holds more than a given number of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Keeps the first values that fit and makes the others again each time.

    Nothing is replaced: every epoch asks for every image once, so the one used least recently comes next.

    Args:
        most_bytes: held at most.
        size: bytes of a value.
    """

    def __init__(self, most_bytes: int, size: Callable[[Value], int]) -> None:
        self._most_bytes, self._size = most_bytes, size
        self._values: dict[Hashable, Value] = {}
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key: the one held, or a new one."""
        if key in self._values:
            return self._values[key]
        value = make()
        size = self._size(value)
        if self._bytes + size <= self._most_bytes:
            self._values[key] = value
            self._bytes += size
        return value
