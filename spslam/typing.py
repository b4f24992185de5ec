"""NumPy array types by the type of their elements; docstrings give the shapes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Float32Array: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
# Mostly images, grey (H, W) or colour (H, W, 3).
UInt8Array: TypeAlias = NDArray[np.uint8]
