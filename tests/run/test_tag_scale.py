"""The scale of a map from the size of tags, on pictures of tags in known places."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.datasets.base import BaseSequence
from spslam.errors import ScaleError
from spslam.frame import Frame
from spslam.run.metric_scale import MetricScale, TagSize, estimate_scale
from spslam.run.tag_scale import TagSightings, find_tags, tag_side
from spslam.trajectory import Trajectory

CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5)
SIDE_M = 0.16
# A tag that faces the camera, 1.5 m away: its upper left corner, and its right and down sides.
SQUARE = np.array([[-0.08, -0.08, 1.5], [0.08, -0.08, 1.5], [0.08, 0.08, 1.5], [-0.08, 0.08, 1.5]])


def marker(number: int = 7, dictionary: str = "DICT_APRILTAG_36h11") -> np.ndarray:
    """A tag with white paper around it, twice as wide."""
    kind = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary))
    paper = np.full((400, 400), 255, np.uint8)
    paper[100:300, 100:300] = cv2.aruco.generateImageMarker(kind, number, 200)
    return paper


def put_tag(
    image: np.ndarray, camera: Camera, T_world_cam: np.ndarray, square: np.ndarray, tag: np.ndarray
) -> np.ndarray:
    """Draw a tag with corners `square` (4, 3), world coordinates, into an image."""
    T = np.linalg.inv(T_world_cam)
    paper = square.mean(axis=0) + 2 * (square - square.mean(axis=0))
    seen = paper @ T[:3, :3].T + T[:3, 3]
    if seen[:, 2].min() < 0.1:
        return image
    pixels = camera.project(seen).astype(np.float32)
    edge = len(tag) - 0.5
    corners = np.array([[-0.5, -0.5], [edge, -0.5], [edge, edge], [-0.5, edge]], np.float32)
    H = cv2.getPerspectiveTransform(corners, pixels)
    size = (camera.width, camera.height)
    there = cv2.warpPerspective(np.ones_like(tag), H, size, flags=cv2.INTER_NEAREST)
    drawn = cv2.warpPerspective(tag, H, size, flags=cv2.INTER_AREA)
    return np.where(there > 0, drawn, image).astype(np.uint8)


def moves(count: int = 5) -> np.ndarray:
    """Poses (N, 4, 4) of a camera that steps aside by 1 m."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, 0, 3] = np.linspace(-0.5, 0.5, count)
    return T


def map_of(poses: np.ndarray) -> Any:
    """A map of keyframes at the poses (N, 4, 4), in submap 0."""
    count = len(poses)
    table = {"submap": np.zeros(count, int), "frame": np.arange(count), "T_world_cam": poses}
    return SimpleNamespace(keyframes=table)


def scale_of(poses: np.ndarray, tags: TagSightings, submap: int = 0) -> MetricScale:
    nowhere = Trajectory(np.zeros(0), np.zeros((0, 4, 4)))
    return estimate_scale(TagSize(SIDE_M), map_of(poses), submap, nowhere, {}, None, tags)


def sightings(poses: np.ndarray, tag: np.ndarray, dictionary: str | None = None) -> TagSightings:
    """What is seen of a tag in keyframes at the poses, metres."""
    found = TagSightings(dictionary)
    grey = np.full((CAMERA.height, CAMERA.width), 128, np.uint8)
    for index, T in enumerate(poses):
        image = put_tag(grey, CAMERA, T, SQUARE, tag)
        frame = Frame(index, float(index), CAMERA, image)
        found.update(None, frame, SimpleNamespace(is_keyframe=True))
    return found


def in_units(poses: np.ndarray, factor: float) -> dict[int, np.ndarray]:
    """The poses of a map whose unit is `factor` metres."""
    scaled = poses.copy()
    scaled[:, :3, 3] /= factor
    return dict(enumerate(scaled))


@pytest.mark.parametrize("dictionary", ["DICT_APRILTAG_36h11", "DICT_5X5_100"])
def test_the_side_of_a_tag_in_map_units(dictionary: str) -> None:
    seen = sightings(moves(), marker(7, dictionary)).measure(in_units(moves(), 2.5))
    assert seen.median == pytest.approx(SIDE_M / 2.5, rel=0.01)
    assert [name.rpartition(" ")[2] for name in seen.names] == ["7"] and seen.seen == 1


def test_the_scale_of_a_map() -> None:
    poses = np.stack([*in_units(moves(), 2.5).values()])
    tags = sightings(moves(), marker())
    found = scale_of(poses, tags)
    assert found.factor == pytest.approx(2.5, rel=0.01)
    assert found.description == "side 0.16 m of 36h11 number 7"
    with pytest.raises(ScaleError, match="1 tag was found in the keyframes, none of them in three"):
        scale_of(poses, tags, submap=1)


def test_a_camera_that_only_turns_measures_nothing() -> None:
    still = np.tile(np.eye(4), (5, 1, 1))
    assert len(sightings(still, marker()).measure(dict(enumerate(still))).sides) == 0


def test_a_wrong_pose_and_a_second_tag_of_the_number_are_dropped() -> None:
    poses = moves(6)
    corners = np.array([CAMERA.project(SQUARE - T[:3, 3]) for T in poses])
    corners[2] += 40.0
    side = tag_side(poses, corners, CAMERA.K)
    assert side == pytest.approx(SIDE_M, rel=1e-6)
    assert tag_side(poses[:2], corners[:2], CAMERA.K) is None


def test_tags_of_two_sizes_are_refused() -> None:
    poses = moves()
    tags = sightings(poses, marker(7))
    small = sightings(poses, marker(8))
    for frame, found in small._seen.items():
        tags._seen[frame] += [
            (name, c.mean(axis=0) + (c - c.mean(axis=0)) / 2) for name, c in found
        ]
    with pytest.raises(ScaleError, match="the sides of 2 tags differ by ± 33 %"):
        scale_of(poses, tags)


def test_small_tags_are_not_used() -> None:
    grey = np.full((480, 640), 128, np.uint8)
    far = SQUARE * (1, 1, 20)
    image = put_tag(grey, CAMERA, np.eye(4), far, marker())
    assert find_tags(image, ["DICT_APRILTAG_36h11"]) == []


class Tagged(BaseSequence):
    """demo-small with a tag on its paper, 1.2 m before the first camera."""

    def __init__(self) -> None:
        self.whole = open_sequence("demo-small", sensor="mono", max_frames=60)
        whole = self.whole
        super().__init__(
            "tagged", "mono", whole.camera, "tagged", whole.ground_truth, dataset="demo"
        )

    def __len__(self) -> int:
        return len(self.whole)

    def _read(self, index: int) -> Frame:
        frame = self.whole[index]
        truth = self.ground_truth
        assert truth is not None
        first = truth.T_world_cam[0]
        square = SQUARE * (1, 1, 0.8) @ first[:3, :3].T + first[:3, 3]
        pose = truth.T_world_cam[np.argmin(np.abs(truth.timestamps - frame.timestamp))]
        image = put_tag(frame.image, frame.camera, pose, square, marker())
        return Frame(frame.index, frame.timestamp, frame.camera, image)


@pytest.mark.slow
def test_a_run_becomes_metric_by_a_tag(tmp_path: Path) -> None:
    from spslam.config import load_config
    from spslam.pipeline import run
    from spslam.run.output import OutputFolder, RunLog
    from spslam.slam.system import Slam
    from spslam.visualization.viewer import Viewers

    slam = Slam.from_config(load_config("demo_mono"))
    with RunLog() as log:
        output = OutputFolder(tmp_path / "out")
        done = run(
            slam,
            Tagged(),
            output,
            Viewers(),
            {},
            log,
            scale=TagSize(SIDE_M),
            outputs=("trajectory",),
        )
    assert done.failure is None
    assert "36h11 number 7" in str(done.metrics["scale_source"])
    assert done.metrics["scale_error_percent"] == pytest.approx(0, abs=3)
