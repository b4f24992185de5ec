"""camodocal's camera files (VINS, KITTI-360's fisheyes), and configurations of VINS."""

from __future__ import annotations

from spslam.errors import CalibrationError
from spslam.geometry import inverse
from spslam.io.structured_text import shown

from .rig import FoundCamera, Rig
from .source import Source
from .values import Values, first_of, mapping, number, size_of, transform

CAMERA, CONFIGURATION = "a VINS (camodocal) camera file", "a VINS configuration"
_PINHOLE = ("k1", "k2", "p1", "p2")
_CONFIGURED = ("cam0_calib", "image0_topic", "body_T_cam0", "extrinsicRotation")


def is_camodocal(source: Source) -> bool:
    """Return whether a file is of camodocal: one camera."""
    return "model_type" in source.values or "projection_parameters" in source.values


def is_vins(source: Source) -> bool:
    """Return whether a file is a configuration of VINS-Fusion, which names its cameras' files."""
    return any(key in source.values for key in _CONFIGURED)


def read_camodocal(source: Source) -> Rig:
    """Read one camera (PINHOLE, KANNALA_BRANDT or MEI)."""
    return Rig(CAMERA, (_camera(source),))


def read_vins(source: Source) -> Rig:
    """Read the cameras in the files that a configuration names, which lie beside it.

    `body_T_cam0` maps camera to body coordinates.
    """
    values = source.values
    names = [str(values[key]) for key in ("cam0_calib", "cam1_calib") if key in values]
    if not names:
        raise CalibrationError("it names no file of a camera (cam0_calib)")
    cameras = []
    for name in names:
        other = source.beside(name)
        if other is None or not is_camodocal(other):
            raise CalibrationError(
                f"its cameras are in {' and '.join(names)}, and {shown(name)} is not beside it"
            )
        cameras.append(_camera(other))
    if len(cameras) == 1 or not all(f"body_T_cam{side}" in values for side in (0, 1)):
        return Rig(CONFIGURATION, tuple(cameras[:1]))
    T_body_left, T_body_right = (
        transform(values[key], key) for key in ("body_T_cam0", "body_T_cam1")
    )
    return Rig(CONFIGURATION, tuple(cameras), inverse(T_body_left) @ T_body_right)


def _camera(source: Source) -> FoundCamera:
    values = source.values
    kind = str(values.get("model_type", "PINHOLE")).upper()
    given = mapping(values.get("projection_parameters"), "projection_parameters")
    bent = _section(values, "distortion_parameters")
    size = size_of(
        first_of(values, "image_width", "width")[1], first_of(values, "image_height", "height")[1]
    )
    name = source.path.name
    if kind.startswith("PINHOLE"):
        keys, model = ("fx", "fy", "cx", "cy"), "radtan"
        coefficients = tuple(number(bent, key, 0.0) for key in _PINHOLE)
    elif kind.startswith("KANNALA"):
        # Their k1 is 1: the coefficient of the angle itself.
        keys, model = ("mu", "mv", "u0", "v0"), "equidistant"
        coefficients = tuple(number(given, f"k{index}") for index in range(2, 6))
    elif kind == "MEI":
        keys, model = ("gamma1", "gamma2", "u0", "v0"), "omni"
        mirror = _section(values, "mirror_parameters")
        rest = tuple(number(bent, key, 0.0) for key in _PINHOLE)
        coefficients = (number(mirror, "xi"), *(rest if any(rest) else ()))
    else:
        raise CalibrationError(
            f"model_type: expected PINHOLE, KANNALA_BRANDT or MEI, found {shown(kind)}"
        )
    fx, fy, cx, cy = (number(given, key) for key in keys)
    return FoundCamera(name, size, (fx, fy, cx, cy), model, coefficients)


def _section(values: Values, key: str) -> Values:
    return mapping(values[key], key) if key in values else {}
