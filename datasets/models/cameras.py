"""Camera models of COLMAP, which kapture and hloc use too, and one camera for many images."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.lens import lens
from spslam.notices import counted, notice

_LOG = logging.getLogger(__name__)
# These programs put (0.5, 0.5) at the centre of the first pixel, spslam (0, 0).
PIXEL_SHIFT = 0.5
# Largest relative difference of the focal lengths, and of the principal points relative to the
# focal length, of images that count as those of one camera.
_SAME_CAMERA = 0.05
# Relative difference above which a notice is given.
_DIFFERENT = 1e-3


@dataclass(frozen=True)
class CameraModel:
    """A camera model of COLMAP.

    Attributes:
        id: number in binary files.
        name: name in text files.
        focals: number of its focal lengths, 1 or 2.
        lens: name of the lens model.
        coefficients: number of coefficients of the lens.
    """

    id: int
    name: str
    focals: int
    lens: str
    coefficients: int

    @property
    def count(self) -> int:
        """Number of parameters: focal lengths, principal point, coefficients."""
        return self.focals + 2 + self.coefficients


# Source: COLMAP 4.2, src/colmap/sensor/models.h.
_ALL = (
    CameraModel(0, "SIMPLE_PINHOLE", 1, "none", 0),
    CameraModel(1, "PINHOLE", 2, "none", 0),
    CameraModel(2, "SIMPLE_RADIAL", 1, "radtan", 1),
    CameraModel(3, "RADIAL", 1, "radtan", 2),
    CameraModel(4, "OPENCV", 2, "radtan", 4),
    CameraModel(5, "OPENCV_FISHEYE", 2, "equidistant", 4),
    CameraModel(6, "FULL_OPENCV", 2, "radtan", 8),
    CameraModel(7, "FOV", 2, "fov", 1),
    CameraModel(8, "SIMPLE_RADIAL_FISHEYE", 1, "equidistant", 1),
    CameraModel(9, "RADIAL_FISHEYE", 1, "equidistant", 2),
    CameraModel(10, "THIN_PRISM_FISHEYE", 2, "thinprismfisheye", 8),
    CameraModel(11, "RAD_TAN_THIN_PRISM_FISHEYE", 2, "radtanthinprismfisheye", 12),
)
MODELS = {model.name: model for model in _ALL}
MODELS_BY_ID = {model.id: model for model in _ALL}


def colmap_camera(
    name: str, size: tuple[float, float], params: tuple[float, ...], fps: float
) -> Camera:
    """Convert a camera of COLMAP.

    Args:
        name: name of its model.
        size: width and height, pixels.
        params: parameters of the model, in COLMAP's order and pixel coordinates.
        fps: nominal rate, 1/s.

    Raises:
        CalibrationError: the model is unknown or not supported, or its parameters are impossible.
    """
    model = MODELS.get(name)
    if model is None:
        raise CalibrationError(
            f"camera model {name[:40]!r} is not supported: expected one of {', '.join(MODELS)}"
        )
    if len(params) != model.count or not np.isfinite(params).all():
        raise CalibrationError(
            f"camera model {name} takes {model.count} parameters, found {len(params)}"
        )
    fx, fy = params[0], params[model.focals - 1]
    cx, cy = (value - PIXEL_SHIFT for value in params[model.focals : model.focals + 2])
    bent = params[model.focals + 2 :]
    if model.lens in ("radtan", "equidistant"):
        # k1 alone, or k1 and k2, are followed by coefficients that are 0.
        bent = (*bent, *(0.0,) * (4 - len(bent)))
    kind, coefficients = lens(model.lens, bent)
    width, height = size
    if width % 1 or height % 1:
        raise CalibrationError(f"image size must be whole pixels, found {width:g}x{height:g}")
    return Camera(int(width), int(height), fx, fy, cx, cy, kind, coefficients, fps=fps)


def common_camera(cameras: list[Camera], what: str) -> tuple[Camera, NDArray[np.bool_]]:
    """Find one camera for images that each have intrinsics of their own.

    Phones adjust the focal length while they record. The median of the largest group of images with
    one size and lens model is used; a notice gives the largest difference. Images whose intrinsics
    differ by more than 5 % from it are left out.

    Args:
        cameras: the camera of each image, at least one.
        what: the recording, for messages.

    Returns:
        The camera, and (N,) bool: images that it fits.
    """
    kinds = [(c.width, c.height, c.distortion_model, len(c.distortion)) for c in cameras]
    usual = max(dict.fromkeys(kinds), key=kinds.count)
    fits = np.array([kind == usual for kind in kinds])
    first = cameras[int(np.argmax(fits))]
    values = np.array([[c.fx, c.fy, c.cx, c.cy, *c.distortion] for c in np.array(cameras)[fits]])
    middle = np.median(values, axis=0)
    away = np.abs(values[:, :4] - middle[:4]).max(axis=1) / min(middle[:2])
    fits[np.flatnonzero(fits)[away > _SAME_CAMERA]] = False
    near = away[away <= _SAME_CAMERA]
    middle = np.median(values[away <= _SAME_CAMERA], axis=0) if len(near) else middle
    if len(near) and near.max() > _DIFFERENT:
        text = (
            "%s: the images have intrinsics of their own, up to %.1f %% of the focal length from "
            "the median, which is used for all"
        )
        notice(_LOG, "camera_of_each_image", text, what, 100 * float(near.max()))
    if others := int(np.count_nonzero(~fits)):
        text = "%s: %s left out: their camera has another size, lens or focal length than the rest"
        what_is = counted(others, "image is", "images are")
        notice(_LOG, "other_cameras", text, what, what_is, count=others)
    fx, fy, cx, cy = (float(value) for value in middle[:4])
    bent = tuple(float(value) for value in middle[4:])
    return replace(first, fx=fx, fy=fy, cx=cx, cy=cy, distortion=bent), fits
