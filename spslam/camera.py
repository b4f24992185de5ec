"""Pinhole camera with lens distortion. Pixel (0, 0) is the centre of the first pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.errors import CalibrationError
from spslam.lens import COEFFICIENT_COUNTS, DistortionModel, coefficient_error
from spslam.lens_models import central_scale, positions_of, rays_of, straight_radii, widest_slope

# Number of fixed-point iterations that refine OpenCV's undistorted points.
_UNDISTORT_ITERATIONS = 10
# Number of coefficients of the lens model radtan without its rational and thin prism terms.
_PLAIN_RADTAN = 5
# Error of an undistorted point when it is distorted again, pixels, above which `undistort` refines
# it by Newton's method; and number of Newton steps.
_ROUGH_PX, _NEWTON_STEPS = 1e-3, 10
# Step of the numerical derivative of the distortion, pixels.
_DERIVATIVE_PX = 1e-3
# Maximum error of a refined point when it is distorted again, pixels; NaN beyond.
_EXACT_PX = 1e-6
# Maximum angle from the optical axis at which a pixel is undistorted, radians; NaN beyond.
# Near 90 degrees the pinhole plane stretches without limit (the tangent of 89.9 degrees is 573).
_WIDEST_UNDISTORTED = np.radians(89.9)
# Maximum distance of a whole image from its optical axis, focal lengths (the tangent of 80
# degrees). A principal point farther outside of the image is refused.
_FARTHEST_CROP = 5.67
# Maximum width and height of an image, pixels: the limit of OpenCV's image functions.
LARGEST_PX = 32767
# Limits of the focal length, in image widths or heights: fields of view of 179.9 degrees and of
# 0.2 arc seconds. These and the following limits also keep numbers from overflowing.
_SHORTEST_FOCAL, _LONGEST_FOCAL = 1e-3, 1e6
# Maximum magnitude of a distortion coefficient.
_LARGEST_COEFFICIENT = 1e9
# Limits of the stereo baseline, metres.
_BASELINES_M = (1e-6, 1e6)
# Limits of the frame rate, images per second.
RATES_HZ = (1e-6, 1e6)
# Maximum read-out time of a rolling shutter, seconds. Times in milliseconds exceed it.
_LONGEST_READOUT_S = 0.2


@dataclass(frozen=True)
class Camera:
    """A calibrated camera, optionally the left one of a rectified stereo pair.

    Attributes:
        width, height: size of the image, pixels.
        fx, fy: focal lengths, pixels. Of `double_sphere`, `omni` and `fov` they are parameters of
            the model: the scale at the principal point is `ideal_focal`.
        cx, cy: principal point, pixels. It may lie outside of a cropped image.
        distortion_model: `none`, `radtan` (OpenCV's), `equidistant` (Kannala-Brandt fisheye),
            `double_sphere`, `eucm`, `ucm`, `omni` (Mei) or `fov` (ATAN); sources in
            `spslam.lens_models`.
        distortion: coefficients of the distortion model, in the order of
            `spslam.lens.COEFFICIENT_COUNTS`.
        baseline_m: distance between the rectified left and right camera, metres. For RGB-D the
            baseline of the virtual stereo pair into which depth is converted; None for mono.
        fps: nominal frame rate, images per second.
        readout_s: time of a rolling shutter from the read-out of the first row to the read-out of
            the last row, seconds; 0 for a global shutter.

    Raises:
        CalibrationError: a value is impossible.
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
                f"image size must be 1 to {LARGEST_PX} pixels, "
                f"found {self.width:.6g}x{self.height:.6g}"
            )
        if not (
            np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() and self.fx > 0 and self.fy > 0
        ):
            raise CalibrationError(
                f"fx and fy must be positive and finite, found fx={self.fx} fy={self.fy} "
                f"cx={self.cx} cy={self.cy}{_focal_hint(self.fx, self.fy)}"
            )
        if not all(
            _SHORTEST_FOCAL * size < focal < _LONGEST_FOCAL * size
            for focal, size in ((self.fx, self.width), (self.fy, self.height))
        ):
            raise CalibrationError(
                f"fx {self.fx:g} and fy {self.fy:g} are no focal lengths for images of "
                f"{self.width}x{self.height}: give pixels, usually about the width of the image"
            )
        # Crops may leave the principal point outside of the image, but not arbitrarily far.
        beside = (_outside(self.cx, self.width) / self.fx, _outside(self.cy, self.height) / self.fy)
        if not np.hypot(*beside) < _FARTHEST_CROP:
            raise CalibrationError(
                f"principal point ({self.cx:g}, {self.cy:g}) lies too far outside the "
                f"{self.width}x{self.height} image: all of it would be more than 80 degrees off "
                "the optical axis; check the image size and the unit (pixels) of the calibration"
            )
        counts = COEFFICIENT_COUNTS.get(self.distortion_model)
        if counts is None:
            raise CalibrationError(
                f"distortion model must be one of {', '.join(COEFFICIENT_COUNTS)}, "
                f"found {self.distortion_model!r}"
            )
        if len(self.distortion) not in counts:
            raise CalibrationError(
                f"distortion model {self.distortion_model!r} takes {_either(counts)} "
                f"coefficients, found {len(self.distortion)}"
            )
        if not (np.abs(self.distortion) <= _LARGEST_COEFFICIENT).all():
            raise CalibrationError(
                f"distortion coefficients must be finite, at most {_LARGEST_COEFFICIENT:g}, "
                f"found {self.distortion}"
            )
        impossible = None
        if self.distortion:
            impossible = coefficient_error(self.distortion_model, self.distortion)
        if impossible is not None:
            raise CalibrationError(f"distortion model {impossible}")
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
                f"fps must be positive, {RATES_HZ[0]:g} to {RATES_HZ[1]:g} images per second, "
                f"found {self.fps:g}"
            )
        if not 0 <= self.readout_s <= _LONGEST_READOUT_S:
            raise CalibrationError(
                f"readout_s must be 0 to {_LONGEST_READOUT_S:g} seconds from the first row to the "
                f"last, found {self.readout_s}"
            )

    @property
    def K(self) -> NDArray[np.float64]:
        """The camera matrix (3, 3) float64 of fx, fy, cx and cy, pixels."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def has_depth(self) -> bool:
        """Whether frames of this camera have depth (stereo or RGB-D); False for mono."""
        return self.baseline_m is not None

    @property
    def bf(self) -> float:
        """Baseline times focal length, pixels · metres: disparity = bf / depth; 0 for mono."""
        return self.fx * self.baseline_m if self.baseline_m is not None else 0.0

    @property
    def ideal_focal(self) -> tuple[float, float]:
        """Focal lengths x and y of the undistorted camera, pixels: the scale at its centre."""
        if self.distortion_model == "none":
            return self.fx, self.fy
        scale = central_scale(self.distortion_model, self.distortion)
        return self.fx * scale, self.fy * scale

    def without_distortion(self) -> Camera:
        """Return the same camera with an ideal lens of focal lengths `ideal_focal`."""
        fx, fy = self.ideal_focal
        return replace(self, fx=fx, fy=fy, distortion_model="none", distortion=())

    def project(self, points_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project points (..., 3) in camera coordinates, metres, to undistorted pixels (..., 2).

        Points at or behind the camera give non-finite pixels; check z where it matters.
        """
        z = points_cam[..., 2:3]
        with np.errstate(divide="ignore", invalid="ignore"):
            xy = np.where(z > 0, points_cam[..., :2] / z, np.nan)
        pixels: NDArray[np.float64] = xy * self.ideal_focal + (self.cx, self.cy)
        return pixels

    def unproject(
        self, pixels: NDArray[np.float64], depth: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Points (..., 3), metres, of undistorted pixels (..., 2) with depths (...), metres."""
        xy = (pixels - (self.cx, self.cy)) / self.ideal_focal
        return np.concatenate([xy * depth[..., None], depth[..., None]], axis=-1)

    def bearings(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit rays (..., 3) of undistorted pixels (..., 2)."""
        rays = self.unproject(pixels, np.ones(pixels.shape[:-1]))
        unit: NDArray[np.float64] = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        return unit

    def undistort(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Undistort pixels (N, 2) of the image; returns (N, 2) float64.

        A pixel without an undistorted position becomes NaN: more than 89.9 degrees off the optical
        axis, or where the lens model folds back.
        """
        points = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if self.distortion_model == "none" or len(points) == 0:
            return points.copy()
        if self.distortion_model != "radtan":
            rays = self.lens_rays(points)
            seen = np.arctan2(np.hypot(rays[:, 0], rays[:, 1]), rays[:, 2]) <= _WIDEST_UNDISTORTED
            return self.project(np.where(seen[:, None], rays, np.nan))
        out = cv2.undistortPoints(
            points[:, None], self.K, np.asarray(self.distortion), None, None, self.K
        )
        undistorted = np.asarray(out, dtype=np.float64).reshape(-1, 2)
        # OpenCV stops after five iterations: at the corners of strong lenses up to a pixel of error
        # is left. Where the lens model folds back, the iterations diverge.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(_UNDISTORT_ITERATIONS):
                undistorted -= self.distort(undistorted) - points
            missed = np.linalg.norm(self.distort(undistorted) - points, axis=1)
            slopes = np.linalg.norm((undistorted - (self.cx, self.cy)) / (self.fx, self.fy), axis=1)
        rough = ~((missed < _ROUGH_PX) & (slopes <= widest_slope(self.distortion)))
        undistorted[rough] = self._exactly_undistorted(points[rough])
        return undistorted

    def _exactly_undistorted(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undistort pixels (N, 2) of a radtan lens by Newton's method; NaN beyond the fold."""
        if len(points) == 0:
            return points
        centre, focal = np.array([self.cx, self.cy]), np.array([self.fx, self.fy])
        radius = np.linalg.norm((points - centre) / focal, axis=1)
        straight = straight_radii(radius, self.distortion)
        scale = np.divide(straight, radius, out=np.ones_like(radius), where=radius > 0)
        found = centre + (points - centre) * scale[:, None]
        aside = np.array([[_DERIVATIVE_PX, 0.0], [0.0, _DERIVATIVE_PX]])
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                x, y = (self.distort(found) - points).T
                (a, c), (b, d) = (
                    ((self.distort(found + step) - self.distort(found - step)).T)
                    / (2.0 * _DERIVATIVE_PX)
                    for step in aside
                )
                found = (
                    found
                    - np.stack([d * x - b * y, a * y - c * x], axis=1) / ((a * d - b * c)[:, None])
                )
            missed = np.linalg.norm(self.distort(found) - points, axis=1)
            slope = np.linalg.norm((found - centre) / focal, axis=1)
        good = (missed < _EXACT_PX) & (slope <= widest_slope(self.distortion))
        return np.where(good[:, None], found, np.nan)

    def distort(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distort undistorted pixels (N, 2): the inverse of `undistort`; returns (N, 2) float64.

        A pixel that the lens cannot show becomes NaN; a radtan lens is not limited here.
        """
        points = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        if self.distortion_model == "none" or len(points) == 0:
            return points.copy()
        normalised = (points - (self.cx, self.cy)) / self.ideal_focal
        if self.distortion_model == "radtan" and len(self.distortion) <= _PLAIN_RADTAN:
            return self._plain_radtan(normalised)
        rays = np.concatenate([normalised, np.ones((len(points), 1))], axis=1)
        return self._radtan(rays) if self.distortion_model == "radtan" else self._bent(rays)

    def lens_pixels(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project rays (N, 3) of any length through the lens to pixels (N, 2) of the image.

        A ray that the lens cannot see becomes NaN: behind a camera without distortion or with
        radtan, or beyond the angle where the lens model folds back.
        """
        if self.distortion_model not in ("none", "radtan"):
            return self._bent(rays)
        ideal = self.project(rays)
        if self.distortion_model == "none" or len(rays) == 0:
            return ideal
        radius = np.linalg.norm((ideal - (self.cx, self.cy)) / (self.fx, self.fy), axis=1)
        return np.where(
            (radius <= widest_slope(self.distortion))[:, None], self.distort(ideal), np.nan
        )

    def lens_rays(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit rays (N, 3) of pixels (N, 2) of the image; NaN where the lens sees no ray.

        Rays of wide lenses may be more than 90 degrees off the axis.
        """
        if self.distortion_model == "none":
            return self.bearings(pixels)
        if self.distortion_model == "radtan":
            return self.bearings(self._exactly_undistorted(pixels))
        positions = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        return rays_of(self.distortion_model, self.distortion, positions)

    def _plain_radtan(self, slopes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distort slopes (N, 2) by k1, k2, p1, p2 and k3; returns pixels (N, 2).

        The operations are those of `cv2.projectPoints`, in its order, without its derivatives: a
        quarter of its time.
        """
        k1, k2, p1, p2, k3 = (*self.distortion, *(0.0,) * (_PLAIN_RADTAN - len(self.distortion)))
        x, y = slopes.T.copy()
        with np.errstate(over="ignore", invalid="ignore"):
            xy2, r2 = 2.0 * x * y, x * x + y * y
            r4 = r2 * r2
            radial = 1.0 + k1 * r2 + k2 * r4 + k3 * (r4 * r2)
            u = x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x)
            v = y * radial + p1 * (r2 + 2.0 * y * y) + p2 * xy2
        return np.stack([u * self.fx + self.cx, v * self.fy + self.cy], axis=1)

    def _radtan(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        still = np.zeros(3)
        out, _ = cv2.projectPoints(
            rays.reshape(-1, 1, 3), still, still, self.K, np.asarray(self.distortion)
        )
        return np.asarray(out, dtype=np.float64).reshape(-1, 2)

    def _bent(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Project rays (N, 3) through a lens that is neither ideal nor radtan."""
        positions = positions_of(self.distortion_model, self.distortion, rays)
        pixels: NDArray[np.float64] = positions * (self.fx, self.fy) + (self.cx, self.cy)
        return pixels

    def in_image(self, pixels: NDArray[np.float64], border: float = 0.0) -> NDArray[np.bool_]:
        """Whether pixels (..., 2) lie at least `border` pixels inside the image; False for NaN."""
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
    """Distance, pixels, by which a coordinate lies outside of an image of `size` pixels."""
    return max(0.0, -0.5 - centre, centre - (size - 0.5))


def _focal_hint(fx: float, fy: float) -> str:
    if fx > 0 > fy:
        return (
            "; a negative fy means that the camera's y axis points up (as in ICL-NUIM): give fy "
            f"{-fy:g} and, if a ground truth uses that axis, flip the signs of its y, qx and qz"
        )
    if fx < 0:
        return "; a negative focal length means that an axis is flipped: give it without the sign"
    return ""
