"""OpenCV's FileStorage (YAML, XML, JSON), and other files with a camera matrix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.geometry import inverse

from .rig import FoundCamera, Rig, from_right_left
from .source import Source
from .values import Values, first_of, numbers, of_matrix, rotation, size_of

if TYPE_CHECKING:
    from spslam.camera import Camera

    from ..calibration import Calibration

# Names that programs give to the matrix and the distortion of the only camera, of the left and of
# the right one.
_SINGLE = (
    ("camera_matrix", "Camera_Matrix", "cameraMatrix", "CameraMatrix", "K", "M", "mtx"),
    (
        *("distortion_coefficients", "Distortion_Coefficients", "distortion_coeffs", "distCoeffs"),
        *("DistortionCoefficients", "dist_coeffs", "dist_coeff", "dist", "D", "distortion"),
    ),
)
_LEFT = (
    ("M1", "K1", "cameraMatrix1", "camera_matrix_1", "camera_matrix_left", "KL", "K_left"),
    ("D1", "distCoeffs1", "dist_coeffs_1", "distortion_left", "DL", "D_left"),
)
_RIGHT = (
    ("M2", "K2", "cameraMatrix2", "camera_matrix_2", "camera_matrix_right", "KR", "K_right"),
    ("D2", "distCoeffs2", "dist_coeffs_2", "distortion_right", "DR", "D_right"),
)
_ROTATIONS = ("R", "rotation", "Rotation", "rotation_matrix", "R_stereo")
_TRANSLATIONS = ("T", "translation", "Translation", "translation_vector", "T_stereo")
_WIDTHS = ("image_width", "image_Width", "imageWidth", "width", "cols")
_HEIGHTS = ("image_height", "image_Height", "imageHeight", "height", "rows")
_SIZES = ("image_size", "imageSize", "size", "resolution", "img_size")
# OpenCV's sample writes a pair into two files of these names.
_INTRINSICS, _EXTRINSICS = "intrinsics", "extrinsics"
_SUFFIXES = {".yml": ".yml", ".yaml": ".yml", ".xml": ".xml", ".json": ".json"}


def is_opencv(source: Source) -> bool:
    """Return whether a file has a camera matrix under a usual name."""
    return bool(first_of(source.values, *_SINGLE[0], *_LEFT[0])[0])


def read_opencv(source: Source) -> Rig:
    """Read one camera, or a pair: M1 D1 M2 D2 with R, T, which map left to right coordinates."""
    values, kind = source.values, _kind(source)
    beside: tuple[str, ...] = ()
    if not first_of(values, *_LEFT[0])[0] or not first_of(values, *_RIGHT[0])[0]:
        camera, unsure = _camera(values, "", (*_SINGLE[0], *_LEFT[0]), (*_SINGLE[1], *_LEFT[1]))
        return Rig(kind, (camera,), remarks=unsure)
    left, unsure = _camera(values, "left", *_LEFT)
    right, _ = _camera(values, "right", *_RIGHT)
    if not first_of(values, *_TRANSLATIONS)[0]:
        other = _extrinsics(source)
        if other is None:
            alone = "R and T of the right camera are missing: only the left camera is read"
            return Rig(kind, (left,), remarks=(*unsure, alone))
        values = values | other.values
        beside = (f"R and T are those of {other.path.name}",)
    R_key, R = first_of(values, *_ROTATIONS)
    t_key, t = first_of(values, *_TRANSLATIONS)
    if not R_key or not t_key:
        raise CalibrationError("R and T of the pair belong together, found only one of them")
    shift = np.array(numbers(t, t_key, 3))
    T = from_right_left(rotation(R, R_key), shift)
    return Rig(kind, (left, right), T, remarks=(*unsure, *beside), board_unit=True)


def write_opencv(calibration: Calibration, out: Path) -> str:
    """Write a FileStorage in the format of `out`'s suffix.

    Raises:
        CalibrationError: OpenCV has no such lens, or one that it cannot name for both cameras.
    """
    camera, right, T = calibration.camera, calibration.right, calibration.T_left_right
    suffix = _SUFFIXES.get(out.suffix.lower(), ".yml")
    storage = cv2.FileStorage(suffix, cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    storage.write("image_width", camera.width)
    storage.write("image_height", camera.height)
    storage.write("fisheye_model", int(camera.distortion_model == "equidistant"))
    if right is None or T is None:
        storage.write("camera_matrix", camera.K)
        _write_lens(storage, camera, "distortion_coefficients", "xi")
    else:
        if (right.width, right.height) != (camera.width, camera.height) or _family(
            camera
        ) != _family(right):
            raise CalibrationError(
                "OpenCV's files hold pairs of one size and one lens model: convert each camera "
                "by itself"
            )
        T_right_left = inverse(T)
        storage.write("M1", camera.K)
        _write_lens(storage, camera, "D1", "xi1")
        storage.write("M2", right.K)
        _write_lens(storage, right, "D2", "xi2")
        storage.write("R", np.ascontiguousarray(T_right_left[:3, :3]))
        storage.write("T", np.ascontiguousarray(T_right_left[:3, 3:]))
    return str(storage.releaseAndGetString())


def _kind(source: Source) -> str:
    if source.is_xml:
        return "an OpenCV FileStorage calibration (XML)"
    stored = "opencv-matrix" in source.text or any(
        isinstance(source.values.get(name), dict) for name in (*_SINGLE[0], *_LEFT[0])
    )
    return "an OpenCV FileStorage calibration" if stored else "a calibration with a camera matrix"


def _extrinsics(source: Source) -> Source | None:
    name = source.path.name
    if _INTRINSICS not in name:
        return None
    other = source.beside(name.replace(_INTRINSICS, _EXTRINSICS))
    return other if other is not None and first_of(other.values, *_TRANSLATIONS)[0] else None


def _camera(
    values: Values, name: str, matrices: tuple[str, ...], distortions: tuple[str, ...]
) -> tuple[FoundCamera, tuple[str, ...]]:
    """Return a camera and what is unsure about it."""
    K_key, K = first_of(values, *matrices)
    D_key, D = first_of(values, *distortions)
    bent = () if D is None else numbers(D, D_key)
    kind = str(values.get("distortion_model") or values.get("camera_model") or "").lower()
    flag = first_of(values, "fisheye_model", "fisheye")[1]
    fisheye = _is_true(flag) or any(word in kind for word in ("fisheye", "equi", "kannala"))
    xi_key, xi = first_of(values, "xi", *(["xi2"] if name == "right" else ["xi1"]))
    unsure: tuple[str, ...] = ()
    if xi is not None:
        model, bent = "omni", (*numbers(xi, xi_key, 1), *(bent if any(bent) else ()))
    elif fisheye:
        model, bent = "equidistant", bent or (0.0,) * 4
    else:
        model = "radtan"
        if len(bent) == 4 and any(bent) and flag is None and not kind:
            unsure = (
                "four coefficients are taken as k1 k2 p1 p2 (add fisheye_model: 1 if it was "
                "calibrated with cv2.fisheye)",
            )
    return FoundCamera(name, _size(values), of_matrix(K, K_key), model, bent), unsure


def _size(values: Values) -> tuple[int, int] | None:
    across, down = first_of(values, *_WIDTHS)[1], first_of(values, *_HEIGHTS)[1]
    if across is not None and down is not None:
        return size_of(across, down)
    key, size = first_of(values, *_SIZES)
    if isinstance(size, dict):
        return size_of(size.get("width"), size.get("height"))
    return None if size is None else size_of(*numbers(size, key, 2))


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() not in ("", "none", "0", "0.0", "false", "no")


def _family(camera: Camera) -> str:
    # A pinhole without distortion is a radtan lens of zeros.
    return "radtan" if camera.distortion_model == "none" else str(camera.distortion_model)


def _write_lens(storage: cv2.FileStorage, camera: Camera, key: str, xi_key: str) -> None:
    model, coefficients = str(camera.distortion_model), list(camera.distortion)
    if model not in ("none", "radtan", "equidistant", "omni"):
        raise CalibrationError(
            f"OpenCV has no {model} lens: it has radtan, equidistant (fisheye) and omni"
        )
    if model == "omni":
        storage.write(xi_key, coefficients.pop(0))
    column: NDArray[np.float64] = np.reshape(coefficients or [0.0] * 4, (-1, 1)).astype(np.float64)
    # cv2.fisheye writes columns, calibrateCamera rows.
    storage.write(key, column if model == "equidistant" else np.ascontiguousarray(column.T))
