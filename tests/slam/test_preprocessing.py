"""From a frame to observations: depth, disparity and undistortion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.config import Config, DepthConfig
from spslam.errors import CalibrationError, DatasetError
from spslam.frame import Features, Frame
from spslam.interfaces import Extractor
from spslam.slam.preprocessing import (
    MASK_MARGIN_PX,
    Preprocessor,
    depth_at,
    tracking_camera,
)

CONFIG = Config()
CAMERA = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
POINTS = np.array([[20.25, 10.75], [40.0, 30.5], [5.5, 40.0]], np.float32)


class FixedPoints(Extractor):
    """An extractor that finds the same points in every image."""

    name, max_descriptor_distance, pixel_sigma = "fixed", 0.7, 1.0

    def extract(self, image: np.ndarray) -> Features:
        return Features(POINTS, np.ones(3, np.float32), np.eye(3, dtype=np.float32))


class FixedDisparity:
    """A stereo matcher with known results: 10 px, no match, and a disparity that is too small."""

    def match(self, left_image, keypoints, right_image) -> np.ndarray:
        return keypoints[:, 0].astype(float) - [10.0, np.nan, 0.1][: len(keypoints)]


def preprocessor() -> Preprocessor:
    return Preprocessor(CONFIG, FixedPoints(), FixedDisparity())


def plane(slope: float) -> np.ndarray:
    """Depth of a slanted plane: inverse depth is affine in the pixels."""
    x = np.arange(64)
    return np.broadcast_to(1.0 / (0.5 + slope * x), (48, 64)).astype(np.float32)


def test_depth_is_exact_on_a_slanted_plane() -> None:
    expected = 1.0 / (0.5 + 0.001 * POINTS[:, 0])
    assert depth_at(plane(0.001), POINTS, DepthConfig()) == pytest.approx(expected, rel=1e-5)


def test_depth_is_unknown_in_holes_out_of_range_and_near_steps() -> None:
    depth = np.full((48, 64), 2.0, np.float32)
    depth[10:12, 20:22] = 0.0
    depth[:, 43:] = 3.0
    assert np.isnan(depth_at(depth, POINTS, DepthConfig())).tolist() == [True, True, False]
    assert np.isnan(depth_at(depth, POINTS, DepthConfig(edge_margin_px=1))).tolist() == [
        True,
        False,
        False,
    ]
    assert np.isnan(depth_at(depth, POINTS, DepthConfig(max_m=1.5))).all()
    assert np.isnan(depth_at(np.full((48, 64), np.nan, np.float32), POINTS, DepthConfig())).all()
    assert np.isnan(depth_at(np.zeros((48, 64), np.float32), POINTS, DepthConfig())).all()


@pytest.mark.parametrize("margin", [0, 1, 4])
def test_depth_near_a_step_does_not_depend_on_the_number_of_keypoints(margin: int) -> None:
    rng = np.random.default_rng(4)
    depth = np.where(rng.random((48, 64)) < 0.02, 3.0, 2.0).astype(np.float32)
    depth[rng.random((48, 64)) < 0.02] = np.nan
    points = rng.uniform([0, 0], [63, 47], (4000, 2)).astype(np.float32)
    config = DepthConfig(edge_margin_px=margin)
    # Many keypoints: the range of depths is computed for the whole image.
    together = depth_at(depth, points, config)
    apart = np.concatenate([depth_at(depth, some, config) for some in np.split(points, 400)])
    assert 0 < np.count_nonzero(np.isnan(together)) < len(points)
    np.testing.assert_array_equal(together, apart)


def test_a_frame_without_keypoints_has_no_depth() -> None:
    none = np.zeros((0, 2), np.float32)
    assert depth_at(np.ones((48, 64), np.float32), none, DepthConfig()).shape == (0,)


def test_depth_becomes_a_virtual_right_image() -> None:
    image = np.zeros((48, 64), np.uint8)
    frame = Frame(0, 0.0, CAMERA, image, depth=np.full((48, 64), 2.0, np.float32))
    camera = tracking_camera(frame, CONFIG)
    seen = preprocessor().observe(frame)
    assert camera.baseline_m == CONFIG.depth.virtual_baseline_m
    assert seen.depth == pytest.approx([2.0] * 3)
    assert seen.pixels[:, 0] - seen.u_right == pytest.approx([camera.bf / 2.0] * 3)


def test_a_large_enough_disparity_becomes_depth() -> None:
    image = np.zeros((48, 64), np.uint8)
    stereo = Camera(64, 48, 50.0, 50.0, 31.5, 23.5, baseline_m=0.2)
    frame = Frame(0, 0.0, stereo, image, image_right=image)
    seen = preprocessor().observe(frame)
    assert seen.depth[0] == pytest.approx(50.0 * 0.2 / 10.0)
    assert np.isnan(seen.depth[1:]).all()
    assert np.isnan(seen.u_right[1:]).all()


def test_pixels_are_undistorted() -> None:
    lens = Camera(64, 48, 50.0, 50.0, 31.5, 23.5, "radtan", (-0.2, 0.05, 0.0, 0.0))
    seen = preprocessor().observe(Frame(0, 0.0, lens, np.zeros((48, 64), np.uint8)))
    assert lens.distort(seen.pixels) == pytest.approx(POINTS, abs=1e-4)
    assert np.isnan(seen.depth).all()


def test_wrong_images_are_refused_with_their_size() -> None:
    with pytest.raises(DatasetError, match="20x10, but the calibration is for 64x48"):
        preprocessor().observe(Frame(3, 0.0, CAMERA, np.zeros((10, 20), np.uint8)))
    with pytest.raises(DatasetError, match="8-bit"):
        preprocessor().observe(Frame(3, 0.0, CAMERA, np.zeros((48, 64), np.uint16)))  # type: ignore[arg-type]


def test_stereo_needs_a_baseline() -> None:
    image = np.zeros((48, 64), np.uint8)
    with pytest.raises(CalibrationError, match="baseline"):
        tracking_camera(Frame(0, 0.0, CAMERA, image, image_right=image), CONFIG)


def test_masked_keypoints_and_matches_are_not_used() -> None:
    image = np.zeros((48, 64), np.uint8)
    left, right = np.ones((48, 64), np.bool_), np.ones((48, 64), np.bool_)
    left[36:, :10] = False
    observations = preprocessor().observe(Frame(0, 0.0, CAMERA, image, mask=left))
    assert observations.pixels.tolist() == POINTS[:2].tolist()
    camera = replace(CAMERA, baseline_m=0.1)
    frame = Frame(0, 0.0, camera, image, image, mask=left, mask_right=right)
    assert np.isfinite(preprocessor().observe(frame).u_right).tolist() == [True, False]
    # The match of the first point, at column 10, is masked in the right image.
    right[:, :8] = False
    found = preprocessor().observe(frame)
    assert len(found) == 2 and not np.isfinite(found.u_right).any()


def test_masked_depth_is_unknown() -> None:
    depth, mask = np.full((48, 64), 2.0, np.float32), np.ones((48, 64), np.bool_)
    mask[:8] = False
    camera = replace(CAMERA, baseline_m=0.1)
    image = np.zeros((48, 64), np.uint8)
    found = preprocessor().observe(Frame(0, 0.0, camera, image, depth=depth, mask=mask))
    assert len(found) == 2 and found.pixels[0, 1] > 8 + 4


def test_read_out_times_are_those_of_the_recorded_rows() -> None:
    camera = replace(CAMERA, readout_s=0.02)
    rows = np.broadcast_to(np.arange(47.0, -1.0, -1.0, dtype=np.float32)[:, None], (48, 64))
    image = np.zeros((48, 64), np.uint8)
    plain = preprocessor().observe(Frame(0, 0.0, camera, image))
    turned = preprocessor().observe(Frame(0, 0.0, camera, image, recorded_rows=rows))
    assert plain.delays[0] < 0 < turned.delays[0]
    assert turned.delays == pytest.approx(-plain.delays, abs=0.02 / 47)


class Everywhere(Extractor):
    """An extractor that finds every pixel, as far as a mask allows."""

    name, max_descriptor_distance, pixel_sigma = "everywhere", 0.7, 1.0

    def extract(self, image: np.ndarray) -> Features:
        y, x = np.indices(image.shape)
        points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
        count = len(points)
        return Features(points, np.ones(count, np.float32), np.ones((count, 1), np.float32))


def masked_frame(**images: Any) -> Frame:
    mask = np.ones((48, 64), bool)
    mask[30:] = False
    camera = replace(CAMERA, baseline_m=0.2)
    return Frame(0, 0.0, camera, np.zeros((48, 64), np.uint8), mask=mask, **images)


def test_keypoints_keep_a_margin_to_masked_parts() -> None:
    found = Preprocessor(CONFIG, Everywhere(), FixedDisparity()).observe(masked_frame())
    rows = found.pixels[:, 1]
    assert rows.min() == 0 and rows.max() == 29 - MASK_MARGIN_PX
    assert len(found) == 64 * (30 - MASK_MARGIN_PX)


def test_matches_in_masked_parts_of_the_right_image_are_dropped() -> None:
    right = np.ones((48, 64), bool)
    right[:, :20] = False

    class TenPixels:
        def match(self, left_image, keypoints, right_image) -> np.ndarray:
            return keypoints[:, 0].astype(float) - 10.0

    frame = masked_frame(image_right=np.zeros((48, 64), np.uint8), mask_right=right)
    found = Preprocessor(CONFIG, Everywhere(), TenPixels()).observe(frame)
    x = found.pixels[:, 0]
    np.testing.assert_array_equal(np.isfinite(found.u_right), x - 10 >= 20 + MASK_MARGIN_PX)


def test_depth_under_the_mask_is_not_used() -> None:
    depth = np.full((48, 64), 2.0, np.float32)
    depth[30:] = 0.5
    frame = masked_frame(depth=depth)
    found = Preprocessor(CONFIG, Everywhere(), FixedDisparity()).observe(frame)
    assert np.nanmax(found.depth) == np.nanmin(found.depth) == 2.0


def test_a_mask_of_another_size_is_refused() -> None:
    frame = replace(masked_frame(), mask=np.ones((10, 10), bool))
    with pytest.raises(DatasetError, match="mask is 10x10, but the calibration is for 64x48"):
        preprocessor().observe(frame)


def test_statistics_of_images_leave_masked_pixels_out() -> None:
    image = np.full((48, 64), 200, np.uint8)
    image[30:] = 0
    frame = replace(masked_frame(), image=image)
    assert (frame.used_image == 200).all()
    assert replace(frame, mask=None).used_image is image
