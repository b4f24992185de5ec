"""Structure from motion of one camera: poses, points and observations as whole arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.typing import FloatArray

# Names of the intrinsic parameters, in the order of `Intrinsics.values`. `aspect` is fy / fx.
NAMES = ("f", "aspect", "cx", "cy", "k1", "k2", "p1", "p2")
_RADTAN = 4


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A pinhole camera with OpenCV's first four distortion coefficients.

    Attributes:
        width, height: size of the image, pixels.
        values: (8,) float64, see `NAMES`; f, cx and cy in pixels, (0, 0) is the centre of the
            first pixel.
    """

    width: int
    height: int
    values: FloatArray

    @classmethod
    def central(cls, width: int, height: int, focal: float, k1: float = 0.0) -> Intrinsics:
        """Return a camera with its principal point at the centre of the image."""
        values = [focal, 1.0, (width - 1) / 2, (height - 1) / 2, k1, 0.0, 0.0, 0.0]
        return cls(width, height, np.array(values))

    def __getitem__(self, name: str) -> float:
        return float(self.values[NAMES.index(name)])

    def camera(self, fps: float | None = None) -> Camera:
        """Return the camera; without coefficients it has an ideal lens.

        Raises:
            CalibrationError: a value is impossible.
        """
        f, aspect, cx, cy, *k = (float(value) for value in self.values)
        camera = Camera(self.width, self.height, f, f * aspect, cx, cy)
        if any(k):
            camera = replace(camera, distortion_model="radtan", distortion=tuple(k))
        return camera if fps is None else replace(camera, fps=fps)


@dataclass(frozen=True, eq=False)
class Structure:
    """Images, points and the observations of the points in the images.

    Attributes:
        names: name of each image, in the order of the recording.
        T_cam_world: (N, 4, 4) float64 pose of each image.
        points: (M, 3) float64 world points.
        image: (K,) int64, image of each observation.
        point: (K,) int64, point of each observation.
        pixels: (K, 2) float64, its pixel; (0, 0) is the centre of the first pixel.
    """

    names: tuple[str, ...]
    T_cam_world: FloatArray
    points: FloatArray
    image: NDArray[np.int64]
    point: NDArray[np.int64]
    pixels: FloatArray

    def of_images(self, images: NDArray[np.int64]) -> Structure:
        """Return the part that these images (I,) see, with points of two or more observations."""
        number = np.full(len(self.names), -1)
        number[images] = np.arange(len(images))
        return replace(
            self,
            names=tuple(self.names[index] for index in images),
            T_cam_world=self.T_cam_world[images],
            image=number[self.image],
        )._kept(number[self.image] >= 0)

    def _kept(self, keep: NDArray[np.bool_]) -> Structure:
        counts = np.bincount(self.point[keep], minlength=len(self.points))
        keep = keep & (counts[self.point] >= 2)
        seen = np.flatnonzero(np.bincount(self.point[keep], minlength=len(self.points)))
        number = np.full(len(self.points), -1)
        number[seen] = np.arange(len(seen))
        return replace(
            self,
            points=self.points[seen],
            image=self.image[keep],
            point=number[self.point[keep]],
            pixels=self.pixels[keep],
        )

    def longest(self, most: int) -> Structure:
        """Return the structure with the most-observed points, at most this many."""
        counts = np.bincount(self.point, minlength=len(self.points))
        best = np.argsort(-counts, kind="stable")[:most]
        chosen = np.zeros(len(self.points), dtype=bool)
        chosen[best] = True
        return self._kept(chosen[self.point])

    def select(self, keep: NDArray[np.bool_]) -> Structure:
        """Return the structure with only these observations (K,), two or more of each point."""
        return self._kept(keep)


def project(
    points_cam: FloatArray, values: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Project points in camera coordinates (K, 3).

    Args:
        points_cam: (K, 3), z > 0.
        values: (8,) intrinsic parameters, see `NAMES`.

    Returns:
        Pixels (K, 2), their derivatives by the points (K, 2, 3) and by the parameters (K, 2, 8).
    """
    f, aspect, cx, cy, k1, k2, p1, p2 = values
    inverse_z = 1.0 / points_cam[:, 2]
    x, y = points_cam[:, 0] * inverse_z, points_cam[:, 1] * inverse_z
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * k2)
    slope = 2.0 * (k1 + 2.0 * k2 * r2)
    u = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    v = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
    u_x = radial + x * x * slope + 2.0 * p1 * y + 6.0 * p2 * x
    u_y = x * y * slope + 2.0 * p1 * x + 2.0 * p2 * y
    v_y = radial + y * y * slope + 6.0 * p1 * y + 2.0 * p2 * x
    focal = np.array([f, f * aspect])
    pixels = np.stack([u, v], axis=1) * focal + (cx, cy)
    bend = np.stack([np.stack([u_x, u_y], -1), np.stack([u_y, v_y], -1)], axis=1) * focal[:, None]
    zero, one = np.zeros_like(x), np.ones_like(x)
    pinhole = np.stack([np.stack([one, zero, -x], -1), np.stack([zero, one, -y], -1)], axis=1)
    by_point = bend @ (pinhole * inverse_z[:, None, None])
    by_u = [u, zero, one, zero, x * r2, x * r2 * r2, 2.0 * x * y, r2 + 2.0 * x * x]
    by_v = [aspect * v, f * v, zero, one, y * r2, y * r2 * r2, r2 + 2.0 * y * y, 2.0 * x * y]
    by_values = np.stack([np.stack(by_u, -1), np.stack(by_v, -1)], axis=1)
    by_values[:, :, _RADTAN:] *= focal[:, None]
    return pixels, by_point, by_values
