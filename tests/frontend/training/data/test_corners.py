"""Refinement of labels at nearby corners."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from spslam.frontend.photos import read_photo
from spslam.frontend.training.data.corners import corner_strength, settle_on_corners


def saddle(centre: tuple[float, float], angle: float) -> NDArray[np.uint8]:
    """Draw a chessboard corner 16 times larger and average it down."""
    fine = 16
    y, x = (np.mgrid[: 40 * fine, : 40 * fine] + 0.5) / fine - 0.5
    u = np.cos(angle) * (x - centre[0]) + np.sin(angle) * (y - centre[1])
    v = -np.sin(angle) * (x - centre[0]) + np.cos(angle) * (y - centre[1])
    bright = np.where((u > 0) == (v > 0), 200.0, 50.0).reshape(40, fine, 40, fine).mean(axis=(1, 3))
    return np.rint(bright).astype(np.uint8)


@pytest.mark.parametrize("centre", [(19.5, 20.0), (20.25, 18.75), (19.0, 19.9)])
@pytest.mark.parametrize("angle", [0.3, 0.9])
def test_a_corner_is_found(centre: tuple[float, float], angle: float) -> None:
    starts = np.array(centre, np.float32) + np.array(
        [[0, 0], [1, -0.5], [-1.5, 1], [0.3, 2]], np.float32
    )
    refined = settle_on_corners(saddle(centre, angle), starts)
    np.testing.assert_allclose(refined, np.broadcast_to(centre, refined.shape), atol=0.3)
    np.testing.assert_allclose(refined[0], centre, atol=0.05)


def test_points_without_a_corner_nearby_stay() -> None:
    flat = np.full((40, 40), 90, np.uint8)
    start = np.array([[20.3, 19.6]], np.float32)
    np.testing.assert_allclose(settle_on_corners(flat, start), start, atol=1e-5)
    edge = flat.copy()
    edge[:, 21:] = 200
    moved = settle_on_corners(edge, start)
    assert abs(moved[0, 1] - start[0, 1]) < 0.05
    assert moved[0, 0] == pytest.approx(20.5, abs=0.1)


def test_points_do_not_leave_the_image() -> None:
    # The corner that is cut off lies one pixel left of the image.
    image = np.ascontiguousarray(saddle((6.0, 20.0), 0.5)[:, 7:])
    start = np.array([[0.2, 20.0]], np.float32)
    np.testing.assert_array_equal(settle_on_corners(image, start), start)


def test_empty_input_is_valid() -> None:
    assert settle_on_corners(np.zeros((9, 9), np.uint8), np.zeros((0, 2), np.float32)).shape == (
        0,
        2,
    )


def test_settling_reduces_the_error_on_a_warped_photo(test_data: Path) -> None:
    image = read_photo(test_data / "homography" / "leuven" / "1.png")
    shift = np.array([0.4, -0.3])
    moved = cv2.warpAffine(
        image,
        np.array([[1, 0, shift[0]], [0, 1, shift[1]]]),
        (image.shape[1], image.shape[0]),
        flags=cv2.INTER_CUBIC,
    )
    corners = cv2.goodFeaturesToTrack(image, 300, 0.01, 8).reshape(-1, 2)
    corners = corners[np.all((corners > 20) & (corners < np.array(image.shape[::-1]) - 20), axis=1)]
    noise = np.random.default_rng(0).normal(0, 0.7, corners.shape).astype(np.float32)
    first = settle_on_corners(image, corners + noise)
    second = settle_on_corners(
        np.asarray(moved, np.uint8), (corners + shift - noise).astype(np.float32)
    )
    before, after = (
        np.linalg.norm(2 * noise, axis=1),
        np.linalg.norm(second - first - shift, axis=1),
    )
    assert np.median(after) < 0.4 * np.median(before)


def test_corners_are_stronger_than_edges_and_flat_regions() -> None:
    image = np.full((60, 80), 60, np.uint8)
    image[20:, 30:] = 180
    points = np.array([[29.6, 19.7], [60, 19.5], [29.5, 45], [10, 10]], np.float32)
    corner, *others = corner_strength(image, points)
    assert corner == 1 and max(others) < 0.05


def test_strength_does_not_depend_on_contrast_but_falls_with_blur() -> None:
    image = saddle((19.5, 20.0), 0.4)
    blurred = cv2.GaussianBlur(image, (0, 0), 3)
    both = np.hstack([image, blurred])
    points = np.array([[19.5, 20], [59.5, 20]], np.float32)
    sharp, soft = corner_strength(both, points)
    assert sharp == 1 and 0 < soft < 0.6
    faint = (both // 3 + 20).astype(np.uint8)
    np.testing.assert_allclose(corner_strength(faint, points), [sharp, soft], atol=0.05)


def test_points_at_the_border_have_a_strength_and_empty_input_is_valid() -> None:
    image = np.zeros((20, 30), np.uint8)
    assert corner_strength(image, np.array([[29.6, 19.7], [-0.4, 0]], np.float32)).tolist() == [
        0,
        0,
    ]
    assert corner_strength(image, np.zeros((0, 2), np.float32)).shape == (0,)
