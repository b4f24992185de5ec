"""Matching compared with plain loops, and properties of matching."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.frontend.matching.radius_search import expand_ranges, pairs_within_radius

MATCHER = DescriptorMatcher()
seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 40)


def unit(rng: np.random.Generator, count: int, dimension: int = 16) -> NDArray[np.float32]:
    vectors = rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_match(
    d0: NDArray[np.float32],
    d1: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    max_descriptor_distance: float,
) -> list[int]:
    distance = np.where(
        allowed, np.linalg.norm(d0[:, None].astype(float) - d1[None], axis=2), np.inf
    )
    result = []
    for i in range(len(d0)):
        j = int(distance[i].argmin()) if distance.shape[1] else -1
        good = (
            j >= 0
            and distance[i, j] <= max_descriptor_distance
            and int(distance[:, j].argmin()) == i
        )
        result.append(j if good else -1)
    return result


@given(seeds, counts, counts, st.floats(0.3, 1.8))
@settings(deadline=None, max_examples=80)
def test_match_equals_the_plain_one(
    seed: int, n0: int, n1: int, max_descriptor_distance: float
) -> None:
    rng = np.random.default_rng(seed)
    d0, d1 = unit(rng, n0), unit(rng, n1)
    found = MATCHER.match(d0, d1, max_descriptor_distance)
    assert found.dtype == np.int64
    assert found.tolist() == plain_match(d0, d1, np.ones((n0, n1), bool), max_descriptor_distance)


# Few candidates are compared pair by pair, more than a tenth of all pairs by one matrix product.
@given(seeds, counts, counts, st.floats(0.5, 20) | st.floats(28, 60))
@settings(deadline=None, max_examples=120)
def test_match_near_is_mutual_within_the_gate(seed: int, n0: int, n1: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    d0, d1 = unit(rng, n0), unit(rng, n1)
    p0, p1 = rng.uniform(-20, 120, (n0, 2)), rng.uniform(0, 100, (n1, 2))
    p0[rng.random(n0) < 0.1] = np.nan
    radii = radius * rng.uniform(0.5, 1.5, n0)
    found = MATCHER.match_near(p0, d0, p1, d1, radii, 1.3)
    allowed = np.linalg.norm(p0[:, None] - p1[None], axis=2) <= radii[:, None]
    assert found.tolist() == plain_match(d0, d1, allowed, 1.3)


@given(seeds, counts, counts)
@settings(deadline=None, max_examples=60)
def test_match_near_does_not_depend_on_the_order_of_points(seed: int, n0: int, n1: int) -> None:
    rng = np.random.default_rng(seed)
    d0, d1 = unit(rng, n0), unit(rng, n1)
    p0, p1 = rng.uniform(0, 100, (n0, 2)), rng.uniform(0, 100, (n1, 2))
    order0, order1 = rng.permutation(n0), rng.permutation(n1)
    direct = MATCHER.match_near(p0, d0, p1, d1, 30.0, 1.3)
    shuffled = MATCHER.match_near(p0[order0], d0[order0], p1[order1], d1[order1], 30.0, 1.3)
    back = np.where(shuffled >= 0, np.append(order1, -1)[shuffled], -1)
    assert back.tolist() == direct[order0].tolist()


@given(seeds, counts, counts, st.floats(0, 40))
@settings(deadline=None, max_examples=60)
def test_pairs_are_all_pairs_within_the_radius(seed: int, n0: int, n1: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    p0, p1 = (
        rng.uniform(-1e3, 1e3, (n0, 2)) * rng.random((n0, 1)) ** 3,
        rng.uniform(-50, 50, (n1, 2)),
    )
    index0, index1 = pairs_within_radius(p0, p1, radius)
    expected = np.argwhere(np.linalg.norm(p0[:, None] - p1[None], axis=2) <= radius)
    assert sorted(zip(index0.tolist(), index1.tolist(), strict=True)) == [
        tuple(pair) for pair in expected.tolist()
    ]


def test_points_exactly_at_the_radius_are_included() -> None:
    p0, p1 = (
        np.array([[10.0, 20.0]]),
        np.array([[30.0, 20.0], [-10.0, 20.0], [10.0, 40.0], [10.0, 0.0], [25.0, 35.0]]),
    )
    assert sorted(pairs_within_radius(p0, p1, 20.0)[1].tolist()) == [0, 1, 2, 3]


def test_far_predictions_and_non_finite_points_match_nothing() -> None:
    p0 = np.array([[1e300, 0], [np.inf, 0], [np.nan, 1], [-1e18, 5], [3, 3]])
    p1 = np.array([[3.0, 3.5], [np.nan, 3]])
    index0, index1 = pairs_within_radius(p0, p1, 2.0)
    assert (index0.tolist(), index1.tolist()) == ([4], [0])
    assert len(pairs_within_radius(p0, p1, np.nan)[0]) == 0
    index0, _ = pairs_within_radius(np.array([[3.0, 3.0]]), p1, np.inf)
    assert index0.tolist() == [0]


def test_epipolar_gate_keeps_points_near_the_line() -> None:
    rng = np.random.default_rng(0)
    n = 50
    d0 = unit(rng, n)
    p0 = rng.uniform(0, 100, (n, 2))
    # Rectified stereo: lines are rows.
    F = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    p1 = p0 - [7, 0] + rng.normal(0, 0.2, (n, 2))
    p1[:5, 1] += 10
    found = MATCHER.match_epipolar(p0, d0, p1, d0, F, 1.0, 0.5)
    assert found.tolist() == [-1] * 5 + list(range(5, n))
    distance = np.abs(p0[:, None, 1] - p1[None, :, 1])
    d1 = unit(rng, n)
    found = MATCHER.match_epipolar(p0, d0, p1, d1, F, 3.0, 1.3)
    assert found.tolist() == plain_match(d0, d1, distance <= 3.0, 1.3)
    # A line that does not exist (the epipole itself) or an unknown point matches nothing.
    p0[0] = np.nan
    assert MATCHER.match_epipolar(p0, d0, p1, d0, np.zeros((3, 3)), 3.0, 1.3).tolist() == [-1] * n


def test_ratio_test_rejects_ambiguous_matches() -> None:
    d0 = np.array([[1, 0, 0]], np.float32)
    near = np.array([np.cos(0.3), np.sin(0.3), 0], np.float32)
    also = np.array([np.cos(0.32), 0, np.sin(0.32)], np.float32)
    far = np.array([0, 1, 0], np.float32)
    assert MATCHER.match(d0, np.stack([near, also]), 1.0, ratio=0.9).tolist() == [-1]
    assert MATCHER.match(d0, np.stack([near, far]), 1.0, ratio=0.9).tolist() == [0]
    assert MATCHER.match(d0, near[None], 1.0, ratio=0.9).tolist() == [0]


def test_ties_go_to_the_first() -> None:
    d = np.tile(np.array([[0.6, 0.8]], np.float32), (3, 1))
    assert MATCHER.match(d, d, 1.0).tolist() == [0, -1, -1]
    p = np.zeros((3, 2))
    assert MATCHER.match_near(p, d, p, d, 1.0, 1.0).tolist() == [0, -1, -1]


def test_expand_ranges() -> None:
    labels, positions = expand_ranges(np.array([7, 8, 9]), np.array([2, 5, 0]), np.array([4, 5, 1]))
    assert (labels.tolist(), positions.tolist()) == ([7, 7, 9], [2, 3, 0])
    labels, positions = expand_ranges(*np.zeros((3, 0), np.int64))
    assert len(labels) == len(positions) == 0


@pytest.mark.parametrize("kept", [np.float32, np.float16])
@pytest.mark.parametrize("radius", [20.0, 60.0])
def test_pruning_on_a_descriptor_prefix_gives_the_same_matches(kept: type, radius: float) -> None:
    """Some pairs agree only at the start of the descriptors, some only at the end."""
    # The few candidates within 20 are compared in one step, the many within 60 in two.
    rng = np.random.default_rng(3)
    n, size = 400, 64
    d0, d1 = unit(rng, n, size), unit(rng, n, size)
    d1[:200] = d0[:200] + rng.normal(0, 0.05, (200, size))
    d1[200:300, :40] = d0[200:300, :40]
    d1[300:, 40:] = d0[300:, 40:]
    d1 /= np.linalg.norm(d1, axis=1, keepdims=True)
    p0 = rng.uniform(0, 600, (n, 2))
    p1 = p0 + rng.normal(0, 3, p0.shape)
    allowed = np.linalg.norm(p0[:, None] - p1[None], axis=2) <= radius
    d0, d1 = d0.astype(kept), d1.astype(kept)
    for limit in (0.3, 0.8, 1.2):
        found = MATCHER.match_near(p0, d0, p1, d1, radius, limit)
        assert found.tolist() == plain_match(
            d0.astype(np.float32), d1.astype(np.float32), allowed, limit
        )
