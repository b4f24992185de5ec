"""Where points moved in the last frames."""

from __future__ import annotations

import numpy as np
from world_folder import CAMERA

from spslam.slam.moving_objects.movers import MovedPlaces


def test_places_are_near_for_twenty_frames() -> None:
    places = MovedPlaces()
    pixels = np.array([[100.0, 100.0], [100.0 + CAMERA.width / 17, 100.0], [300.0, 100.0]])
    assert not places.any_lately(3)
    assert places.are_near(pixels, 3, CAMERA).tolist() == [False] * 3
    # Two notes in a frame do not shorten the memory.
    for index in range(4, 20):
        places.add(index, np.zeros((0, 2)))
        places.add(index, pixels[:1])
    for index, near in ((20, True), (39, True), (40, False)):
        assert places.any_lately(index) == near
        assert places.are_near(pixels, index, CAMERA).tolist() == [near, near, False]


def test_each_frame_is_remembered_by_itself() -> None:
    places = MovedPlaces()
    places.add(1, np.array([[10.0, 10.0]]))
    places.add(15, np.array([[200.0, 10.0]]))
    pixels = np.array([[10.0, 10.0], [200.0, 10.0]])
    assert places.are_near(pixels, 21, CAMERA).tolist() == [True, True]
    assert places.are_near(pixels, 22, CAMERA).tolist() == [False, True]
