"""A growable table of NumPy columns: the struct of arrays behind the map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows that a table has space for after its first row is added.
_FIRST_CAPACITY = 256


class Table:
    """Columns of equal length; rows are appended at the end and removed by a mask.

    Args:
        **columns: Name -> (dtype, shape of one row's entry).
    """

    def __init__(self, **columns: tuple[Any, tuple[int, ...]]) -> None:
        self._size = 0
        self._columns = {
            name: np.empty((0, *shape), dtype=dtype) for name, (dtype, shape) in columns.items()
        }

    def __len__(self) -> int:
        return self._size

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a writable view of a column; valid until the next `append` or `keep`."""
        return self._columns[name][: self._size]

    def append(self, count: int, **values: Any) -> slice:
        """Add `count` rows.

        Args:
            count: Number of rows.
            **values: A value for every column that broadcasts to (count, ...).

        Returns:
            The new rows.

        Raises:
            ValueError: A column is missing or unknown.
        """
        if values.keys() != self._columns.keys():
            raise ValueError(f"columns {sorted(self._columns)} expected, found {sorted(values)}")
        rows = slice(self._size, self._size + count)
        self._reserve(rows.stop)
        for name, value in values.items():
            self._columns[name][rows] = value
        self._size = rows.stop
        return rows

    def adopt(self, **values: Any) -> None:
        """Fill an empty table with columns, without a copy if they have the right type.

        Args:
            **values: Every column, of equal length.

        Raises:
            ValueError: The table is not empty, or columns are missing, unknown or of wrong shape.
        """
        if values.keys() != self._columns.keys() or self._size:
            raise ValueError(
                f"columns {sorted(self._columns)} expected in an empty table, "
                f"found {sorted(values)}"
            )
        for name, column in self._columns.items():
            adopted = np.require(values[name], column.dtype, ["C", "W"])
            if adopted.ndim == 0 or adopted.shape[1:] != column.shape[1:]:
                raise ValueError(
                    f"column {name} must be (rows, {column.shape[1:]}), found {adopted.shape}"
                )
            self._columns[name] = adopted
        lengths = {len(column) for column in self._columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns have {sorted(lengths)} rows: expected equal lengths")
        (self._size,) = lengths

    def keep(self, mask: NDArray[np.bool_]) -> int:
        """Keep only the rows where `mask` (rows,) is true, in their order.

        Returns:
            The first row that changed; the new length if no row changed.
        """
        kept = int(np.count_nonzero(mask))
        # Removed rows are mostly near the end: the rows before the first of them do not move.
        first = kept if kept == self._size else int(np.argmin(mask))
        for name in self._columns:
            self._columns[name][first:kept] = self[name][first:][mask[first:]]
        self._size = kept
        return first

    def _reserve(self, size: int) -> None:
        for name, column in self._columns.items():
            if len(column) < size:
                grown = np.empty(
                    (max(size, len(column) * 3 // 2, _FIRST_CAPACITY), *column.shape[1:]),
                    column.dtype,
                )
                grown[: self._size] = column[: self._size]
                self._columns[name] = grown
