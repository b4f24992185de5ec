"""Cameras from `sensor_msgs/CameraInfo`, and the pose of a right camera to the left one.

Source: the comments of CameraInfo.msg and REP 104. `K` is that of the whole sensor without binning;
`P` is that of the rectified image, and `P[3] = -fx · baseline` of the right camera of a pair.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform, orthonormalize, rotation_angle
from spslam.lens import lens
from spslam.notices import notice

from ..calibration.checks import is_rigid, size_advice
from .transforms import Transforms

_LOG = logging.getLogger(__name__)
# Name of the topic of a camera's calibration, beside the topic of its images.
CAMERA_INFO_NAME = "camera_info"
# Largest number of coefficients: OpenCV's longest model has 14.
_MOST_COEFFICIENTS = 14
# Difference of two sources of one extrinsic above which a notice is given: baseline, relative, and
# rotation, radians.
_SAME_BASELINE, _SAME_ROTATION = 0.02, math.radians(0.5)
# Rotation, radians, below which a matrix R counts as not filled in.
_NO_ROTATION = 1e-9


@dataclass(frozen=True, eq=False)
class InfoCamera:
    """A camera of a bag.

    Attributes:
        camera: of the images as they are published.
        R_rectified_camera: (3, 3) float64, rotates camera to rectified coordinates.
        offset_m: x of the rectified camera on the baseline, metres: 0 for a left camera.
        rectified: whether its images are rectified.
        topic: of its calibration, for messages.
    """

    camera: Camera
    R_rectified_camera: NDArray[np.float64]
    offset_m: float
    rectified: bool
    topic: str


def is_rectified(topic: str) -> bool:
    """Return whether the images of a topic are rectified by their name: `image_rect`, ….

    Source: image_proc and REP 104.
    """
    return any(part.startswith("image_rect") for part in topic.split("/"))


def info_camera(
    info: Any, size: tuple[int, int], *, rectified: bool, topic: str, fps: float
) -> InfoCamera:
    """Return the camera of a calibration message for images of a size.

    Args:
        info: a `sensor_msgs/CameraInfo` of ROS 1 or 2.
        size: width and height of the images, pixels.
        rectified: whether the images are rectified: `P` without distortion instead of `K`.
        topic: of the message, for errors.
        fps: rate of the images, 1/s.

    Raises:
        CalibrationError: the camera is not calibrated, or the calibration is for other images.
    """
    K, D, R, P = (_numbers(info, name, topic) for name in "KDRP")
    if len(K) != 9 or len(R) != 9 or len(P) != 12:
        raise CalibrationError(f"{topic}: K, R and P need 9, 9 and 12 numbers")
    values = P[[0, 5, 2, 6]] if rectified else K[[0, 4, 2, 5]]
    fx, fy, cx, cy = (float(value) for value in values)
    if fx == 0 or fy == 0:
        raise CalibrationError(
            f"{topic} holds an uncalibrated camera ({'P' if rectified else 'K'} is zero): "
            "calibrate it, or give --calibration FILE"
        )
    fx, fy, cx, cy = _cut_and_binned(info, size, (fx, fy, cx, cy), topic)
    model, coefficients = lens("none", ())
    if not rectified and D.any():
        model, coefficients = lens(str(info.distortion_model), tuple(D.tolist()))
    camera = Camera(*size, fx, fy, cx, cy, model, coefficients, fps=fps)
    R_rectified = np.eye(3)
    if not rectified and R.any():
        T = make_transform(R.reshape(3, 3), np.zeros(3))
        if not is_rigid(T):
            raise CalibrationError(f"{topic}: R is no rotation")
        R_rectified = orthonormalize(T)[:3, :3]
    offset = -float(P[3] / P[0]) if P[0] > 0 else 0.0
    return InfoCamera(camera, R_rectified, offset, rectified, topic)


def left_from_right(
    left: InfoCamera,
    right: InfoCamera,
    frames: tuple[str, str],
    transforms: Transforms,
) -> NDArray[np.float64]:
    """Return `T_left_right` (4, 4), metres, of two cameras.

    P and R of their calibrations give it, as a stereo calibration writes them. If R is not filled
    in and the images are not rectified, /tf_static comes first.

    Args:
        left: the left camera.
        right: the right camera.
        frames: frames of their images.
        transforms: of /tf_static.

    Raises:
        CalibrationError: neither gives the pose.
    """
    by_matrices, by_tree = _by_matrices(left, right), transforms.between(*frames)
    if by_tree is not None and not by_tree[:3, 3].any():
        # Rectified right images often name the frame of the left camera (image_proc).
        by_tree = None
    if by_matrices is None and by_tree is None:
        raise CalibrationError(
            f"the pose of the right camera is not known: P[3] of {right.topic} is 0, and "
            f"/tf_static does not connect {frames[0] or '?'} and {frames[1] or '?'}: "
            "give --calibration FILE"
        )
    if by_matrices is None:
        assert by_tree is not None
        return by_tree
    if by_tree is None:
        return by_matrices
    blank = not (left.rectified or _has_rotation(left) or _has_rotation(right))
    chosen, other = (by_tree, by_matrices) if blank else (by_matrices, by_tree)
    _report_difference(chosen, other, right.topic, blank)
    return chosen


def _by_matrices(left: InfoCamera, right: InfoCamera) -> NDArray[np.float64] | None:
    baseline = right.offset_m - left.offset_m
    if baseline == 0:
        return None
    T_rectified_right = make_transform(right.R_rectified_camera, np.array([baseline, 0.0, 0.0]))
    T_rectified_left = make_transform(left.R_rectified_camera, np.zeros(3))
    return inverse(T_rectified_left) @ T_rectified_right


def _has_rotation(camera: InfoCamera) -> bool:
    return float(rotation_angle(camera.R_rectified_camera)) > _NO_ROTATION


def _report_difference(
    chosen: NDArray[np.float64], other: NDArray[np.float64], topic: str, by_tree: bool
) -> None:
    lengths = [float(np.linalg.norm(T[:3, 3])) for T in (chosen, other)]
    angle = float(rotation_angle(chosen[:3, :3].T @ other[:3, :3]))
    if abs(lengths[0] - lengths[1]) <= _SAME_BASELINE * lengths[0] and angle <= _SAME_ROTATION:
        return
    names = ["/tf_static", f"P and R of {topic}"]
    first, second = names if by_tree else names[::-1]
    notice(
        _LOG,
        "two_extrinsics",
        "the pair's pose is that of %s (baseline %.4g m); %s gives %.4g m and a rotation "
        "that differs by %.2f degrees",
        first,
        lengths[0],
        second,
        lengths[1],
        math.degrees(angle),
    )


def _cut_and_binned(
    info: Any, size: tuple[int, int], values: tuple[float, ...], topic: str
) -> tuple[float, float, float, float]:
    """Convert fx, fy, cx and cy of the whole sensor to those of the image.

    A region of interest is cut out first; then pixels are binned. Pixel (0, 0) is the centre of the
    first pixel, so that binning by 2 moves it by half a pixel.
    """
    fx, fy, cx, cy = values
    width, height = int(info.width), int(info.height)
    roi, across, down = info.roi, max(int(info.binning_x), 1), max(int(info.binning_y), 1)
    cut = (int(roi.width) or width, int(roi.height) or height)
    if size == (cut[0] // across, cut[1] // down):
        if (int(roi.x_offset), int(roi.y_offset), across, down) != (0, 0, 1, 1):
            notice(
                _LOG,
                "region_or_binning",
                "%s: the images are the region %dx%d+%d+%d of the sensor, binned by %dx%d",
                topic,
                *cut,
                int(roi.x_offset),
                int(roi.y_offset),
                across,
                down,
            )
        cx, cy = cx - int(roi.x_offset), cy - int(roi.y_offset)
        cx, cy = (cx + 0.5) / across - 0.5, (cy + 0.5) / down - 0.5
        return fx / across, fy / down, cx, cy
    if size == (width, height):
        text = "%s: its region %dx%d and binning %dx%d do not give %dx%d pixels: not used"
        notice(_LOG, "region_or_binning", text, topic, *cut, across, down, *size)
        return fx, fy, cx, cy
    if width <= 0 or height <= 0:
        raise CalibrationError(f"{topic} is for images of {width}x{height} pixels")
    camera = Camera(width, height, fx, fy, cx, cy)
    raise CalibrationError(
        f"the images are {size[0]}x{size[1]}, but {topic} is for {width}x{height}: "
        f"{size_advice(*size, camera)}"
    )


def _numbers(info: Any, name: str, topic: str) -> NDArray[np.float64]:
    """Return an array of a message: upper case in ROS 1, lower case in ROS 2."""
    values = np.asarray(getattr(info, name, getattr(info, name.lower(), ())), dtype=np.float64)
    if len(values) > max(_MOST_COEFFICIENTS, 12) or not np.isfinite(values).all():
        raise CalibrationError(f"{topic}: {name} holds no finite numbers, or too many")
    return values
