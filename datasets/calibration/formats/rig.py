"""What a calibration file of another program holds, in spslam's conventions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform
from spslam.lens import lens

# COLMAP and others measure cx and cy from the corner of the first pixel, spslam from its centre:
# the difference in pixels.
CORNER_PX = 0.5
# Numbers of coefficients of a radtan lens.
_RADTAN_COUNTS = (4, 5, 8, 12, 14)
_RADTAN_NAMES = ("radtan", "plumb_bob", "rational_polynomial")


@dataclass(frozen=True)
class FoundCamera:
    """One camera of a calibration file.

    Attributes:
        name: its name in the file, for messages; may be empty.
        size: width and height, pixels; None if the file does not give them.
        intrinsics: fx, fy, cx, cy, pixels; the centre of the first pixel is 0.
        model: name of the lens model, as `spslam.lens.lens` takes it; None: no distortion.
        coefficients: its coefficients.
        fps: rate, 1/s; None if the file does not give it.
        readout_s: seconds from the first row of a rolling shutter to the last.
    """

    name: str
    size: tuple[int, int] | None
    intrinsics: tuple[float, float, float, float]
    model: str | None = None
    coefficients: tuple[float, ...] = ()
    fps: float | None = None
    readout_s: float = 0.0

    def __post_init__(self) -> None:
        if self.model not in (*_RADTAN_NAMES, "none", None):
            return
        # Zeros at the end say nothing: without them a rectified pair is recognised as one.
        count = len(self.coefficients)
        while count and self.coefficients[count - 1] == 0:
            count -= 1
        least = next((n for n in _RADTAN_COUNTS if n >= count), None) if count else 0
        if least is not None and least <= len(self.coefficients):
            object.__setattr__(self, "coefficients", self.coefficients[:least])
            if least == 0:
                object.__setattr__(self, "model", None)

    def camera(self, default_fps: float) -> Camera:
        """Make the camera; `default_fps` is its rate, 1/s, where the file gives none.

        Raises:
            CalibrationError: the size is unknown, or a value is impossible.
        """
        if self.size is None:
            raise CalibrationError("the file does not give the size of the images")
        model, coefficients = lens(self.model, self.coefficients)
        return Camera(
            *self.size,
            *self.intrinsics,
            model,
            coefficients,
            fps=self.fps if self.fps is not None else default_fps,
            readout_s=self.readout_s,
        )


@dataclass(frozen=True, eq=False)
class Rig:
    """The cameras of one calibration file.

    Attributes:
        kind: kind of file, with its article.
        cameras: the only camera, or the left and the right one.
        T_left_right: (4, 4) float64, maps right-camera to left-camera coordinates; None for one
            camera.
        depth_scale: units of depth images per metre; None if the file does not give them.
        remarks: what was left out or assumed, for the notice.
        board_unit: whether the translation is in a unit that the file does not name.
    """

    kind: str
    cameras: tuple[FoundCamera, ...]
    T_left_right: NDArray[np.float64] | None = None
    depth_scale: float | None = None
    remarks: tuple[str, ...] = ()
    board_unit: bool = False

    def describe(self, file: str) -> str:
        """Return what was read from a file of that name, in one line."""
        found = [camera.name for camera in self.cameras if camera.name]
        names = " and ".join(found) if found != [file] else ""
        used = [names] if names else []
        return "; ".join([", ".join([self.kind, *used]), *self.remarks])

    def with_size(self, size: tuple[int, int]) -> Rig:
        """Return the rig with `size`, pixels, for cameras without one."""
        cameras = tuple(
            replace(camera, size=size) if camera.size is None else camera for camera in self.cameras
        )
        return replace(self, cameras=cameras)


def side_by_side(baseline: float) -> NDArray[np.float64]:
    """Return `T_left_right` (4, 4) of a rectified pair with a baseline, metres."""
    return make_transform(np.eye(3), np.array([baseline, 0.0, 0.0]))


def from_right_left(R: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `T_left_right` (4, 4) of R (3, 3) and t (3,) that map left to right coordinates."""
    return inverse(make_transform(R, t))


def from_rectification(
    R_left: NDArray[np.float64],
    P_left: NDArray[np.float64],
    R_right: NDArray[np.float64],
    P_right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return `T_left_right` (4, 4) of a pair whose rectification is given.

    Args:
        R_left: (3, 3) maps coordinates of the left camera to those of its rectified one.
        P_left: (3, 4) projection of the rectified left camera; column 3 is focal length times the
            position in the rectified rig, with the opposite sign.
        R_right: the same of the right camera.
        P_right: the same of the right camera.

    Raises:
        CalibrationError: a projection has no focal length, or the baseline is 0.
    """
    shifts = []
    for P in (P_left, P_right):
        if not (P[0, 0] > 0 and P[1, 1] > 0):
            raise CalibrationError("the projection of the rectified camera has no focal length")
        shifts.append(np.array([P[0, 3] / P[0, 0], P[1, 3] / P[1, 1], 0.0]))
    if np.allclose(shifts[0], shifts[1], atol=1e-9):
        raise CalibrationError("the projections of left and right camera give no baseline")
    # x_rectified = R x + shift, with the same rectified coordinates for both cameras' rays.
    return make_transform(R_left.T @ R_right, R_left.T @ (shifts[0] - shifts[1]))
