"""Read depth from OpenEXR files (`pip install 'spslam[exr]'`), as Blender and others write them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import LARGEST_PX
from spslam.errors import FrameError, MissingDependencyError


def read_exr_depth(data: bytes, name: str) -> NDArray[Any]:
    """Read the depth channel of an OpenEXR file: (H, W) float, in the units of the file.

    Depth is the only channel; else the one called Z or depth, in a layer or not; else R of a grey
    picture, whose R, G and B are equal. Pixels outside of the data window are 0.

    Args:
        data: the whole file.
        name: name of the file, for messages.

    Raises:
        FrameError: the file is cut short or damaged, or holds no depth.
        MissingDependencyError: the package OpenEXR is missing.
    """
    try:
        import OpenEXR
    except ImportError:
        raise MissingDependencyError(
            f"{name} is an OpenEXR file: reading it needs pip install 'spslam[exr]'"
        ) from None
    try:
        header = OpenEXR.File(io.BytesIO(data), header_only=True).header()
        window, shown = _box(header["dataWindow"]), _box(header["displayWindow"])
        if max(*window[2:], *shown[2:]) > LARGEST_PX:
            raise FrameError(f"{name}: expected at most {LARGEST_PX} pixels a side")
        channels = OpenEXR.File(io.BytesIO(data), separate_channels=True).channels()
        pixels = {key: np.asarray(channel.pixels) for key, channel in channels.items()}
    except (RuntimeError, ValueError, KeyError, TypeError, MemoryError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(f"{name}: is cut short, damaged or no OpenEXR file ({reason})") from None
    return _placed(pixels[_depth_channel(pixels, name)], window, shown, name)


def _depth_channel(pixels: dict[str, NDArray[Any]], name: str) -> str:
    if len(pixels) == 1:
        return next(iter(pixels))
    named = [key for key in pixels if key.rpartition(".")[2].lower() in ("z", "depth")]
    if len(named) == 1:
        return named[0]
    grey = [pixels.get(key) for key in "RGB"]
    if not named and all(channel is not None for channel in grey):
        first = grey[0]
        assert first is not None
        same = (
            np.array_equal(first, other, equal_nan=True) for other in grey[1:] if other is not None
        )
        if all(same):
            return "R"
    raise FrameError(
        f"{name}: expected one channel, a channel called Z, or equal R, G and B, "
        f"found {', '.join(sorted(pixels)) or 'none'}"
    )


def _box(window: Any) -> tuple[int, int, int, int]:
    """Return x, y, width and height of a window, given by its first and last pixel."""
    (left, top), (right, bottom) = (np.asarray(corner, dtype=np.int64) for corner in window)
    return int(left), int(top), int(right - left + 1), int(bottom - top + 1)


def _placed(
    depth: NDArray[Any],
    window: tuple[int, int, int, int],
    shown: tuple[int, int, int, int],
    name: str,
) -> NDArray[Any]:
    """Cut or extend the data window to the display window, which is the picture."""
    if depth.shape != (window[3], window[2]):
        raise FrameError(
            f"{name}: expected {window[2]}x{window[3]} pixels, "
            f"found {depth.shape[1]}x{depth.shape[0]}"
        )
    if window == shown:
        return depth
    left, top = window[0] - shown[0], window[1] - shown[1]
    rows = slice(max(top, 0), min(top + window[3], shown[3]))
    columns = slice(max(left, 0), min(left + window[2], shown[2]))
    picture = np.zeros((shown[3], shown[2]), dtype=depth.dtype)
    picture[rows, columns] = depth[
        rows.start - top : max(rows.stop, rows.start) - top,
        columns.start - left : max(columns.stop, columns.start) - left,
    ]
    return picture
