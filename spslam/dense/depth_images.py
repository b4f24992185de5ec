"""Depth images of frames: undistorted, limited in range, without edges and grazing surfaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from spslam.camera import Camera
from spslam.dense.stereo_depth import StereoDepth, StereoSettings
from spslam.errors import FrameError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.typing import BoolArray, Float32Array, UInt8Array

# Map coordinate of a pixel that no pixel of the lens shows: outside of every image.
_NOWHERE_PX = -1e4
# Sum of the positive weights of OpenCV's 3 × 3 Sobel filter times the distance of two pixels.
_SOBEL_SCALE = 1.0 / 8.0


@runtime_checkable
class ColorSource(Protocol):
    """A recording that also gives the colours of its images."""

    def color(self, index: int) -> UInt8Array | None:
        """Return the colours (H, W, 3) of a frame's image, red first; None of a grey image."""
        ...


@dataclass(frozen=True)
class DepthSettings:
    """Which depths are used.

    Attributes:
        min_depth_m: smallest depth, metres.
        max_depth_m: largest depth, metres; None: chosen from the scene.
        min_disparity_px: stereo: smallest disparity, pixels; the largest depth is baseline × fx
            divided by it.
        edge: largest difference of the depths in 3 × 3 pixels, as a fraction of the depth; pixels
            at larger steps are left out, because sensors mix the depths before and behind.
        border_px: width of the margin around pixels of unknown depth that is left out, pixels.
        max_angle_deg: largest angle between the surface's normal and the ray, degrees.
        stereo: settings of the stereo matcher.
    """

    min_depth_m: float = 0.0
    max_depth_m: float | None = None
    min_disparity_px: float = 6.0
    edge: float = 0.05
    border_px: int = 1
    max_angle_deg: float = 86.0
    stereo: StereoSettings = field(default_factory=StereoSettings)


@dataclass(frozen=True, eq=False)
class DepthImage:
    """Depth and colours of a pinhole camera.

    Attributes:
        depth: (H, W) float32, metres along z; 0 where unknown or left out.
        color: (H, W, 3) uint8, red first.
        has_color: whether the colours are more than grey.
    """

    depth: Float32Array
    color: UInt8Array
    has_color: bool


class DepthImages:
    """Makes the depth images of one recording.

    Args:
        sequence: the recording.
        settings: which depths are used.

    Attributes:
        camera: the camera of the depth images, without distortion.
    """

    def __init__(self, sequence: Sequence, settings: DepthSettings) -> None:
        camera = sequence.camera
        self.camera = camera.without_distortion()
        self._sequence = sequence
        self._settings = settings
        self._maps = None if camera.distortion_model == "none" else _undistortion_maps(camera)
        self._stereo = StereoDepth(camera, settings.stereo) if sequence.sensor == "stereo" else None
        self._rays = _ray_lengths(self.camera)

    @property
    def min_depth_m(self) -> float:
        """Smallest depth that is used, metres."""
        return max(
            self._settings.min_depth_m, 0.0 if self._stereo is None else self._stereo.min_depth_m
        )

    def measured(self, frame: Frame) -> Float32Array:
        """Return the depth (H, W) of a frame before pixels are left out; 0 if unknown or masked."""
        depth = self._measured(frame)
        if frame.mask is None:
            return depth
        mask = frame.mask.astype(np.uint8)
        if self._maps is not None:
            mask = np.asarray(cv2.remap(mask, *self._maps, cv2.INTER_NEAREST), np.uint8)
        return np.where(mask > 0, depth, np.float32(0))

    def _measured(self, frame: Frame) -> Float32Array:
        if self._stereo is not None:
            if frame.image_right is None:
                return np.zeros(frame.image.shape, np.float32)
            return self._stereo.depth(frame.image, frame.image_right)
        if frame.depth is None:
            return np.zeros(frame.image.shape, np.float32)
        if self._maps is None:
            return frame.depth
        # Interpolated depth would lie between the surfaces at an edge.
        return np.asarray(cv2.remap(frame.depth, *self._maps, cv2.INTER_NEAREST), np.float32)

    def make(self, row: int, frame: Frame, max_depth_m: float) -> DepthImage:
        """Make the depth image of a frame.

        Args:
            row: position of the frame in the recording.
            frame: its images.
            max_depth_m: largest depth, metres.
        """
        measured = self.measured(frame)
        used = usable(measured, self.camera, self._settings, max_depth_m, self._rays)
        color, has_color = self._color(row, frame)
        return DepthImage(np.where(used, measured, np.float32(0)), color, has_color)

    def _color(self, row: int, frame: Frame) -> tuple[UInt8Array, bool]:
        found = None
        if isinstance(self._sequence, ColorSource):
            try:
                found = self._sequence.color(row)
            except FrameError:
                found = None
        picture = np.repeat(frame.image[:, :, None], 3, axis=2) if found is None else found
        if self._maps is not None:
            picture = np.asarray(cv2.remap(picture, *self._maps, cv2.INTER_LINEAR), np.uint8)
        return np.ascontiguousarray(picture), found is not None


def usable(
    depth: Float32Array,
    camera: Camera,
    settings: DepthSettings,
    max_depth_m: float,
    rays: Float32Array | None = None,
) -> BoolArray:
    """Return (H, W) bool: the pixels whose depth is used.

    Args:
        depth: (H, W) float32, metres; 0 where unknown.
        camera: the camera, without distortion.
        settings: which depths are used.
        max_depth_m: largest depth, metres.
        rays: (H, W) float32, lengths of the rays with z = 1; None: computed here.
    """
    known = depth > 0
    used: BoolArray = known & (depth >= settings.min_depth_m) & (depth <= max_depth_m)
    square = np.ones((3, 3), np.uint8)
    farthest = cv2.dilate(depth, square)
    nearest = cv2.erode(np.where(known, depth, np.float32(np.inf)), square)
    used &= farthest - nearest <= settings.edge * depth
    if settings.border_px > 0:
        size = 2 * settings.border_px + 1
        used &= cv2.erode(known.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    lengths = _ray_lengths(camera) if rays is None else rays
    used &= _incidence(depth, camera, lengths) >= np.cos(np.radians(settings.max_angle_deg))
    return used


def _incidence(depth: Float32Array, camera: Camera, rays: Float32Array) -> Float32Array:
    """Return (H, W): the cosine of the angle between the surface's normal and the ray.

    On a plane n · X = d the inverse depth w is (n · ray) / d, affine in the pixel; so w and its
    derivatives give the normal (fx ∂w/∂x, fy ∂w/∂y, w − (x − cx) ∂w/∂x − (y − cy) ∂w/∂y).
    """
    inverse = np.zeros_like(depth)
    np.divide(np.float32(1), depth, out=inverse, where=depth > 0)
    along_x = cv2.Sobel(inverse, cv2.CV_32F, 1, 0, ksize=3, scale=_SOBEL_SCALE)
    along_y = cv2.Sobel(inverse, cv2.CV_32F, 0, 1, ksize=3, scale=_SOBEL_SCALE)
    x = np.arange(depth.shape[1], dtype=np.float32) - np.float32(camera.cx)
    y = np.arange(depth.shape[0], dtype=np.float32)[:, None] - np.float32(camera.cy)
    towards = inverse - x * along_x - y * along_y
    length = np.sqrt((camera.fx * along_x) ** 2 + (camera.fy * along_y) ** 2 + towards**2)
    cosine = np.zeros_like(depth)
    np.divide(inverse, length * rays, out=cosine, where=length > 0)
    return cosine


def _ray_lengths(camera: Camera) -> Float32Array:
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height)[:, None] - camera.cy) / camera.fy
    return np.sqrt(1.0 + x**2 + y**2).astype(np.float32)


def _undistortion_maps(camera: Camera) -> tuple[Float32Array, Float32Array]:
    """Return x and y (H, W) of the pixel of the lens that each undistorted pixel shows."""
    y, x = np.indices((camera.height, camera.width), dtype=np.float64)
    fx, fy = camera.ideal_focal
    rays = np.stack([(x - camera.cx) / fx, (y - camera.cy) / fy, np.ones_like(x)], axis=-1)
    pixels = camera.lens_pixels(rays.reshape(-1, 3))
    pixels = np.clip(np.where(np.isfinite(pixels), pixels, _NOWHERE_PX), _NOWHERE_PX, -_NOWHERE_PX)
    map_x, map_y = pixels.astype(np.float32).reshape(*x.shape, 2).transpose(2, 0, 1)
    return np.ascontiguousarray(map_x), np.ascontiguousarray(map_y)
