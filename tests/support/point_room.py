"""A system without images: projected landmarks with descriptors, so every value is known."""

from __future__ import annotations

import numpy as np

from spslam import geometry
from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.place_recognition import PlaceIndex
from spslam.backend.pose import PnPSolver
from spslam.backend.pose_graph import G2oPoseGraph
from spslam.backend.two_view import EpipolarSolver
from spslam.camera import Camera
from spslam.config import Config, load_config
from spslam.evaluation.ate import Alignment, evaluate
from spslam.frame import Features, Frame, unit_descriptors
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.interfaces import Components, Extractor
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult
from spslam.trajectory import Trajectory

BASELINE_M = 0.12
CAMERA = Camera(640, 480, 400.0, 400.0, 319.5, 239.5, baseline_m=BASELINE_M, fps=20.0)
NOISE_PX = 0.5
# The size of a corridor, metres.
LONG = (24.0, 4.0, 8.0)


class PointRoom(Extractor):
    """Landmarks on the walls of a room, and a camera in it.

    The right image and the depth image of a frame are empty: features and depth are looked up by
    the index of the frame, which its image holds in the first pixels.
    """

    name = "points"
    max_descriptor_distance = 0.7
    pixel_sigma = NOISE_PX

    def __init__(
        self, count: int = 1500, seed: int = 0, size: tuple[float, float, float] = (8.0, 4.0, 8.0)
    ) -> None:
        rng = np.random.default_rng(seed)
        points = rng.uniform(-0.5, 0.5, (count, 3))
        wall = rng.integers(0, 3, count)
        points[np.arange(count), wall] = rng.choice([-0.5, 0.5], count)
        self.points = points * size
        descriptors = rng.normal(size=(count, 64)).astype(np.float32)
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self.poses: list[np.ndarray] = []
        self.believed_camera = CAMERA
        self.blind: set[int] = set()
        # Points fixed to the camera: their pixels (B, 2) and their disparity.
        self.body, self.body_disparity = np.zeros((0, 2)), 40.0
        # Whether they lie on a box that hides the points behind it.
        self.solid = False

    def frame(self, T_world_cam: np.ndarray, timestamp: float, sensor: str) -> Frame:
        index = len(self.poses)
        self.poses.append(T_world_cam)
        image = np.zeros((CAMERA.height, CAMERA.width), np.uint8)
        image[0, :2] = index % 256, index // 256
        if sensor == "stereo":
            return Frame(index, timestamp, self.believed_camera, image, image_right=image)
        return Frame(index, timestamp, self.believed_camera, image)

    def extract(self, image: np.ndarray) -> Features:
        return self._seen(image, 0)

    def match(
        self, left_image: np.ndarray, keypoints: np.ndarray, right_image: np.ndarray
    ) -> np.ndarray:
        left, right = self._seen(left_image, 0), self._seen(right_image, 1)
        np.testing.assert_array_equal(keypoints, left.keypoints)
        matches0 = DescriptorMatcher().match(
            unit_descriptors(left.descriptors), unit_descriptors(right.descriptors), 0.3
        )
        u_right = np.full(len(left), np.nan)
        u_right[matches0 >= 0] = right.keypoints[matches0[matches0 >= 0], 0]
        return u_right

    def _seen(self, image: np.ndarray, side: int) -> Features:
        return self._features(int(image[0, 0]) + 256 * int(image[0, 1]), side)

    def _features(self, index: int, side: int) -> Features:
        rng = np.random.default_rng([index, side])
        points = geometry.apply(geometry.inverse(self.poses[index]), self.points)
        points[:, 0] -= side * BASELINE_M
        pixels = CAMERA.project(points)
        seen = np.flatnonzero(CAMERA.in_image(pixels, 2.0) & (points[:, 2] > 0.3))
        if index in self.blind:
            seen = seen[:0]
        if self.solid and len(self.body):
            low, high = (self.body - (side * self.body_disparity, 0.0)).min(0), self.body.max(0)
            high[0] -= side * self.body_disparity
            seen = seen[~((pixels[seen] >= low) & (pixels[seen] <= high)).all(axis=1)]
        pixels = pixels[seen] + rng.normal(0, NOISE_PX, (len(seen), 2))
        noisy = self.descriptors[seen] + rng.normal(0, 0.02, (len(seen), 64)).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True) if len(seen) else 1.0
        body = self.body - (side * self.body_disparity, 0.0) + rng.normal(0, 0.1, self.body.shape)
        look = np.random.default_rng(77).normal(size=(len(body), 64))
        look /= np.linalg.norm(look, axis=1, keepdims=True) if len(body) else 1.0
        positions = np.concatenate([pixels, body]).astype(np.float32)
        features = Features(
            positions,
            np.ones(len(positions), np.float32),
            np.concatenate([noisy, look]).astype(np.float32),
        )
        return features.select(CAMERA.in_image(positions.astype(np.float64), 0.0))


def look(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    """A camera at (x, y, z) that looks along +z, turned by `yaw` radians around y."""
    return geometry.make_transform(geometry.so3_exp(np.array([0.0, yaw, 0.0])), np.array([x, y, z]))


def sway(count: int) -> list[np.ndarray]:
    """A camera that moves sideways in front of a wall and turns a little."""
    s = np.arange(count) / 20.0
    return [look(-1.5 + 0.8 * t, 0.1 * np.sin(2 * t), -2.0 + 0.2 * t, 0.1 * np.sin(t)) for t in s]


def circle(count: int, laps: float) -> list[np.ndarray]:
    """A camera that moves on a circle and looks outwards."""
    angles = 2 * np.pi * laps * np.arange(count) / count
    return [look(1.5 * np.sin(a), 0.0, 1.5 * np.cos(a), a) for a in angles]


def components_of(room: PointRoom) -> Components:
    return Components(
        extractor=room,
        stereo_matcher=room,
        matcher=DescriptorMatcher(),
        pose_solver=PnPSolver(NOISE_PX),
        two_view=EpipolarSolver(NOISE_PX),
        bundle=SchurBundleAdjuster(NOISE_PX),
        global_bundle=SchurBundleAdjuster(NOISE_PX, iterations=16, thorough=True),
        pose_graph=G2oPoseGraph(),
        place_recognition=PlaceIndex(seed=0),
    )


def build(room: PointRoom, config: Config) -> Slam:
    return Slam(config, components_of(room))


def drive(
    room: PointRoom, poses: list[np.ndarray], sensor: str, overrides: list[str] | None = None
) -> tuple[Slam, list[TrackResult]]:
    slam = build(room, load_config("default", overrides))
    results = [slam.track(room.frame(pose, 0.05 * (i + 1), sensor)) for i, pose in enumerate(poses)]
    slam.finish()
    return slam, results


def truth(poses: list[np.ndarray]) -> Trajectory:
    return Trajectory(0.05 * np.arange(1, len(poses) + 1, dtype=np.float64), np.array(poses))


def ate(slam: Slam, poses: list[np.ndarray], align: Alignment) -> float:
    return evaluate(slam.trajectory(), truth(poses), align).absolute.statistics.rmse


def corridor(start: float, count: int, step: float = 0.04) -> list[np.ndarray]:
    """A camera that moves along x in front of a long wall."""
    return [look(start + step * i, 0.05 * np.sin(0.3 * i), -1.0, 0.0) for i in range(count)]
