"""Objects that move by themselves do not move the camera, and still objects count as static."""

from __future__ import annotations

import numpy as np
import pytest
from point_room import PointRoom, build, look, sway

from spslam import geometry
from spslam.config import load_config
from spslam.datasets.factory import open_sequence
from spslam.datasets.world.disturbed import disturb
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackState

# The first frame with the box, and its step between two frames, pixels.
ENTERS, STEP_PX = 12, 3.3


class Box:
    """Points on a flat box at 1.2 m, `width` pixels wide, that moves in from the left and back."""

    def __init__(self, count: int, width: float = 300.0) -> None:
        self.corners = np.random.default_rng(5).uniform((0.0, 20.0), (width, 460.0), (count, 2))

    def at(self, index: int, start: int = ENTERS, from_x: float = -300.0) -> np.ndarray:
        """Pixels of the points at a frame; the box turns back after 500 pixels."""
        if index < start:
            return np.zeros((0, 2))
        way = STEP_PX * (index - start)
        return np.add(self.corners, (from_x + (way if way < 500 else 1000 - way), 0.0))


def drive(
    room: PointRoom, poses: list[np.ndarray], box: Box | None, sensor: str = "stereo", **where
) -> Slam:
    room.solid = True
    slam = build(room, load_config("default"))
    for index, pose in enumerate(poses):
        room.body = np.zeros((0, 2)) if box is None else box.at(index, **where)
        slam.track(room.frame(pose, 0.05 * (index + 1), sensor))
    slam.finish()
    return slam


def largest_error(slam: Slam, poses: list[np.ndarray]) -> float:
    """The largest position error, metres, in the world of the first frame."""
    found = slam.trajectory().T_world_cam
    assert len(found) == len(poses)
    right = geometry.inverse(poses[0]) @ np.array(poses)
    return float(
        np.linalg.norm((geometry.inverse(found[0]) @ found - right)[:, :3, 3], axis=1).max()
    )


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if "by themselves" in record.getMessage()
    ]


@pytest.mark.parametrize("count", [100, 400])
def test_a_camera_that_stands_still_is_not_moved_by_a_box(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    poses = [look(-0.5, 0.0, -2.0, 0.0)] * 50
    slam = drive(PointRoom(), poses, Box(count))
    assert largest_error(slam, poses) < 0.05
    assert len(notices(caplog)) == 1


def test_a_moving_camera_is_not_moved_by_a_box(caplog: pytest.LogCaptureFixture) -> None:
    poses = sway(45)
    alone = largest_error(drive(PointRoom(), poses, None), poses)
    assert not notices(caplog)
    slam = drive(PointRoom(), poses, Box(200))
    assert largest_error(slam, poses) < alone + 0.03


@pytest.mark.parametrize("count", [150, 300])
def test_a_box_in_the_first_frame_is_removed_from_the_first_map(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    poses = sway(20)
    slam = drive(PointRoom(), poses, Box(count, width=160.0), start=0, from_x=50.0)
    assert largest_error(slam, poses) < 0.05
    assert len(notices(caplog)) == 1
    # The map was started again, without the points of the first keyframe that moved.
    first = slam.map.observations["point"][
        slam.map.observation_rows(int(slam.map.keyframes["id"][0]))
    ]
    assert int(slam.map.keyframes["id"][0]) > 0 and np.count_nonzero(first >= 0) > 50


@pytest.mark.parametrize("count", [150, 400])
def test_a_single_camera_does_not_start_on_a_box(count: int) -> None:
    poses = [look(-0.5, 0.0, -2.0, 0.0)] * 40
    slam = drive(PointRoom(), poses, Box(count), "mono", start=0, from_x=50.0)
    assert slam.state is TrackState.INITIALIZING and len(slam.map.keyframes) == 0


def test_points_that_moved_are_not_in_the_map() -> None:
    room = PointRoom()
    slam = drive(room, [look(-0.5, 0.0, -2.0, 0.0)] * 50, Box(200))
    # The walls are at least 4 m away, except at the sides of the image.
    near = slam.map.positions[:, 2] < 1.5
    assert np.mean(near & (slam.map.observation_counts() > 1)) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recording", "front_end", "disturbances"),
    [
        ("demo-small stereo", "superpoint", ["still:frames=60", "mover:fraction=0.4,speed=3.3"]),
        ("demo-small rgbd", "orb", ["still:frames=60", "mover:fraction=0.25,speed=4,path=appear"]),
        ("demo-small stereo", "superpoint", ["mover:fraction=0.4,speed=3.3,path=pass"]),
        ("demo-small stereo", "superpoint", ["mover:fraction=0.4,speed=-1,path=appear,start=0"]),
        # A box that follows the view: some of its points agree with the pose for three frames.
        ("demo-small rgbd", "orb:1060", ["mover:fraction=0.4,speed=8,path=pass,seed=7"]),
        # The box leaves hardly a hundred points of ORB, and hides nearly all known ones.
        ("demo-small stereo", "orb", ["mover:fraction=0.4,speed=8,path=pass,seed=3"]),
        # 40 of the proven points are left, on a wall, and decide with hundreds of new ones.
        ("demo-small@3 stereo", "orb", ["mover:fraction=0.4,speed=8,path=pass,seed=2"]),
        # 20 proven points are left; moving ones take over at the next frame.
        ("demo-small rgbd", "orb", ["mover:fraction=0.4,speed=-1,path=appear"]),
        ("demo-small rgbd", "superpoint", ["mover:fraction=0.4,speed=-1,path=appear,seed=1"]),
        (
            "demo-small stereo",
            "superpoint",
            ["still:frames=40", "mover:fraction=0.25,speed=3.3,path=appear,start=0"],
        ),
    ],
)
def test_a_box_in_images_does_not_move_the_camera(
    recording: str, front_end: str, disturbances: list[str]
) -> None:
    extractor, _, keypoints = front_end.partition(":")
    name, sensor = recording.split()
    sequence = disturb(open_sequence(name, sensor=sensor), disturbances)
    settings = [f"features.extractor={extractor}", f"features.max_keypoints={keypoints or 1000}"]
    slam = Slam.from_config(load_config("default", settings))
    for frame in sequence:
        slam.track(frame)
    slam.finish()
    truth = sequence.ground_truth
    assert truth is not None
    found, right = slam.trajectory().T_world_cam, truth.T_world_cam
    assert len(found) == len(right)
    # Align by the first poses only, so that alignment hides no error.
    begin = max(sequence.disturbed_from - 1, 0)
    moved = right[begin] @ geometry.inverse(found[begin]) @ found
    assert np.linalg.norm((moved - right)[:, :3, 3], axis=1).max() < 0.06


@pytest.mark.slow
def test_a_box_that_suddenly_hides_most_of_the_view_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sequence = disturb(
        open_sequence("demo-small", sensor="rgbd"),
        ["mover:fraction=0.56,speed=2.7,path=appear,seed=1"],
    )
    slam = Slam.from_config(load_config("default"))
    for frame in sequence:
        slam.track(frame)
    slam.finish()
    assert any("moved by itself as stood still" in record.getMessage() for record in caplog.records)
