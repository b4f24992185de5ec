"""A map of three keyframes, small enough to count by hand, and what holds for every map."""

import numpy as np

from spslam.frame import Observations
from spslam.map.map import NO_POINT, Map

# Number of entries of a descriptor.
SIZE = 8


def observations(count: int, index: int = 0) -> Observations:
    rng = np.random.default_rng(index)
    descriptors = rng.normal(size=(count, SIZE)).astype(np.float32)
    return Observations(
        index=index,
        timestamp=0.1 * index,
        pixels=rng.uniform(0, 100, (count, 2)),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        scores=np.ones(count, np.float32),
        relative_sigma=np.ones(count, np.float32),
        u_right=np.full(count, np.nan),
        depth=np.full(count, np.nan),
        delays=np.zeros(count),
    )


def pose(x: float) -> np.ndarray:
    T = np.eye(4)
    T[0, 3] = x
    return T


def map_of_three_views() -> Map:
    """Three keyframes of four keypoints; the others see some of points 0 to 3 of the first."""
    slam_map = Map(SIZE)
    first = slam_map.add_keyframe(observations(4, 0), pose(0.0), np.full(4, NO_POINT))
    slam_map.add_points(
        first, np.array([[0, 0, 5.0], [1, 0, 5], [0, 1, 5], [1, 1, 5]]), np.arange(4)
    )
    slam_map.add_keyframe(observations(4, 1), pose(1.0), np.array([0, 1, 2, NO_POINT]))
    slam_map.add_keyframe(observations(4, 2), pose(2.0), np.array([NO_POINT, 1, NO_POINT, 0]))
    return slam_map


def assert_consistent(slam_map: Map) -> None:
    linked = slam_map.observations["point"]
    linked = linked[linked >= 0]
    rows = slam_map.point_rows(linked)
    assert (rows >= 0).all(), "an observation names a point that is gone"
    assert np.array_equal(slam_map.points["id"][rows], linked)
    assert np.array_equal(
        slam_map.observation_counts(), np.bincount(rows, minlength=len(slam_map.points))
    )
    keyframes = slam_map.observations["keyframe"]
    assert (np.diff(keyframes) >= 0).all()
    assert np.isin(keyframes, slam_map.keyframes["id"]).all()
    pairs = np.stack([keyframes, slam_map.observations["point"]], axis=1)[
        slam_map.observations["point"] >= 0
    ]
    assert len(np.unique(pairs, axis=0)) == len(pairs), "a keyframe sees a point twice"
