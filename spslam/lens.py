"""Lens models: their names in any software, and their coefficients.

`spslam.lens_models` has the formulas.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from spslam.errors import CalibrationError
from spslam.notices import counted

DistortionModel = Literal[
    "none", "radtan", "equidistant", "double_sphere", "eucm", "ucm", "omni", "fov"
]

# Numbers of coefficients that each model takes. Their order is OpenCV's for radtan (k1 k2 p1 p2
# [k3 [k4 k5 k6 [s1 s2 s3 s4 [τx τy]]]]) and equidistant (k1 k2 k3 k4); ξ α for double_sphere, α β
# for eucm, α for ucm, ξ [k1 k2 p1 p2] for omni, w for fov.
COEFFICIENT_COUNTS: dict[str, tuple[int, ...]] = {
    "none": (0,),
    "radtan": (4, 5, 8, 12, 14),
    "equidistant": (4,),
    "double_sphere": (2,),
    "eucm": (2,),
    "ucm": (1,),
    "omni": (1, 5),
    "fov": (1,),
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
    "doublesphere": "double_sphere",
    "ds": "double_sphere",
    "eucm": "eucm",
    "extendedunified": "eucm",
    "enhancedunified": "eucm",
    "ucm": "ucm",
    "omni": "omni",
    "omniradtan": "omni",
    "omninone": "omni",
    "omnidir": "omni",
    "omnidirectional": "omni",
    "mei": "omni",
    "cmei": "omni",
    "fov": "fov",
    "atan": "fov",
    "pinholefov": "fov",
}
# Models of other software that spslam does not support, with their descriptions for the message.
_UNSUPPORTED = {
    "inversebrownconrady": "RealSense's inverse Brown-Conrady, which maps the other way",
    "modifiedbrownconrady": "RealSense's modified Brown-Conrady",
    "omniequi": "an omnidirectional model with equidistant distortion",
    "omniequidistant": "an omnidirectional model with equidistant distortion",
    "omnifov": "an omnidirectional model with the distortion of a field-of-view lens",
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
# Number of coefficients of radtan up to which zeros at the end are kept as they are given.
_KEPT_RADTAN = 8
# Number of coefficients of radtan without τx and τy.
_MOST_WITHOUT_TILT = 12


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
    if key == "unified":
        raise CalibrationError(
            f"distortion model {str(name)!r} is ambiguous: write ucm (α from 0 to 1) "
            "or omni (ξ of Mei, and k1 k2 p1 p2)"
        )
    ours = ", ".join(get_args(DistortionModel))
    if key in _UNSUPPORTED:
        raise CalibrationError(
            f"distortion model {str(name)!r} is {_UNSUPPORTED[key]}, which is not supported: "
            f"calibrate with one of {ours} (equidistant is for lenses beyond 180 degrees, too)"
        )
    raise CalibrationError(f"distortion model must be one of {ours}, found {str(name)[:40]!r}")


def lens(name: Any, coefficients: tuple[float, ...]) -> tuple[DistortionModel, tuple[float, ...]]:
    """Find a lens model by any of its names, and adjust the number of its coefficients.

    Zeros at the end that the model does not need are dropped: those beyond its number, thin-prism
    and tilt coefficients of radtan, and the distortion of omni. Coefficients of radtan, 4 or more,
    are padded with zeros to the next number that it takes.

    Args:
        name: name of the model in any software; None: `none`.
        coefficients: its coefficients, in the order of `COEFFICIENT_COUNTS`.

    Raises:
        CalibrationError: the model is unknown or not supported, or does not have the coefficients.
    """
    model = lens_model(name)
    significant = len(coefficients)
    while significant and coefficients[significant - 1] == 0:
        significant -= 1
    if model == "none" and significant:
        raise CalibrationError(
            f"distortion has {counted(len(coefficients), 'coefficient')}, but its model is "
            f"{'none' if name is None else str(name)!r}: give model radtan (k1 k2 p1 p2 [k3 …]) "
            "or equidistant (fisheye k1 k2 k3 k4)"
        )
    if _bends_nothing(model, coefficients, significant):
        return "none", ()
    counts = COEFFICIENT_COUNTS[model]
    if len(coefficients) in counts and not _has_zeros_to_drop(model, coefficients, significant):
        return model, coefficients
    # The order of fewer coefficients is unknown (k1 k2 k3 or k1 k2 p1 of radtan): refuse them.
    count = next((n for n in counts if significant <= n <= len(coefficients)), None)
    if count is None and model == "radtan" and len(coefficients) >= counts[0]:
        count = next((n for n in counts if n >= significant), None)
    if count is None:
        return model, coefficients  # Camera raises the error
    return model, (*coefficients, *(0.0,) * count)[:count]


def coefficient_error(model: str, coefficients: tuple[float, ...]) -> str | None:
    """Return what is impossible in the coefficients of a lens, or None.

    Args:
        model: a `DistortionModel`.
        coefficients: as many finite numbers as the model takes.
    """
    if model == "double_sphere":
        xi, alpha = coefficients
        if not (-1 < xi <= 1 and 0 <= alpha <= 1):
            return f"double_sphere takes ξ (-1 to 1) and α (0 to 1), found ξ={xi:g} α={alpha:g}"
    elif model == "eucm":
        alpha, beta = coefficients
        if not (0 <= alpha <= 1 and beta > 0):
            return f"eucm takes α (0 to 1) and β (above 0), found α={alpha:g} β={beta:g}"
    elif model == "ucm" and not 0 <= coefficients[0] <= 1:
        return (
            f"ucm takes α (0 to 1), found {coefficients[0]:g}: if it is ξ of Mei's model, "
            "write omni"
        )
    elif model == "omni" and not coefficients[0] >= 0:
        return f"omni takes ξ (0 or more) first, found {coefficients[0]:g}"
    elif model == "fov" and not 0 < coefficients[0] < math.pi:
        return f"fov takes w (radians, above 0 and below π), found {coefficients[0]:g}"
    return None


def _bends_nothing(model: str, coefficients: tuple[float, ...], significant: int) -> bool:
    """Return whether a lens is an ideal pinhole lens.

    An equidistant lens without coefficients is not. A fov lens with w = 0 is, by convention.
    """
    return (
        model == "none"
        or (model == "radtan" and len(coefficients) == 0)
        or (model == "fov" and len(coefficients) > 0 and significant == 0)
    )


def _has_zeros_to_drop(model: str, coefficients: tuple[float, ...], significant: int) -> bool:
    if model == "radtan":
        return len(coefficients) > _KEPT_RADTAN and significant <= _MOST_WITHOUT_TILT
    return model == "omni" and significant <= 1 < len(coefficients)
