"""Cache with a limit in bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class BoundedCache(Generic[Value]):
    """Cache that keeps the first values that fit and makes the others again each time.

    Values are never replaced: every epoch uses each image once, so replacing the least recently
    used image would drop the one needed next.

    Args:
        most_bytes: most bytes to hold.
        size: returns the bytes of a value.
    """

    def __init__(self, most_bytes: int, size: Callable[[Value], int]) -> None:
        self._most_bytes, self._size = most_bytes, size
        self._values: dict[Hashable, Value] = {}
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes held now."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the cached value of a key, or make it."""
        if key in self._values:
            return self._values[key]
        value = make()
        size = self._size(value)
        if self._bytes + size <= self._most_bytes:
            self._values[key] = value
            self._bytes += size
        return value
