"""Stereo rectification: two calibrated cameras become one ideal pair with equal rows, by maps computed once."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform

# Rotation (radians) and relative translation across the baseline below which a pair counts as rectified already.
_ALIGNED = 1e-6
# Field of view (radians, across) that a rectified fisheye keeps at most: a plane stretches what lies farther out, and
# the centre pays for it with its resolution.
_WIDEST_FIELD = math.radians(120.0)


class StereoRectifier:
    """Rectifies pairs of two calibrated cameras (Bouguet's method as in OpenCV's `stereoRectify`, alpha 0: only
    pixels that both lenses saw; Kannala-Brandt fisheye lenses through `cv2.fisheye`, at most 120 degrees across).

    Attributes:
        left, right: the cameras as they are.
        camera: the rectified left camera, without distortion, with the baseline.
        T_left_rectified: (4, 4) float64, rectified left camera coordinates to those of `left` (a rotation).

    Raises:
        CalibrationError: the cameras differ in size or lens model, or do not stand side by side, left camera left.
    """

    def __init__(self, left: Camera, right: Camera, T_left_right: NDArray[np.float64]) -> None:
        if (left.width, left.height) != (right.width, right.height):
            raise CalibrationError(
                "stereo rectification needs cameras of one size, found "
                f"{left.width}x{left.height} and {right.width}x{right.height}"
            )
        self.left, self.right = left, right
        R_left, R_right, P_left, P_right = _rectify(left, right, inverse(T_left_right))
        baseline = _baseline(P_right)
        self.camera = replace(
            left.without_distortion(),
            fx=float(P_left[0, 0]),
            fy=float(P_left[1, 1]),
            cx=float(P_left[0, 2]),
            cy=float(P_left[1, 2]),
            baseline_m=baseline,
        )
        self.T_left_rectified = make_transform(R_left.T, np.zeros(3))
        self._maps_left = _undistortion_maps(left, R_left, P_left)
        self._maps_right = _undistortion_maps(right, R_right, P_right)

    def rectify(
        self, image_left: NDArray[np.uint8], image_right: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The rectified pair, (H, W) uint8 each, of a raw pair, (H, W) uint8 each."""
        return _remap(image_left, self._maps_left), _remap(image_right, self._maps_right)


def rectified_camera(left: Camera, right: Camera, T_left_right: NDArray[np.float64]) -> Camera | None:
    """The left camera with its baseline if the pair is rectified already, None if it must be rectified."""
    same = all(
        getattr(left, key) == getattr(right, key)
        for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion_model")
    )
    translation = T_left_right[:3, 3]
    straight = bool(
        translation[0] > 0
        and np.abs(translation[1:]).max() <= _ALIGNED * translation[0]
        and np.abs(T_left_right[:3, :3] - np.eye(3)).max() <= _ALIGNED
    )
    if not (same and straight and left.distortion_model == "none"):
        return None
    return replace(left, baseline_m=float(translation[0]))


def _rectify(
    left: Camera, right: Camera, T_right_left: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    R, t = T_right_left[:3, :3].copy(), T_right_left[:3, 3:].copy()
    size = (left.width, left.height)
    models = {camera.distortion_model for camera in (left, right)}
    D_left, D_right = _coefficients(left), _coefficients(right)
    if models == {"equidistant"}:
        R_left, R_right, P_left, P_right, _ = cv2.fisheye.stereoRectify(
            left.K, D_left, right.K, D_right, size, R, t, flags=cv2.CALIB_ZERO_DISPARITY
        )
        P_left, P_right = (_narrow(np.asarray(P, dtype=np.float64), left.width) for P in (P_left, P_right))
    elif "equidistant" in models:
        raise CalibrationError(
            "stereo rectification needs one lens model for both cameras, found "
            f"{left.distortion_model} left and {right.distortion_model} right"
        )
    else:
        R_left, R_right, P_left, P_right, *_ = cv2.stereoRectify(
            left.K, D_left, right.K, D_right, size, R, t, flags=cv2.CALIB_ZERO_DISPARITY, alpha=0
        )
    R0, R1, P0, P1 = (np.asarray(matrix, dtype=np.float64) for matrix in (R_left, R_right, P_left, P_right))
    return R0, R1, P0, P1


def _narrow(P: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    scale = max(1.0, width / 2.0 / math.tan(_WIDEST_FIELD / 2.0) / P[0, 0])
    narrowed = P.copy()
    narrowed[:2, [0, 1, 3]] *= scale
    return narrowed


def _baseline(P_right: NDArray[np.float64]) -> float:
    if abs(P_right[1, 3]) > abs(P_right[0, 3]):
        raise CalibrationError("the two cameras stand above each other; only side-by-side stereo is supported")
    baseline = -float(P_right[0, 3] / P_right[0, 0])
    if not baseline > 0:
        raise CalibrationError(
            f"the right camera stands {-baseline:.3f} m left of the left one: swap them, or invert the transform "
            "between them (T_left_right maps right-camera coordinates to left ones)"
        )
    return baseline


def _coefficients(camera: Camera) -> NDArray[np.float64]:
    return np.asarray(camera.distortion if camera.distortion else (0.0,) * 4, dtype=np.float64)


def _undistortion_maps(
    camera: Camera, R: NDArray[np.float64], P: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    init = (
        cv2.fisheye.initUndistortRectifyMap if camera.distortion_model == "equidistant" else cv2.initUndistortRectifyMap
    )
    map_x, map_y = init(camera.K, _coefficients(camera), R, P[:, :3], (camera.width, camera.height), cv2.CV_32FC1)
    return np.asarray(map_x, dtype=np.float32), np.asarray(map_y, dtype=np.float32)


def _remap(image: NDArray[np.uint8], maps: tuple[NDArray[np.float32], NDArray[np.float32]]) -> NDArray[np.uint8]:
    return np.asarray(cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR), dtype=np.uint8)
