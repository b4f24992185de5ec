"""Track corners through a clip of frames by pyramidal Lucas-Kanade, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from spslam.frame import Frame
from spslam.typing import BoolArray, Float32Array, FloatArray, UInt8Array

# Images are reduced by a whole factor to at most this width, pixels.
_WIDTH = 800
# Largest number of corners, and their least distance as a fraction of the width.
_POINTS, _SPACING = 400, 1 / 64
# Quality of a corner relative to the best one of its image.
_QUALITY = 0.003
# Lucas-Kanade: side of the window, pixels, and number of the highest pyramid level.
_WINDOW, _LEVELS = 17, 4
# Largest distance between a point and its backward track, pixels of the reduced image.
_CLOSED = 0.5
# Fewest tracks to go on with a clip.
_LEAST = 30


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points followed through a clip.

    Attributes:
        pixels: (F, N, 2) float64, position of each point in each frame, pixels of the image; NaN
            where it is lost.
        survived: (F,) fraction of the corners of the frame before that were found again; 1 for the
            first frame.
        motion: (F,) median motion since the frame before, pixels; 0 for the first.
        levels: (F, N) float32, smoothed grey level at each point; NaN where it is lost.
    """

    pixels: FloatArray
    survived: FloatArray
    motion: FloatArray
    levels: Float32Array

    def alive(self, row: int) -> BoolArray:
        """Which points (N,) are found in a frame."""
        found: BoolArray = np.isfinite(self.pixels[row, :, 0])
        return found


def reduce(image: UInt8Array, width: int = _WIDTH) -> tuple[UInt8Array, int]:
    """Reduce an image by a whole factor to at most `width`; return it and the factor."""
    factor = max(1, -(-image.shape[1] // width))
    if factor == 1:
        return image, 1
    size = (image.shape[1] // factor, image.shape[0] // factor)
    cut = image[: size[1] * factor, : size[0] * factor]
    return np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), factor


def corners(image: UInt8Array, most: int = _POINTS, used: UInt8Array | None = None) -> Float32Array:
    """Find up to `most` corners (N, 2) of an image, well spread.

    Args:
        image: (H, W).
        most: largest number of corners.
        used: (H, W), 0 where no corner may be; None: they may be everywhere.
    """
    distance = max(4.0, image.shape[1] * _SPACING)
    found = cv2.goodFeaturesToTrack(image, most, _QUALITY, distance, mask=used)
    if found is None:
        return np.zeros((0, 2), dtype=np.float32)
    return np.asarray(found, dtype=np.float32).reshape(-1, 2)


def used_part(frame: Frame, shape: tuple[int, ...]) -> UInt8Array | None:
    """Return the mask of a frame in the size (h, w) of its reduced image, 0 or 1; None: all."""
    if frame.mask is None or frame.mask.all():
        return None
    # Smoothed images and windows reach beyond the border of the mask.
    inner = cv2.erode(frame.mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    small = cv2.resize(inner, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small, dtype=np.uint8)


def follow(
    image: UInt8Array,
    other: UInt8Array,
    points: Float32Array,
    guess: Float32Array | None = None,
) -> tuple[Float32Array, BoolArray]:
    """Track points (N, 2) from one image to another and back.

    Args:
        image: (H, W).
        other: (H, W).
        points: (N, 2) pixels of `image`.
        guess: (N, 2) their approximate pixels in `other`; None: the same.

    Returns:
        Their pixels (N, 2) in `other`, and whether they were found (N,).
    """
    if len(points) == 0:
        return np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=bool)
    there, ok = _flow(image, other, points, guess)
    back, ok_back = _flow(other, image, there, points if guess is not None else None)
    height, width = other.shape
    inside = (there >= 1).all(axis=1) & (there < (width - 1, height - 1)).all(axis=1)
    found = ok & ok_back & inside & (np.linalg.norm(back - points, axis=1) < _CLOSED)
    return there, found


def track(clip: Sequence[Frame]) -> Tracks:
    """Track the corners of the first frame of a clip through all its frames.

    Each frame is also compared with the one before by new corners, which gives `survived` and
    `motion` for every step, also after the first corners have left the view.
    """
    small = [reduce(frame.image) for frame in clip]
    images, factor = [image for image, _ in small], small[0][1]
    first = corners(images[0], used=used_part(clip[0], images[0].shape))
    pixels = np.full((len(clip), len(first), 2), np.nan)
    levels = np.full((len(clip), len(first)), np.nan, dtype=np.float32)
    pixels[0], levels[0] = first, _levels(images[0], first)
    survived, motion = np.ones(len(clip)), np.zeros(len(clip))
    now, alive = first.copy(), np.ones(len(first), dtype=bool)
    for row in range(1, len(clip)):
        before, image = images[row - 1], images[row]
        if before.shape != image.shape:
            survived[row] = np.nan
            alive[:] = False
            continue
        fresh = corners(before, 150, used_part(clip[row - 1], before.shape))
        there, found = follow(before, image, fresh)
        survived[row] = float(np.mean(found)) if len(fresh) else np.nan
        if found.any():
            motion[row] = factor * float(np.median(np.linalg.norm((there - fresh)[found], axis=1)))
        if np.count_nonzero(alive) < _LEAST:
            alive[:] = False
            continue
        moved, _ = _flow(before, image, now, None)
        # Compare with the first image again: small errors of the steps would add up.
        there, found = follow(images[0], image, first, moved)
        alive &= found
        now = np.where(alive[:, None], there, now).astype(np.float32)
        pixels[row, alive] = now[alive]
        levels[row, alive] = _levels(image, now[alive])
    return Tracks(factor * (pixels + 0.5) - 0.5, survived, motion, levels)


def _levels(image: UInt8Array, points: Float32Array) -> Float32Array:
    smooth = cv2.blur(image, (9, 9))
    column, row = np.rint(points).astype(np.int64).T
    column, row = np.clip(column, 0, image.shape[1] - 1), np.clip(row, 0, image.shape[0] - 1)
    levels: Float32Array = smooth[row, column].astype(np.float32)
    return levels


def _flow(
    image: UInt8Array, other: UInt8Array, points: Float32Array, guess: Float32Array | None
) -> tuple[Float32Array, BoolArray]:
    points = np.ascontiguousarray(points, dtype=np.float32).reshape(-1, 1, 2)
    start = points.copy() if guess is None else np.array(guess, np.float32).reshape(-1, 1, 2)
    there, ok, _ = cv2.calcOpticalFlowPyrLK(
        image,
        other,
        points,
        start,
        winSize=(_WINDOW, _WINDOW),
        maxLevel=_LEVELS if guess is None else 1,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
        flags=0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(there, dtype=np.float32).reshape(-1, 2), np.asarray(ok).ravel() > 0
