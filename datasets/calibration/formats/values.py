"""Read numbers, matrices and sizes out of parsed files; faults name the key."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import orthonormalize
from spslam.io.structured_text import one_line, shown

from ..checks import is_rigid

Values = dict[str, Any]


def number(values: Values, key: str, default: float | None = None) -> float:
    """Return the number under a key.

    Raises:
        CalibrationError: there is none and no default, or the value is no finite number.
    """
    if values.get(key) is None and default is not None:
        return default
    if key not in values:
        raise CalibrationError(f"key {one_line(key)} is missing")
    return numbers(values[key], key, 1)[0]


def optional(values: Values, key: str) -> float | None:
    """Return the number under a key; None without the key."""
    return None if values.get(key) is None else number(values, key)


def numbers(value: Any, key: str, count: int | None = None) -> tuple[float, ...]:
    """Return finite numbers of a value, a list, a list of lists or a matrix of OpenCV.

    Raises:
        CalibrationError: these are other values, or not `count` of them.
    """
    flat = _flat(value, 0)
    if flat is None or (count is not None and len(flat) != count):
        what = "a number" if count == 1 else f"{count or 'a list of'} numbers"
        raise CalibrationError(f"{one_line(key)}: expected {what}, found {shown(value)}")
    return tuple(flat)


def matrix(value: Any, key: str, rows: int, columns: int) -> NDArray[np.float64]:
    """Return a matrix (rows, columns) of lists, a flat list or a matrix of OpenCV."""
    return np.reshape(np.array(numbers(value, key, rows * columns)), (rows, columns))


def transform(value: Any, key: str) -> NDArray[np.float64]:
    """Return a rigid transform (4, 4), given with or without its last row.

    Raises:
        CalibrationError: the values are no rotation with a translation.
    """
    flat = numbers(value, key)
    if len(flat) == 12:
        flat = (*flat, 0.0, 0.0, 0.0, 1.0)
    if len(flat) != 16:
        raise CalibrationError(f"{one_line(key)}: expected 4 rows of 4 numbers, found {len(flat)}")
    T = np.reshape(np.array(flat), (4, 4))
    if not is_rigid(T):
        raise CalibrationError(f"{one_line(key)} is no rotation with a translation over 0 0 0 1")
    return orthonormalize(T)


def rotation(value: Any, key: str) -> NDArray[np.float64]:
    """Return a rotation (3, 3), given as a matrix or a rotation vector.

    Raises:
        CalibrationError: the values are no rotation.
    """
    flat = np.array(numbers(value, key))
    T = np.eye(4)
    if len(flat) == 3:
        import cv2

        T[:3, :3] = cv2.Rodrigues(flat)[0]
    elif len(flat) == 9:
        T[:3, :3] = flat.reshape(3, 3)
    if len(flat) not in (3, 9) or not is_rigid(T):
        raise CalibrationError(f"{one_line(key)} is no rotation")
    return orthonormalize(T)[:3, :3]


def of_matrix(value: Any, key: str) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a camera matrix (3, 3), (3, 4) or (4, 4).

    Raises:
        CalibrationError: the values are no camera matrix, or its axes are not at right angles.
    """
    flat = numbers(value, key)
    columns = {9: 3, 12: 4, 16: 4}.get(len(flat))
    if columns is None:
        raise CalibrationError(f"{one_line(key)}: expected 3 rows of 3 numbers, found {len(flat)}")
    K = np.reshape(np.array(flat), (-1, columns))[:3, :3]
    if K[0, 0] == 0 or K[1, 1] == 0:
        raise CalibrationError(f"{one_line(key)} has no focal length: was the camera calibrated?")
    if abs(K[0, 1]) > 1e-3 * abs(K[0, 0]) or abs(K[1, 0]) > 1e-3 * abs(K[0, 0]):
        raise CalibrationError(
            f"{one_line(key)} has a skew of {K[0, 1]:g}, which spslam's cameras do not have"
        )
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Return an image size, pixels; None if neither value is given.

    Raises:
        CalibrationError: the values are no whole numbers.
    """
    if width is None and height is None:
        return None
    across, down = numbers(width, "width", 1)[0], numbers(height, "height", 1)[0]
    if across != int(across) or down != int(down):
        raise CalibrationError(f"the image size must be whole pixels, found {across:g}x{down:g}")
    return int(across), int(down)


def first_of(values: Values, *keys: str) -> tuple[str, Any]:
    """Return the first of the keys that is there, with its value; an empty key if none is."""
    return next(((key, values[key]) for key in keys if values.get(key) is not None), ("", None))


def mapping(value: Any, key: str) -> Values:
    """Return a mapping with text keys.

    Raises:
        CalibrationError: the value is no mapping.
    """
    if not isinstance(value, dict):
        raise CalibrationError(f"{one_line(key)}: expected keys and values, found {shown(value)}")
    return {str(name): inner for name, inner in value.items()}


def items(value: Any, key: str) -> list[Any]:
    """Return a list that is not empty.

    Raises:
        CalibrationError: the value is no such list.
    """
    if not isinstance(value, list) or not value:
        raise CalibrationError(f"{one_line(key)}: expected a list, found {shown(value)}")
    return value


def _flat(value: Any, depth: int) -> list[float] | None:
    """Return the numbers of nested lists; None if something else is there."""
    if isinstance(value, dict) and depth == 0 and isinstance(value.get("data"), (list, str)):
        value = value["data"]
    if isinstance(value, str) and depth == 0 and value.split():
        value = value.split()
    if isinstance(value, (list, tuple)):
        found: list[float] = []
        for part in value:
            inner = _flat(part, depth + 1) if depth < 3 else None
            if inner is None:
                return None
            found += inner
        return found
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        one = float(value)
    except (ValueError, OverflowError):
        return None
    return [one] if math.isfinite(one) else None
