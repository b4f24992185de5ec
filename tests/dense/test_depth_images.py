"""Which pixels of a depth image are used, and the stereo matcher's sub-pixel refinement."""

import cv2
import numpy as np

from spslam.camera import Camera
from spslam.dense.depth_images import DepthSettings, usable
from spslam.dense.stereo_depth import StereoDepth, StereoSettings, refined

CAMERA = Camera(160, 120, 120.0, 118.0, 80.3, 59.2, baseline_m=0.2)


def plane(angle_deg: float, distance_m: float = 2.0) -> np.ndarray:
    """Depth of a plane turned about the vertical axis."""
    x = (np.arange(160) - CAMERA.cx) / CAMERA.fx
    a = np.radians(angle_deg)
    row = distance_m / (np.cos(a) + np.sin(a) * x)
    return np.tile(np.where(row > 0, row, 0.0), (120, 1)).astype(np.float32)


def test_depths_at_edges_unknown_pixels_and_out_of_range_are_left_out() -> None:
    depth = plane(0.0)
    depth[:, 80:] = 3.0
    depth[50:60, 20:30] = 0.0
    used = usable(depth, CAMERA, DepthSettings(), 10.0)
    assert not used[:, 79:81].any() and used[10, 70] and used[10, 90]
    assert not used[49:61, 19:31].any() and used[45, 20]
    assert not usable(depth, CAMERA, DepthSettings(), 2.5)[:, 82:].any()
    assert not usable(depth, CAMERA, DepthSettings(min_depth_m=2.5), 10.0)[:, :78].any()


def test_grazing_surfaces_are_left_out_and_slanted_ones_are_not() -> None:
    settings = DepthSettings(edge=10.0)
    for angle in (0, 30, 60):
        centre = usable(plane(angle), CAMERA, settings, 100.0)[20:100, 75:85]
        assert centre.all(), angle
    assert not usable(plane(88), CAMERA, settings, 1000.0)[20:100, 79:82].any()


def test_stereo_finds_the_disparity_of_a_plane_to_a_fifth_of_a_pixel() -> None:
    rng = np.random.default_rng(1)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (120, 260)).astype(np.float32), (0, 0), 1.5)
    wide = np.clip((wide - 128) * 4 + 128, 0, 255)
    x, y = np.meshgrid(np.arange(160, dtype=np.float32), np.arange(120, dtype=np.float32))
    left = cv2.remap(wide, x + 50, y, cv2.INTER_CUBIC)
    right = cv2.remap(wide, x + 50 + 9.35, y, cv2.INTER_CUBIC)
    # The right camera exposes darker.
    pair = np.rint(left).astype(np.uint8), np.rint(0.9 * right).astype(np.uint8)
    depth = StereoDepth(CAMERA, StereoSettings()).depth(*pair)
    found = CAMERA.bf / depth[20:100, 30:150][depth[20:100, 30:150] > 0]
    assert len(found) > 0.9 * 80 * 120
    assert abs(np.median(found) - 9.35) < 0.03
    assert np.percentile(np.abs(found - 9.35), 90) < 0.2


def test_refinement_keeps_unknown_pixels_and_images_without_texture() -> None:
    flat = np.full((20, 30), 100, np.uint8)
    disparity = np.full((20, 30), 4.0, np.float32)
    disparity[3:5] = -1.0
    assert np.array_equal(refined(flat, flat, disparity), disparity)
