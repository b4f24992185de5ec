"""Boxes that move by themselves and parts of the vehicle, drawn into images and depth images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.geometry import inverse, make_transform
from spslam.typing import FloatArray

from .disturbances import Body, Mover
from .scene import Face
from .texture import face_texture

# Texels of a box per pixel of the image at its depth: sub-pixel motion looks smooth.
_TEXELS_PER_PIXEL = 2.0
# Standard deviation of the blur of a box's texture, texels: about the area of a sensor's pixel.
_TEXTURE_BLUR = 0.9
# Density of a body's texture, relative to a wall of the built-in worlds at the same depth.
_BODY_DETAIL = 2.5
# Speeds of a mover that the seed chooses from, pixels per frame: slow enough for points on the box
# to pass the gates of tracking for a while.
_SPEEDS = (2.7, 3.3, 4.0)


class Strip:
    """The strip of a `Body`, as both cameras see it."""

    def __init__(self, body: Body, camera: Camera) -> None:
        self._body = body
        self._rows = body.rows(camera.height)
        disparity = round(camera.bf / body.depth) if camera.has_depth else 0
        self._shifts = (0, disparity)
        density = camera.fx / body.depth / _BODY_DETAIL
        columns = camera.width + disparity
        right, down, back = np.eye(3)[0], np.eye(3)[1], -np.eye(3)[2]
        size = (columns / density, self._rows / density)
        rng = np.random.default_rng([body.seed, 29])
        self._grey = face_texture(
            Face(np.zeros(3), right, down, size, back, "box"), (self._rows, columns), density, rng
        ).astype(np.float32)

    def on(self, image: NDArray[np.uint8], index: int, side: int) -> NDArray[np.uint8]:
        """Return an image (H, W) with the strip, as the left (side 0) or right camera sees it."""
        drawn = image.copy()
        width, shift = image.shape[1], self._shifts[side]
        if self._body.black:
            drawn[-self._rows :] = 0
            return drawn
        rng = np.random.default_rng([self._body.seed, index, side, 31])
        noise = rng.standard_normal((self._rows, width), dtype=np.float32)
        grey = self._grey[:, shift : shift + width] + np.float32(self._body.noise) * noise
        drawn[-self._rows :] = np.clip(np.rint(grey), 0, 255)
        return drawn

    def on_depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a depth image (H, W) with the strip; a black strip has no depth."""
        drawn = depth.copy()
        drawn[-self._rows :] = 0.0 if self._body.black else self._body.depth
        return drawn


@dataclass(frozen=True, eq=False)
class SeenBox:
    """A box as one camera sees it, each (H, W) float32.

    Attributes:
        grey: its grey levels.
        opacity: fraction of a pixel that it covers, 0 to 1.
        depth: depth of its plane, metres.
    """

    grey: NDArray[np.float32]
    opacity: NDArray[np.float32]
    depth: NDArray[np.float32]


def wins(box: SeenBox, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (H, W) bool: where the box is nearer than the known `depth`, or that is unknown."""
    return (depth <= 0) | (box.depth < depth)


class Box:
    """One mover before one camera.

    Args:
        mover: the parameters of the box.
        camera: the left camera.
        T_world_cam: (N, 4, 4), true poses of all frames if it moves in the world, else None.
    """

    def __init__(self, mover: Mover, camera: Any, T_world_cam: FloatArray | None) -> None:
        if camera.distortion_model != "none":
            raise DatasetError(
                "a mover needs images without lens distortion, such as rectified ones"
            )
        self.mover, self._camera = mover, camera
        self._size_px = np.sqrt(mover.fraction) * np.array([camera.width, camera.height])
        rng = np.random.default_rng([mover.seed, 7])
        degrees = (
            rng.choice([0, 180, 0, 180, 25, -25, 155, 205])
            if mover.heading == -1
            else mover.heading
        )
        angle = np.radians(float(degrees))
        self._speed = float(rng.choice(_SPEEDS)) if mover.speed < 0 else mover.speed
        self._direction = np.array([np.cos(angle), np.sin(angle)])
        self._offset = rng.uniform(-0.5, 0.5, 2)
        self._T_world_box: tuple[FloatArray, FloatArray] | None = None
        if T_world_cam is not None:
            self._T_world_cam_inverse = inverse(T_world_cam)
            middle = min(
                mover.start + int(np.ceil(self._until_centre() / max(self._speed, 1e-6))),
                len(T_world_cam) - 1,
            )
            self._middle, at_middle = middle, T_world_cam[middle]
            step = (
                self._speed
                * mover.depth
                / camera.fx
                * at_middle[:3, :3]
                @ np.append(self._direction, 0.0)
            )
            self._T_world_box = (
                at_middle @ make_transform(np.eye(3), self._place(self._centre_of_view())),
                step,
            )

    def noise(self, index: int, side: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the sensor's noise on the box, float32, grey levels."""
        rng = np.random.default_rng([self.mover.seed, index, side, 13])
        return np.float32(self.mover.noise) * rng.standard_normal(shape, dtype=np.float32)

    def seen(self, index: int, right: bool) -> SeenBox | None:
        """Return the box in the left or right image at `index`; None if it is not in view."""
        if index < self.mover.start:
            return None
        T_cam_box = self._pose(index)
        if right:
            T_cam_box = (
                make_transform(np.eye(3), np.array([-self._camera.baseline_m, 0.0, 0.0]))
                @ T_cam_box
            )
        return self._look(T_cam_box)

    def _pose(self, index: int) -> FloatArray:
        """Return the pose (4, 4) of the box in the left camera.

        The origin is the middle of the box, the z axis its normal.
        """
        if self._T_world_box is not None:
            pose, step = self._T_world_box[0].copy(), self._T_world_box[1]
            pose[:3, 3] += (index - self._middle) * step
            moved: FloatArray = self._T_world_cam_inverse[index] @ pose
            return moved
        return make_transform(np.eye(3), self._place(self._centre(index - self.mover.start)))

    def _place(self, pixel: FloatArray) -> FloatArray:
        """Return the point (3,), metres, at `pixel` in the left image and the mover's depth."""
        camera, depth = self._camera, self.mover.depth
        return np.array(
            [
                (pixel[0] - camera.cx) * depth / camera.fx,
                (pixel[1] - camera.cy) * depth / camera.fy,
                depth,
            ]
        )

    def _centre_of_view(self) -> FloatArray:
        """Return the pixel (2,) that the box passes through: off centre across its direction."""
        room = np.array([self._camera.width, self._camera.height]) - self._size_px
        across = np.array([-self._direction[1], self._direction[0]])
        middle = np.array([self._camera.width, self._camera.height]) / 2 - 0.5
        centre: FloatArray = middle + np.abs(across) * self._offset * room
        return centre

    def _until_centre(self) -> float:
        """Return the distance, pixels, from where the box begins to come in to the centre."""
        half = (np.array([self._camera.width, self._camera.height]) + self._size_px) / 2
        ways = half[np.abs(self._direction) > 1e-9] / np.abs(
            self._direction[np.abs(self._direction) > 1e-9]
        )
        return float(ways.min())

    def _centre(self, step: int) -> FloatArray:
        """Return the middle (2,) of the box, pixels, `step` frames after it began to come in."""
        gone = step * self._speed
        if self.mover.path != "appear":
            gone -= self._until_centre()
        if self.mover.path == "pass" or gone < 0:
            centre: FloatArray = self._centre_of_view() + gone * self._direction
            return centre
        low = self._size_px / 2 - 0.5
        room = np.maximum(np.array([self._camera.width, self._camera.height]) - self._size_px, 1e-9)
        # A triangle wave in x and y moves the box back and forth between the edges.
        place = self._centre_of_view() + gone * self._direction - low
        reflected: FloatArray = low + room - np.abs(np.mod(place, 2 * room) - room)
        return reflected

    @cached_property
    def _texture(self) -> NDArray[np.float32]:
        """Texture of the box, (h, w) float32, grey levels."""
        camera, mover = self._camera, self.mover
        rng = np.random.default_rng([mover.seed, 9])
        columns, rows = (int(np.ceil(_TEXELS_PER_PIXEL * size)) for size in self._size_px)
        texels_per_m = _TEXELS_PER_PIXEL * camera.fx / mover.depth / mover.detail
        size = (columns / texels_per_m, rows / texels_per_m)
        right, down, back = np.eye(3)[0], np.eye(3)[1], -np.eye(3)[2]
        drawn = face_texture(
            Face(np.zeros(3), right, down, size, back, "box"), (rows, columns), texels_per_m, rng
        )
        blurred = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), _TEXTURE_BLUR)
        return np.asarray(blurred, dtype=np.float32)

    def _look(self, T_cam_box: FloatArray) -> SeenBox | None:
        camera = self._camera
        half = self._size_px * self.mover.depth / np.array([camera.fx, camera.fy]) / 2
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        placed = corners @ T_cam_box[:3, :2].T + T_cam_box[:3, 3]
        if placed[:, 2].min() < 0.05:
            return None
        pixels = camera.project(placed)
        if (pixels.max(axis=0) < -0.5).any() or (
            pixels.min(axis=0) > (camera.width - 0.5, camera.height - 0.5)
        ).any():
            return None
        rows, columns = self._texture.shape
        K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        plane = K @ np.column_stack([T_cam_box[:3, 0], T_cam_box[:3, 1], T_cam_box[:3, 3]])
        # (0, 0) is the middle of the first texel: the outline lies at -0.5 and columns - 0.5.
        to_metres = np.array(
            [
                [2 * half[0] / columns, 0, (0.5 / columns - 0.5) * 2 * half[0]],
                [0, 2 * half[1] / rows, (0.5 / rows - 0.5) * 2 * half[1]],
                [0, 0, 1],
            ]
        )
        H, size = plane @ to_metres, (camera.width, camera.height)
        flags: dict[str, Any] = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_CONSTANT}
        grey = cv2.warpPerspective(
            self._texture, H, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        opacity = cv2.warpPerspective(np.ones_like(self._texture), H, size, **flags)
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        normal = T_cam_box[:3, 2]
        slope = (
            normal[0] * (x - camera.cx) / camera.fx + normal[1] * (y - camera.cy) / camera.fy
        ) + normal[2]
        slope = np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        depth = (normal @ T_cam_box[:3, 3] / slope).astype(np.float32)
        return SeenBox(
            np.asarray(grey, dtype=np.float32), np.asarray(opacity, dtype=np.float32), depth
        )
