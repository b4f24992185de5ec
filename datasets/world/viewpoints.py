"""Views of a rendered world from several sides of one spot, with exact depth and poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.geometry import make_transform
from spslam.typing import FloatArray

from .render import Renderer, build_atlas
from .scene import LAYOUTS, Layout
from .world import RenderedWorld, world_spec

# Least distance of a camera from walls and boxes, metres.
_MARGIN_M = 0.25
# Range of the distance from a camera to the spot that it looks at, metres.
_DISTANCE_M = (0.9, 6.0)
# Range of the ratio of a view's distance from the spot to the first view's.
_DISTANCE_RATIO = (0.6, 1.7)
# Largest turn of a camera about its axis, and largest angle between its axis and the spot, degrees.
_ROLL_DEG = 15.0
_OFF_CENTRE_DEG = 10.0
# Largest relative difference of depth at which a camera sees the spot.
_DEPTH_TOLERANCE = 0.05
# Random cameras that are tried for a view.
_TRIES = 40
# Least standard deviation of the grey values of a view: others show a bare wall.
_LEAST_CONTRAST = 12.0
_DOWN = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True, eq=False)
class WorldView:
    """A rendered image with depth and pose.

    Attributes:
        image: (H, W) uint8.
        depth: (H, W) float32, along z, metres; 0 without a surface.
        T_world_cam: (4, 4) float64.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    T_world_cam: FloatArray


class SpotViews:
    """Renders views of random spots of a built-in world.

    Args:
        world: name of the world, with `@` and a seed for other textures.
        size: height and width of the images, pixels.
        largest_angle_deg: largest angle between the direction from the spot to a view and that to
            the first view, degrees; two views are at most twice as far apart.

    Raises:
        DatasetError: there is no such world, or it is a street.
    """

    def __init__(self, world: str, size: tuple[int, int], largest_angle_deg: float) -> None:
        spec = replace(world_spec(world), width=size[1], height=size[0])
        if spec.layout == "street":
            raise DatasetError(f"{world} has no room to stand in: expected another built-in world")
        self._layout: Layout = LAYOUTS[spec.layout]()
        self.camera: Camera = RenderedWorld(spec, "mono").camera
        faces = self._layout.faces()
        self._renderer = Renderer(
            faces, build_atlas(faces, spec.texels_per_m, spec.seed), self.camera
        )
        self._noise, self._seed = spec.noise_sigma, spec.seed
        self._largest = np.radians(largest_angle_deg)

    def views(self, spot: int, count: int) -> list[WorldView]:
        """Return views of a spot; fewer than `count` if no more are found in a narrow place.

        Args:
            spot: number of the spot; equal numbers give equal bytes.
            count: number of views.
        """
        rng = np.random.default_rng([spot, self._seed])
        for _ in range(_TRIES):
            first, target = self._first_pose(rng)
            if target is None:
                continue
            found = [self._render(first, rng)]
            if found[0].image.std() < _LEAST_CONTRAST:
                continue
            for pose in self._poses_around(first, target, rng):
                view = self._render(pose, rng)
                if self._sees(view, target) and view.image.std() >= _LEAST_CONTRAST:
                    found.append(view)
                if len(found) == count:
                    return found
        return []

    def _first_pose(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray | None]:
        x_min, x_max, z_min, z_max = self._layout.extent
        low, high = (x_min, -self._layout.height, z_min), (x_max, 0.0, z_max)
        centre = rng.uniform(low, high)
        yaw, pitch = rng.uniform(-np.pi, np.pi), rng.uniform(-0.35, 0.35)
        forward = np.array(
            [np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)]
        )
        pose = _looking(centre, forward, np.radians(rng.uniform(-_ROLL_DEG, _ROLL_DEG)))
        if not self._layout.free(centre[None], _MARGIN_M)[0]:
            return pose, None
        distance = float(self._depth_at(pose, centre + forward) or 0)
        if not _DISTANCE_M[0] <= distance <= _DISTANCE_M[1]:
            return pose, None
        return pose, centre + distance * forward

    def _poses_around(
        self, first: FloatArray, target: FloatArray, rng: np.random.Generator
    ) -> Iterator[FloatArray]:
        away = first[:3, 3] - target
        distance = np.linalg.norm(away)
        for _ in range(_TRIES):
            turn = rng.uniform(-self._largest, self._largest)
            lift = rng.uniform(-0.3, 0.3) * self._largest
            ratio = np.exp(rng.uniform(*np.log(_DISTANCE_RATIO)))
            aside = np.array(
                [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
            )
            direction = aside @ (away / distance)
            direction[1] += np.tan(lift)
            centre = target + ratio * distance * direction / np.linalg.norm(direction)
            wobble = np.tan(np.radians(rng.uniform(-_OFF_CENTRE_DEG, _OFF_CENTRE_DEG, 3)))
            roll = np.radians(rng.uniform(-_ROLL_DEG, _ROLL_DEG))
            forward = (target - centre) / np.linalg.norm(target - centre) + wobble
            if self._layout.free(centre[None], _MARGIN_M)[0]:
                yield _looking(centre, forward, roll)

    def _render(self, pose: FloatArray, rng: np.random.Generator) -> WorldView:
        image = self._renderer.image(pose)
        noisy = image + rng.normal(0, self._noise, image.shape)
        grey = np.rint(noisy).clip(0, 255).astype(np.uint8)
        return WorldView(grey, self._renderer.depth(pose).copy(), pose)

    def _depth_at(self, pose: FloatArray, point: FloatArray) -> float:
        """Return the depth that a camera sees where it would see a point; 0 outside the image."""
        return _depth_where(self._renderer.depth(pose), self.camera, pose, point)

    def _sees(self, view: WorldView, target: FloatArray) -> bool:
        depth = _depth_where(view.depth, self.camera, view.T_world_cam, target)
        own = float((target - view.T_world_cam[:3, 3]) @ view.T_world_cam[:3, 2])
        return abs(depth - own) <= _DEPTH_TOLERANCE * own


def _depth_where(
    depth: NDArray[np.float32], camera: Camera, pose: FloatArray, point: FloatArray
) -> float:
    local = (point - pose[:3, 3]) @ pose[:3, :3]
    if local[2] <= 0:
        return 0.0
    u = int(np.rint(camera.fx * local[0] / local[2] + camera.cx))
    v = int(np.rint(camera.fy * local[1] / local[2] + camera.cy))
    inside = 0 <= u < camera.width and 0 <= v < camera.height
    return float(depth[v, u]) if inside else 0.0


def _looking(centre: FloatArray, forward: FloatArray, roll: float) -> FloatArray:
    """Return the pose (4, 4) of a camera that looks along `forward`, turned by `roll` radians."""
    z = forward / np.linalg.norm(forward)
    x = np.cross(_DOWN, z)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    turned_x = np.cos(roll) * x + np.sin(roll) * y
    return make_transform(np.column_stack([turned_x, np.cross(z, turned_x), z]), centre)
