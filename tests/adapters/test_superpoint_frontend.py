"""The classes of the module `demo_superpoint`: their interface, and tracks of known points."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from world_folder import world_frame

from spslam.adapters.superpoint_frontend import PointTracker, SuperPointFrontend, as_grey_bytes
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, WeightsError
from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor


@pytest.fixture(scope="module")
def front_end() -> SuperPointFrontend:
    return SuperPointFrontend(None, 4, 0.015, 0.7)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return world_frame(0).image


def unit(rng: np.random.Generator, count: int, length: int = 64) -> np.ndarray:
    vectors = rng.normal(size=(length, count))
    return (vectors / np.linalg.norm(vectors, axis=0)).astype(np.float32)


def test_run_has_the_shapes_and_types_of_the_interface(
    front_end: SuperPointFrontend, image: np.ndarray
) -> None:
    points, descriptors, heat = front_end.run(image.astype(np.float32) / 255)
    count = points.shape[1]
    assert count > 50
    assert points.shape == (3, count)
    assert descriptors.shape == (256, count) == (front_end.descriptor_dim, count)
    assert descriptors.dtype == np.float32
    assert heat.shape == image.shape
    assert (heat >= 0).all() and heat.max() <= 1
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=0), 1, atol=1e-5)
    assert (np.diff(points[2]) <= 0).all()
    assert points[2].min() > 0.015
    inner = np.array(image.shape)[::-1, None] - 1 - front_end.border_remove
    assert (points[:2] >= front_end.border_remove).all() and (points[:2] <= inner).all()
    assert (front_end.name, front_end.cell, front_end.nn_thresh) == ("SuperPoint", 8, 0.7)


def test_points_are_those_of_the_extractor(
    front_end: SuperPointFrontend, image: np.ndarray
) -> None:
    settings = FeatureConfig(
        weights="superpoint", threshold=0.015, nms_radius=4, max_keypoints=20000
    )
    expected = SuperPointExtractor(settings).extract(image)
    points, descriptors, _ = front_end.run(image)
    np.testing.assert_array_equal(points[:2].T, expected.keypoints)
    np.testing.assert_array_equal(points[2], expected.scores)
    np.testing.assert_array_equal(descriptors.T, expected.descriptors)


def test_points_lie_on_the_heat_map(front_end: SuperPointFrontend, image: np.ndarray) -> None:
    points, _, heat = front_end.run(image)
    x, y = np.rint(points[:2, :20]).astype(int)
    around = [
        heat[v - 2 : v + 3, u - 2 : u + 3].max()
        for u, v in zip(x.tolist(), y.tolist(), strict=True)
    ]
    assert min(around) > np.median(heat) * 100


def test_float_and_byte_images_give_the_same_points(
    front_end: SuperPointFrontend, image: np.ndarray
) -> None:
    for same in (image.astype(np.float32) / 255, image / 255.0, np.asfortranarray(image)):
        for found, expected in zip(front_end.run(same), front_end.run(image), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_attributes_that_a_host_changes_take_effect(image: np.ndarray) -> None:
    front_end = SuperPointFrontend("superpoint_lite", 4, 0.015, 0.7)
    before = front_end.run(image)[0].shape[1]
    front_end.conf_thresh = 0.2
    assert 0 < front_end.run(image)[0].shape[1] < before
    front_end.border_remove = 30
    points = front_end.run(image)[0]
    assert points[:2].min() >= 30
    assert front_end.descriptor_dim == 128


def test_an_image_without_points_gives_empty_arrays(front_end: SuperPointFrontend) -> None:
    points, descriptors, heat = front_end.run(np.full((64, 80), 0.5, np.float32))
    assert (points.shape, descriptors.shape, heat.shape) == ((3, 0), (256, 0), (64, 80))
    tracker = PointTracker(3, 0.7)
    tracker.update(points, descriptors)
    assert tracker.get_tracks(1).shape == (0, 5)


def test_settings_override_the_arguments_of_the_host(image: np.ndarray) -> None:
    front_end = SuperPointFrontend(
        "superpoint_lite", 4, 0.5, 0.7, max_keypoints=60, threshold=0.0001
    )
    assert front_end.conf_thresh == 0.0001
    assert front_end.run(image)[0].shape[1] == 60


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "shape"),
        (np.zeros((0, 4), np.float32), "shape"),
        (np.full((8, 8), 200.0, np.float32), "divide by 255"),
        (np.full((8, 8), np.nan), "nan"),
        (np.zeros((8, 8), np.int32), "int32"),
    ],
)
def test_impossible_images_are_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_grey_bytes(bad)


def test_the_memory_of_an_image_is_not_kept() -> None:
    given = np.zeros((4, 4), np.uint8)
    assert not np.shares_memory(as_grey_bytes(given), given)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        SuperPointFrontend("nowhere.pth", 4, 0.015, 0.7)
    with pytest.raises(ConfigError, match="colour"):
        SuperPointFrontend(None, 4, 0.015, 0.7, colour=1)
    with pytest.raises(ConfigError, match="threshold"):
        SuperPointFrontend(None, 4, 1.5, 0.7)
    with pytest.raises(ConfigError, match="weights"):
        SuperPointFrontend(None, 4, 0.015, 0.7, weights="superpoint")


def test_matches_are_mutual_and_below_the_threshold() -> None:
    rng = np.random.default_rng(0)
    first = unit(rng, 30)
    order = rng.permutation(30)[:20]
    second = first[:, order] + 0.02 * rng.normal(size=(64, 20)).astype(np.float32)
    second = np.concatenate([second / np.linalg.norm(second, axis=0), unit(rng, 5)], axis=1)
    matches = PointTracker(2, 0.7).nn_match_two_way(first, second, 0.7)
    assert matches.shape == (3, 20)
    found = dict(matches[:2].T.astype(int).tolist())
    assert found == {int(index): row for row, index in enumerate(order)}
    rows, columns = matches[:2].astype(int)
    distances = np.linalg.norm(first[:, rows] - second[:, columns], axis=0)
    np.testing.assert_allclose(matches[2], distances, atol=1e-3)
    assert PointTracker(2, 0.7).nn_match_two_way(first, second[:, :0], 0.7).shape == (3, 0)
    with pytest.raises(ValueError, match="length"):
        PointTracker(2, 0.7).nn_match_two_way(first[:10], second, 0.7)
    with pytest.raises(ValueError, match="negative"):
        PointTracker(2, 0.7).nn_match_two_way(first, second, -1.0)


def test_tracks_follow_known_points() -> None:
    """Compared with runs of consecutive images, found from the points' identities."""
    rng = np.random.default_rng(1)
    identities = unit(rng, 40)
    length, images = 4, 12
    seen = [rng.permutation(40)[: rng.integers(10, 35)] for _ in range(images)]
    tracker = PointTracker(length, 0.5)
    for number, ids in enumerate(seen):
        positions = np.stack([ids, np.full(len(ids), number), np.ones(len(ids))])
        tracker.update(positions.astype(np.float64), identities[:, ids])
        memory = seen[max(0, number - length + 1) : number + 1]
        offsets = tracker.get_offsets()
        assert offsets.shape == (length,)
        all_points = np.concatenate(tracker.all_pts, axis=1)
        for min_length in (1, 2, 4):
            tracks = tracker.get_tracks(min_length)
            found = {}
            for row in tracks:
                indices = row[2:].astype(int)
                of_track = all_points[0, indices[indices >= 0]].astype(int)
                assert len(set(of_track)) == 1
                found[int(of_track[0])] = (indices >= 0).tolist()
            expected = {}
            for identity in memory[-1].tolist():
                run = 0
                while run < len(memory) and identity in memory[-1 - run]:
                    run += 1
                if run >= min_length:
                    expected[identity] = [False] * (length - run) + [True] * run
            assert found == expected
            assert len(set(tracks[:, 0])) == len(tracks)


def test_the_score_is_the_mean_distance_of_the_matches() -> None:
    angle = np.array([0.0, 0.1, 0.3])
    tracker = PointTracker(5, 0.7)
    for value in angle:
        descriptor = np.array([[np.cos(value)], [np.sin(value)]], np.float32)
        tracker.update(np.zeros((3, 1)), descriptor)
    distances = 2 * np.sin(np.diff(angle) / 2)
    (track,) = tracker.get_tracks(3)
    assert track[1] == pytest.approx(distances.mean(), abs=1e-3)
    tracker.update(np.zeros((3, 1)), np.array([[-1.0], [0.0]], np.float32))
    (track,) = tracker.get_tracks(1)
    assert track[1] == tracker.max_score
    assert track[0] == 1


def test_changed_tracks_do_not_change_the_tracker() -> None:
    tracker = PointTracker(2, 0.7)
    tracker.update(np.zeros((3, 1)), np.array([[1.0], [0.0]], np.float32))
    tracker.get_tracks(1)[:, 1] /= 0.7
    assert tracker.get_tracks(1)[0, 1] == tracker.max_score


def test_impossible_calls_of_the_tracker_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        PointTracker(1, 0.7)
    with pytest.raises(ValueError, match="negative"):
        PointTracker(3, -0.1)
    tracker = PointTracker(3, 0.7)
    with pytest.raises(ValueError, match="at least 1"):
        tracker.get_tracks(0)
    with pytest.raises(ValueError, match="2 points and 1 descriptors"):
        tracker.update(np.zeros((3, 2)), np.zeros((8, 1), np.float32))
    tracker.update(None, None)
    assert "left out" in caplog.text


def test_drawn_tracks_end_at_the_latest_points() -> None:
    tracker = PointTracker(3, 0.7)
    descriptor = np.array([[1.0], [0.0]], np.float32)
    for x in (10.0, 30.0, 50.0):
        tracker.update(np.array([[x], [20.0], [1.0]]), descriptor)
    picture = np.zeros((40, 60, 3), np.uint8)
    tracks = tracker.get_tracks(2)
    tracks[:, 1] /= tracker.nn_thresh
    tracker.draw_tracks(picture, tracks)
    assert picture[20, 12:48].any(axis=1).all()
    assert picture[20, 50, 2] > 200
    assert not picture[30:].any()
    tracker.draw_tracks(picture, tracks[:0])


@pytest.mark.slow
def test_tracks_of_a_moving_camera_agree_with_the_depth(front_end: SuperPointFrontend) -> None:
    """Points that are tracked over four images of a rendered world follow one optical flow."""
    tracker = PointTracker(4, front_end.nn_thresh)
    frames = [world_frame(index) for index in range(4)]
    for frame in frames:
        points, descriptors, _ = front_end.run(frame.image)
        tracker.update(points, descriptors)
    tracks = tracker.get_tracks(4)
    positions = np.concatenate(tracker.all_pts, axis=1)
    first, last = (positions[:, tracks[:, column].astype(int)].T for column in (2, 5))
    _, inliers = cv2.findFundamentalMat(first, last, cv2.USAC_MAGSAC, 1.0, 0.999, 5000)
    assert len(tracks) > 50
    assert inliers.mean() > 0.9
