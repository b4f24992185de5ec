"""Render images whose rows are exposed one after the other, while the camera moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.typing import FloatArray

from .render import SAMPLES, Renderer, TextureAtlas
from .scene import Face

# Number of times that each of a pixel's samples is taken during an exposure. With 2, a camera that
# turns by 130° a second for 6 ms moves by less than a pixel between two renderings.
_ROUNDS = 2


class RollingShutter:
    """A camera that reads its rows at a constant speed, and exposes each one until then.

    The scene is rendered several times an exposure, in the rows that are open at that time only,
    and with the next of a pixel's samples each time. A row is the mean of the renderings during its
    exposure, with fractional weights at both ends, so that its mean time is exact.

    Args:
        faces: the scene.
        atlas: its textures.
        camera: the camera; `readout_s` is the time from the first row to the last.
        exposure_s: exposure time of a row, seconds; above 0.
    """

    def __init__(
        self, faces: list[Face], atlas: TextureAtlas, camera: Camera, exposure_s: float
    ) -> None:
        self._camera = camera
        self._row_times = float(camera.readout_s) * (
            np.arange(camera.height) / (camera.height - 1) - 0.5
        )
        step = exposure_s / (_ROUNDS * SAMPLES)
        steps = int(np.ceil((camera.readout_s + exposure_s) / step - 1e-9))
        self._times: FloatArray = np.asarray(
            (np.arange(steps) - (steps - 1) / 2) * step, dtype=np.float64
        )
        # Overlap of the interval of each rendering with the exposure of each row, (steps, rows).
        offset = np.abs(self._times[:, None] - self._row_times)
        overlap = np.clip((step + exposure_s) / 2 - offset, 0.0, step)
        self._weights: NDArray[np.float32] = (overlap / overlap.sum(axis=0)).astype(np.float32)
        self._bands = [_open_rows(weights) for weights in self._weights]
        self._renderers = [
            Renderer(
                faces,
                atlas,
                replace(camera, height=rows.stop - rows.start, cy=camera.cy - rows.start),
                sample=i % SAMPLES,
            )
            for i, rows in enumerate(self._bands)
        ]

    def image(
        self, path: Callable[[FloatArray], FloatArray], timestamp: float, T_cam_eye: FloatArray
    ) -> NDArray[np.float32]:
        """Render the image whose middle row is exposed around `timestamp`.

        Args:
            path: pose (N, 4, 4), camera to world, of times (N,), seconds.
            timestamp: seconds.
            T_cam_eye: (4, 4) pose of the eye that sees, in the camera of the path.

        Returns:
            (H, W) float32, grey values from 0 to 255.
        """
        total = np.zeros((self._camera.height, self._camera.width), dtype=np.float32)
        poses = path(timestamp + self._times) @ T_cam_eye
        for pose, rows, weights, renderer in zip(
            poses, self._bands, self._weights, self._renderers, strict=True
        ):
            total[rows] += weights[rows, None] * renderer.image(pose)
        return total

    def depth(
        self, path: Callable[[FloatArray], FloatArray], timestamp: float, T_cam_eye: FloatArray
    ) -> NDArray[np.float32]:
        """Render the depth of each row at the middle of its exposure; see `image`.

        The time is rounded to that of the nearest rendering.

        Returns:
            (H, W) float32, metres along z; 0 without a surface.
        """
        total = np.zeros((self._camera.height, self._camera.width), dtype=np.float32)
        poses = path(timestamp + self._times) @ T_cam_eye
        nearest = np.abs(self._times[:, None] - self._row_times).argmin(axis=0)
        for i in np.unique(nearest):
            mine = np.flatnonzero(nearest == i)
            depth = self._renderers[i].depth(poses[i])
            total[mine] = depth[mine - self._bands[i].start]
        return total


def _open_rows(weights: NDArray[np.float32]) -> slice:
    """Return the rows with a weight above zero, which are neighbours."""
    rows = np.flatnonzero(weights > 0)
    return slice(int(rows[0]), int(rows[-1]) + 1)
