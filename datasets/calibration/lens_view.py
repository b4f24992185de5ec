"""The undistorted pinhole view of one camera with a wide lens, and the maps of such views."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.notices import notice

from .rectified_view import WIDEST_FIELD, WORTH_THE_CENTRE, field_across, field_down, widest_view

_LOG = logging.getLogger(__name__)
# Map coordinate, pixels, of a ray that no pixel of the lens shows: outside of every image.
_NOWHERE_PX = -1e4
# Largest angle between the optical axis and the centre of a cropped image, as its tangent, at which
# a view around the centre of the image is tried.
_STEEPEST_CENTRE = math.tan(math.radians(80.0))
# Smallest such tangent that makes a view of its own.
_LEAST_OFF_CENTRE = 0.02
# Width of the margin at the border of the lens's image that masks leave out, pixels: resampling
# mixes the border with black.
_MARGIN_PX = 4

Maps = tuple[NDArray[np.float32], NDArray[np.float32]]


class LensView:
    """An undistorted view of a camera, made while reading. The camera does not turn.

    Attributes:
        lens: the camera of the images as they are recorded.
        camera: the pinhole camera of the view; its size, rate and read-out time are the lens's.
        maps: x and y, each (H, W) float32, of the recorded pixel that each pixel of the view shows.
    """

    def __init__(self, lens: Camera, K: NDArray[np.float64]) -> None:
        self.lens = lens
        self.camera = replace(
            lens.without_distortion(),
            fx=float(K[0, 0]),
            fy=float(K[1, 1]),
            cx=float(K[0, 2]),
            cy=float(K[1, 2]),
        )
        self.maps = lens_maps(lens, np.eye(3), K)

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Undistort a recorded image (H, W) or (H, W, 3)."""
        return remap(pixels, self.maps)

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undistort a depth image (H, W), metres along z, without mixing depths; 0 where unknown.

        The view has the optical axis of the lens, so depths along z stay as they are.
        """
        return np.asarray(cv2.remap(depth, *self.maps, cv2.INTER_NEAREST), dtype=np.float32)


def lens_view(camera: Camera) -> LensView | None:
    """Return the undistorted view of a wide lens, and give a notice; None for other lenses.

    A lens is wide if the middle row or column of its image spans more than 120 degrees. The image
    plane of a pinhole camera stretches there by more than 4, at 80 degrees off the axis by more
    than 30: points and their errors cannot be given in its pixels. The view is the widest one that
    the lens fills, at most 120 degrees along the longer side, with the principal point in the
    centre. Where a crop has no such view, the principal point of the view is off centre or outside.
    """
    if not is_wide(camera):
        return None
    across = math.degrees(field_across(camera))
    K = _widest_around_centre(camera)
    if K is None:
        text = (
            "the lens is %.0f degrees wide, and no pinhole view lies in its image: keypoints are "
            "found in the image as recorded, and those far from the optical axis are imprecise"
        )
        notice(_LOG, "undistorted_view", text, across)
        return None
    view = LensView(camera, K)
    wide = math.degrees(field_across(view.camera))
    high = math.degrees(field_down(view.camera))
    text = (
        "images are undistorted to a view %.0f degrees wide and %.0f high "
        "of the lens's %.0f by %.0f"
    )
    notice(_LOG, "undistorted_view", text, wide, high, across, math.degrees(field_down(camera)))
    return view


def is_wide(camera: Camera) -> bool:
    """Return whether a lens sees more than 120 degrees along the middle row or column."""
    if camera.distortion_model == "none":
        return False
    return max(field_across(camera), field_down(camera)) > WIDEST_FIELD


def lens_maps(camera: Camera, R: NDArray[np.float64], K: NDArray[np.float64]) -> Maps:
    """Compute the maps of a view with `Camera.lens_pixels`.

    OpenCV's maps mirror what lies behind a fisheye lens into the image.

    Args:
        camera: the recorded camera.
        R: (3, 3), rotates its coordinates to those of the view.
        K: (3, 3), camera matrix of the view, which has the size of the image.
    """
    y, x = np.indices((camera.height, camera.width), dtype=np.float64)
    rays = np.stack(
        [(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1
    ).reshape(-1, 3)
    pixels = camera.lens_pixels(rays @ R)
    pixels = np.clip(np.where(np.isfinite(pixels), pixels, _NOWHERE_PX), _NOWHERE_PX, -_NOWHERE_PX)
    map_x, map_y = (
        pixels.astype(np.float32).reshape(camera.height, camera.width, 2).transpose(2, 0, 1)
    )
    return np.ascontiguousarray(map_x), np.ascontiguousarray(map_y)


def filled(camera: Camera, maps: Maps) -> NDArray[np.bool_]:
    """Return (H, W): which pixels of a view the recorded image fills; the others are black."""
    x, y = maps
    inside: NDArray[np.bool_] = (x > -1) & (y > -1) & (x < camera.width) & (y < camera.height)
    return inside


def usable(camera: Camera, maps: Maps) -> NDArray[np.bool_]:
    """Return (H, W): the filled pixels of a view at least 4 pixels from a black one."""
    size = 2 * _MARGIN_PX + 1
    # Pixels beyond the border of the view count as filled.
    eroded = cv2.erode(filled(camera, maps).astype(np.uint8), np.ones((size, size), np.uint8))
    return np.asarray(eroded) > 0


def remap(image: NDArray[np.uint8], maps: Maps) -> NDArray[np.uint8]:
    """Return the view (H, W) or (H, W, 3) of a recorded image; black where nothing was recorded."""
    return np.asarray(cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR), dtype=np.uint8)


def _widest_around_centre(camera: Camera) -> NDArray[np.float64] | None:
    lenses = ((camera, np.eye(3)),)
    centred = widest_view(lenses, (0.0, 0.0))
    middle = np.array([[(camera.width - 1) / 2.0, (camera.height - 1) / 2.0]])
    x, y, z = camera.lens_rays(middle)[0]
    look = (x / z, y / z) if z > 0 else (math.nan, math.nan)
    if not _LEAST_OFF_CENTRE < math.hypot(*look) < _STEEPEST_CENTRE:
        return centred
    aside = widest_view(lenses, look)
    if aside is not None and (centred is None or centred[0, 0] > WORTH_THE_CENTRE * aside[0, 0]):
        return aside
    return centred
