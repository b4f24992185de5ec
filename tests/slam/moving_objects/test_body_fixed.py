"""Points of the vehicle, which stay in place in the image, and points that only seem to."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import cv2
import numpy as np
import pytest
from world_folder import CAMERA, world, world_frame

from spslam import geometry
from spslam.backend.pose import PnPSolver
from spslam.backend.two_view import EpipolarSolver
from spslam.config import BodyFixedConfig, Config
from spslam.datasets.world.world import open_world
from spslam.evaluation.ate import evaluate
from spslam.frame import Frame, Observations
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.slam.moving_objects.body_fixed import BodyFixed
from spslam.slam.system import Slam

NOISE_PX = 0.3
# Corners of a strip at the lower edge of the image and of one at its right: x, y, pixels.
Corners = tuple[tuple[float, float], tuple[float, float]]
BONNET: Corners
ARM: Corners
BONNET, ARM = ((10.0, 380.0), (630.0, 470.0)), ((520.0, 60.0), (630.0, 300.0))


def detector(**settings: float) -> BodyFixed:
    config = Config(body_fixed=BodyFixedConfig(**settings))
    return BodyFixed(
        config, DescriptorMatcher(), EpipolarSolver(NOISE_PX), PnPSolver(NOISE_PX), 0.7
    )


# Text in the four corners, and a strip at the upper and at the lower edge.
TEXT: tuple[Corners, ...] = tuple(
    ((x, y), (x + 60.0, y + 25.0)) for x in (20.0, 560.0) for y in (20.0, 435.0)
)
STRIPS: tuple[Corners, ...] = (((10.0, 10.0), (630.0, 40.0)), ((10.0, 440.0), (630.0, 470.0)))


class Body:
    """Points fixed to the camera: pixels between two corners, with one disparity (NaN: unknown).

    Several pairs of corners have as many points each.
    """

    def __init__(self, *corners: Corners, count: int = 120, disparity: float = np.nan) -> None:
        rng = np.random.default_rng(42)
        each = count // len(corners)
        self.pixels = np.concatenate([rng.uniform(low, high, (each, 2)) for low, high in corners])
        descriptors = rng.normal(size=(len(self.pixels), 32)).astype(np.float32)
        self.descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        self.disparity = disparity

    def before(
        self, observations: Observations, depth_scale: float
    ) -> tuple[Observations, np.ndarray]:
        """Add 90 % of the points to a frame; return it and the mask of the added keypoints."""
        rng = np.random.default_rng([5, observations.index])
        seen = np.flatnonzero(rng.random(len(self.pixels)) < 0.9)
        count = len(seen)
        pixels = self.pixels[seen] + rng.normal(0, 0.2, (count, 2))
        body = Observations(
            index=observations.index,
            timestamp=observations.timestamp,
            pixels=pixels,
            descriptors=self.descriptors[seen],
            scores=np.ones(count, np.float32),
            relative_sigma=np.ones(count, np.float32),
            u_right=pixels[:, 0] - self.disparity,
            depth=np.full(count, depth_scale / self.disparity),
            delays=np.zeros(count),
        )
        names = [
            field.name
            for field in fields(Observations)
            if field.name not in ("index", "timestamp", "colors")
        ]
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(observations, name), getattr(body, name)])
            for name in names
        }
        return replace(observations, **joined), np.arange(len(observations) + count) >= len(
            observations
        )


def sway(landmarks, count: int = 24) -> list[np.ndarray]:
    """A camera that moves sideways and turns a little, so that far points move, too."""
    return [landmarks.pose(0.03 * i, 0.01 * i, yaw=0.01 * i) for i in range(count)]


def left_out(
    landmarks, scene, poses, body: Body | None, *, depth: bool, **settings: float
) -> tuple[float, float]:
    """Return the fractions of body and world keypoints that are left out of the last frame."""
    camera = scene.camera if depth else scene.mono
    fixed = detector(**settings)
    for index, pose in enumerate(poses):
        observations = scene.observe(pose, index, depth=depth, noise_px=NOISE_PX)
        mine = np.zeros(len(observations), dtype=bool)
        if body is not None:
            observations, mine = body.before(observations, camera.bf if depth else np.nan)
        fixed.update(observations, camera)
    mask = fixed.of(observations, camera)
    return float(np.mean(mask[mine])) if mine.any() else 0.0, float(np.mean(mask[~mine]))


@pytest.mark.parametrize(
    "corners", [(BONNET,), (ARM,), TEXT, STRIPS], ids=["bonnet", "arm", "text", "strips"]
)
@pytest.mark.parametrize(
    "disparity", [None, np.nan, 60.0], ids=["mono", "stereo without depth", "stereo"]
)
def test_points_that_move_with_the_camera_are_left_out(
    landmarks, corners: tuple[Corners, ...], disparity: float | None
) -> None:
    scene = landmarks.box(800)
    body = Body(*corners, disparity=np.nan if disparity is None else disparity)
    of_body, of_world = left_out(
        landmarks, scene, sway(landmarks), body, depth=disparity is not None
    )
    assert of_body > 0.95
    # World points that lie between those of the body are left out with them.
    assert of_world < 0.15


def test_a_bonnet_on_a_straight_road_is_found_with_depth_only(landmarks) -> None:
    """To a single camera the bonnet looks like points at infinity, which fit any such motion."""
    scene = landmarks.box(800)
    poses = [landmarks.pose(0.04 * i) for i in range(24)]
    assert left_out(landmarks, scene, poses, Body(BONNET, disparity=50.0), depth=True)[0] > 0.95
    assert left_out(landmarks, scene, poses, Body(BONNET), depth=False) == (0.0, 0.0)


@pytest.mark.parametrize(
    "settings", [{"min_points": 1000}, {"min_evidence": 1000}, {"min_motion_px": 1000.0}]
)
def test_no_points_are_left_out_below_the_configured_limits(
    landmarks, settings: dict[str, float]
) -> None:
    scene = landmarks.box(800)
    assert left_out(landmarks, scene, sway(landmarks), Body(BONNET), depth=False, **settings) == (
        0.0,
        0.0,
    )


def test_nothing_is_left_out_while_the_camera_stands_still(landmarks) -> None:
    scene = landmarks.box(800)
    poses = [landmarks.pose(0.0005 * (i % 3)) for i in range(40)]
    for depth in (False, True):
        body = Body(BONNET, disparity=60.0 if depth else np.nan)
        assert left_out(landmarks, scene, poses, body, depth=depth) == (0.0, 0.0)


def test_a_bonnet_is_found_once_the_camera_moves(landmarks) -> None:
    scene = landmarks.box(800)
    poses = [landmarks.pose()] * 40 + sway(landmarks)
    of_body, of_world = left_out(landmarks, scene, poses, Body(BONNET), depth=False)
    assert of_body > 0.85 and of_world < 0.15


@pytest.mark.parametrize("depth", [False, True])
def test_far_points_stay_in_the_map(landmarks, depth: bool) -> None:
    """Hills stay in place in the image while the camera translates, and have no stereo depth."""
    near, far = np.random.default_rng(0).uniform((-3, -2, 3), (3, 2, 6), (500, 3)), 500
    hills = np.random.default_rng(1).uniform((-4000, -3000, 5000), (4000, -300, 6000), (far, 3))
    scene = landmarks(np.concatenate([near, hills]))
    along = [landmarks.pose(0.04 * i) for i in range(24)]
    forward = [landmarks.pose(z=0.06 * i) for i in range(24)]
    for poses in (along, forward, sway(landmarks)):
        assert left_out(landmarks, scene, poses, None, depth=depth) == (0.0, 0.0)


@pytest.mark.parametrize("depth", [False, True])
def test_an_object_that_the_camera_circles_stays_in_the_map(landmarks, depth: bool) -> None:
    """The object stays in the middle of the image while everything around it moves."""
    rng = np.random.default_rng(0)
    thing = rng.uniform((-0.05, -1.0, -0.05), (0.05, 1.0, 0.05), (150, 3))
    around = rng.uniform((-6, -3, -6), (6, 3, 6), (1500, 3))
    scene = landmarks(
        np.concatenate([thing, around[np.linalg.norm(around[:, [0, 2]], axis=1) > 5]])
    )
    turned = [
        geometry.make_transform(geometry.so3_exp(np.array([0, 0.02 * i, 0])), np.zeros(3))
        for i in range(30)
    ]
    poses = [turn @ landmarks.pose(z=-4.0) for turn in turned]
    assert left_out(landmarks, scene, poses, None, depth=depth) == (0.0, 0.0)


@pytest.mark.parametrize("depth", [False, True])
def test_nothing_is_left_out_when_an_object_moves_before_a_standing_camera(
    landmarks, depth: bool
) -> None:
    """Many points move; the rest, which stays in place, is all around in the image."""
    scene = landmarks.box(800)
    camera = scene.camera if depth else scene.mono
    inner = np.abs(scene.points[:, :2] / scene.points[:, 2:]).max(axis=1) < 0.35
    fixed = detector()
    rest = scene.points.copy()
    for index in range(30):
        scene.points = rest.copy()
        scene.points[inner] += np.array([0.02 * index, 0.005 * index, 0.01 * index])
        observations = scene.observe(landmarks.pose(), index, depth=depth, noise_px=0.2)
        fixed.update(observations, camera)
        assert not fixed.of(observations, camera).any()
    assert 0.2 < np.mean(inner) < 0.6


def turn(yaw: float) -> np.ndarray:
    """A rotation about the vertical axis 4.5 m ahead."""
    R, centre = geometry.so3_exp(np.array([0.0, yaw, 0.0])), np.array([0.0, 0.0, 4.5])
    return geometry.make_transform(R, centre - R @ centre)


def test_a_wall_whose_corners_come_and_go_behind_an_object_stays_in_the_map(landmarks) -> None:
    """Corners that last are beside the object only, with a smaller hull than the object's."""
    scene, fixed = landmarks.box(4000), detector()
    x, y = scene.points[:, :2].T / scene.points[:, 2]
    inner = np.maximum(np.abs(x), np.abs(y)) < 0.45
    beside = ~inner & (np.abs(y) < 0.3) & (x < 0.6) & (x > 0.45)
    ids_of_all = np.arange(len(inner))
    ids_of_few = ids_of_all % 5 == 0
    rest = scene.points.copy()
    for index in range(30):
        scene.points = rest.copy()
        # It turns, too: what stays in place could otherwise be far away.
        scene.points[inner] = geometry.apply(turn(0.01 * index), rest[inner])
        observations = scene.observe(landmarks.pose(), index, depth=False, noise_px=0.2)
        ids = scene.labels[index]
        # Each corner of the wall is there for five of thirty frames.
        there = np.where(inner | beside, ids_of_few, (ids_of_all + index) % 30 < 5)[ids]
        observations = observations.select(there)
        fixed.update(observations, scene.mono)
        assert not fixed.of(observations, scene.mono).any()


def test_bad_frames_do_not_hide_the_body(landmarks) -> None:
    scene, body, fixed = landmarks.box(800), Body(BONNET), detector()
    for index, pose in enumerate(sway(landmarks, 36)):
        observations, mine = body.before(
            scene.observe(pose, index, depth=False, noise_px=NOISE_PX), np.nan
        )
        fixed.update(
            observations.select(np.zeros(0, np.int64)) if index % 3 == 1 else observations,
            scene.mono,
        )
    assert np.mean(fixed.of(observations, scene.mono)[mine]) > 0.95


def test_a_body_that_disappears_is_forgotten(landmarks) -> None:
    """After an arm is drawn back, no point is left out any more."""
    scene, body, fixed = landmarks.box(800), Body(ARM), detector()
    poses = sway(landmarks, 24)
    for index, pose in enumerate(poses + (poses[::-1] + poses) * 4):
        observations = scene.observe(pose, index, depth=False, noise_px=NOISE_PX)
        if index < len(poses):
            observations, mine = body.before(observations, np.nan)
        fixed.update(observations, scene.mono)
        if index == len(poses) - 1:
            assert np.mean(fixed.of(observations, scene.mono)[mine]) > 0.95
    assert not fixed.of(observations, scene.mono).any()


def pasted(frame: Frame, where: str) -> Frame:
    """Paste a textured region that moves with the camera, and noise, into a rendered frame."""
    region = np.zeros(frame.image.shape, np.uint8)
    if where == "bonnet":
        region[180:] = 1
    else:
        arm = [[320, 48], [262, 72], [224, 132], [237, 168], [272, 149], [320, 180]]
        cv2.fillPoly(region, [np.array(arm)], 1)
    rng = np.random.default_rng(5)
    texture = sum(
        cv2.resize(
            rng.normal(0, 25, (242 // side + 2, 322 // side + 2)),
            (320, 240),
            interpolation=cv2.INTER_CUBIC,
        )
        for side in (2, 4, 8, 16)
    )
    noise = np.random.default_rng([1, frame.index])

    def before(image: np.ndarray, shift: int) -> np.ndarray:
        mask = np.roll(region, -shift, axis=1) > 0
        look = np.roll(texture, -shift, axis=1) + 120 + noise.normal(0, 2, image.shape)
        return np.where(mask, np.clip(np.rint(look), 0, 255), image).astype(np.uint8)

    return replace(
        frame,
        image=before(frame.image, 0),
        image_right=None if frame.image_right is None else before(frame.image_right, 25),
        depth=None if frame.depth is None else np.where(region > 0, np.float32(0.5), frame.depth),
    )


@pytest.mark.slow
@pytest.mark.parametrize("where", ["bonnet", "arm"])
@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_a_rendered_run_is_as_accurate_as_without_a_body(sensor: str, where: str) -> None:
    """Errors without a body are 4.5 (mono), 4.6 (stereo) and 3.2 mm (RGB-D)."""
    world = open_world("demo-small", sensor)
    slam = Slam.from_config(f"demo_{sensor}")
    for index in range(60):
        slam.track(pasted(world[index], where))
    slam.finish()
    trajectory, truth = slam.trajectory(), world.ground_truth
    assert truth is not None and len(trajectory) == 60
    found = evaluate(trajectory, truth, "sim3" if sensor == "mono" else "se3")
    assert found.absolute.statistics.rmse < 1.5 * 0.0045
    assert len(slam.statistics.left_out) > 50


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.15, 0.25])
def test_a_single_camera_starts_behind_a_bonnet(fraction: float) -> None:
    """The bonnet is found while the first map waits; every possible first view shows it."""
    texture = np.random.default_rng(0).integers(20, 230, (41, 54)).astype(np.uint8)
    bonnet = cv2.resize(texture, (CAMERA.width, CAMERA.height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[: CAMERA.height, : CAMERA.width]
    there = y > CAMERA.height * (1 - fraction) - 12 * np.cos((x - 160) / 110)
    slam = Slam.from_config("demo_mono", ["features.extractor=orb"])
    for index in range(50):
        image = np.where(there, bonnet, world_frame(index).image)
        slam.track(Frame(index, index / CAMERA.fps, CAMERA, image))
    slam.finish()
    found, truth = slam.trajectory(), world().ground_truth
    assert truth is not None and len(found) == 50
    assert evaluate(found, truth, "sim3").absolute.statistics.rmse < 0.035
    assert np.mean(list(slam.statistics.left_out.values())) > 0.5 * fraction
