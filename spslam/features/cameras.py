"""Cameras of a COLMAP database: from a calibration, or guessed from the size of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from spslam.camera import Camera
from spslam.errors import CalibrationError

# Which images share a camera.
CameraPer = Literal["image", "folder", "all"]

# COLMAP puts (0.5, 0.5) at the centre of the first pixel, spslam (0, 0).
PIXEL_SHIFT = 0.5
# Guessed focal length, in units of the longer side of the image. Source: COLMAP's default
# (`ImageReaderOptions.default_focal_length_factor`); about 45 degrees of view.
_GUESSED_FOCAL = 1.2
# Coefficients of COLMAP's FULL_OPENCV: k1 k2 p1 p2 k3 k4 k5 k6.
_FULL_COEFFICIENTS = 8
# COLMAP's models with the same coefficients.
_MODELS = {"none": "PINHOLE", "equidistant": "OPENCV_FISHEYE", "eucm": "EUCM", "fov": "FOV"}


@dataclass(frozen=True)
class CameraChoice:
    """The user's choice of cameras.

    Attributes:
        calibrated: the calibrated camera of all images; None: guess.
        per: which images share a camera; None: all with a calibration, otherwise none.
        guessed: first guess of the camera of all images, for self-calibration; None: by their size.
    """

    calibrated: Camera | None = None
    per: CameraPer | None = None
    guessed: ColmapCamera | None = None

    def group(self, name: str, size: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """Return a key that is equal for images that share a camera.

        Images of different sizes never share one.
        """
        per = self.per or ("image" if self.calibrated is None else "all")
        if per == "image":
            return name, size
        return str(PurePosixPath(name).parent) if per == "folder" else "", size


@dataclass(frozen=True)
class ColmapCamera:
    """A camera in COLMAP's terms.

    Attributes:
        model: name of the camera model.
        width, height: size of the image, pixels.
        params: parameters of the model.
        known: whether the focal length is calibrated.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]
    known: bool


def colmap_camera(choice: CameraChoice, name: str, size: tuple[int, int]) -> ColmapCamera:
    """Return the camera of an image.

    Args:
        choice: the user's choice.
        name: name of the image, for messages.
        size: width and height of the image, pixels.

    Raises:
        CalibrationError: the image has another size than the calibration, or COLMAP lacks the lens
            model.
    """
    camera = choice.calibrated
    if choice.guessed is not None:
        return choice.guessed
    if camera is None:
        focal = _GUESSED_FOCAL * max(size)
        guessed = (focal, size[0] / 2, size[1] / 2, 0.0)
        return ColmapCamera("SIMPLE_RADIAL", *size, guessed, False)
    if (camera.width, camera.height) != size:
        raise CalibrationError(
            f"{name} has {size[0]}x{size[1]} pixels, but the calibration is for "
            f"{camera.width}x{camera.height}: give that of these images"
        )
    model, coefficients = _lens(camera)
    # COLMAP's EUCM has the scale at the centre as its focal length; Mei's model has not.
    fxy = camera.ideal_focal if model == "EUCM" else (camera.fx, camera.fy)
    centre = (camera.cx + PIXEL_SHIFT, camera.cy + PIXEL_SHIFT)
    params = (*fxy, *centre, *coefficients)
    return ColmapCamera(model, *size, params, True)


def _lens(camera: Camera) -> tuple[str, tuple[float, ...]]:
    """Return COLMAP's model of a lens, and its coefficients."""
    k = camera.distortion
    if camera.distortion_model == "double_sphere" or (
        camera.distortion_model == "omni" and any(k[1:])
    ):
        raise CalibrationError(
            f"COLMAP has no {camera.distortion_model} lens"
            + (" with k1 k2 p1 p2" if len(k) == 5 else "")
            + ": calibrate with equidistant, eucm, ucm, fov or radtan"
        )
    if camera.distortion_model in _MODELS:
        return _MODELS[camera.distortion_model], k
    if camera.distortion_model == "ucm":
        return "EUCM", (k[0], 1.0)
    if camera.distortion_model == "omni":
        return "EUCM", (k[0] / (1.0 + k[0]), 1.0)
    if not any(k[4:]):
        return "OPENCV", k[:4]
    if any(k[_FULL_COEFFICIENTS:]):
        raise CalibrationError(
            "COLMAP has no lens model with thin-prism or tilt coefficients (s1 to s4, τx, τy): "
            "calibrate with at most 8 coefficients"
        )
    return "FULL_OPENCV", (*k, *(0.0,) * _FULL_COEFFICIENTS)[:_FULL_COEFFICIENTS]
