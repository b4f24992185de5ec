"""Lens models: names, coefficients, and the distortion of angles by an equidistant lens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np

from spslam.errors import CalibrationError
from spslam.notices import counted
from spslam.typing import FloatArray

DistortionModel = Literal["none", "radtan", "equidistant"]

# Numbers of coefficients that each model takes, in OpenCV's order: k1 k2 p1 p2
# [k3 [k4 k5 k6 [s1 s2 s3 s4 [τx τy]]]] for radtan, k1 k2 k3 k4 for equidistant.
COEFFICIENT_COUNTS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "radtan": (4, 5, 8, 12, 14),
    "equidistant": (4,),
}
# Names of these models in other software, without blanks, hyphens and underscores.
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
    "kannalabrandt8": "equidistant",  # the 8 of ORB-SLAM and Basalt includes fx fy cx cy
    "kb": "equidistant",
    "kb4": "equidistant",
    "kb8": "equidistant",
}
# Models of other software that spslam does not support, with their descriptions for the message.
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
# Number of angles in the table from which `straighten_angles` starts.
_TABLE_STEPS = 512
# Number of Newton steps that refine an angle of the table.
_NEWTON_STEPS = 4
# Magnitude below which a coefficient of the lens has no effect and counts as 0.
_BENDS_NOTHING = 1e-20


def lens_model(name: Any) -> DistortionModel:
    """Find the distortion model of a name that any software uses; None is `none`.

    Raises:
        CalibrationError: the model is unknown or not supported.
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
            f"distortion model {str(name)!r} is {_UNSUPPORTED[key]}, which is not supported: "
            f"calibrate with one of {ours} (equidistant is for lenses beyond 180 degrees, too)"
        )
    raise CalibrationError(f"distortion model must be one of {ours}, found {str(name)[:40]!r}")


def lens(name: Any, coefficients: tuple[float, ...]) -> tuple[DistortionModel, tuple[float, ...]]:
    """Find a lens model by any of its names, and adjust the number of its coefficients.

    Zeros at the end that the model does not have are dropped. Coefficients of radtan, 4 or more,
    are padded with zeros to the next number that it takes.

    Args:
        name: name of the model in any software; None: `none`.
        coefficients: its coefficients, in OpenCV's order.

    Raises:
        CalibrationError: the model is unknown or not supported, or does not have the coefficients.
    """
    model = lens_model(name)
    significant = len(coefficients)
    while significant and coefficients[significant - 1] == 0:
        significant -= 1
    if len(coefficients) in COEFFICIENT_COUNTS[model]:
        return model, coefficients
    if model == "none" and significant:
        raise CalibrationError(
            f"distortion has {counted(len(coefficients), 'coefficient')}, but its model is "
            f"{'none' if name is None else str(name)!r}: give model radtan (k1 k2 p1 p2 [k3 …]) "
            "or equidistant (fisheye k1 k2 k3 k4)"
        )
    # An equidistant lens without coefficients is refused: it is not an ideal pinhole lens.
    if model == "none" or (model == "radtan" and len(coefficients) == 0):
        return "none", ()
    # The order of fewer than four coefficients is unknown (k1 k2 k3 or k1 k2 p1): refuse them.
    count = next(
        (n for n in COEFFICIENT_COUNTS[model] if n >= significant and len(coefficients) >= 4), None
    )
    if count is None:
        return model, coefficients  # Camera raises the error
    return model, (*coefficients, *(0.0,) * count)[:count]


@lru_cache(maxsize=64)
def widest_angle(k: tuple[float, ...]) -> float:
    """Largest angle, radians, at most π, up to which an equidistant lens does not fold back.

    There θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) stops growing. `k` is k1 k2 k3 k4.
    """
    # Polynomial of θ², highest power first.
    slope = np.array([9 * k[3], 7 * k[2], 5 * k[1], 3 * k[0], 1.0])
    # Coefficients without effect would overflow when the others are divided by them.
    slope[np.abs(slope) < _BENDS_NOTHING] = 0.0
    roots = np.roots(slope)
    real = roots[np.abs(roots.imag) < 1e-9 * np.maximum(1.0, np.abs(roots))].real
    turns = np.sqrt(real[real > 0])
    return float(min(turns.min(initial=np.pi), np.pi))


def bend_angles(theta: FloatArray, k: tuple[float, ...]) -> FloatArray:
    """Radii (N,), focal lengths, of angles (N,), radians from the axis of an equidistant lens.

    An angle beyond which the lens folds back becomes NaN.
    """
    square = theta * theta
    radius = theta * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
    return np.where(theta <= widest_angle(k), radius, np.nan)


def straighten_angles(radius: FloatArray, k: tuple[float, ...]) -> FloatArray:
    """Angles (N,) from the axis, radians, of radii (N,), focal lengths: inverts `bend_angles`.

    A radius that the lens never reaches becomes NaN.
    """
    widest = widest_angle(k)
    table = np.linspace(0.0, widest, _TABLE_STEPS)
    reached = bend_angles(table, k)
    theta: FloatArray = np.interp(radius, reached, table)
    for _ in range(_NEWTON_STEPS):
        square = theta * theta
        slope = 1 + square * (
            3 * k[0] + square * (5 * k[1] + square * (7 * k[2] + square * 9 * k[3]))
        )
        # Near the widest angle the slope goes to zero: limit the step.
        step = (bend_angles(theta, k) - radius) / np.maximum(slope, 1e-3)
        theta = np.clip(theta - step, 0.0, widest)
    return np.where(radius <= reached[-1], theta, np.nan)


@lru_cache(maxsize=64)
def widest_slope(coefficients: tuple[float, ...]) -> float:
    """Tangent, at most 20, of the angle up to which a radtan lens does not fold back radially."""
    k = np.zeros(8)
    k[: min(8, len(coefficients))] = coefficients[:8]
    r = np.linspace(0.0, 20.0, 4001)
    square = r * r
    above = 1 + square * (k[0] + square * (k[1] + square * k[4]))
    below = 1 + square * (k[5] + square * (k[6] + square * k[7]))
    with np.errstate(divide="ignore", invalid="ignore"):
        falls = np.flatnonzero(~(np.diff(r * above / below) > 0) | ~(below[1:] > 0))
    return float(r[falls[0]]) if len(falls) else float(r[-1])
