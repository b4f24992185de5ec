"""Read `transforms.json` of nerfstudio, instant-ngp and NeRF.

Format: https://docs.nerf.studio/quickstart/data_conventions.html. Poses map OpenGL's camera (x
right, y up, z backwards) to the world.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import SequenceRequest
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError, parse_json, shown
from spslam.lens import lens
from spslam.notices import counted, notice

from ..base import FileSequence
from ..calibration.calibration import CALIBRATION_NAME
from ..images.decoding import image_size
from ..images.depth_files import DepthUnits
from ..paths import reason
from .cameras import PIXEL_SHIFT
from .posed_images import FPS, PosedImage, Reconstruction, open_reconstruction

_LOG = logging.getLogger(__name__)
# Files of a recording; NeRF's synthetic scenes have one for each split.
_NAMES = ("transforms.json", "transforms_train.json")
# OpenGL's axes of a camera in ours.
_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# Units of integer depth per metre (nerfstudio: millimetres).
_DEPTH_UNITS_PER_METRE = 1000.0
_PINHOLES = ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL", "FULL_OPENCV")
_FISHEYES = ("OPENCV_FISHEYE", "FISHEYE", "RADIAL_FISHEYE", "SIMPLE_RADIAL_FISHEYE")
# Largest size of the file, bytes.
_LONGEST = 500_000_000

_Values = dict[str, Any]


def is_nerfstudio(path: Path) -> bool:
    """Return whether a folder holds a `transforms.json` of frames, and not our calibration."""
    file = _find(path)
    own = (path / CALIBRATION_NAME).is_file()
    return file is not None and not own and not _is_calibration_only(file)


def open_nerfstudio(path: Path, request: SequenceRequest) -> FileSequence:
    """Open the images of a `transforms.json`.

    Intrinsics are those of the file or of each frame. Images have no time stamps: they are counted
    in the order of their names. Poses become the ground truth. If there are depth images, their
    scale and that of the poses are metres; otherwise the scale is unknown.

    Args:
        path: the folder of the file.
        request: the user's choices.

    Raises:
        DatasetError: the file cannot be read or holds something else, or images are missing.
    """
    file = _find(path)
    if file is None:
        raise DatasetError(f"expected {_NAMES[0]} in {path}, found no such file")
    values = _read(file)
    images, bad = list[PosedImage](), 0
    cameras: dict[tuple[Any, ...], Camera] = {}
    for frame in values["frames"]:
        image = _image(file, values, frame, cameras) if isinstance(frame, dict) else None
        bad += image is None
        images += [] if image is None else [image]
    if bad:
        text = "%s: %s left out: no file_path"
        notice(
            _LOG, "unlisted_images", text, file, counted(bad, "frame is", "frames are"), count=bad
        )
    if any("mask_path" in frame for frame in values["frames"] if isinstance(frame, dict)):
        notice(_LOG, "unused_stream", "%s: its masks (mask_path) are not read", file)
    return open_reconstruction(
        Reconstruction(
            "nerfstudio",
            f"nerfstudio {path.name}",
            path,
            file,
            images,
            _scale(values, images),
            _depth_units(values, file),
        ),
        request,
    )


def _find(path: Path) -> Path | None:
    return next((path / name for name in _NAMES if (path / name).is_file()), None)


def _is_calibration_only(path: Path) -> bool:
    """Return whether the file is a valid one without frames: a calibration of the images there."""
    try:
        values = parse_json(read_given(path, _LONGEST).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, StructureError):
        return False
    return isinstance(values, dict) and not values.get("frames") and "fl_x" in values


def _read(path: Path) -> _Values:
    try:
        values = parse_json(read_given(path, _LONGEST).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}") from None
    except StructureError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("frames"), list):
        raise DatasetError(f"{path}: expected keys with a list of frames, found none")
    if not values["frames"]:
        raise DatasetError(f"{path} lists no frames")
    return values


def _image(
    file: Path, values: _Values, frame: _Values, cameras: dict[tuple[Any, ...], Camera]
) -> PosedImage | None:
    """Return the image of a frame; None without the path of an image."""
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        return None
    path = _existing(file.parent / name.replace("\\", "/"))
    depth = frame.get("depth_file_path")
    return PosedImage(
        path,
        _camera(file, values, frame, path, cameras),
        "",
        _pose(frame, _applied_scale(values)),
        depth=file.parent / depth.replace("\\", "/") if isinstance(depth, str) and depth else None,
    )


def _existing(path: Path) -> Path:
    # NeRF's synthetic scenes leave the extension out.
    if path.suffix:
        return path
    return next(
        (
            found
            for suffix in (".png", ".jpg", ".jpeg")
            if (found := path.with_name(path.name + suffix)).is_file()
        ),
        path.with_name(path.name + ".png"),
    )


def _camera(
    file: Path,
    values: _Values,
    frame: _Values,
    path: Path,
    cameras: dict[tuple[Any, ...], Camera],
) -> Camera | None:
    """Return the camera of a frame; None if its image is missing and gives no size."""
    given = {**values, **frame}
    size: tuple[float, float] | None = None
    if "w" not in given or "h" not in given:
        if not path.is_file():
            return None
        key: tuple[Any, ...] = ("size",)
        # All images of a file without w and h have one size; `check_image_size` checks it.
        known = cameras.get(key)
        size = (known.width, known.height) if known is not None else image_size([path])
    numbers = [
        given.get(key)
        for key in ("w", "h", "fl_x", "fl_y", "cx", "cy", "k1", "k2", "k3", "k4", "p1", "p2")
    ]
    angles = given.get("camera_angle_x"), given.get("camera_angle_y")
    model = str(given.get("camera_model") or ""), bool(given.get("is_fisheye"))
    key = (*map(str, numbers), *map(str, angles), *model)
    if key not in cameras:
        try:
            cameras[key] = _made(given, size, *model)
        except CalibrationError as error:
            raise CalibrationError(f"{file}: {error}") from None
        if size is not None:
            cameras[("size",)] = cameras[key]
    return cameras[key]


def _made(given: _Values, size: tuple[float, float] | None, model: str, fisheye: bool) -> Camera:
    width, height = size or (_number(given, "w"), _number(given, "h"))
    if width % 1 or height % 1:
        raise CalibrationError(f"w and h must be whole pixels, found {width:g}x{height:g}")
    fx = _focal(given, "fl_x", "camera_angle_x", width)
    fy = _focal(given, "fl_y", "camera_angle_y", height)
    fx, fy = fx or fy, fy or fx
    if fx is None or fy is None:
        raise CalibrationError("expected the focal length fl_x, or camera_angle_x, found none")
    cx = _number(given, "cx", width / 2) - PIXEL_SHIFT
    cy = _number(given, "cy", height / 2) - PIXEL_SHIFT
    k1, k2, k3, k4, p1, p2 = (
        _number(given, key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")
    )
    model = model.upper()
    if model in _FISHEYES or (model == "" and fisheye):
        kind, bent = lens("equidistant", (k1, k2, k3, k4))
    elif model in _PINHOLES:
        if k4 != 0:
            raise CalibrationError(
                f"camera_model {model or 'OPENCV'} with k4 {k4:g} is a lens model of nerfstudio's "
                "own, which is not supported"
            )
        kind, bent = lens("radtan", (k1, k2, p1, p2, k3))
    else:
        raise CalibrationError(
            f"camera_model {model[:40]!r} is not supported: expected OPENCV or OPENCV_FISHEYE"
        )
    if not any(bent) and kind == "radtan":
        kind, bent = "none", ()
    return Camera(int(width), int(height), fx, fy, cx, cy, kind, bent, fps=FPS)


def _focal(given: _Values, key: str, angle: str, size: float) -> float | None:
    if given.get(key) is not None:
        return _number(given, key)
    if given.get(angle) is None:
        return None
    radians = _number(given, angle)
    if not 0 < radians < np.pi:
        raise CalibrationError(f"{angle} must be radians between 0 and pi, found {radians:g}")
    return size / 2 / float(np.tan(radians / 2))


def _number(given: _Values, key: str, default: float | None = None) -> float:
    value = given.get(key, default)
    try:
        number = float("nan") if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not np.isfinite(number):
        raise CalibrationError(f"expected a number under {key}, found {shown(given.get(key))}")
    return number


def _pose(frame: _Values, scale: float) -> NDArray[np.float64]:
    """Return `T_world_cam` (4, 4) in our axes; NaN if the frame has none."""
    try:
        rows = np.array(frame.get("transform_matrix"), dtype=np.float64)
        T = np.eye(4)
        T[: len(rows)] = rows.reshape(-1, 4)
    except (TypeError, ValueError, OverflowError):
        return np.full((4, 4), np.nan)
    T[:3, 3] /= scale
    return T @ _FROM_OPENGL


def _applied_scale(values: _Values) -> float:
    scale = values.get("applied_scale", 1.0)
    good = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    return float(scale) if good and np.isfinite(scale) and scale > 0 else 1.0


def _scale(values: _Values, images: list[PosedImage]) -> str | None:
    """Return what the lengths of the poses are; None if they are metres."""
    if not any(image.depth is not None for image in images):
        return "units of transforms.json"
    if (scale := _applied_scale(values)) != 1.0:
        text = "positions in transforms.json are divided by its applied_scale %g"
        notice(_LOG, "truth_scale", text, scale)
    return None


def _depth_units(values: _Values, file: Path) -> DepthUnits:
    """Return the units of depth files; instant-ngp's file gives the length of one unit, metres."""
    unit = values.get("integer_depth_scale")
    if unit is None:
        return DepthUnits(_DEPTH_UNITS_PER_METRE)
    length = _number(values, "integer_depth_scale")
    if not 1e-9 < length < 1e3:
        raise CalibrationError(f"{file}: integer_depth_scale must be metres, found {length:g}")
    return DepthUnits(1.0 / length)
