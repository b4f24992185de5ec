"""Choose the rectified view of a stereo pair with fisheye lenses or with cropped images.

OpenCV's `fisheye.stereoRectify` gives arbitrary views near 180 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import so3_exp, so3_log
from spslam.typing import FloatArray

# Widest field of view across the longer side, radians. An image plane stretches the edges of wider
# views, which costs resolution in the centre.
WIDEST_FIELD = math.radians(120.0)
# Longest focal length that is tried, as a multiple of the focal length of the widest field.
_LONGEST = 16.0
# Steps of the bisection for the focal length.
_HALVINGS = 16
# Shifts of the principal point that are tried, fraction of the image's size (within 5 %).
_SHIFTS = (0.0, -0.02, 0.02, -0.045, 0.045)
# Accept a shift only if it shortens the focal length to less than this fraction.
_WORTH_A_SHIFT = 0.99
# Prefer the centred view unless its focal length is more than this multiple of the focal length of
# the view around the direction in which the cameras look.
WORTH_THE_CENTRE = 1.25
# Cameras that are nearer to each other than this, metres, count as in the same place.
_SAME_PLACE_M = 1e-6
# Points of the view that both lenses must fill: number along each side, and inside per axis.
_ALONG, _INSIDE = 33, 7


@dataclass(frozen=True, eq=False)
class RectifiedView:
    """Two ideal cameras side by side.

    Attributes:
        R_left, R_right: (3, 3) float64, rotate coordinates of the unrectified camera to those of
            the rectified one.
        K: (3, 3) float64, camera matrix of both.
        baseline_m: distance between the cameras, metres.
    """

    R_left: FloatArray
    R_right: FloatArray
    K: FloatArray
    baseline_m: float


def check_side_by_side(T_left_right: FloatArray) -> None:
    """Check that two cameras stand side by side, the right one to the right.

    Raises:
        CalibrationError: the cameras stand in one place, above or behind each other, or swapped.
    """
    # The right camera's position in a frame with the mean rotation of the two cameras.
    x, y, z = so3_exp(0.5 * so3_log(T_left_right[:3, :3])).T @ T_left_right[:3, 3]
    if max(abs(x), abs(y), abs(z)) < _SAME_PLACE_M:
        raise CalibrationError(
            "the two cameras stand in the same place: the last column of T_left_right is "
            "the position of the right camera, in metres"
        )
    if abs(y) > abs(x):
        raise CalibrationError(
            "the two cameras stand above each other; only side-by-side stereo is supported"
        )
    if abs(z) > abs(x):
        raise CalibrationError(
            "the two cameras stand behind each other; only side-by-side stereo is supported"
        )
    if not x > 0:
        raise CalibrationError(
            f"the right camera stands {-x:.3f} m left of the left one: swap them, or invert the "
            "transform between them (T_left_right maps right-camera coordinates to left ones)"
        )


def rectified_view(left: Camera, right: Camera, T_left_right: FloatArray) -> RectifiedView:
    """Compute the widest view, at most 120 degrees, that both lenses fill.

    The view has the size of the images. Its x axis is the baseline. Its z axis is the mean viewing
    direction of the two image centres, made perpendicular to the baseline. The principal point
    stays within 5 % of the centre of the view, unless the cameras look strongly along the baseline
    and a centred view would need a focal length `WORTH_THE_CENTRE` times as long.

    Args:
        left: the unrectified left camera.
        right: the unrectified right camera.
        T_left_right: (4, 4) float64, maps right-camera to left-camera coordinates, metres.

    Raises:
        CalibrationError: no view is in both images.
    """
    R_left_right, t = T_left_right[:3, :3], T_left_right[:3, 3]
    looks = np.stack([_look(left), R_left_right @ _look(right)])
    x = t / np.linalg.norm(t)
    look = looks.sum(axis=0)
    z = look - (look @ x) * x
    apart = math.degrees(math.acos(np.clip(looks[0] @ looks[1], -1.0, 1.0)))
    nothing = CalibrationError(
        f"the two cameras look {apart:.0f} degrees apart, and no view is in both images"
    )
    if not np.linalg.norm(z) > 1e-6:
        raise nothing
    z /= np.linalg.norm(z)
    R_left = np.stack([x, np.cross(z, x), z])
    R_right = R_left @ R_left_right
    lenses = ((left, R_left), (right, R_right))
    centred = widest_view(lenses, (0.0, 0.0))
    along = float(look @ x / (look @ z))
    aside = widest_view(lenses, (along, 0.0)) if abs(along) > 0.02 else None
    if aside is not None and (centred is None or centred[0, 0] > WORTH_THE_CENTRE * aside[0, 0]):
        centred = aside
    if centred is None:
        raise nothing
    return RectifiedView(R_left, R_right, centred, float(np.linalg.norm(t)))


def field_across(camera: Camera) -> float:
    """Return the field of view along the middle row, radians; more than π for a wide lens."""
    row = np.full(camera.width, (camera.height - 1) / 2.0)
    return _field(camera, np.stack([np.arange(camera.width, dtype=np.float64), row], axis=1), 0)


def field_down(camera: Camera) -> float:
    """Return the field of view along the middle column, radians."""
    column = np.full(camera.height, (camera.width - 1) / 2.0)
    return _field(camera, np.stack([column, np.arange(camera.height, dtype=np.float64)], axis=1), 1)


def _field(camera: Camera, pixels: FloatArray, axis: int) -> float:
    """Return the angle, radians, that pixels (N, 2) in line span; 0 if the lens sees none."""
    rays = camera.lens_rays(pixels)
    angles = np.arctan2(rays[:, axis], rays[:, 2])
    seen = angles[np.isfinite(angles)]
    return float(seen.max() - seen.min()) if len(seen) else 0.0


def _look(camera: Camera) -> FloatArray:
    """Return the unit ray (3,) of the centre of the image."""
    ray = camera.lens_rays(np.array([[(camera.width - 1) / 2.0, (camera.height - 1) / 2.0]]))[0]
    return ray if np.isfinite(ray).all() else np.array([0.0, 0.0, 1.0])


def widest_view(
    lenses: tuple[tuple[Camera, FloatArray], ...], look: tuple[float, float]
) -> FloatArray | None:
    """Find the camera matrix with the shortest focal length whose view all lenses fill.

    Args:
        lenses: recorded cameras, each with its rotation to the view.
        look: the view is centred on the direction (`look`, 1).

    Returns:
        Camera matrix (3, 3); None if no view is filled.
    """
    camera = lenses[0][0]
    size = np.array([camera.width, camera.height], dtype=np.float64)
    grid = _grid(size)
    shortest = float(size.max()) / 2.0 / math.tan(WIDEST_FIELD / 2.0)
    best: tuple[float, FloatArray] | None = None
    shifts = np.stack(np.meshgrid(_SHIFTS, _SHIFTS), axis=-1).reshape(-1, 2)
    for shift in sorted(shifts, key=lambda shift: float(np.abs(shift).sum())):
        middle = (size - 1.0) / 2.0 + shift * size

        def filled(focal: float, middle: FloatArray = middle) -> bool:
            rays = np.concatenate([(grid - middle) / focal + look, np.ones((len(grid), 1))], axis=1)
            return all(lens.in_image(lens.lens_pixels(rays @ R)).all() for lens, R in lenses)

        focal = _shortest(filled, shortest)
        if focal is not None and (best is None or focal < _WORTH_A_SHIFT * best[0]):
            best = focal, middle - focal * np.array(look)
        if best is not None and best[0] == shortest:
            break
    if best is None:
        return None
    focal, (cx, cy) = best
    return np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])


def _shortest(filled: Callable[[float], bool], shortest: float) -> float | None:
    if filled(shortest):
        return shortest
    low, high = shortest, shortest * _LONGEST
    if not filled(high):
        return None
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if filled(middle) else (middle, high)
    return high


def _grid(size: FloatArray) -> FloatArray:
    """Return pixels (N, 2) along the border of an image and some inside."""
    width, height = size - 1.0
    x, y = np.linspace(0.0, width, _ALONG), np.linspace(0.0, height, _ALONG)
    inside = np.stack(
        np.meshgrid(np.linspace(0.0, width, _INSIDE), np.linspace(0.0, height, _INSIDE)), axis=-1
    ).reshape(-1, 2)
    sides = [
        np.stack(np.broadcast_arrays(*pair), axis=-1)
        for pair in ((x, 0.0), (x, height), (0.0, y), (width, y))
    ]
    return np.concatenate([*sides, inside])
