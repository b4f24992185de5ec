"""Stereo matching on images with disparities known to a hundredth of a pixel."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from spslam.config import FeatureConfig, StereoConfig
from spslam.datasets.images.decoding import read_image
from spslam.datasets.world.world import open_world
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.matching.stereo import BlockStereoMatcher


def texture(seed: int, shape: tuple[int, int] = (160, 320)) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    for sigma in (1.2, 2.5, 5):
        noise = rng.normal(size=shape).astype(np.float32)
        image += sigma * np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma), np.float32)
    return np.asarray(cv2.normalize(image, image, 20, 235, cv2.NORM_MINMAX), np.float32)


def shifted(image: NDArray[np.float32], disparity: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Render the right image of a left one; the disparity is given per right pixel."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    # OpenCV's cubic kernel would shift quarter pixels by 0.03.
    moved = map_coordinates(image, [y, x + disparity], order=5, mode="reflect")
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def grid() -> NDArray[np.float32]:
    x, y = np.meshgrid(np.arange(90.3, 280, 13.7), np.arange(15.6, 145, 11.3))
    return np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)


@pytest.mark.parametrize("disparity", [0.9, 5.0, 17.37, 40.5])
def test_constant_disparity(disparity: float) -> None:
    left = texture(1)
    right = shifted(left, np.full(left.shape, disparity))
    true = grid()
    u_right = BlockStereoMatcher(StereoConfig()).match(np.rint(left).astype(np.uint8), true, right)
    error = true[:, 0] - u_right - disparity
    assert np.isfinite(error).mean() > 0.95
    assert np.nanmedian(np.abs(error)) < 0.03
    assert abs(np.nanmedian(error)) < 0.01
    assert np.nanmax(np.abs(error)) < 0.25


def test_slanted_surface() -> None:
    left = texture(2)
    # Disparity per right pixel; the disparity at a left pixel solves u = u' + d(u').
    slope, offset = 0.05, 12.0
    x = np.arange(left.shape[1], dtype=np.float64)
    right = shifted(left, np.tile(offset + slope * x, (left.shape[0], 1)))
    true = grid()
    u_right = BlockStereoMatcher(StereoConfig()).match(np.rint(left).astype(np.uint8), true, right)
    error = u_right - (true[:, 0] - offset) / (1 + slope)
    assert np.isfinite(error).mean() > 0.9
    assert np.nanmedian(np.abs(error)) < 0.05


def test_disparity_limits_exclude_matches() -> None:
    left = texture(3)
    right = shifted(left, np.full(left.shape, 20.0))

    def fraction(config: StereoConfig) -> float:
        u_right = BlockStereoMatcher(config).match(np.rint(left).astype(np.uint8), grid(), right)
        return float(np.isfinite(u_right).mean())

    assert fraction(StereoConfig()) > 0.95
    assert fraction(StereoConfig(max_disparity=19.0)) == 0
    assert fraction(StereoConfig(min_disparity=21.0)) == 0


def test_points_of_other_rows_do_not_match() -> None:
    left = texture(7)
    right = shifted(left, np.full(left.shape, 20.0))
    matcher = BlockStereoMatcher(StereoConfig())
    u_right = matcher.match(np.rint(left).astype(np.uint8), grid(), np.roll(right, 20, axis=0))
    assert np.isfinite(u_right).mean() < 0.05


def test_patches_with_other_grey_values_do_not_match() -> None:
    left, other = texture(4), texture(5)
    matcher = BlockStereoMatcher(StereoConfig())
    u_right = matcher.match(np.rint(left).astype(np.uint8), grid(), np.rint(other).astype(np.uint8))
    assert np.isfinite(u_right).mean() < 0.05
    flat = np.full(left.shape, 80, np.uint8)
    assert not np.isfinite(matcher.match(flat, grid(), flat)).any()


def test_points_at_the_border_and_empty_input() -> None:
    image = np.rint(texture(6)).astype(np.uint8)
    corners = np.array([[0, 0], [319, 159], [319, 0], [0, 159]], np.float32)
    matcher = BlockStereoMatcher(StereoConfig(min_disparity=0.0))
    u_right = matcher.match(image, corners, image)
    np.testing.assert_allclose(
        u_right[np.isfinite(u_right)], corners[np.isfinite(u_right), 0], atol=0.1
    )
    assert matcher.match(image, np.zeros((0, 2), np.float32), image).shape == (0,)


def test_points_outside_the_right_image_have_no_match() -> None:
    left = texture(9)
    right = shifted(left, np.full(left.shape, 60.0))
    x, y = np.meshgrid(np.arange(4.3, 50, 4.1), np.arange(15.6, 145, 6.3))
    hidden = np.column_stack([x.ravel(), y.ravel()])
    u_right = BlockStereoMatcher(StereoConfig()).match(
        np.rint(left).astype(np.uint8), hidden, right
    )
    assert np.isfinite(u_right).mean() < 0.05


def test_rendered_depth() -> None:
    stereo, rgbd = (open_world("demo-small", sensor) for sensor in ("stereo", "rgbd"))
    matcher = BlockStereoMatcher(StereoConfig())
    found, errors = [], []
    for index in (0, 30, 60):
        frame, depth = stereo[index], rgbd[index].depth
        assert frame.image_right is not None and depth is not None
        inverse: NDArray[np.float32] = np.reciprocal(depth)
        corners = cv2.goodFeaturesToTrack(frame.image, 300, 0.01, 6)[:, 0].astype(np.float32)
        true = map_coordinates(inverse, corners.T[::-1], order=1) * frame.camera.bf
        # At depth edges a patch covers two depths.
        x, y = np.rint(corners).astype(int).T
        spread = cv2.morphologyEx(inverse, cv2.MORPH_GRADIENT, np.ones((9, 9)))
        jump = spread[y, x].astype(np.float64) * frame.camera.bf
        smooth = (jump < 1) & (corners[:, 0] > true + 5)
        disparity = corners[:, 0] - matcher.match(frame.image, corners, frame.image_right)
        found.append(np.isfinite(disparity[smooth]))
        errors.append(np.abs(disparity - true)[smooth])
    error = np.concatenate(errors)[np.concatenate(found)]
    assert np.concatenate(found).mean() > 0.97
    assert np.median(error) < 0.04
    assert (error > 1).mean() < 0.005


@pytest.mark.parametrize("shape", [(161, 321), (40, 33)])
def test_images_of_odd_and_of_small_size(shape: tuple[int, int]) -> None:
    left = texture(8, shape)
    right = shifted(left, np.full(left.shape, 4.25))
    x, y = np.meshgrid(np.arange(10.2, shape[1] - 3, 5), np.arange(3.4, shape[0] - 3, 5))
    true = np.column_stack([x.ravel(), y.ravel()]).astype(np.float32)
    u_right = BlockStereoMatcher(StereoConfig()).match(np.rint(left).astype(np.uint8), true, right)
    error = true[:, 0] - u_right - 4.25
    assert np.isfinite(error).mean() > 0.8
    assert np.nanmedian(np.abs(error)) < 0.05


@pytest.mark.parametrize("name", ["superpoint", "orb"])
def test_real_pair(test_data: Path, name: str) -> None:
    folder = test_data / "kitti" / "sequences" / "00"
    left, right = (read_image(folder / f"image_{i}" / "000010.png") for i in (0, 1))
    keypoints = create_extractor(FeatureConfig(extractor=name)).extract(left).keypoints
    u_right = BlockStereoMatcher(StereoConfig()).match(left, keypoints, right)
    known = np.isfinite(u_right)
    assert known.mean() > 0.6
    # Dense matching is imprecise but reveals gross errors.
    block = cv2.StereoSGBM.create(0, 192, 5, P1=200, P2=800, uniquenessRatio=10, disp12MaxDiff=1)
    dense = block.compute(left, right) / 16.0
    x, y = np.rint(keypoints[known]).astype(int).T
    compared = dense[y, x] > 0
    error = np.abs(keypoints[known, 0] - u_right[known] - dense[y, x])[compared]
    assert np.median(error) < 0.35
    assert (error > 2).mean() < 0.05
