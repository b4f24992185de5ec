"""Colours of points: medians over the keyframes that see them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_map import map_of_three_views, observations, pose

from spslam.frame import ColorImage, Frame, colors_at
from spslam.map.colors import point_colors
from spslam.map.map import Map


@pytest.fixture
def slam_map() -> Map:
    """Point 0 is seen by rows 0, 4 and 11; point 1 by 1, 5 and 9; 2 by 2 and 6; 3 by 3."""
    found = map_of_three_views()
    found.keyframes["channels"][:] = 3
    for row, color in ((0, (9, 1, 5)), (4, (8, 2, 6)), (11, (1, 3, 250))):
        found.observations["color"][row] = color
    found.observations["color"][[2, 6]] = [(10, 20, 30), (20, 10, 40)]
    found.observations["color"][3] = (7, 7, 7)
    return found


def test_a_colour_is_the_median_of_each_channel(slam_map: Map) -> None:
    colors = point_colors(slam_map, np.array([3, 0, 2]))
    assert colors is not None and colors.dtype == np.uint8
    assert colors.tolist() == [[7, 7, 7], [8, 2, 6], [10, 10, 30]]


def test_colour_counts_before_grey(slam_map: Map) -> None:
    slam_map.keyframes["channels"][:] = (1, 3, 1)
    colors = point_colors(slam_map, np.array([0, 2, 3]))
    assert colors is not None
    assert colors.tolist() == [[8, 2, 6], [20, 10, 40], [7, 7, 7]]


def test_points_of_keyframes_without_colours_are_grey(slam_map: Map) -> None:
    slam_map.keyframes["channels"][0] = 0
    colors = point_colors(slam_map, np.array([3, 2]))
    assert colors is not None and colors.tolist() == [[128, 128, 128], [20, 10, 40]]
    slam_map.keyframes["channels"][:] = 0
    assert point_colors(slam_map, np.array([3, 2])) is None


def test_colours_do_not_depend_on_other_points(slam_map: Map) -> None:
    before = point_colors(slam_map, np.array([2]))
    slam_map.remove_points(np.array([0]))
    after = point_colors(slam_map, np.array([2]))
    assert before is not None and after is not None and np.array_equal(before, after)


@pytest.mark.parametrize(("width", "channels"), [(3, 3), (1, 1), (None, 0)])
def test_keyframes_keep_the_colours_of_their_keypoints(width: int | None, channels: int) -> None:
    values = None if width is None else np.arange(4 * width, dtype=np.uint8).reshape(4, width)
    found = Map(8)
    seen = replace(observations(4), colors=values)
    rows = np.array([3, 0])
    found.add_keyframe(seen.select(rows), pose(0.0), np.full(2, -1))
    assert found.keyframes["channels"].tolist() == [channels]
    expected = np.zeros((2, 3)) if values is None else np.broadcast_to(values[rows], (2, 3))
    assert np.array_equal(found.observations["color"], expected)


def test_colours_of_a_frame_are_those_of_the_nearest_pixel(landmarks) -> None:
    bgr = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    frame = Frame(0, 0.0, landmarks.mono, bgr[:, :, 1].copy(), color=ColorImage(bgr))
    keypoints = np.array([[0.4, 0.6], [639.4, -0.3], [100.5001, 7.0]], dtype=np.float32)
    nearest = [(1, 0), (0, 639), (7, 101)]
    assert colors_at(frame, keypoints).tolist() == [bgr[at][::-1].tolist() for at in nearest]
    grey = colors_at(replace(frame, color=None), keypoints)
    assert grey.tolist() == [[frame.image[at]] for at in nearest]
    assert np.array_equal(ColorImage(bgr).image(), bgr[:, :, ::-1])


def test_a_rectified_colour_image_is_looked_up_through_the_maps() -> None:
    bgr = np.zeros((20, 30, 3), dtype=np.uint8)
    bgr[..., 0], bgr[..., 2] = np.arange(30), 5 * np.arange(20)[:, None]
    y, x = np.indices((20, 30), dtype=np.float32)
    moved = ColorImage(bgr, (x + 4, y + 2))
    assert moved.at(np.array([[3.0, 5.0]])).tolist() == [[35, 0, 7]]
    assert moved.image()[5, 3].tolist() == [35, 0, 7]
    assert moved.image()[19, 29].tolist() == [0, 0, 0], "outside of the decoded image"
