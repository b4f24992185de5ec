"""Find what is fixed in the image while the camera moves: a bonnet, text, a black border.

Image gradients of the scene change their direction from frame to frame at every pixel. Those of
things that are fixed to the camera are the same in all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from spslam.check.findings import Finding
from spslam.check.tracks import Tracks, used_part
from spslam.frame import Frame
from spslam.typing import BoolArray, FloatArray

# Images are reduced to this width, pixels.
_WIDTH = 320
# Frames of each clip that are compared.
_FRAMES_OF_CLIP = 3
# Fewest frames: single gradients agree by chance.
_LEAST_FRAMES = 12
# Ratio of the sum of the gradients to the sum of their lengths above which they are the same, and
# their least mean length, grey levels.
_SAME_DIRECTION, _LEAST_GRADIENT = 0.85, 5.0
# Side of the squares of the map of fixed things, pixels; and the least fraction of a square's
# textured pixels that must be fixed.
_SIDE, _MAJORITY = 16, 0.6
# Least number of textured pixels of a square.
_LEAST_TEXTURE = 12
# Fraction of the squares with texture for a note and for a warning; more than the last fraction
# means that the camera did not move.
_SOME, _MANY, _ALL = 0.012, 0.04, 0.6
# Motion of a point over a clip below which it stays in place, fraction of the width (0.4 px of
# 640); fraction of the points of fixed squares that must, and fewest points to judge that.
_STAYS, _MOST_STAY, _LEAST_POINTS = 0.4 / 640, 0.7, 8
# Black border: largest grey level, fraction of the image for a note and for a warning.
_BLACK, _SOME_BLACK, _MUCH_BLACK = 6, 0.02, 0.3


class FixedEvidence:
    """Sums up the gradients of frames from all over the recording."""

    def __init__(self) -> None:
        self.frames = 0
        # (N, 3) position of points, fractions of the image; their motion, fraction of the width.
        self._points: list[FloatArray] = []
        self._sum: FloatArray | None = None
        self._length: FloatArray | None = None
        self._brightest: FloatArray | None = None

    def add(self, clip: Sequence[Frame], tracks: Tracks) -> None:
        """Add some frames of a clip, and how far its points move."""
        self._add_points(clip[0].image.shape, tracks)
        rows = np.unique(np.linspace(0, len(clip) - 1, _FRAMES_OF_CLIP).round().astype(int))
        for row in rows.tolist():
            image = clip[row].image
            height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
            small = cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)
            level = small.astype(np.float32)
            gradient = np.stack(
                [cv2.Sobel(level, cv2.CV_32F, *axes, ksize=3) / 4.0 for axes in ((1, 0), (0, 1))]
            ).astype(np.float64)
            length = np.linalg.norm(gradient, axis=0)
            part = used_part(clip[row], level.shape)
            if part is not None:
                # What a mask excludes has no gradient, and is not black.
                gradient, length = gradient * part, length * part
                level = np.where(part, level, 255.0).astype(np.float32)
            if self._sum is None or self._length is None or self._brightest is None:
                self._sum, self._length = np.zeros_like(gradient), np.zeros_like(length)
                self._brightest = np.zeros(level.shape)
            if self._length.shape != length.shape:
                continue
            self._sum += gradient
            self._length += length
            self._brightest = np.maximum(self._brightest, level)
            self.frames += 1

    def _add_points(self, shape: tuple[int, ...], tracks: Tracks) -> None:
        """Keep where the points of a clip are, and how far they move until its last frame."""
        row = max(row for row in range(len(tracks.pixels)) if row == 0 or tracks.alive(row).any())
        alive = tracks.alive(row)
        moved = np.linalg.norm(tracks.pixels[row] - tracks.pixels[0], axis=1)[alive]
        place = tracks.pixels[0, alive] / np.array([shape[1], shape[0]])
        if row >= 3:
            self._points.append(np.column_stack([place, moved / shape[1]]))

    def stays(self, fixed: BoolArray) -> bool:
        """Whether the points in fixed squares (R, C) stay in place.

        Far things move slowly, and clouds, which are smooth, have hardly any point.
        """
        points = np.concatenate(self._points) if self._points else np.zeros((0, 3))
        rows, columns = fixed.shape
        column = np.clip((points[:, 0] * columns).astype(int), 0, columns - 1)
        row = np.clip((points[:, 1] * rows).astype(int), 0, rows - 1)
        moved = points[fixed[row, column], 2]
        return len(moved) >= _LEAST_POINTS and bool(np.mean(moved < _STAYS) > _MOST_STAY)

    def squares(self) -> tuple[BoolArray, BoolArray]:
        """Return which squares (R, C) of the image are fixed, and which have texture."""
        assert self._sum is not None and self._length is not None
        same = np.linalg.norm(self._sum, axis=0) > _SAME_DIRECTION * np.maximum(self._length, 1e-6)
        strong = self._length > _LEAST_GRADIENT * self.frames
        rows, columns = (size // _SIDE for size in strong.shape)
        cut = np.s_[: rows * _SIDE, : columns * _SIDE]

        def count(mask: BoolArray) -> FloatArray:
            blocks = mask[cut].reshape(rows, _SIDE, columns, _SIDE)
            total: FloatArray = blocks.sum(axis=(1, 3)).astype(np.float64)
            return total

        textured = count(strong)
        fixed = count(strong & same)
        clear = textured >= _LEAST_TEXTURE
        return clear & (fixed >= _MAJORITY * textured), clear

    def black(self) -> float:
        """Fraction of the image that is black in all frames."""
        assert self._brightest is not None
        return float(np.mean(self._brightest <= _BLACK))


def check_fixed(seen: FixedEvidence, stands_still: bool) -> Iterator[Finding]:
    """Yield the findings about what is fixed in the image."""
    if seen.frames < _LEAST_FRAMES:
        return
    black = seen.black()
    if _SOME_BLACK < black < 1.0:
        yield Finding(
            "images",
            "black_border",
            "warning" if black > _MUCH_BLACK else "note",
            f"{100 * black:.0f} % of the image is black in all frames",
            f"at most {100 * _SOME_BLACK:.0f} %",
            "crop the images (subtract what is cut off from cx and cy)",
            black,
        )
    if stands_still:
        return
    fixed, textured = seen.squares()
    fraction = float(fixed.sum() / max(textured.size, 1))
    if _SOME < fraction < _ALL and seen.stays(fixed):
        yield Finding(
            "images",
            "body_fixed",
            "warning" if fraction > _MANY else "note",
            f"{100 * fraction:.0f} % of the image, {_where(fixed)}, stays in place while the rest "
            "moves",
            f"at most {100 * _SOME:.1f} %",
            "a bonnet, an arm, text or dirt: mask it or crop it",
            fraction,
        )


def _where(fixed: BoolArray) -> str:
    """Return where in the image most of the fixed squares are, in words."""
    rows, columns = np.nonzero(fixed)
    high, wide = fixed.shape
    y, x = float(np.mean(rows + 0.5)) / high, float(np.mean(columns + 0.5)) / wide
    vertical = "at the top" if y < 0.35 else "at the bottom" if y > 0.65 else ""
    horizontal = "at the left" if x < 0.35 else "at the right" if x > 0.65 else ""
    return " ".join(word for word in (vertical, horizontal) if word) or "in the middle"
