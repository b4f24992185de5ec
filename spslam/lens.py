"""Lens models: their names, their coefficients, and the angles that an equidistant lens bends."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError

Array = NDArray[np.float64]
DistortionModel = Literal["none", "radtan", "equidistant"]

# OpenCV's orders: k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [τx τy]]]], and k1 k2 k3 k4 of its fisheye.
COEFFICIENT_COUNTS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "radtan": (4, 5, 8, 12, 14),
    "equidistant": (4,),
}
# What others call these models, without blanks, hyphens and underscores.
_ALIASES: dict[str, DistortionModel] = {
    "none": "none",
    "undistorted": "none",
    "rectified": "none",
    "perspective": "none",
    "pinhole": "none",
    "radtan": "radtan",
    "radialtangential": "radtan",
    "radialtangential8": "radtan",
    "radtan8": "radtan",
    "plumbbob": "radtan",
    "brown": "radtan",
    "brownconrady": "radtan",
    "opencv": "radtan",
    "opencv5": "radtan",
    "opencv8": "radtan",
    "fullopencv": "radtan",
    "rational": "radtan",
    "rationalpolynomial": "radtan",
    "thinprism": "radtan",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "fisheye": "equidistant",
    "opencvfisheye": "equidistant",
    "kannalabrandt": "equidistant",
    "kannalabrandt4": "equidistant",
    "kannalabrandt8": "equidistant",  # ORB-SLAM's and Basalt's name counts fx fy cx cy, too
    "kb": "equidistant",
    "kb4": "equidistant",
    "kb8": "equidistant",
}
# Models of others that none of ours can stand for.
_UNSUPPORTED = {
    "inversebrownconrady": "RealSense's inverse Brown-Conrady, which maps the other way",
    "modifiedbrownconrady": "RealSense's modified Brown-Conrady",
    "fov": "the field-of-view model (ATAN)",
    "atan": "the field-of-view model (ATAN)",
    "omni": "the omnidirectional model (Mei)",
    "mei": "the omnidirectional model (Mei)",
    "omnidirectional": "the omnidirectional model (Mei)",
    "ds": "the double-sphere model",
    "doublesphere": "the double-sphere model",
    "ucm": "the unified camera model",
    "eucm": "the extended unified camera model",
    "unified": "the unified camera model",
    "ftheta": "the f-theta model",
    "ocam": "Scaramuzza's omnidirectional model",
    "scaramuzza": "Scaramuzza's omnidirectional model",
    "thinprismfisheye": "a fisheye with a thin prism",
    "radtanthinprismfisheye": "a fisheye with a thin prism",
    "division": "the division model",
    "simpleradial": "COLMAP's model with k1 alone (write radtan with k1 0 0 0)",
    "radial": "COLMAP's model with k1 and k2 alone (write radtan with k1 k2 0 0)",
    "simpleradialfisheye": "COLMAP's fisheye with k1 alone (write equidistant with k1 0 0 0)",
    "radialfisheye": "COLMAP's fisheye with k1 and k2 alone (write equidistant with k1 k2 0 0)",
}
_TABLE_STEPS = 512
_NEWTON_STEPS = 4
_BENDS_NOTHING = 1e-20


def lens_model(name: Any) -> DistortionModel:
    """Our name of a lens model, whatever others call it.

    Raises:
        CalibrationError: no such model, or one that is not supported.
    """
    key = (
        "".join(str("none" if name is None else name).split())
        .lower()
        .replace("_", "")
        .replace("-", "")
    )
    if key in _ALIASES:
        return _ALIASES[key]
    ours = ", ".join(get_args(DistortionModel))
    if key in _UNSUPPORTED:
        raise CalibrationError(
            f"distortion model {str(name)!r} is {_UNSUPPORTED[key]}, which is not supported: calibrate with one of "
            f"{ours} (equidistant takes lenses beyond 180 degrees)"
        )
    raise CalibrationError(f"distortion model must be one of {ours}, found {str(name)[:40]!r}")


def lens(name: Any, coefficients: tuple[float, ...]) -> tuple[DistortionModel, tuple[float, ...]]:
    """A lens model by any of its names, and its coefficients in a number that the model takes.

    Zeros at the end that a model does not have change nothing and are dropped; radtan is filled up with zeros to the
    next number of coefficients that it takes, from 4 on.

    Raises:
        CalibrationError: an unknown or unsupported model, or coefficients that it does not have.
    """
    model = lens_model(name)
    significant = len(coefficients)
    while significant and coefficients[significant - 1] == 0:
        significant -= 1
    if len(coefficients) in COEFFICIENT_COUNTS[model]:
        return model, coefficients
    if model == "none" and significant:
        raise CalibrationError(
            f"distortion has {len(coefficients)} coefficients, but its model is "
            f"{'none' if name is None else str(name)!r}: give model radtan (k1 k2 p1 p2 [k3 …]) or equidistant "
            "(fisheye k1 k2 k3 k4)"
        )
    if model == "none" or (model == "radtan" and len(coefficients) == 0):
        return "none", ()  # an equidistant lens without coefficients would be no ideal one
    # Fewer than four say nothing of their order: k1 k2 k3, or k1 k2 p1?
    count = next(
        (n for n in COEFFICIENT_COUNTS[model] if n >= significant and len(coefficients) >= 4), None
    )
    if count is None:
        return model, coefficients  # which Camera refuses with the numbers it takes
    return model, (*coefficients, *(0.0,) * count)[:count]


@lru_cache(maxsize=64)
def widest_angle(k: tuple[float, ...]) -> float:
    """Largest angle from the axis (radians, at most π) up to which an equidistant lens k1 k2 k3 k4 does not fold back:
    where θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) stops growing.
    """
    slope = np.array([9 * k[3], 7 * k[2], 5 * k[1], 3 * k[0], 1.0])  # of θ², highest power first
    # What bends nothing before π would overflow as the divisor of the others.
    slope[np.abs(slope) < _BENDS_NOTHING] = 0.0
    roots = np.roots(slope)
    real = roots[np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))].real
    turns = np.sqrt(real[real > 0])
    return float(min(turns.min(initial=np.pi), np.pi))


def bend_angles(theta: Array, k: tuple[float, ...]) -> Array:
    """Radius in units of the focal length, of angles (N,) from the axis, radians; NaN where the lens folds back."""
    square = theta * theta
    radius = theta * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    return np.where(theta <= widest_angle(k), radius, np.nan)


def straighten_angles(radius: Array, k: tuple[float, ...]) -> Array:
    """Angles (N,) from the axis, radians, of radii (N,) in units of the focal length; NaN where the lens has none."""
    widest = widest_angle(k)
    table = np.linspace(0.0, widest, _TABLE_STEPS)
    reached = bend_angles(table, k)
    theta: Array = np.interp(radius, reached, table)
    for _ in range(_NEWTON_STEPS):
        square = theta * theta
        slope = 1 + square * (
            3 * k[0] + square * (5 * k[1] + square * (7 * k[2] + square * 9 * k[3]))
        )
        # Near the turn the slope goes to zero: a step stays inside.
        step = (bend_angles(theta, k) - radius) / np.maximum(slope, 1e-3)
        theta = np.clip(theta - step, 0.0, widest)
    return np.where(radius <= reached[-1], theta, np.nan)


@lru_cache(maxsize=64)
def widest_slope(coefficients: tuple[float, ...]) -> float:
    """Tangent of the largest angle up to which the radial part of a radtan lens does not fold back; at most 20."""
    k = np.zeros(8)
    k[: min(8, len(coefficients))] = coefficients[:8]
    r = np.linspace(0.0, 20.0, 4001)
    square = r * r
    above = 1 + square * (k[0] + square * (k[1] + square * k[4]))
    below = 1 + square * (k[5] + square * (k[6] + square * k[7]))
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = np.flatnonzero(~(np.diff(r * above / below) > 0) | ~(below[1:] > 0))
    return float(r[falls[0]]) if len(falls) else float(r[-1])
