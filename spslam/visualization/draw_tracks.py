"""Draw point tracks and keypoints over an image."""

from __future__ import annotations

import cv2
import numpy as np

from spslam.camera import Camera
from spslam.frame import FrameAssociations
from spslam.typing import Float32Array, IntArray, UInt8Array

# Fractional bits of the coordinates for OpenCV's drawing functions: 1/16 pixel.
_SHIFT = 4
# Colour of a keypoint without a track, blue first.
_NEW_POINT = (150, 150, 150)
# Colours of keypoints with and without a map point, blue first.
MATCHED, UNMATCHED = (80, 220, 60), (40, 140, 255)


def draw_tracks(
    image: UInt8Array, positions: Float32Array, lengths: IntArray, caption: str = ""
) -> UInt8Array:
    """Draw tracks over an image; returns a picture (H, W, 3), blue first.

    Blue tracks are young, red tracks have at least L frames, grey dots are keypoints without one.

    Args:
        image: (H, W) grey.
        positions: (N, L, 2) pixels, see `PointTracks`.
        lengths: (N,) frames, see `PointTracks`.
        caption: text in the lower left corner.
    """
    picture = np.repeat(image[:, :, None], 3, axis=2)
    span = positions.shape[1]
    colors = track_colors(span)
    fixed = np.round(positions * 2.0**_SHIFT)
    for x, y in fixed[lengths == 1, 0].astype(np.int32).tolist():
        cv2.circle(picture, (x, y), 1 << _SHIFT, _NEW_POINT, -1, cv2.LINE_AA, _SHIFT)
    ages = np.minimum(lengths, span)
    # Long tracks last: they lie on top.
    for age in range(2, span + 1):
        tails = fixed[ages == age, :age].astype(np.int32)
        color = colors[age - 1].tolist()
        cv2.polylines(picture, list(tails), False, color, 1, cv2.LINE_AA, _SHIFT)
        for x, y in tails[:, 0].tolist():
            cv2.circle(picture, (x, y), 2 << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)
    if caption:
        _write(picture, caption)
    return picture


def draw_associations(
    image: UInt8Array,
    camera: Camera,
    associations: FrameAssociations,
    caption: str = "",
    most_width: int = 10_000,
) -> UInt8Array:
    """Draw the keypoints of tracking over an image; returns a picture (H, W, 3), blue first.

    Keypoints with a map point are green, the others orange.

    Args:
        image: (H, W) grey.
        camera: camera of the image.
        associations: keypoints of the image.
        caption: text in the lower left corner.
        most_width: maximum width of the picture, pixels; larger images are reduced.
    """
    scale = min(most_width / image.shape[1], 1.0)
    if scale < 1.0:
        image = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
            dtype=np.uint8,
        )
    picture = np.repeat(image[:, :, None], 3, axis=2)
    # The image is distorted.
    pixels = (camera.distort(associations.pixels) + 0.5) * scale - 0.5
    fixed = np.round(pixels * 2.0**_SHIFT).astype(np.int32)
    seen = associations.point_ids >= 0
    for points, color, radius in ((fixed[~seen], UNMATCHED, 2), (fixed[seen], MATCHED, 3)):
        for x, y in points.tolist():
            cv2.circle(picture, (x, y), radius << _SHIFT, color, 1, cv2.LINE_AA, _SHIFT)
    if caption:
        _write(picture, caption)
    return picture


def track_colors(span: int) -> UInt8Array:
    """Colours (L, 3) uint8, blue first, of tracks with 1 to L frames."""
    shades = np.linspace(30, 235, span).round().astype(np.uint8)
    return np.asarray(cv2.applyColorMap(shades[:, None], cv2.COLORMAP_TURBO)[:, 0], dtype=np.uint8)


def _write(picture: UInt8Array, text: str) -> None:
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), below = cv2.getTextSize(text, font, size, 1)
    left, bottom = 8, picture.shape[0] - 8 - below
    # A black background makes the text readable on any image.
    cv2.rectangle(
        picture,
        (left - 4, bottom - height - 4),
        (left + width + 4, bottom + below + 2),
        (0, 0, 0),
        -1,
    )
    cv2.putText(picture, text, (left, bottom), font, size, (255, 255, 255), 1, cv2.LINE_AA)
