"""Find the parts of images that are fixed to the camera, such as a bonnet, an arm, text or a logo.

Their grey-level gradients are the same in all images, while those of the world change. A part of
the world looks the same, too, if it is far away on a straight road, or if the camera stands still.
A part therefore counts as fixed only if it stays in place between images whose motion, estimated
from the other points, moves every point of the world there, at any depth.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import Refusal

from .pair_motion import PairMotion, pair_motion

# Largest width of the images that are compared, pixels; larger ones are reduced.
_WIDTH = 512
# Standard deviation of the blur before gradients, pixels.
_BLUR = 1.0
# A gradient g becomes g / sqrt(g² + this²), grey levels a pixel: edges of all strengths count
# equally, and noise counts little.
_SOFT = 3.0
# Side of the window over which gradients are compared, pixels.
_WINDOW = 7
# Least ratio of the squared mean of the gradients to their mean square; it is 1 / N for N images of
# a world that changes completely.
_COHERENT = 0.35
# An image shows the mean gradients if its own agree with at least this fraction of them.
_SHOWN = 0.5
# Least fraction of the images that show them.
_ALWAYS = 0.75
# Least root mean square of the mean gradients, 0 to 1: flat parts show nothing.
_TEXTURED = 0.12
# Least distance from every possible position of a point of the world, pixels of reduced images.
_CONTRADICTION_PX = 2.0
# Least difference between the mean gradients there and at that position: along a straight edge
# they are the same, and the edge may have moved along itself.
_DIFFERENT = 0.5
# Distance of the pixels at which positions are computed; between them they are interpolated.
_STEP = 8
# Least number of pairs of images that contradict.
_LEAST_PAIRS = 3
# Least fraction of a connected part that pairs contradict.
_PROVEN = 0.15
# Least number of pairs of images whose motion is known.
_LEAST_MOTIONS = 5
# Images must move against the first one by this fraction of their width at least, in the median;
# over less, the world's own texture stays in place. Points are tracked in this many images.
_LEAST_TRAVEL, _TRAVEL_IMAGES, _TRAVEL_POINTS = 0.2, 6, 200
# Gaps up to this width in a fixed part are closed, and it grows by this margin, pixels.
_CLOSE, _GROW = 15, 2
# Smallest part, fraction of the image.
_SMALLEST = 0.0004
# A flat area that a fixed part separates from the rest is fixed, too, unless this fraction of it
# changes.
_CHANGES = 0.05
# Largest area below a part from side to side that belongs to it (a bonnet mirrors the world),
# fraction of the image; such a part spans at least this fraction of the width.
_MOST_BELOW, _SPANS = 0.3, 0.8
# Largest fraction of the image that can be fixed.
_MOST_FIXED = 0.7

_Image = NDArray[np.uint8]
_Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FixedParts:
    """What is fixed to the camera.

    Attributes:
        mask: (H, W), which pixels are used: False where something is fixed.
        where: the largest parts in words.
    """

    mask: NDArray[np.bool_]
    where: str


def find_fixed_parts(pairs: Listed[tuple[_Image, _Image]], camera: Camera) -> FixedParts | Refusal:
    """Find what is fixed to the camera.

    Args:
        pairs: pairs of images (H, W) of neighbouring moments, spread over the recording.
        camera: their camera.

    Returns:
        The fixed parts, or why there are none.
    """
    reduced = [tuple(_reduced(image) for image in pair) for pair in pairs]
    images = [image for pair in reduced for image in pair]
    mean = _MeanGradients(images)
    same = mean.fixed()
    if not same.any():
        return Refusal("nothing stays in place in all images")
    height, width = images[0].shape
    small = _scaled(camera, width, height)
    elsewhere = cv2.erode((~same).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    motions = [pair_motion(first, second, small, elsewhere) for first, second in reduced]
    if sum(motion is not None for motion in motions) < _LEAST_MOTIONS:
        return Refusal("the camera hardly moves in the images that were compared")
    if not _travels(images, elsewhere):
        return Refusal(
            f"the images that were compared move by less than {100 * _LEAST_TRAVEL:.0f} % of their "
            "width: a longer recording is needed"
        )
    contradictions = mean.contradictions(motions, small)
    proven = _proven(same, contradictions >= _LEAST_PAIRS)
    if not proven.any():
        return Refusal(
            f"{100 * np.mean(same):.0f} % of the image stays in place, but may be far away: the "
            "camera hardly turns"
        )
    masked = _completed(proven, mean.changing())
    if np.mean(masked) > _MOST_FIXED:
        return Refusal(
            f"{100 * np.mean(masked):.0f} % of the image seems fixed, which leaves too little"
        )
    where = _where(masked, camera.width / width)
    size = (camera.width, camera.height)
    full = cv2.resize(masked.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return FixedParts(np.asarray(full) == 0, where)


def _travels(images: Listed[_Image], elsewhere: NDArray[np.bool_]) -> bool:
    """Return whether the world moves far enough in the images, where nothing may be fixed.

    Points of the first image are tracked to others. Where most of them are lost, it moved far.
    """
    first, mask = images[0], elsewhere.astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(first, _TRAVEL_POINTS, 0.01, 5, mask=mask)
    if corners is None:
        return False
    begin = np.asarray(corners, np.float32)
    guess: Any = None
    for row in np.linspace(0, len(images) - 1, _TRAVEL_IMAGES).astype(int)[1:]:
        found, seen, _ = cv2.calcOpticalFlowPyrLK(first, images[row], begin, guess)
        back, _, _ = cv2.calcOpticalFlowPyrLK(images[row], first, found, guess)
        closed = np.linalg.norm(np.asarray(back) - begin, axis=-1).ravel() < 1.0
        kept = (np.ravel(seen) > 0) & closed
        moved = np.linalg.norm(np.asarray(found) - begin, axis=-1).ravel()
        if kept.mean() < 0.5 or np.median(moved[kept]) >= _LEAST_TRAVEL * first.shape[1]:
            return True
    return False


def _reduced(image: _Image) -> _Image:
    height, width = image.shape
    scale = min(1.0, _WIDTH / width)
    size = (round(width * scale), round(height * scale))
    return image if scale == 1 else np.asarray(cv2.resize(image, size, None, 0, 0, cv2.INTER_AREA))


def _scaled(camera: Camera, width: int, height: int) -> Camera:
    """Return the camera of images that were resized."""
    across, down = width / camera.width, height / camera.height
    return replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=(camera.cx + 0.5) * across - 0.5,
        cy=(camera.cy + 0.5) * down - 0.5,
    )


def _gradients(image: _Image) -> _Field:
    """Return the gradients (2, H, W) of an image, each shorter than 1."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), _BLUR)
    x, y = (
        cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1))
    )
    factor = 1 / np.sqrt(x * x + y * y + np.float32(_SOFT**2))
    return _stacked([x * factor, y * factor])


def _dot(a: _Field, b: _Field) -> _Field:
    """Return the mean product (H, W) of vectors (2, H, W) over the window around each pixel."""
    product = a[0] * b[0] + a[1] * b[1]
    return np.asarray(cv2.boxFilter(product, -1, (_WINDOW, _WINDOW)), dtype=np.float32)


class _MeanGradients:
    """The mean of the gradients of images, and how well the images agree with it."""

    def __init__(self, images: Listed[_Image]) -> None:
        total = np.zeros((2, *images[0].shape), np.float32)
        square = np.zeros(images[0].shape, np.float32)
        for image in images:
            gradients = _gradients(image)
            total += gradients
            square += _dot(gradients, gradients)
        self._mean: _Field = np.asarray(total / len(images), dtype=np.float32)
        self._square: _Field = np.asarray(square / len(images), dtype=np.float32)
        self._own = _dot(self._mean, self._mean)
        self._coherence = self._own / np.maximum(self._square, np.float32(1e-9))
        # (N, H, W): where each image shows the mean gradients.
        self._shown = np.stack(
            [_dot(_gradients(image), self._mean) > _SHOWN * self._own for image in images]
        )

    def fixed(self) -> NDArray[np.bool_]:
        """Return (H, W), where (nearly) all images show the same texture."""
        textured = self._own > _TEXTURED**2
        always = np.count_nonzero(self._shown, axis=0) >= _ALWAYS * len(self._shown)
        same: NDArray[np.bool_] = textured & always & (self._coherence > _COHERENT)
        return same

    def changing(self) -> NDArray[np.bool_]:
        """Return (H, W), where images show changing texture."""
        changes: NDArray[np.bool_] = (self._square > _TEXTURED**2) & (
            self._coherence < _COHERENT / 2
        )
        return changes

    def contradictions(
        self, motions: Listed[PairMotion | None], camera: Camera
    ) -> NDArray[np.int64]:
        """Return (H, W): the number of pairs in which no point of the world would look the same.

        Args:
            motions: of each pair of images: 0 and 1, 2 and 3, ….
            camera: of the images.
        """
        count = np.zeros(self._own.shape, dtype=np.int64)
        grid = _Grid(camera)
        for pair, motion in enumerate(motions):
            if motion is None:
                continue
            offset = grid.offsets(motion)
            far = np.hypot(*offset) > _CONTRADICTION_PX
            if not far.any():
                continue
            there = _stacked(
                [
                    cv2.remap(
                        plane,
                        grid.x + offset[0],
                        grid.y + offset[1],
                        cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_REPLICATE,
                    )
                    for plane in self._mean
                ]
            )
            apart: _Field = np.asarray(self._mean - there, dtype=np.float32)
            different = _dot(apart, apart) > _DIFFERENT * (self._own + _dot(there, there))
            count += far & different & self._shown[2 * pair] & self._shown[2 * pair + 1]
        return count


def _stacked(planes: list[Any]) -> _Field:
    return np.stack([np.asarray(plane, dtype=np.float32) for plane in planes])


class _Grid:
    """Pixels of an image, and on every `_STEP`-th of them the rays of the camera."""

    def __init__(self, camera: Camera) -> None:
        size = (camera.height, camera.width)
        self.y, self.x = np.indices(size, dtype=np.float32)
        ideal = camera.without_distortion()
        self._focal = np.array([ideal.fx, ideal.fy])
        rows, columns = (np.arange(-(-side // _STEP) + 1) * _STEP for side in size)
        self._shape = (len(rows), len(columns))
        pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).astype(np.float64)
        straight = camera.undistort(pixels)
        self._rays = ideal.unproject(straight, np.ones(len(straight)))

    def offsets(self, motion: PairMotion) -> _Field:
        """Return `PairMotion.contradiction` (2, H, W) of each pixel, pixels; 0 if unknown."""
        known = np.nan_to_num(motion.contradiction(self._rays) * self._focal)
        coarse = known.astype(np.float32).reshape(*self._shape, 2)
        return _stacked(
            [
                cv2.remap(plane, self.x / _STEP, self.y / _STEP, cv2.INTER_LINEAR)
                for plane in np.ascontiguousarray(coarse.transpose(2, 0, 1))
            ]
        )


def _proven(same: NDArray[np.bool_], against: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the connected parts (H, W) of which enough contradicts the motion of the camera."""
    joined = cv2.morphologyEx(same.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    size = np.bincount(labels[same], minlength=count)
    proof = np.bincount(labels[same & against], minlength=count)
    kept = (proof >= _PROVEN * np.maximum(size, 1)) & (size >= _SMALLEST * same.size)
    kept[0] = False
    parts: NDArray[np.bool_] = kept[labels]
    return parts


def _completed(fixed: NDArray[np.bool_], changing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Close the gaps of fixed parts (H, W), and add what they separate from the rest."""
    square = np.ones((_CLOSE, _CLOSE), np.uint8)
    # Pad, so that gaps at the border of the image are closed as well.
    padded = np.pad(fixed.astype(np.uint8), _CLOSE, mode="edge")
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, square)[_CLOSE:-_CLOSE, _CLOSE:-_CLOSE]
    grown = cv2.dilate(closed, np.ones((2 * _GROW + 1,) * 2, np.uint8))
    masked = np.asarray(grown) > 0
    count, labels, boxes, _ = cv2.connectedComponentsWithStats((~masked).astype(np.uint8))
    if count <= 2:
        return masked
    height, width = masked.shape
    largest = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA]))
    for label in range(1, count):
        if label == largest:
            continue
        inside = labels == label
        top, tall = boxes[label, cv2.CC_STAT_TOP], boxes[label, cv2.CC_STAT_HEIGHT]
        below = (
            top > 0
            and top + tall == height
            and boxes[label, cv2.CC_STAT_WIDTH] >= _SPANS * width
            and boxes[label, cv2.CC_STAT_AREA] <= _MOST_BELOW * masked.size
        )
        if below or np.mean(changing[inside]) < _CHANGES:
            masked |= inside
    return masked


def _where(masked: NDArray[np.bool_], scale: float) -> str:
    """Describe the largest masked parts (H, W); `scale`: pixels of the image per pixel here."""
    count, _, boxes, _ = cv2.connectedComponentsWithStats(masked.astype(np.uint8))
    order = 1 + np.argsort(-boxes[1:, cv2.CC_STAT_AREA], kind="stable")
    parts = [_part(boxes[label], masked.shape, scale) for label in order[:3]]
    more = [f"{count - 4} more"] if count > 4 else []
    return ", ".join(parts + more)


def _part(box: NDArray[np.int32], shape: tuple[int, int], scale: float) -> str:
    left, top, width, height = (int(value) for value in box[:4])
    rows = f"rows {round(top * scale)}-{round((top + height) * scale) - 1}"
    columns = f"columns {round(left * scale)}-{round((left + width) * scale) - 1}"
    if width >= _SPANS * shape[1]:
        side = "bottom strip, " if top + height == shape[0] else "top strip, " if top == 0 else ""
        return f"{side}{rows}"
    if height >= _SPANS * shape[0]:
        side = "right strip, " if left + width == shape[1] else "left strip, " if left == 0 else ""
        return f"{side}{columns}"
    return f"{columns} of {rows}"
