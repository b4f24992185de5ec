"""A crowd: textured boxes that walk through a built-in world, enter, cross, stop and leave.

Each box stands outside of the room, walks in through a wall, crosses the view of the camera,
perhaps stops there for a while, and walks out on the other side. The boxes move in the world, cover
up to 40 % of the image together, and hide what is behind them in both images and in the depth.
Camera path, room and noise are those of the world without them, and so is the ground truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.frame import Sensor
from spslam.geometry import inverse, make_transform
from spslam.typing import FloatArray

from .cache import cached_atlas
from .path import Path
from .render import Renderer, TextureAtlas
from .scene import Box, Face
from .world import RenderedWorld, WorldSpec, world_faces

# Largest fraction of the image that all boxes cover together, and least that each covers.
MOST_COVERED, _LEAST_COVERED = 0.40, 0.05
# Walkers a second that are tried; those that would cover too much are left out.
_TRIED_PER_S = 2.0
# Sizes of the boxes, metres: width and depth, and height.
_WIDTH_M, _HEIGHT_M = (0.35, 0.75), (1.2, 1.9)
# Speeds of the boxes, m/s, and durations of their stops, seconds.
_SPEED, _STOP_S = (0.4, 1.2), (1.0, 3.0)
# Distance of the camera to a box that crosses its view, metres, and the least at any time.
_DISTANCE_M, _CLEARANCE_M = (1.3, 3.0), 0.8
# Duration of the change between walking and standing, seconds.
_EASE_S = 0.3
# Size of the images, pixels, and time between them, seconds, for the covered fraction.
_COARSE, _CHECK_S = (40, 30), 0.25
# Number of faces of a box: four sides and the top.
_FACES = 5


@dataclass(frozen=True)
class Walker:
    """A box that walks along a straight line and may stop on it.

    Attributes:
        size: width, depth and height, metres.
        place: (x, z) where it is at `time`, metres; the middle of its stop.
        time: when it is there, seconds.
        heading: direction of its walk in the ground plane, radians: 0 along x, π/2 along z.
        speed: m/s.
        stop_s: how long it stands at `place`, seconds; 0: it walks on.
    """

    size: tuple[float, float, float]
    place: tuple[float, float]
    time: float
    heading: float
    speed: float
    stop_s: float

    def poses(self, times: FloatArray) -> FloatArray:
        """Return poses (N, 4, 4), box to world, at times (N,), seconds."""
        # It walks outside of the stop; the change at both ends is smooth. Without a stop the two
        # terms add to a constant speed.
        gone, half = times - self.time, self.stop_s / 2
        along = self.speed * (_softplus(gone - half) - _softplus(-gone - half))
        c, s = np.cos(self.heading), np.sin(self.heading)
        position = np.stack(
            [self.place[0] + along * c, np.zeros_like(along), self.place[1] + along * s], axis=1
        )
        # Its z axis points along the walk.
        turn = np.array([[s, 0.0, c], [0.0, 1.0, 0.0], [-c, 0.0, s]])
        return make_transform(np.broadcast_to(turn, (len(times), 3, 3)), position)

    @property
    def box(self) -> Box:
        """The box in its own coordinates."""
        width, depth, height = self.size
        return Box(0.0, 0.0, width, depth, 0.0, height)


def _softplus(t: FloatArray) -> FloatArray:
    """Return max(t, 0), seconds, with a smooth transition of about `_EASE_S`."""
    smooth: FloatArray = _EASE_S * np.logaddexp(0.0, t / _EASE_S)
    return smooth


def draw_crowd(
    path: Path, duration_s: float, camera: Camera, room: list[Face], seed: int
) -> list[Walker]:
    """Draw walkers that cross the view of a camera on a path, from a seed.

    A walker is left out if it would come too near the camera, if it would cover less than 5 % of
    the image at its place, or if all would cover more than 40 % together.

    Args:
        path: of the camera, time to pose.
        duration_s: of the path, seconds.
        camera: of the images.
        room: faces of the room, which hide walkers outside.
        seed: seed of the crowd.
    """
    rng = np.random.default_rng([seed, 41])
    times = np.arange(0.0, duration_s, _CHECK_S)
    coverage = _Coverage(path(times), camera, room)
    taken: NDArray[np.bool_] = np.zeros((len(times), *_COARSE[::-1]), dtype=bool)
    walkers = []
    for time in np.sort(
        rng.uniform(min(0.5, duration_s), duration_s, int(_TRIED_PER_S * duration_s))
    ):
        walker = _drawn(path(np.array([time]))[0], float(time), rng)
        covered = coverage.of(walker, times)
        if covered is None:
            continue
        together = taken | covered
        most = covered.mean(axis=(1, 2)).max()
        if most >= _LEAST_COVERED and together.mean(axis=(1, 2)).max() <= MOST_COVERED:
            taken = together
            walkers.append(walker)
    return walkers


def _drawn(T_world_cam: FloatArray, time: float, rng: np.random.Generator) -> Walker:
    """Draw a walker that crosses the view of a camera at a time."""
    forward = np.arctan2(T_world_cam[2, 2], T_world_cam[0, 2])
    bearing = forward + rng.uniform(-0.35, 0.35)
    distance = rng.uniform(*_DISTANCE_M)
    place = T_world_cam[[0, 2], 3] + distance * np.array([np.cos(bearing), np.sin(bearing)])
    side = rng.choice([-1.0, 1.0]) * np.pi / 2 + rng.uniform(-0.5, 0.5)
    stops = rng.random() < 0.4
    width, depth = rng.uniform(*_WIDTH_M, 2)
    return Walker(
        size=(float(width), float(depth), float(rng.uniform(*_HEIGHT_M))),
        place=(float(place[0]), float(place[1])),
        time=time,
        heading=float(bearing + side),
        speed=float(rng.uniform(*_SPEED)),
        stop_s=float(rng.uniform(*_STOP_S)) if stops else 0.0,
    )


class _Coverage:
    """The fraction of coarse images of a path that walkers cover."""

    def __init__(self, T_world_cam: FloatArray, camera: Camera, room: list[Face]) -> None:
        columns, rows = _COARSE
        scale = np.array([columns / camera.width, rows / camera.height])
        self._camera = Camera(
            columns,
            rows,
            camera.fx * scale[0],
            camera.fy * scale[1],
            (camera.cx + 0.5) * scale[0] - 0.5,
            (camera.cy + 0.5) * scale[1] - 0.5,
        )
        self._T_world_cam = T_world_cam
        render = Renderer(room, _blank(room), self._camera)
        self._depth = np.stack([render.depth(pose) for pose in T_world_cam])

    def of(self, walker: Walker, times: FloatArray) -> NDArray[np.bool_] | None:
        """Return (T, H, W) bool: what a walker covers at the times; None if it comes too near."""
        T_box_cam = inverse(walker.poses(times)) @ self._T_world_cam
        # Distance of the camera to the outline on the floor.
        gap = np.abs(T_box_cam[:, [0, 2], 3]) - np.array(walker.size[:2]) / 2
        if np.linalg.norm(np.maximum(gap, 0.0), axis=1).min() < _CLEARANCE_M:
            return None
        faces = walker.box.faces(np.inf)
        render = Renderer(faces, _blank(faces), self._camera)
        depth = np.stack([render.depth(pose) for pose in T_box_cam])
        hides: NDArray[np.bool_] = (depth > 0) & ((self._depth <= 0) | (depth < self._depth))
        return hides


def _blank(faces: list[Face]) -> TextureAtlas:
    """Return an atlas for renderers of which only the depth is used."""
    return TextureAtlas(
        np.zeros((2, 2), np.uint8),
        np.zeros((len(faces), 2)),
        np.ones(len(faces)),
        np.ones(len(faces)),
    )


class Crowd:
    """Walkers before a camera, drawn over the images of a world.

    Args:
        walkers: the boxes.
        camera: of the images.
        texels_per_m: density of their textures, 1/m.
        noise_sigma: standard deviation of the sensor's noise on them, grey levels.
        seed: seed of textures and noise.
    """

    def __init__(
        self,
        walkers: list[Walker],
        camera: Camera,
        texels_per_m: float,
        noise_sigma: float,
        seed: int,
    ) -> None:
        self.walkers = walkers
        self._camera, self._noise_sigma, self._seed = camera, noise_sigma, seed
        self._faces = [face for walker in walkers for face in walker.box.faces(np.inf)]
        if walkers:
            self._atlas = cached_atlas("crowd", self._faces, texels_per_m, seed)
            self._white = replace(self._atlas, image=np.full_like(self._atlas.image, 255))

    def on_depth(
        self, depth: NDArray[np.float32], T_world_cam: FloatArray, time: float
    ) -> NDArray[np.float32]:
        """Return a depth image (H, W), metres, 0 where unknown, with the boxes at a time."""
        faces = self._at(time)
        box = Renderer(faces, self._atlas, self._camera).depth(T_world_cam) if faces else depth
        return np.where((box > 0) & ((depth <= 0) | (box < depth)), box, depth)

    def on_image(
        self,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        T_world_cam: FloatArray,
        time: float,
        noise: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Return an image (H, W) with the boxes at a time.

        Args:
            image: without the boxes.
            depth: its depth (H, W), metres, 0 where unknown.
            T_world_cam: pose of the camera.
            time: seconds.
            noise: index of the frame and side of the camera, which choose the noise.
        """
        faces = self._at(time)
        if not faces:
            return image
        look = Renderer(faces, self._atlas, self._camera)
        box = look.depth(T_world_cam)
        if not box.any():
            return image
        # A pixel at the edge may have its centre beside the box: take its neighbours' depth.
        around = np.asarray(cv2.dilate(box, np.ones((3, 3), np.uint8)), dtype=np.float32)
        box = np.where(box > 0, box, around)
        seen = (box > 0) & ((depth <= 0) | (box < depth))
        # A box that covers only a part of a pixel is mixed with black there.
        white = Renderer(faces, self._white, self._camera).image(T_world_cam) / np.float32(255.0)
        rng = np.random.default_rng([self._seed, *noise, 43])
        noisy = look.image(T_world_cam) + white * np.float32(
            self._noise_sigma
        ) * rng.standard_normal(image.shape, dtype=np.float32)
        mixed = np.where(seen, image * (1 - white) + noisy, image)
        return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)

    def _at(self, time: float) -> list[Face]:
        """Return the faces of all boxes at a time, in the world."""
        placed = []
        for k, walker in enumerate(self.walkers):
            pose = walker.poses(np.array([time]))[0]
            R = pose[:3, :3]
            placed += [
                replace(
                    face,
                    origin=R @ face.origin + pose[:3, 3],
                    axis_s=R @ face.axis_s,
                    axis_t=R @ face.axis_t,
                    normal=R @ face.normal,
                )
                for face in self._faces[_FACES * k : _FACES * (k + 1)]
            ]
        return placed


class CrowdWorld(RenderedWorld):
    """A built-in world with a crowd in it; see `RenderedWorld`."""

    def __init__(self, spec: WorldSpec, sensor: Sensor = "stereo") -> None:
        super().__init__(spec, sensor)
        self.source = f"{self.source}, with moving boxes"

    @cached_property
    def crowd(self) -> Crowd:
        """The boxes."""
        spec = self.spec
        room = world_faces(spec)
        walkers = draw_crowd(self._path, spec.frames / spec.fps, self.camera, room, spec.seed)
        return Crowd(walkers, self.camera, spec.texels_per_m, spec.noise_sigma, spec.seed)

    def depth(self, index: int, right: bool = False) -> NDArray[np.float32]:
        """Render the exact depth of the left or `right` image; see `RenderedWorld.depth`."""
        still = super().depth(index, right=right)
        return self.crowd.on_depth(still, *self._view(index, right))

    def box_mask(self, index: int) -> NDArray[np.bool_]:
        """Return (H, W) bool: the pixels of the left image at `index` that show a box."""
        return np.asarray(self.depth(index) != super().depth(index))

    def _photo(self, index: int, right: bool) -> NDArray[np.uint8]:
        still = super()._photo(index, right=right)
        depth = super().depth(index, right=right)
        return self.crowd.on_image(still, depth, *self._view(index, right), (index, int(right)))

    def _view(self, index: int, right: bool) -> tuple[FloatArray, float]:
        """Return the pose of the left or right camera at `index`, and the time in seconds."""
        pose, time = self._T_world_cam[index], float(self._timestamps[index])
        return (pose @ self._T_left_right if right else pose), time
