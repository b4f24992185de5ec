"""Read mask images, and warp masks between raw images and the images of frames."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError, FrameError
from spslam.notices import notice

from ..images.decoding import one_channel, read_pixels

_LOG = logging.getLogger(__name__)
# Masked fraction above which a mask may be inverted.
_LIKELY_INVERTED = 0.95

_Maps = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class RawView:
    """How images of frames are made from raw images.

    Attributes:
        width, height: size of the raw images, pixels.
        maps: x and y, each (H, W) float32, of the raw pixel that each pixel of a frame shows; None:
            both images are the same.
    """

    width: int
    height: int
    maps: _Maps | None = None

    def from_raw(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Warp a mask of raw images to the images of frames: nearest pixel, False outside."""
        if self.maps is None:
            return mask
        warped = cv2.remap(mask.astype(np.uint8), *self.maps, cv2.INTER_NEAREST)
        return np.asarray(warped) > 0

    def to_raw(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Carry a mask of the images of frames to raw images; True where frames show nothing."""
        if self.maps is None:
            return mask
        rows, columns = np.nonzero(~mask)
        x, y = (np.rint(axis[rows, columns]).astype(np.int64) for axis in self.maps)
        there = (x >= 0) & (y >= 0) & (x < self.width) & (y < self.height)
        masked = np.zeros((self.height, self.width), np.uint8)
        masked[y[there], x[there]] = 1
        # Where the view magnifies less than 1:1, neighbouring pixels leave gaps.
        closed = cv2.morphologyEx(masked, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        raw: NDArray[np.bool_] = np.asarray(closed) == 0
        return raw


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask image (H, W): True where it is white.

    White is more than half of the range: above 127 of 8 bits, above 32767 of 16 bits. Colours count
    by their grey level. Pixels that an alpha channel makes more than half transparent are masked.
    An image whose largest value is 1 is read as 0 and 1.

    Raises:
        DatasetError: the file is missing, damaged or no image.
    """
    try:
        pixels = read_pixels(path)
        grey = one_channel(pixels, path.name)
    except FrameError as error:
        raise DatasetError(f"mask {path}: {error}") from None
    used: NDArray[np.bool_] = grey > _half(grey, path)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        used &= pixels[:, :, 3] > np.iinfo(pixels.dtype).max // 2
    return used


def _half(grey: NDArray[Any], path: Path) -> int:
    if grey.size and grey.max() == 1:
        notice(_LOG, "mask_of_ones", "mask %s has the values 0 and 1: 1 is used", path)
        return 0
    return int(np.iinfo(grey.dtype).max) // 2


def fitted(mask: NDArray[np.bool_], view: RawView, path: Path) -> NDArray[np.bool_]:
    """Return a mask in the size of raw images; resized (nearest) if its aspect ratio is theirs.

    Raises:
        DatasetError: the mask has another aspect ratio.
    """
    height, width = mask.shape
    if (width, height) == (view.width, view.height):
        return mask
    # Rounding a resized image's height may change it by a pixel.
    if abs(height * view.width / width - view.height) > max(1.0, view.width / width):
        raise DatasetError(
            f"mask {path} is {width}x{height}, but the images are {view.width}x{view.height}: "
            "a mask has the size of the raw images"
        )
    text = "mask %s is %dx%d and was resized to the images' %dx%d"
    notice(_LOG, "mask_resized", text, path, width, height, view.width, view.height)
    size = (view.width, view.height)
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0


def check_used(mask: NDArray[np.bool_], path: Path, raw: NDArray[np.bool_]) -> None:
    """Check that a mask leaves something to use; give a notice if it seems inverted.

    Args:
        mask: (H, W), in the images of frames.
        path: its file.
        raw: the mask as it was read.

    Raises:
        DatasetError: nothing is used.
    """
    if not mask.any():
        where = "is black" if not raw.any() else "is black in all that the rectified images show"
        raise DatasetError(f"mask {path} {where}: white is used, so nothing would be")
    if np.mean(~raw) > _LIKELY_INVERTED:
        text = "mask %s is %.0f %% black, and only white is used: is it inverted?"
        notice(_LOG, "mask_inverted", text, path, 100 * np.mean(~raw))
