"""Report what is doubtful in a calibration, and advise what to do where image sizes differ."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.notices import notice

_LOG = logging.getLogger(__name__)

# Distance of the principal point from the centre, fraction of the image's size, above which the
# calibration is doubted: it may be for another size, or the images may be cut out of larger ones.
_OFF_CENTRE = 0.15
# Largest relative difference of the horizontal and the vertical scale that count as one scale.
_SAME_SCALE = 0.1
# Common scales of resized images, and the largest relative difference from one of them at which
# the message names it instead of the measured scale.
_SCALES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 3, 3 / 2, 2.0, 3.0, 4.0)
_NEAR_SCALE = 0.06
# Horizontal fields of view, degrees, outside of which a calibration is doubted.
_NARROWEST, _WIDEST_PINHOLE, _WIDEST_FISHEYE = 2.0, 150.0, 280.0
# Points along each side at which the lens model is tested.
_GRID = 21
# Fraction of these points that may lie beyond the lens model's limit: the image of a fisheye lens
# is a circle in a black frame.
_MOST_FOLDED = 0.25
# Baselines, metres, outside of which the unit is doubted.
_NARROW_BASELINE_M, _WIDE_BASELINE_M = 1e-3, 5.0
# Largest deviation of R R^T from the identity, which allows for numbers that were rounded.
_ROTATION_TOLERANCE = 1e-3
# Largest coordinate of a translation, metres; larger ones are refused.
_FARTHEST_M = 1e6
# Ratio of fx and fy above which a calibration is doubted.
_WIDEST_PIXEL = 1.6


def report_doubts(camera: Camera, origin: str) -> bool:
    """Give notices about numbers that seem to be for other images or in another unit.

    Args:
        camera: the camera to check.
        origin: where the camera is from, in words.

    Returns:
        Whether there were doubts.
    """
    found = (_principal_point(camera), _field_of_view(camera), _pixel_shape(camera), _fold(camera))
    doubts = [doubt for doubt in found if doubt is not None]
    for doubt in doubts:
        notice(_LOG, "calibration_doubt", "%s: %s", origin, doubt)
    return bool(doubts)


def is_plausible_baseline(baseline_m: float) -> bool:
    """Return whether two cameras of a pair can stand that far apart, metres."""
    return _NARROW_BASELINE_M <= baseline_m <= _WIDE_BASELINE_M


def report_baseline(baseline_m: float, origin: str) -> None:
    """Give a notice if a baseline seems to be in another unit than metres.

    Args:
        baseline_m: the baseline as it was read; pairs with a baseline of 0 are refused elsewhere.
        origin: where the baseline is from, in words.
    """
    if baseline_m == 0 or is_plausible_baseline(baseline_m):
        return
    text = "%s: the two cameras stand %.6g m apart: is it in metres, not in %s?"
    meant = "millimetres" if baseline_m > _WIDE_BASELINE_M else "kilometres"
    notice(_LOG, "calibration_doubt", text, origin, baseline_m, meant)


def is_rigid(T: NDArray[np.float64]) -> bool:
    """Return whether T (4, 4) is a rotation and a translation, metres, over a row 0 0 0 1."""
    R = T[:3, :3]
    # This form of the test also refuses NaN, and comes before a product that could overflow.
    if not ((np.abs(R) < 2).all() and (np.abs(T[:3, 3]) <= _FARTHEST_M).all()):
        return False
    straight = np.allclose(R @ R.T, np.eye(3), atol=_ROTATION_TOLERANCE) and np.linalg.det(R) > 0
    return bool(straight and np.allclose(T[3], (0, 0, 0, 1)))


def size_advice(width: int, height: int, camera: Camera) -> str:
    """Return what to do with images of `width` x `height` pixels that differ from `camera`."""
    across, down = width / camera.width, height / camera.height
    if (width, height) == (camera.height, camera.width):
        return "they are turned by 90 degrees: turn them back, or calibrate with images as they are"
    if abs(down / across - 1.0) < 0.01:
        values = {
            "width": width,
            "height": height,
            "fx": camera.fx * across,
            "fy": camera.fy * down,
            "cx": (camera.cx + 0.5) * across - 0.5,
            "cy": (camera.cy + 0.5) * down - 0.5,
        }
        scaled = ", ".join(f"{key}: {value:.6g}" for key, value in values.items())
        return (
            f"if they were resized by {across:.4g}, the calibration is {scaled}; "
            "the distortion stays as it is"
        )
    return (
        "give the calibration of these images; if they were cut out of larger ones, "
        "subtract the first column and row from cx and cy"
    )


def _principal_point(camera: Camera) -> str | None:
    width, height, x, y = camera.width, camera.height, camera.cx + 0.5, camera.cy + 0.5
    at = f"principal point ({camera.cx:.6g}, {camera.cy:.6g})"
    if max(abs(x / width - 0.5), abs(y / height - 0.5)) <= _OFF_CENTRE:
        return None
    if (
        abs(x / height - 0.5) <= 0.1
        and abs(y / width - 0.5) <= 0.1
        and (width, height) != (height, width)
    ):
        return (
            f"{at} is the centre of {height}x{width} pixels, the images have {width}x{height}: "
            "is the calibration for images turned by 90 degrees?"
        )
    if x > 0 and y > 0:
        across, down = width / 2 / x, height / 2 / y
        scale = math.sqrt(across * down)
        if (
            abs(across / down - 1.0) <= _SAME_SCALE
            and not 1 / (1 + _OFF_CENTRE) < scale < 1 + _OFF_CENTRE
        ):
            near = min(_SCALES, key=lambda common: abs(math.log(common / scale)))
            scale = near if abs(near / scale - 1.0) <= _NEAR_SCALE else scale
            return (
                f"{at} is far from the centre of {width}x{height} pixels: "
                f"is the calibration for {width / scale:.0f}x{height / scale:.0f}? "
                f"Then multiply fx, fy, cx and cy by {scale:.4g}"
            )
    if camera.cx == 0 or camera.cy == 0:
        return (
            f"{at} is the corner or edge of the {width}x{height} image: were cx and cy filled in?"
        )
    if 0 < x < width and 0 < y < height:
        return None
    return (
        f"{at} lies outside of the {width}x{height} image: used as given, "
        "which is right if the images were cut out of larger ones"
    )


def _field_of_view(camera: Camera) -> str | None:
    ratio = camera.width / camera.ideal_focal[0]
    if camera.distortion_model in ("none", "radtan"):
        degrees, widest = math.degrees(2.0 * math.atan(ratio / 2.0)), _WIDEST_PINHOLE
    else:
        degrees, widest = math.degrees(ratio), _WIDEST_FISHEYE
    if _NARROWEST <= degrees <= widest:
        return None
    return (
        f"fx {camera.fx:.6g} makes a field of view of {degrees:.3g} degrees over {camera.width} "
        "pixels: fx is in pixels, not in millimetres, and for the size of these images"
    )


def _pixel_shape(camera: Camera) -> str | None:
    shape = max(camera.fx / camera.fy, camera.fy / camera.fx)
    if shape <= _WIDEST_PIXEL:
        return None
    return (
        f"fx {camera.fx:.6g} and fy {camera.fy:.6g} differ by a factor of {shape:.3g}: "
        "are both for one image size?"
    )


def _fold(camera: Camera) -> str | None:
    """Return a doubt if much of the image lies beyond the fold of the lens model, else None.

    A distortion polynomial folds back at some radius. Pixels beyond it have no viewing direction.
    """
    if camera.distortion_model == "none":
        return None
    across, down = np.linspace(0, camera.width - 1, _GRID), np.linspace(0, camera.height - 1, _GRID)
    pixels = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    # A wide lens also sees directions behind itself, which `undistort` cannot give.
    places = camera.lens_rays(pixels)
    lost = float(np.mean(~np.isfinite(places).all(axis=1)))
    if lost <= _MOST_FOLDED:
        return None
    return (
        f"{100 * lost:.0f} % of the image lies beyond what the {camera.distortion_model} lens "
        f"can show ({', '.join(f'{value:.4g}' for value in camera.distortion)}), "
        "and is not used: do the coefficients belong to this model, in this order?"
    )
