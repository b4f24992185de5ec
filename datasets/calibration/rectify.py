"""Rectify stereo pairs with maps that are computed once."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform
from spslam.notices import notice

from .lens_view import Maps, filled, lens_maps, remap, usable
from .rectified_view import RectifiedView, check_side_by_side, field_across, rectified_view

_LOG = logging.getLogger(__name__)
# Largest rotation (radians), and translation across the baseline relative to it, at which a pair
# counts as rectified.
_ALIGNED = 1e-6
# Distance of the principal point of OpenCV's view from the centre, fraction of the image's size,
# above which `rectified_view` is tried too: OpenCV shows less of cropped images.
_MOST_OFF_CENTRE = 0.25
# Fraction of the rectified view without a picture above which the notice reports it.
_EMPTY_REPORTED = 0.001
# Fraction of the rectified view without a picture above which the pair is refused.
_MOST_EMPTY = 0.8


class StereoRectifier:
    """Rectify pairs of two calibrated cameras.

    Of lenses that OpenCV rectifies (none, radtan) the view is that of Bouguet's method, as in
    OpenCV's `stereoRectify` with alpha 0: only pixels that both lenses saw. With another lens, or
    where OpenCV shows less of cropped images, it is the widest view that both lenses fill, at most
    120 degrees across (`rectified_view`).

    Attributes:
        left, right: the unrectified cameras.
        camera: the rectified left camera, without distortion, with the baseline.
        T_left_rectified: (4, 4) float64, maps coordinates of the rectified left camera to those
            of `left` (a rotation).
        maps_left, maps_right: x and y, each (H, W) float32, of the unrectified pixel that each
            pixel of the rectified left and right image shows.
        empty: fraction of the rectified view, 0 to 1, that no pixel of the lens fills; the larger
            one of left and right.
        mask_left, mask_right: (H, W) bool, the pixels of the rectified left and right image that
            are at least 4 pixels from black ones; None if (nearly) all of the view is filled.

    Raises:
        CalibrationError: the cameras differ in size, do not see the same, or do not stand side by
            side with the left camera left.
    """

    def __init__(self, left: Camera, right: Camera, T_left_right: NDArray[np.float64]) -> None:
        if (left.width, left.height) != (right.width, right.height):
            raise CalibrationError(
                "stereo rectification needs cameras of one size, found "
                f"{left.width}x{left.height} and {right.width}x{right.height}"
            )
        check_side_by_side(T_left_right)
        self.left, self.right = left, right
        opencv = _opencv_view(left, right, inverse(T_left_right))
        view = opencv or rectified_view(left, right, T_left_right)
        if opencv is not None and not _is_centred(opencv, left):
            own = rectified_view(left, right, T_left_right)
            if own.K[0, 0] < opencv.K[0, 0]:
                view, opencv = own, None
        self.camera = replace(
            left.without_distortion(),
            fx=float(view.K[0, 0]),
            fy=float(view.K[1, 1]),
            cx=float(view.K[0, 2]),
            cy=float(view.K[1, 2]),
            baseline_m=view.baseline_m,
        )
        self.T_left_rectified = make_transform(view.R_left.T, np.zeros(3))
        maps = lens_maps if opencv is None else _opencv_maps
        self.maps_left, self.maps_right = (
            maps(left, view.R_left, view.K),
            maps(right, view.R_right, view.K),
        )
        self.empty = max(_empty(left, self.maps_left), _empty(right, self.maps_right))
        if self.empty > _MOST_EMPTY:
            # Raises a clearer error if the cameras do not see the same.
            rectified_view(left, right, T_left_right)
            raise CalibrationError(
                f"{100 * self.empty:.0f} % of the rectified view lies outside of the images: does "
                "T_left_right (right-camera coordinates to left ones, metres) fit these cameras?"
            )
        self.mask_left: NDArray[np.bool_] | None = None
        self.mask_right: NDArray[np.bool_] | None = None
        if self.empty > _EMPTY_REPORTED:
            self.mask_left = usable(left, self.maps_left)
            self.mask_right = usable(right, self.maps_right)
        if opencv is None or self.empty > _EMPTY_REPORTED:
            self._tell()

    def rectify(
        self, image_left: NDArray[np.uint8], image_right: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Rectify a raw pair of images, (H, W) uint8 each; the results have the same size."""
        return remap(image_left, self.maps_left), remap(image_right, self.maps_right)

    def _tell(self) -> None:
        wide, of = (math.degrees(field_across(camera)) for camera in (self.camera, self.left))
        empty = f"; {100 * self.empty:.1f} % of it lies outside of the images and is not used"
        notice(
            _LOG,
            "rectified_view",
            "the rectified stereo view is %.0f degrees wide of the lens's %.0f%s",
            wide,
            of,
            empty if self.empty > _EMPTY_REPORTED else "",
        )


def rectified_camera(
    left: Camera, right: Camera, T_left_right: NDArray[np.float64]
) -> Camera | None:
    """Return the left camera with its baseline if the pair is rectified, else None.

    Args:
        left: the left camera.
        right: the right camera.
        T_left_right: (4, 4) float64, maps right-camera to left-camera coordinates, metres.
    """
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


def _opencv_view(
    left: Camera, right: Camera, T_right_left: NDArray[np.float64]
) -> RectifiedView | None:
    """Return OpenCV's view of a pair; None if it lacks a lens model, or finds no view."""
    if not {left.distortion_model, right.distortion_model} <= {"none", "radtan"}:
        return None
    R_left, R_right, P_left, P_right, *_ = cv2.stereoRectify(
        left.K,
        _coefficients(left),
        right.K,
        _coefficients(right),
        (left.width, left.height),
        T_right_left[:3, :3].copy(),
        T_right_left[:3, 3:].copy(),
        flags=cv2.CALIB_ZERO_DISPARITY,
        alpha=0,
    )
    R0, R1, P0, P1 = (
        np.asarray(matrix, dtype=np.float64) for matrix in (R_left, R_right, P_left, P_right)
    )
    if not (np.isfinite([P0, P1]).all() and P1[0, 0] > 0 and P1[0, 3] < 0):
        return None
    return RectifiedView(R0, R1, P0[:, :3], -float(P1[0, 3] / P1[0, 0]))


def _is_centred(view: RectifiedView, camera: Camera) -> bool:
    size = np.array([camera.width, camera.height])
    return bool((np.abs(view.K[:2, 2] - (size - 1) / 2.0) <= _MOST_OFF_CENTRE * size).all())


def _coefficients(camera: Camera) -> NDArray[np.float64]:
    return np.asarray(camera.distortion if camera.distortion else (0.0,) * 4, dtype=np.float64)


def _opencv_maps(camera: Camera, R: NDArray[np.float64], K: NDArray[np.float64]) -> Maps:
    size = (camera.width, camera.height)
    map_x, map_y = cv2.initUndistortRectifyMap(
        camera.K, _coefficients(camera), R, K, size, cv2.CV_32FC1
    )
    return np.asarray(map_x, dtype=np.float32), np.asarray(map_y, dtype=np.float32)


def _empty(camera: Camera, maps: Maps) -> float:
    """Return the fraction of a rectified view that lies outside of the image, which is black."""
    inside = filled(camera, maps)
    return float(1.0 - np.count_nonzero(inside) / inside.size)
