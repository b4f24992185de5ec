"""Keypoint selection compared with plain loops, and refinement of corners at known positions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spslam.frontend.superpoint.decoder import first_at_each_pixel, refine_on_heat, spread_top_k
from spslam.frontend.superpoint.keypoints import find_maxima, gather_probability, suppress


def greedy(heat: NDArray[np.float32], threshold: float, radius: int) -> list[tuple[int, int]]:
    around = np.pad(heat, 1, constant_values=-np.inf)
    shape = heat.shape
    shifted = [around[y : y + shape[0], x : x + shape[1]] for y in range(3) for x in range(3)]
    rows, columns = np.nonzero((heat > threshold) & (heat >= np.max(shifted, axis=0)))
    order = np.lexsort((columns, rows, -heat[rows, columns]))
    free, kept = np.ones(heat.shape, bool), []
    for row, column in zip(rows[order], columns[order], strict=True):
        if free[row, column]:
            kept.append((int(row), int(column)))
            free[
                max(row - radius, 0) : row + radius + 1,
                max(column - radius, 0) : column + radius + 1,
            ] = False
    return kept


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 5),
    st.integers(1, 30),
    st.integers(1, 30),
    st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_suppression_equals_the_greedy_one(
    seed: int, radius: int, height: int, width: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    heat = rng.random((height, width)).astype(np.float32)
    heat = np.round(heat * 4) / np.float32(4) if ties else heat
    rows, columns = find_maxima(heat, 0.2, radius, 0)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == greedy(heat, 0.2, radius)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 200), st.integers(1, 50))
@settings(deadline=None, max_examples=80)
def test_suppression_of_points_anywhere(seed: int, radius: int, total: int, side: int) -> None:
    # Include neighbouring and equal pixels, which maxima never have.
    pixels = np.random.default_rng(seed).integers(-side, side, (total, 2))
    kept: list[int] = []
    for index, pixel in enumerate(pixels):
        if np.all(np.abs(pixels[kept] - pixel).max(axis=1) > radius):
            kept.append(index)
    rows, columns = pixels.T
    assert np.flatnonzero(suppress(rows, columns, radius)).tolist() == kept


def test_suppression_of_more_than_65536_points() -> None:
    rows, columns = (3 * axis.ravel() for axis in np.mgrid[:270, :270])
    kept = suppress(np.append(rows, rows[-1] + 1), np.append(columns, columns[-1]), 1)
    assert kept[:-1].all() and not kept[-1]


def test_no_points_on_the_flanks_of_a_maximum() -> None:
    y, x = np.mgrid[:40, :60]
    heat = np.exp(-((x - 20) ** 2 + (y - 15) ** 2) / 200).astype(np.float32)
    rows, columns = find_maxima(heat, 0.1, 4, 0)
    assert (rows.tolist(), columns.tolist()) == ([15], [20])


def test_border_points_are_removed_after_suppression() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[2, 10], heat[5, 10] = 0.9, 0.5
    rows, _ = find_maxima(heat, 0.1, 4, 4)
    assert len(rows) == 0
    rows, columns = find_maxima(heat, 0.1, 2, 4)
    assert (rows.tolist(), columns.tolist()) == ([5], [10])


def test_nothing_above_the_threshold() -> None:
    rows, columns = find_maxima(np.zeros((9, 9), np.float32), 0.0, 4, 0)
    assert len(rows) == len(columns) == 0
    assert refine_on_heat(np.zeros((9, 9), np.float32), rows, columns).shape == (0, 2)


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 300), st.integers(1, 120), st.sampled_from([0, 8, 32])
)
@settings(deadline=None, max_examples=60)
def test_spread_keeps_the_best_of_each_cell(seed: int, total: int, count: int, cell: int) -> None:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 100, (total, 2)).astype(np.float32)
    scores = rng.random(total).astype(np.float32)
    kept = spread_top_k(keypoints, scores, count, cell)
    assert len(kept) == min(count, total) == len(set(kept.tolist()))
    assert np.all(np.diff(scores[kept]) <= 0)
    assert scores.argmax() in kept if total and count > 1 else True
    if cell:
        cells = np.floor(keypoints / cell).astype(int) @ [1000, 1]
        best = [np.flatnonzero(cells == c)[scores[cells == c].argmax()] for c in np.unique(cells)]
        if len(best) <= min(count, total) // 2:
            assert set(best) <= set(kept.tolist())


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_rounds_take_as_many_points_of_each_cell(fraction: float) -> None:
    # The left half of the image has the best scores, and nine of ten points.
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(0, 50, 900), rng.uniform(50, 100, 100)])
    keypoints = np.stack([x, rng.uniform(0, 100, 1000)], axis=1).astype(np.float32)
    scores = (rng.random(1000) + (x < 50)).astype(np.float32)
    kept = spread_top_k(keypoints, scores, 64, 25, fraction)
    # 16 cells; the rounds take as many on the right as on the left.
    assert np.count_nonzero(x[kept] >= 50) == round(64 * fraction / 2)


def test_spread_does_not_depend_on_the_order_of_points() -> None:
    rng = np.random.default_rng(0)
    keypoints = rng.integers(0, 60, (200, 2)).astype(np.float32)
    keypoints = np.unique(keypoints, axis=0)
    scores = np.round(rng.random(len(keypoints)) * 5).astype(np.float32)
    shuffled = rng.permutation(len(keypoints))
    first = keypoints[spread_top_k(keypoints, scores, 50, 16)]
    second = keypoints[shuffled][spread_top_k(keypoints[shuffled], scores[shuffled], 50, 16)]
    np.testing.assert_array_equal(first, second)


def test_spread_of_maxima_is_that_of_any_order() -> None:
    # Sorted points are not sorted again; among equals the upper, then the left one comes first.
    rng = np.random.default_rng(1)
    heat = np.round(rng.random((90, 120)) * 20).astype(np.float32)
    rows, columns = find_maxima(heat, 2, 2, 0)
    keypoints, scores = np.stack([columns, rows], axis=1).astype(np.float32), heat[rows, columns]
    shuffled = rng.permutation(len(rows))
    expected = keypoints[shuffled][spread_top_k(keypoints[shuffled], scores[shuffled], 100, 16)]
    np.testing.assert_array_equal(keypoints[spread_top_k(keypoints, scores, 100, 16)], expected)
    assert spread_top_k(keypoints, scores, len(rows), 16).tolist() == list(range(len(rows)))


def test_heat_refinement_finds_the_centre_of_a_blob() -> None:
    y, x = np.mgrid[:40, :60]
    centre = np.array([20.3, 15.8])
    heat = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 0.8**2)).astype(np.float32)
    rows, columns = find_maxima(heat, 0.1, 4, 4)
    refined = refine_on_heat(heat, rows, columns)
    np.testing.assert_allclose(refined, [centre], atol=0.05)


def test_there_is_one_point_per_pixel() -> None:
    keypoints = np.array([[5.1, 5.0], [4.9, 5.2], [7.0, 5.0], [5.0, 5.4]], np.float32)
    scores = np.array([0.2, 0.9, 0.1, 0.9], np.float32)
    assert first_at_each_pixel(keypoints, scores).tolist() == [1, 2]


def test_a_point_between_pixels_counts_as_much_as_one_on_a_pixel() -> None:
    heat = np.zeros((20, 40), np.float32)
    heat[10, 10] = 0.4
    heat[10:12, 30:32] = 0.1
    gathered = gather_probability(heat)
    assert gathered[10, 10] == pytest.approx(0.4, rel=1e-5)
    assert gathered[10, 30] == pytest.approx(0.1 * (1 + 2 * np.exp(-0.5) + np.exp(-1)), rel=1e-3)
    # Nothing comes from beyond the border, and a probability stays at most 1.
    assert gathered[0, 0] == 0
    assert gather_probability(np.ones((9, 9), np.float32)).max() == 1
