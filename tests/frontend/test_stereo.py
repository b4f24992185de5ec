"""Stereo matching on images with disparities known to a hundredth of a pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from spslam.config import FeatureConfig, StereoConfig
from spslam.frame import Features
from spslam.frontend.registry import create_extractor
from spslam.frontend.stereo import RowStereoMatcher


def texture(seed: int, shape: tuple[int, int] = (160, 320)) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), sigma) * sigma for sigma in (1.2, 2.5, 5)
    )
    return cv2.normalize(image, None, 20, 235, cv2.NORM_MINMAX)


def shifted(image: NDArray[np.float32], disparity: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The right image of a left one whose disparity is given for the right image's pixels."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    # OpenCV's cubic kernel would shift quarter pixels by 0.03.
    moved = map_coordinates(image, [y, x + disparity], order=5, mode="reflect")
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def points(keypoints: NDArray[np.float64], seed: int = 0) -> Features:
    descriptors = np.random.default_rng(seed).normal(size=(len(keypoints), 32))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(keypoints.astype(np.float32), np.ones(len(keypoints), np.float32), descriptors.astype(np.float32))


def grid() -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(90.3, 280, 13.7), np.arange(15.6, 145, 11.3))
    return np.column_stack([x.ravel(), y.ravel()])


@pytest.mark.parametrize("disparity", [0.9, 5.0, 17.37, 40.5])
def test_constant_disparity(disparity: float) -> None:
    left = texture(1)
    right = shifted(left, np.full(left.shape, disparity))
    left8 = np.rint(left).astype(np.uint8)
    true = grid()
    rng = np.random.default_rng(2)
    seen = true - [disparity, 0] + rng.normal(0, 0.7, true.shape).clip(-1.5, 1.5)
    u_right = RowStereoMatcher(StereoConfig(), 0.7).match(left8, points(true), right, points(seen))
    error = true.astype(np.float32)[:, 0] - u_right - disparity
    assert np.isfinite(error).mean() > 0.95
    assert np.nanmedian(np.abs(error)) < 0.03
    assert abs(np.nanmedian(error)) < 0.01
    assert np.nanmax(np.abs(error)) < 0.25


def test_gates() -> None:
    left = texture(3)
    right = shifted(left, np.full(left.shape, 20.0))
    left8, true = np.rint(left).astype(np.uint8), grid()
    seen = true - [20, 0]
    features = points(true)

    def share(config: StereoConfig, keypoints: NDArray[np.float64]) -> float:
        matcher = RowStereoMatcher(config, 0.7)
        return float(np.isfinite(matcher.match(left8, features, right, points(keypoints))).mean())

    assert share(StereoConfig(), seen) > 0.95
    assert share(StereoConfig(max_disparity=19.0), seen) == 0
    assert share(StereoConfig(min_disparity=21.0), seen) == 0
    low = seen + np.array([0, 2.5])
    assert share(StereoConfig(), low) == 0
    assert share(StereoConfig(max_row_difference=3.0), low) > 0.95


def test_wrong_candidates_are_refused_by_their_grey_values() -> None:
    left, other = texture(4), texture(5)
    u_right = RowStereoMatcher(StereoConfig(), 0.7).match(
        np.rint(left).astype(np.uint8), points(grid()), np.rint(other).astype(np.uint8), points(grid() - [12, 0])
    )
    assert np.isfinite(u_right).mean() < 0.05
    flat = np.full(left.shape, 80, np.uint8)
    u_right = RowStereoMatcher(StereoConfig(), 0.7).match(flat, points(grid()), flat, points(grid() - [12, 0]))
    assert not np.isfinite(u_right).any()


def test_points_at_the_border_and_none_at_all() -> None:
    image = np.rint(texture(6)).astype(np.uint8)
    corners = np.array([[0, 0], [319, 159], [319, 0], [0, 159]], np.float64)
    matcher = RowStereoMatcher(StereoConfig(min_disparity=0.0), 0.7)
    u_right = matcher.match(image, points(corners), image, points(corners))
    np.testing.assert_allclose(u_right[np.isfinite(u_right)], corners[np.isfinite(u_right), 0], atol=0.1)
    none = points(np.zeros((0, 2)))
    assert matcher.match(image, none, image, points(corners)).shape == (0,)
    assert np.isnan(matcher.match(image, points(corners), image, none)).all()


@pytest.mark.parametrize("name", ["superpoint", "orb"])
def test_real_pair(test_data: Path, name: str) -> None:
    folder = test_data / "kitti" / "sequences" / "00"
    left, right = (cv2.imread(str(folder / f"image_{i}" / "000010.png"), cv2.IMREAD_GRAYSCALE) for i in (0, 1))
    extractor = create_extractor(FeatureConfig(extractor=name))
    features = extractor.extract_batch([left, right])
    u_right = RowStereoMatcher(StereoConfig(), extractor.max_distance).match(left, features[0], right, features[1])
    known = np.isfinite(u_right)
    assert known.mean() > (0.5 if name == "superpoint" else 0.25)
    # Dense matching is coarse, but knows gross errors.
    block = cv2.StereoSGBM.create(0, 192, 5, P1=200, P2=800, uniquenessRatio=10, disp12MaxDiff=1)
    dense = block.compute(left, right) / 16.0
    x, y = np.rint(features[0].keypoints[known]).astype(int).T
    compared = dense[y, x] > 0
    error = np.abs(features[0].keypoints[known, 0] - u_right[known] - dense[y, x])[compared]
    assert np.median(error) < 0.35
    assert (error > 2).mean() < 0.05
