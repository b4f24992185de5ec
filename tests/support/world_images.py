"""The built-in world demo-small in colour, and through a lens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np

from spslam.datasets import open_sequence
from spslam.errors import FrameError
from spslam.frame import ColorImage, Frame, Sensor
from spslam.interfaces import LeftOut
from spslam.trajectory import Trajectory


@cache
def _world(sensor: str) -> Any:
    return open_sequence("demo-small", sensor=sensor)


@cache
def _frame(sensor: str, index: int) -> Frame:
    frame: Frame = _world(sensor)[index]
    return frame


@cache
def _depth(index: int) -> np.ndarray:
    return np.asarray(_world("mono").depth(index))


class ColoredWorld:
    """A sequence: the images of demo-small, tinted by place in the image.

    Args:
        sensor: mono, stereo or rgbd.
        colored: whether frames have colour.
        distortion_model, distortion: lens; none: the ideal images.
        depth_factor: factor of all depths.
        unreadable: frames that cannot be read.
    """

    def __init__(
        self,
        sensor: str,
        *,
        colored: bool = True,
        distortion_model: str = "none",
        distortion: tuple[float, ...] = (),
        depth_factor: float = 1.0,
        unreadable: tuple[int, ...] = (),
    ) -> None:
        self._whole, self._sensor = _world(sensor), sensor
        self._colored, self._factor, self._unreadable = colored, depth_factor, unreadable
        self.name, self.dataset, self.source = "tinted", "demo", "tinted world"
        self.sensor: Sensor = self._whole.sensor
        self.time_unit = "s"
        self.skipped: list[tuple[int, str]] = []
        self.left_out: list[LeftOut] = []
        camera = self._whole.camera
        self.camera = replace(camera, distortion_model=distortion_model, distortion=distortion)
        truth = self._whole.ground_truth
        assert truth is not None
        self.ground_truth: Trajectory | None = truth
        y, x = np.indices((camera.height, camera.width), dtype=np.float64)
        # The pixel of the ideal image that each pixel of the lens shows.
        ideal = self.camera.undistort(np.stack([x.ravel(), y.ravel()], axis=1))
        maps = np.nan_to_num(ideal, nan=-1e4).astype(np.float32).reshape(*x.shape, 2)
        self._maps = (maps[..., 0].copy(), maps[..., 1].copy())

    def __len__(self) -> int:
        return len(self._whole)

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        if index in self._unreadable:
            raise FrameError(f"frame {index} is broken")
        if not 0 <= index < len(self):
            raise IndexError(index)
        frame = _frame(self._sensor, index)
        color = self._tinted(frame.image) if self._colored else None
        right = frame.image_right
        return replace(
            frame,
            camera=self.camera,
            image=self._through_lens(frame.image),
            depth=None if frame.depth is None else self._lensed(frame.depth),
            color=color,
            color_right=None if right is None or not self._colored else self._tinted(right),
        )

    def true_depth(self, index: int) -> np.ndarray:
        """Depth (H, W) of the ideal image, metres."""
        return np.asarray(_depth(index) * np.float32(self._factor))

    def _lensed(self, depth: np.ndarray) -> np.ndarray:
        lensed = cv2.remap(depth, *self._maps, cv2.INTER_NEAREST)
        return np.asarray(lensed, np.float32) * np.float32(self._factor)

    def _through_lens(self, image: np.ndarray) -> np.ndarray:
        if self.camera.distortion_model == "none":
            return image
        return np.asarray(cv2.remap(image, *self._maps, cv2.INTER_LINEAR), np.uint8)

    def _tinted(self, image: np.ndarray) -> ColorImage:
        """Blue, green and red with different contrast: a function of the grey value alone."""
        grey = image.astype(np.float64)
        bgr = np.stack([255 - grey, grey, 0.5 * grey], axis=2)
        return ColorImage(self._through_lens(np.rint(bgr).astype(np.uint8)))
