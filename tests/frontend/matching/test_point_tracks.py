"""Tracks of points whose true motion is known."""

from __future__ import annotations

import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.frame import Features
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.matching.point_tracks import PointTracks

LENGTH = 5


def points(rows: list[int], shift: float = 0.0) -> Features:
    """Points with distinct descriptors, moved to the right by `shift`."""
    rng = np.random.default_rng(0)
    pixels, descriptors = rng.uniform(0, 100, (30, 2)), rng.normal(size=(30, 16))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = (pixels + np.array([shift, 0]))[rows].astype(np.float32)
    return Features(keypoints, np.ones(len(rows), np.float32), descriptors[rows].astype(np.float32))


def test_tracks_do_not_depend_on_the_order_of_keypoints() -> None:
    tracks = PointTracks(LENGTH, 0.1)
    rng = np.random.default_rng(1)
    for step in range(8):
        order = rng.permutation(30).tolist()
        tracks.update(points(order, 3.0 * step))
        assert tracks.lengths.tolist() == [step + 1] * 30
        kept = min(step + 1, LENGTH)
        expected = np.stack(
            [points(order, 3.0 * (step - back)).keypoints for back in range(kept)], axis=1
        )
        np.testing.assert_array_equal(tracks.positions[:, :kept], expected)
        assert np.isnan(tracks.positions[:, kept:]).all()


def test_a_missed_point_starts_a_new_track() -> None:
    tracks = PointTracks(LENGTH, 0.1)
    for rows in ([0, 1, 2], [0, 1, 2], [0, 2], [2, 1, 0]):
        tracks.update(points(rows))
    assert tracks.lengths.tolist() == [4, 1, 4]
    assert np.isnan(tracks.positions[1, 1:]).all()


def test_different_descriptors_do_not_match_and_an_empty_frame_ends_all_tracks() -> None:
    tracks = PointTracks(LENGTH, 0.1)
    tracks.update(points([0, 1, 2]))
    tracks.update(points([3, 4]))
    assert tracks.lengths.tolist() == [1, 1]
    tracks.update(points([]))
    assert (len(tracks.lengths), tracks.positions.shape) == (0, (0, LENGTH, 2))
    tracks.update(points([3, 4]))
    assert tracks.lengths.tolist() == [1, 1]


# ORB's keypoints of coarse pyramid levels are less precise.
@pytest.mark.parametrize(("extractor", "error_px"), [("orb", 1.5), ("superpoint", 0.5)])
def test_a_shifted_image_gives_tracks_of_the_shift(extractor: str, error_px: float) -> None:
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (40, 60)).astype(np.uint8)
    scene = np.kron(coarse, np.ones((8, 8), np.uint8))
    front_end = create_extractor(FeatureConfig(extractor=extractor))
    tracks = PointTracks(LENGTH, front_end.max_descriptor_distance)
    # Shift by whole cells of the network, so that it sees the same image at every step.
    for step in range(4):
        tracks.update(
            front_end.extract(np.ascontiguousarray(scene[40:280, 80 - 8 * step : 400 - 8 * step]))
        )
    long = tracks.lengths == 4
    assert np.count_nonzero(long) > 50
    moved = tracks.positions[long, 0] - tracks.positions[long, 3]
    errors = np.linalg.norm(moved - np.array([24, 0]), axis=1)
    assert np.median(errors) < error_px
    assert np.mean(errors < 4 * error_px) > 0.9
