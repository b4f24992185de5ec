"""The pinhole camera with its lens distortion. Pixel (0, 0) is the centre of the first pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.lens import (
    COEFFICIENT_COUNTS,
    DistortionModel,
    bend_angles,
    straighten_angles,
    widest_slope,
)

_UNDISTORT_ITERATIONS = 10
_MAX_UNDISTORT_ERROR_PX = 0.5
# A pinhole image ends at 90 degrees from its axis; a hundredth of a pixel is hundreds of them before that. Beyond this
# angle (tangent 573) a pixel of a fisheye lens has no place on the plane.
_WIDEST_UNDISTORTED = np.radians(89.9)
# Tangent of 80 degrees: no image lies farther off the axis of its lens as a whole.
_FARTHEST_CROP = 5.67
# OpenCV's image functions go no further, pixels.
LARGEST_PX = 32767
# Focal lengths, in sizes of the image, that are of no lens: fields of view of 179.9 degrees and of a fifth of an arc
# second. Beyond, and beyond the others below, numbers overflow instead of meaning anything.
_SHORTEST_FOCAL, _LONGEST_FOCAL = 1e-3, 1e6
_LARGEST_COEFFICIENT = 1e9
# Metres between two cameras, from a micrometre to a thousand kilometres.
_BASELINES_M = (1e-6, 1e6)
# Images a second, from one in a fortnight on.
RATES_HZ = (1e-6, 1e6)
# Whoever gives milliseconds shall be told.
_LONGEST_READOUT_S = 0.2


@dataclass(frozen=True)
class Camera:
    """A calibrated camera, optionally the left one of a rectified stereo pair.

    Attributes:
        width, height: pixels.
        fx, fy, cx, cy: pixels. The principal point of a cropped image may lie outside of it.
        distortion_model: `none`, `radtan` (OpenCV's k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [τx τy]]]]) or
            `equidistant` (fisheye k1..k4, Kannala & Brandt 2006).
        distortion: its coefficients.
        baseline_m: metres between the rectified left and right camera; for RGB-D the baseline of the
            virtual stereo pair that depth is expressed in; None for mono.
        fps: nominal rate, 1/s.
        readout_s: of a rolling shutter, seconds from the read-out of the first row to that of the last; 0 for a
            global shutter.

    Raises:
        CalibrationError: on impossible values.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: DistortionModel = "none"
    distortion: tuple[float, ...] = ()
    baseline_m: float | None = None
    fps: float = 30.0
    readout_s: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.width <= LARGEST_PX and 0 < self.height <= LARGEST_PX):
            raise CalibrationError(
                f"image size must be 1 to {LARGEST_PX} pixels, found {self.width:.6g}x{self.height:.6g}"
            )
        if not (
            np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() and self.fx > 0 and self.fy > 0
        ):
            raise CalibrationError(
                f"fx and fy must be positive and finite, found fx={self.fx} fy={self.fy} cx={self.cx} cy={self.cy}"
                f"{_focal_hint(self.fx, self.fy)}"
            )
        if not all(
            _SHORTEST_FOCAL * size < focal < _LONGEST_FOCAL * size
            for focal, size in ((self.fx, self.width), (self.fy, self.height))
        ):
            raise CalibrationError(
                f"fx {self.fx:g} and fy {self.fy:g} are no focal lengths for images of {self.width}x{self.height}: "
                "expected pixels, about as many as the image is wide"
            )
        # Crops leave the principal point outside, but not by any number of pixels.
        beside = (_outside(self.cx, self.width) / self.fx, _outside(self.cy, self.height) / self.fy)
        if not np.hypot(*beside) < _FARTHEST_CROP:
            raise CalibrationError(
                f"principal point ({self.cx:g}, {self.cy:g}) lies so far outside the {self.width}x{self.height} image "
                "that the whole image would be more than 80 degrees off the axis: is the calibration for another "
                "image size, or in another unit than pixels?"
            )
        counts = COEFFICIENT_COUNTS.get(self.distortion_model)
        if counts is None:
            raise CalibrationError(
                f"distortion model must be one of {', '.join(COEFFICIENT_COUNTS)}, found {self.distortion_model!r}"
            )
        if len(self.distortion) not in counts:
            raise CalibrationError(
                f"distortion model {self.distortion_model!r} takes {_either(counts)} coefficients, "
                f"found {len(self.distortion)}"
            )
        if not (np.abs(self.distortion) <= _LARGEST_COEFFICIENT).all():
            raise CalibrationError(
                f"distortion coefficients must be finite, at most {_LARGEST_COEFFICIENT:g}, found {self.distortion}"
            )
        if (
            self.baseline_m is not None
            and not _BASELINES_M[0] <= self.baseline_m <= _BASELINES_M[1]
        ):
            raise CalibrationError(
                f"stereo baseline must be positive, {_BASELINES_M[0]:g} to {_BASELINES_M[1]:g} m, "
                f"found {self.baseline_m:g} m"
            )
        if not RATES_HZ[0] <= self.fps <= RATES_HZ[1]:
            raise CalibrationError(
                f"fps must be positive, {RATES_HZ[0]:g} to {RATES_HZ[1]:g} images a second, found {self.fps:g}"
            )
        if not 0 <= self.readout_s <= _LONGEST_READOUT_S:
            raise CalibrationError(
                f"readout_s must be 0 to {_LONGEST_READOUT_S:g} seconds from the first row to the last, "
                f"found {self.readout_s}"
            )

    @property
    def K(self) -> NDArray[np.float64]:
        """(3, 3) float64 camera matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def has_depth(self) -> bool:
        """Whether its frames give depth: a stereo pair's, real or virtual. False for mono."""
        return self.baseline_m is not None

    @property
    def bf(self) -> float:
        """Baseline times focal length, pixel metres: disparity = bf / depth. 0 for mono."""
        return self.fx * self.baseline_m if self.baseline_m is not None else 0.0

    def without_distortion(self) -> Camera:
        """The same camera with an ideal lens."""
        return replace(self, distortion_model="none", distortion=())

    def project(self, points_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undistorted pixels (..., 2) of points (..., 3) in camera coordinates, metres.

        Points at or behind the camera give non-finite pixels; check z where it matters.
        """
        z = points_cam[..., 2:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = np.where(z > 0, points_cam[..., :2] / z, np.nan)
        pixels: NDArray[np.float64] = xy * (self.fx, self.fy) + (self.cx, self.cy)
        return pixels

    def unproject(
        self, pixels: NDArray[np.float64], depth: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Points (..., 3), metres, of undistorted pixels (..., 2) at `depth` (...) along z."""
        xy = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        return np.concatenate([xy * depth[..., None], depth[..., None]], axis=-1)

    def bearings(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit view rays (..., 3) of undistorted pixels (..., 2)."""
        rays = self.unproject(pixels, np.ones(pixels.shape[:-1]))
        unit: NDArray[np.float64] = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        return unit

    def undistort(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Undistorted pixels (N, 2) float64 of pixels (N, 2) as the lens gave them.

        NaN where there is none: beyond 89.9 degrees from the axis of an equidistant lens, or where the lens model
        folds back.
        """
        points = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if self.distortion_model == "none" or len(points) == 0:
            return points.copy()
        if self.distortion_model == "equidistant":
            rays = self.lens_rays(points)
            seen = np.arctan2(np.hypot(rays[:, 0], rays[:, 1]), rays[:, 2]) <= _WIDEST_UNDISTORTED
            return self.project(np.where(seen[:, None], rays, np.nan))
        out = cv2.undistortPoints(
            points[:, None], self.K, np.asarray(self.distortion), None, None, self.K
        )
        undistorted = np.asarray(out, dtype=np.float64).reshape(-1, 2)
        # OpenCV stops after five iterations, which leaves up to a pixel at the corners of strong lenses.
        # Where the lens folds back they run away.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_UNDISTORT_ITERATIONS):
                undistorted -= self.distort(undistorted) - points
            missed = np.linalg.norm(self.distort(undistorted) - points, axis=1)
        undistorted[~(missed < _MAX_UNDISTORT_ERROR_PX)] = np.nan
        return undistorted

    def distort(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Pixels (N, 2) as the lens gives them of undistorted pixels (N, 2); the inverse of `undistort`.

        NaN beyond the angle where an equidistant lens folds back.
        """
        points = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if self.distortion_model == "none" or len(points) == 0:
            return points.copy()
        normalised = (points - (self.cx, self.cy)) / (self.fx, self.fy)
        rays = np.concatenate([normalised, np.ones((len(points), 1))], axis=1)
        return (
            self._equidistant(rays)
            if self.distortion_model == "equidistant"
            else self._radtan(rays)
        )

    def lens_pixels(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (N, 2) as the lens gives them of view rays (N, 3) of any length.

        NaN where the lens has none: behind a camera that is no fisheye, and beyond the angle where the lens model
        folds back and would show again what it showed before.
        """
        if self.distortion_model == "equidistant":
            return self._equidistant(rays)
        ideal = self.project(rays)
        if self.distortion_model == "none" or len(rays) == 0:
            return ideal
        radius = np.linalg.norm((ideal - (self.cx, self.cy)) / (self.fx, self.fy), axis=1)
        return np.where(
            (radius <= widest_slope(self.distortion))[:, None], self.distort(ideal), np.nan
        )

    def lens_rays(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit view rays (N, 3) of pixels (N, 2) as the lens gave them, also of those beyond 90 degrees from the axis
        of an equidistant lens; NaN where the lens has none.
        """
        if self.distortion_model != "equidistant":
            return self.bearings(self.undistort(pixels))
        bent = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        radius = np.linalg.norm(bent, axis=1)
        theta = straighten_angles(radius, self.distortion)
        # sin θ / r → 1 in the centre, where θ = r for any lens.
        scale = np.divide(np.sin(theta), radius, out=np.ones_like(radius), where=radius > 0)
        return np.concatenate([bent * scale[:, None], np.cos(theta)[:, None]], axis=1)

    def _radtan(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        still = np.zeros(3)
        out, _ = cv2.projectPoints(
            rays.reshape(-1, 1, 3), still, still, self.K, np.asarray(self.distortion)
        )
        return np.asarray(out, dtype=np.float64).reshape(-1, 2)

    def _equidistant(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        # OpenCV's functions take a ray for the line that it lies on: they show what is behind, too, mirrored.
        across = np.hypot(rays[:, 0], rays[:, 1])
        radius = bend_angles(np.arctan2(across, rays[:, 2]), self.distortion)
        ahead = np.where(
            rays[:, 2] > 0, 1.0, np.nan
        )  # the direction is unknown on the axis itself: only behind
        scale = np.divide(radius, across, out=radius * 0.0 + ahead, where=across > 0)
        pixels: NDArray[np.float64] = rays[:, :2] * scale[:, None] * (self.fx, self.fy) + (
            self.cx,
            self.cy,
        )
        return pixels

    def in_image(self, pixels: NDArray[np.float64], border: float = 0.0) -> NDArray[np.bool_]:
        """(...,) bool: which pixels (..., 2) lie at least `border` pixels inside the image; NaN does not."""
        x, y = pixels[..., 0], pixels[..., 1]
        inside: NDArray[np.bool_] = (
            (x >= border)
            & (y >= border)
            & (x <= self.width - 1 - border)
            & (y <= self.height - 1 - border)
        )
        return inside


def _either(counts: tuple[int, ...]) -> str:
    first = ", ".join(map(str, counts[:-1]))
    return f"{first} or {counts[-1]}" if first else str(counts[-1])


def _outside(centre: float, size: int) -> float:
    """How many pixels a coordinate lies outside of an image of `size` pixels."""
    return max(0.0, -0.5 - centre, centre - (size - 0.5))


def _focal_hint(fx: float, fy: float) -> str:
    if fx > 0 > fy:
        return (
            ": a negative fy says that the y axis of the camera points up, as ICL-NUIM's does: give fy "
            f"{-fy:g}, and where a ground truth follows that axis, change the signs of its y, qx and qz"
        )
    if fx < 0:
        return ": a negative focal length says that an axis points the other way: give it without the sign"
    return ""
