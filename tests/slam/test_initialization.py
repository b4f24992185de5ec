"""The first map, from depth or from two views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spslam import geometry
from spslam.backend.pose import PnPSolver
from spslam.backend.two_view import EpipolarSolver
from spslam.camera import Camera
from spslam.config import Config, InitializationConfig
from spslam.errors import Refusal
from spslam.frame import Observations
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.map.map import Map
from spslam.slam.initialization import DepthInitializer, InitialMap, TwoViewInitializer
from spslam.slam.track_results import TrackedFrame
from spslam.slam.tracking import Tracker

NOISE_PX = 0.4


def config(**initialization) -> Config:
    return Config(initialization=InitializationConfig(**initialization))


def from_depth(**initialization) -> DepthInitializer:
    tracker = Tracker(config(), DescriptorMatcher(), PnPSolver(NOISE_PX), 0.7)
    return DepthInitializer(config(**initialization), tracker)


def two_views(**initialization) -> TwoViewInitializer:
    solver = EpipolarSolver(NOISE_PX, min_points=config(**initialization).initialization.min_points)
    return TwoViewInitializer(config(**initialization), DescriptorMatcher(), solver, 0.7)


def cut(observations: Observations, count: int) -> Observations:
    names = ("pixels", "descriptors", "scores", "u_right", "depth", "delays")
    return replace(observations, **{name: getattr(observations, name)[:count] for name in names})


@pytest.fixture
def scene(landmarks):
    return landmarks.box()


# -- depth -----------------------------------------------------------------------------------------


def test_the_first_map_has_the_points_with_depth(scene) -> None:
    observations = scene.observe(np.eye(4), 3)
    observations.depth[::3] = np.nan
    slam_map = Map(32)
    started = from_depth().start(slam_map, scene.camera, observations)
    assert isinstance(started, InitialMap)
    assert (started.before, started.between) == ([], [])
    assert slam_map.pose(started.keyframe_id) == pytest.approx(np.eye(4))
    assert int(slam_map.keyframes["frame"][0]) == 3
    linked = slam_map.observations["point"]
    assert np.array_equal(linked >= 0, np.isfinite(observations.depth))
    known = np.flatnonzero(linked >= 0)
    positions = slam_map.positions[slam_map.point_rows(linked[known])]
    assert positions == pytest.approx(scene.points[scene.labels[3][known]])


def test_a_rolling_shutter_waits_for_the_motion(scene) -> None:
    motion = scene.pose(0.03, yaw=0.02)
    delays = {
        i: 1e-9 * np.ones(len(scene.observe(pose, i))) for i, pose in enumerate((np.eye(4), motion))
    }
    first, second = (
        replace(scene.observe(pose, i, noise_px=NOISE_PX), delays=delays[i])
        for i, pose in enumerate((np.eye(4), motion))
    )
    start, slam_map = from_depth(), Map(32)
    assert "waits for the next frame" in str(start.start(slam_map, scene.camera, first))
    started = start.start(slam_map, scene.camera, second)
    assert isinstance(started, InitialMap) and started.tracked is not None
    assert (started.before, started.between) == ([], [])
    assert slam_map.pose(started.keyframe_id) == pytest.approx(np.eye(4))
    assert started.tracked.T_world_cam == pytest.approx(motion, abs=0.01)
    assert slam_map.keyframes["frame"].tolist() == [0] and started.tracked.observations.index == 1
    assert not started.tracked.observations.delays.any()


def test_a_rolling_shutter_uses_no_motion_from_an_old_frame(scene) -> None:
    observations = replace(
        scene.observe(np.eye(4)), delays=np.full(len(scene.observe(np.eye(4))), 1e-9)
    )
    start, slam_map = from_depth(), Map(32)
    for seconds in (0.0, 0.6, 1.2):
        assert "waits" in str(
            start.start(slam_map, scene.camera, replace(observations, timestamp=seconds))
        )
    assert len(slam_map.keyframes) == 0
    elsewhere = replace(
        observations, timestamp=1.3, descriptors=observations.descriptors[::-1].copy()
    )
    started = start.start(slam_map, scene.camera, elsewhere)
    assert isinstance(started, InitialMap) and started.tracked is None, (
        "used as it is: waiting longer does not help"
    )
    assert [before.timestamp for before in started.before] == [1.2]
    assert slam_map.keyframes["timestamp"].tolist() == [1.3]


def test_a_rolling_shutter_starts_again_if_the_first_frame_is_not_found_again(scene) -> None:
    observations = [
        replace(scene.observe(np.eye(4), i), delays=np.ones(len(scene.observe(np.eye(4), i))))
        for i in (0, 1)
    ]

    class Once(Tracker):
        calls = 0

        def track(self, *where, **how) -> TrackedFrame | None:
            self.calls += 1
            return super().track(*where, **how) if self.calls == 1 else None

    start = DepthInitializer(
        config(), Once(config(), DescriptorMatcher(), PnPSolver(NOISE_PX), 0.7)
    )
    slam_map = Map(32)
    start.start(slam_map, scene.camera, observations[0])
    started = start.start(slam_map, scene.camera, observations[1])
    assert isinstance(started, InitialMap) and started.tracked is None
    assert slam_map.keyframes["frame"].tolist() == [1]
    assert len(slam_map.points) == len(observations[1])


def test_too_little_depth_is_refused_with_its_numbers(scene) -> None:
    observations = scene.observe(np.eye(4))
    observations.depth[79:] = np.nan
    slam_map = Map(32)
    refused = from_depth(min_points=80).start(slam_map, scene.camera, observations)
    assert refused == Refusal(f"79 of {len(observations)} keypoints have depth, 80 are needed")
    refused = from_depth().start(slam_map, scene.camera, cut(observations, 0))
    assert isinstance(refused, Refusal) and refused.reason.startswith("0 of 0")
    assert len(slam_map.keyframes) == 0, "a refusal leaves the map empty"


# -- two views -------------------------------------------------------------------------------------


def start_all(
    initializer: TwoViewInitializer, scene, poses: list[np.ndarray]
) -> tuple[Map, list[InitialMap | Refusal]]:
    slam_map = Map(32)
    answers: list[InitialMap | Refusal] = []
    for index, pose in enumerate(poses):
        observations = scene.observe(pose, index, depth=False, noise_px=NOISE_PX)
        answers.append(initializer.start(slam_map, scene.mono, observations))
        if isinstance(answers[-1], InitialMap):
            break
    return slam_map, answers


def test_two_views_make_a_map_up_to_scale(scene) -> None:
    poses = [scene.pose(), scene.pose(0.02), scene.pose(0.04), scene.pose(0.5, 0.05, 0.1, -0.05)]
    slam_map, answers = start_all(two_views(), scene, poses)
    assert answers[0] == Refusal("first view")
    assert all(isinstance(answer, Refusal) and "px" in answer.reason for answer in answers[1:3])
    started = answers[3]
    assert isinstance(started, InitialMap)
    assert [o.index for o in started.between] == [1, 2]
    assert started.before == []
    assert slam_map.keyframes["frame"].tolist() == [0, 3]
    assert started.keyframe_id == slam_map.keyframes["id"][1]
    assert slam_map.pose(0) == pytest.approx(np.eye(4))
    assert np.median(slam_map.positions[:, 2]) == pytest.approx(1.0)
    assert (slam_map.observation_counts() == 2).all()
    # In both keyframes, a point is linked to keypoints of the same landmark.
    labels = np.concatenate([scene.labels[0], scene.labels[3]])
    linked = slam_map.observations["point"]
    for point in slam_map.points["id"][::20]:
        assert len(set(labels[linked == point])) == 1
    alignment = geometry.umeyama(
        slam_map.positions, scene.points[_landmark_of(slam_map, labels)], with_scale=True
    )
    error = np.linalg.norm(
        geometry.apply(alignment, slam_map.positions)
        - scene.points[_landmark_of(slam_map, labels)],
        axis=1,
    )
    assert np.median(error) < 0.05
    in_truth = geometry.apply(alignment, slam_map.T_world_keyframe[:, :3, 3])
    assert in_truth == pytest.approx(
        np.array([pose[:3, 3] for pose in (poses[0], poses[3])]), abs=0.05
    )


class Undecided(EpipolarSolver):
    """Reports ambiguous motion eight times."""

    def solve(self, pixels0, pixels1, camera):
        self.requested = getattr(self, "requested", 0) + 1
        return (
            Refusal("ambiguous motion")
            if self.requested <= 8
            else super().solve(pixels0, pixels1, camera)
        )


def test_a_first_view_without_clear_motion_is_replaced_by_a_later_one(scene) -> None:
    initializer = TwoViewInitializer(config(), DescriptorMatcher(), Undecided(NOISE_PX), 0.7)
    poses = [scene.pose(0.13 * i, 0.012 * i) for i in range(16)]
    slam_map, answers = start_all(initializer, scene, poses)
    started = answers[-1]
    assert isinstance(started, InitialMap)
    assert slam_map.keyframes["frame"].tolist()[0] == 4
    assert [o.index for o in started.before] == [0, 1, 2, 3]


@pytest.mark.parametrize("settings", [{"max_refused": 8}, {"min_waiting": 10}])
def test_the_configuration_sets_when_a_first_view_is_replaced(
    scene, settings: dict[str, int]
) -> None:
    initializer = TwoViewInitializer(
        config(**settings), DescriptorMatcher(), Undecided(NOISE_PX), 0.7
    )
    slam_map, answers = start_all(
        initializer, scene, [scene.pose(0.13 * i, 0.012 * i) for i in range(16)]
    )
    assert isinstance(answers[-1], InitialMap)
    assert slam_map.keyframes["frame"].tolist()[0] == 5, "half of the ten frames that waited then"


def test_points_that_are_left_out_are_removed_from_waiting_frames(scene) -> None:
    """A bonnet that is found while the first map waits is in none of its views."""
    initializer, slam_map = two_views(), Map(32)
    start_all(initializer, scene, [scene.pose(), scene.pose(0.02)])
    initializer.leave_out(lambda observations: observations.pixels[:, 1] > 300)
    observations = scene.observe(
        scene.pose(0.5, 0.05, 0.1, -0.05), 2, depth=False, noise_px=NOISE_PX
    )
    started = initializer.start(slam_map, scene.mono, observations)
    assert isinstance(started, InitialMap)
    assert [(o.index, bool((o.pixels[:, 1] <= 300).all())) for o in started.between] == [(1, True)]
    first = slam_map.observations["pixel"][
        slam_map.observation_rows(int(slam_map.keyframes["id"][0]))
    ]
    assert len(first) > 80 and (first[:, 1] <= 300).all()


def _landmark_of(slam_map: Map, labels: np.ndarray) -> np.ndarray:
    linked = slam_map.observations["point"]
    landmark = np.zeros(slam_map.points["id"].max() + 1, np.int64)
    landmark[linked[linked >= 0]] = labels[linked >= 0]
    return landmark[slam_map.points["id"]]


def moving_box(fraction: float) -> tuple[Observations, Observations, np.ndarray]:
    """Two views of a slanted wall and of a box that moves by itself; the camera moves sideways.

    Returns the views and which points are on the box, which covers `fraction` of the image width.
    """
    camera, rng = Camera(640, 480, 400.0, 400.0, 319.5, 239.5), np.random.default_rng(3)
    right = 20.0 + 600.0 * fraction
    wall, box = (
        rng.uniform((0, 0), (640, 480), (400, 2)),
        rng.uniform((20, 0), (right, 480), (400, 2)),
    )
    wall = wall[(wall[:, 0] < 20) | (wall[:, 0] > right)]
    depth = np.append(2.0 + 6.0 * wall[:, 0] / 640, 1.0 + 0.3 * rng.random(400))
    first, on_box = np.concatenate([wall, box]), np.arange(len(wall) + 400) >= len(wall)
    points = camera.unproject(first, depth)
    points[on_box] += (0.05, 0.12, 0.05)
    second = camera.project(points - (0.2, 0.0, 0.0))
    descriptors = np.linalg.qr(rng.normal(size=(len(first), len(first))))[0].astype(np.float32)

    def view(index: int, pixels: np.ndarray) -> Observations:
        unknown = np.full(len(pixels), np.nan)
        return Observations(
            index=index,
            timestamp=0.1 * index,
            pixels=pixels + rng.normal(0, 0.2, pixels.shape),
            descriptors=descriptors,
            scores=np.ones(len(pixels), dtype=np.float32),
            relative_sigma=np.ones(len(pixels), dtype=np.float32),
            u_right=unknown,
            depth=unknown,
            delays=np.zeros(len(pixels)),
        )

    return view(0, first), view(1, second), on_box


def test_a_single_camera_starts_by_the_motion_of_most_of_the_image() -> None:
    first, second, on_box = moving_box(0.25)
    slam_map, initializer = Map(len(on_box)), two_views()
    camera = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
    initializer.start(slam_map, camera, first)
    started = initializer.start(slam_map, camera, second)
    assert isinstance(started, InitialMap), started
    linked = slam_map.observations["point"][slam_map.observation_rows(started.keyframe_id)] >= 0
    assert np.mean(linked[~on_box]) > 0.8 and np.mean(linked[on_box]) < 0.1


def test_a_single_camera_does_not_start_if_two_motions_are_equally_large() -> None:
    first, second, on_box = moving_box(0.5)
    slam_map, initializer = Map(len(on_box)), two_views()
    camera = Camera(640, 480, 400.0, 400.0, 319.5, 239.5)
    initializer.start(slam_map, camera, first)
    refused = initializer.start(slam_map, camera, second)
    assert isinstance(refused, Refusal) and "moves differently from the rest" in refused.reason


def test_pure_rotation_makes_no_map(scene) -> None:
    slam_map, answers = start_all(two_views(), scene, [scene.pose(yaw=0.04 * i) for i in range(6)])
    assert all(isinstance(answer, Refusal) for answer in answers)
    assert len(slam_map.keyframes) == len(slam_map.points) == 0


def test_a_lost_first_view_is_replaced_and_its_frames_are_kept(scene) -> None:
    """After a turn by 180 degrees nothing matches: that frame becomes the first view."""
    scene.points[200:, 2] *= -1.0
    back = [scene.pose(0.0, yaw=np.pi), scene.pose(0.5, yaw=np.pi)]
    slam_map, answers = start_all(
        two_views(min_points=50), scene, [scene.pose(), scene.pose(0.01), *back]
    )
    assert isinstance(answers[2], Refusal)
    assert "matches with the first view, 50 needed" in answers[2].reason
    started = answers[3]
    assert isinstance(started, InitialMap)
    assert [o.index for o in started.before] == [0, 1]
    assert started.between == []
    assert slam_map.keyframes["frame"].tolist() == [2, 3]


def test_a_first_view_waits_for_at_most_max_frames(scene) -> None:
    initializer = two_views(max_frames=3)
    _, answers = start_all(initializer, scene, [scene.pose(0.01 * i) for i in range(8)])
    assert [i for i, answer in enumerate(answers) if answer == Refusal("first view")] == [0, 3, 6]
    slam_map = Map(32)
    started = initializer.start(
        slam_map, scene.mono, scene.observe(scene.pose(0.6), 8, depth=False)
    )
    assert isinstance(started, InitialMap)
    assert [o.index for o in started.before] == [3, 4, 5], "at most `max_frames` frames are kept"
    assert [o.index for o in started.between] == [7]
    assert slam_map.keyframes["frame"].tolist() == [6, 8]


def test_frames_without_keypoints_are_not_a_first_view(scene) -> None:
    initializer = two_views()
    empty = cut(scene.observe(np.eye(4), depth=False), 0)
    slam_map = Map(32)
    for _ in range(2):
        assert initializer.start(slam_map, scene.mono, empty) == Refusal(
            "0 keypoints in the image, 80 are needed"
        )
    assert initializer.start(
        slam_map, scene.mono, scene.observe(np.eye(4), 1, depth=False)
    ) == Refusal("first view")
    started = initializer.start(
        slam_map, scene.mono, scene.observe(scene.pose(0.6), 2, depth=False)
    )
    assert isinstance(started, InitialMap)
    assert len(started.before) == 2, "their poses may still be found"


def covered(observations: Observations, seed: int) -> Observations:
    """The frame with something else before the lens: the same pixels, unknown descriptors."""
    other = (
        np.random.default_rng([9, seed])
        .normal(size=observations.descriptors.shape)
        .astype(np.float32)
    )
    return replace(observations, descriptors=other / np.linalg.norm(other, axis=1, keepdims=True))


def blurred(observations: Observations) -> Observations:
    """The frame blurred: its descriptors are like those of other blurred frames only."""
    size = observations.descriptors.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(size, size)))
    turned = (observations.descriptors @ rotation).astype(np.float32)
    return replace(observations, descriptors=turned)


@pytest.mark.parametrize(
    ("bad", "first"),
    [
        ({4}, 0),
        ({2, 5, 8}, 0),
        ({0, 3, 6}, 1),
        ({1, 2, 5, 6}, 0),
        ({1, 3, 5, 7}, 0),
        ({0, 2, 4, 6}, 1),
        ({0, 1, 2}, 3),
        ({1, 2, 3, 4, 5, 6, 7}, 0),
    ],
    ids=[
        "one",
        "every third",
        "every third and the first",
        "two in a row",
        "every second",
        "every second and the first",
        "first three",
        "seven in a row",
    ],
)
@pytest.mark.parametrize("kind", ["black", "covered", "blurred"])
def test_bad_frames_do_not_end_the_wait(scene, bad: set[int], first: int, kind: str) -> None:
    """Only the last frame has enough parallax to the first good one."""
    initializer, slam_map = two_views(), Map(32)
    poses = [scene.pose(0.01 * i, yaw=0.001 * i) for i in range(9)] + [scene.pose(0.5)]
    for index, pose in enumerate(poses):
        observations = scene.observe(pose, index, depth=False, noise_px=NOISE_PX)
        if index in bad:
            if kind == "black":
                observations = cut(observations, 0)
            elif kind == "covered":
                observations = covered(observations, index)
            else:
                observations = blurred(observations)
        started = initializer.start(slam_map, scene.mono, observations)
    assert isinstance(started, InitialMap)
    assert slam_map.keyframes["frame"].tolist() == [first, 9]
    kept = [o.index for o in [*started.before, *started.between]]
    assert set(range(9)) - bad - {first} <= set(kept), "good frames wait for their pose"


def test_after_a_cut_the_map_starts_at_the_new_place_with_bad_frames_too(scene) -> None:
    """The old first view is not matched again; every third frame is blurred."""
    scene.points[200:, 2] *= -1.0
    initializer, slam_map = two_views(min_points=50), Map(32)
    poses = [scene.pose(0.01 * i) for i in range(4)]
    poses += [scene.pose(0.02 * i, yaw=np.pi) for i in range(6)] + [scene.pose(0.5, yaw=np.pi)]
    for index, pose in enumerate(poses):
        observations = scene.observe(pose, index, depth=False, noise_px=NOISE_PX)
        if index % 3 == 0:
            observations = blurred(observations)
        started = initializer.start(slam_map, scene.mono, observations)
        assert isinstance(started, InitialMap) == (index == 10), started
    assert slam_map.keyframes["frame"].tolist() == [4, 10]
    assert isinstance(started, InitialMap)
    assert [o.index for o in started.before] == [0, 1, 2, 3]
    assert [o.index for o in started.between] == [5, 6, 7, 8, 9]


def test_a_frame_without_keypoints_never_replaces_a_first_view(scene) -> None:
    """The motion from the first view stays unclear; the frame in the middle is black."""
    initializer = TwoViewInitializer(config(), DescriptorMatcher(), Undecided(NOISE_PX), 0.7)
    slam_map = Map(32)
    for index in range(16):
        observations = scene.observe(
            scene.pose(0.13 * index, 0.012 * index), index, depth=False, noise_px=NOISE_PX
        )
        if index in (4, 5):
            observations = cut(observations, 0)
        started = initializer.start(slam_map, scene.mono, observations)
        if isinstance(started, InitialMap):
            break
    assert slam_map.keyframes["frame"].tolist()[0] == 6
