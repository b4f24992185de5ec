"""COLMAP's cameras: `cameras.txt` and `cameras.bin`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from spslam.errors import CalibrationError
from spslam.notices import counted

from .rig import CORNER_PX, FoundCamera, Rig
from .source import Source
from .values import numbers

if TYPE_CHECKING:
    from ..calibration import Calibration

TEXT, BINARY = "a cameras.txt of COLMAP", "a cameras.bin of COLMAP"
# Models by their number in cameras.bin: name, number of focal lengths, of further coefficients, our
# lens model (None: not read), and the coefficients to which theirs are filled up with zeros.
_MODELS: dict[int, tuple[str, int, int, str | None, int]] = {
    0: ("SIMPLE_PINHOLE", 1, 0, "none", 0),
    1: ("PINHOLE", 2, 0, "none", 0),
    2: ("SIMPLE_RADIAL", 1, 1, "radtan", 4),
    3: ("RADIAL", 1, 2, "radtan", 4),
    4: ("OPENCV", 2, 4, "radtan", 4),
    5: ("OPENCV_FISHEYE", 2, 4, "equidistant", 4),
    6: ("FULL_OPENCV", 2, 8, "radtan", 8),
    7: ("FOV", 2, 1, "fov", 1),
    8: ("SIMPLE_RADIAL_FISHEYE", 1, 1, "equidistant", 4),
    9: ("RADIAL_FISHEYE", 1, 2, "equidistant", 4),
    10: ("THIN_PRISM_FISHEYE", 2, 8, None, 0),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 2, 12, None, 0),
    12: ("SIMPLE_DIVISION", 1, 1, None, 0),
    13: ("DIVISION", 2, 1, None, 0),
    14: ("SIMPLE_FISHEYE", 1, 0, "equidistant", 4),
    15: ("FISHEYE", 2, 0, "equidistant", 4),
    16: ("EUCM", 2, 2, "eucm", 2),
    17: ("EQUIRECTANGULAR", 2, -2, None, 0),
}
_BY_NAME = {model[0]: model for model in _MODELS.values()}
# Our lens models and their numbers of coefficients that COLMAP has, with its name.
_NAMES = {
    ("none", 0): "PINHOLE",
    ("radtan", 4): "OPENCV",
    ("radtan", 5): "FULL_OPENCV",
    ("radtan", 8): "FULL_OPENCV",
    ("equidistant", 4): "OPENCV_FISHEYE",
    ("fov", 1): "FOV",
    ("eucm", 2): "EUCM",
}
# A camera in cameras.bin: id, model, width, height.
_HEAD = struct.Struct("<IiQQ")
# Largest number of cameras in cameras.bin.
_MOST_CAMERAS = 100_000


def is_colmap_text(source: Source) -> bool:
    """Return whether a file has a line of a COLMAP camera."""
    return next(_lines(source.text), None) is not None


def is_colmap_binary(source: Source) -> bool:
    """Return whether the bytes are those of a `cameras.bin`."""
    return bool(_binary(source.data))


def read_colmap_text(source: Source) -> Rig:
    """Read the first camera of a `cameras.txt`."""
    found = [
        (line[0], line[1], line[2:4], numbers(line[4:], "PARAMS")) for line in _lines(source.text)
    ]
    name, model, size, parameters = found[0]
    across, down = (int(numbers(value, "size", 1)[0]) for value in size)
    return _rig(TEXT, name, model, (across, down), parameters, len(found))


def read_colmap_binary(source: Source) -> Rig:
    """Read the first camera of a `cameras.bin`."""
    found = _binary(source.data)
    name, model, size, parameters = found[0]
    return _rig(BINARY, name, model, size, numbers(list(parameters), "PARAMS"), len(found))


def write_colmap(calibration: Calibration) -> str:
    """Write a `cameras.txt`: the camera, and that of a pair's right images as camera 2.

    Raises:
        CalibrationError: COLMAP has no such lens.
    """
    lines = [
        "# Camera list with one line of data per camera:",
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
    ]
    cameras = [calibration.camera, *([calibration.right] if calibration.right else [])]
    for number, camera in enumerate(cameras, 1):
        model, bent = str(camera.distortion_model), list(camera.distortion)
        if model == "ucm":
            model, bent = "eucm", [*bent, 1.0]
        name = _NAMES.get((model, len(bent)))
        if name is None:
            raise CalibrationError(
                f"COLMAP has no {model} lens with {counted(len(bent), 'coefficient')}: "
                "it has radtan with up to 8, equidistant, fov, eucm and ucm"
            )
        bent += [0.0] * (_BY_NAME[name][2] - len(bent))
        centre = (camera.cx + CORNER_PX, camera.cy + CORNER_PX)
        parameters = " ".join(repr(float(v)) for v in (camera.fx, camera.fy, *centre, *bent))
        lines.append(f"{number} {name} {camera.width} {camera.height} {parameters}")
    return "\n".join(lines) + "\n"


def _lines(text: str):  # type: ignore[no-untyped-def]
    """Yield the words of the lines that are cameras."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0].isdigit() and words[1] in _BY_NAME:
            yield words


def _binary(data: bytes) -> list[tuple[str, str, tuple[int, int], tuple[float, ...]]]:
    """Return name, model, size and parameters of each camera; empty if it is no `cameras.bin`."""
    if len(data) < 8:
        return []
    count, at = int.from_bytes(data[:8], "little"), 8
    if not 0 < count <= _MOST_CAMERAS:
        return []
    found = []
    for _ in range(count):
        if at + _HEAD.size > len(data):
            return []
        name, number, width, height = _HEAD.unpack_from(data, at)
        if number not in _MODELS or width > 1e6 or height > 1e6:
            return []
        model, focals, more, _, _ = _MODELS[number]
        parameters = struct.Struct(f"<{focals + 2 + more}d")
        at += _HEAD.size
        if at + parameters.size > len(data):
            return []
        found.append((str(name), model, (width, height), parameters.unpack_from(data, at)))
        at += parameters.size
    return found if at == len(data) else []


def _rig(
    kind: str,
    name: str,
    model: str,
    size: tuple[int, int],
    parameters: tuple[float, ...],
    count: int,
) -> Rig:
    _, focals, more, ours, filled = _BY_NAME[model]
    if ours is None:
        raise CalibrationError(
            f"camera {name} has COLMAP's model {model}, which is not read: calibrate with OPENCV "
            "or OPENCV_FISHEYE"
        )
    if len(parameters) != focals + 2 + more:
        raise CalibrationError(
            f"camera {name}: expected {focals + 2 + more} parameters of {model}, "
            f"found {len(parameters)}"
        )
    fx, fy = parameters[0], parameters[focals - 1]
    cx, cy = (value - CORNER_PX for value in parameters[focals : focals + 2])
    bent = (*parameters[focals + 2 :], *(0.0,) * filled)[:filled]
    camera = FoundCamera(f"camera {name} ({model})", size, (fx, fy, cx, cy), ours, bent)
    others = (f"{count - 1} more cameras are not used",) if count > 1 else ()
    return Rig(kind, (camera,), remarks=others)
