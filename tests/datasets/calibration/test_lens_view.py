"""Undistorted views of wide lenses: what they show, and the readers that use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.datasets.calibration.lens_view import LensView, filled, lens_view, usable
from spslam.datasets.calibration.rectified_view import field_across, field_down
from spslam.datasets.calibration.rectify import StereoRectifier
from spslam.frame import rows_at
from spslam.geometry import make_transform, so3_exp
from spslam.notices import shown_notices

K_T265 = (-0.0064, 0.0426, -0.0401, 0.0070)
WIDE = {
    "T265": Camera(424, 400, 142.9, 143.1, 209.2, 199.8, "equidistant", K_T265),
    "double sphere": Camera(320, 240, 85.0, 85.0, 159.0, 121.5, "double_sphere", (-0.2, 0.59)),
    "eucm": Camera(320, 240, 90.0, 90.0, 159.0, 121.5, "eucm", (0.63, 1.08)),
    "ucm": Camera(320, 240, 90.0, 90.0, 159.0, 121.5, "ucm", (0.62,)),
    "omni": Camera(320, 240, 220.0, 220.0, 159.0, 121.5, "omni", (1.3, -0.05, 0.01, 5e-4, -3e-4)),
    "fov": Camera(320, 240, 125.0, 125.0, 159.0, 121.5, "fov", (1.2,)),
    "portrait": Camera(480, 640, 170.0, 170.0, 243.0, 318.0, "double_sphere", (-0.2, 0.59)),
    "radtan": Camera(320, 240, 77.5, 77.5, 159.0, 121.5, "radtan", (0.01, 0.0, 0.0, 0.0)),
}
NARROW = {
    "pinhole": Camera(640, 480, 100.0, 100.0, 319.5, 239.5),
    "EuRoC": Camera(752, 480, 458.0, 457.0, 367.0, 248.0, "radtan", (-0.28, 0.07, 2e-4, 2e-5)),
    "equidistant": Camera(640, 480, 380.0, 380.0, 322.0, 236.0, "equidistant", (0.01, 0, 0, 0)),
    "fov": Camera(640, 480, 400.0, 400.0, 318.0, 243.0, "fov", (0.93,)),
    "double sphere": Camera(640, 480, 320.0, 320.0, 318.0, 243.0, "double_sphere", (-0.2, 0.59)),
}
# An exact lens of 171 degrees in an image of 48 x 64 pixels, for files.
TINY = {"model": "double_sphere", "coefficients": [0.0, 0.5]}
TINY_SIZE = {"width": 64, "height": 48, "fx": 16.0, "fy": 16.0, "cx": 31.5, "cy": 23.5}


@pytest.mark.parametrize("name", WIDE)
def test_a_wide_lens_gets_a_filled_central_view(name: str) -> None:
    lens = WIDE[name]
    with shown_notices(lambda _: None) as handler:
        view = lens_view(lens)
    assert view is not None
    camera = view.camera
    (notice,) = handler.notices
    wide, high = np.degrees([field_across(camera), field_down(camera)])
    of, by = np.degrees([field_across(lens), field_down(lens)])
    assert notice.topic == "undistorted_view" and notice.text == (
        f"images are undistorted to a view {wide:.0f} degrees wide and {high:.0f} high "
        f"of the lens's {of:.0f} by {by:.0f}"
    )
    assert 100.0 < max(wide, high) < 120.1 < max(of, by)
    assert (camera.width, camera.height) == (lens.width, lens.height)
    assert camera.distortion_model == "none" and camera.fx == camera.fy
    assert abs(camera.cx - (camera.width - 1) / 2) <= 0.05 * camera.width
    assert abs(camera.cy - (camera.height - 1) / 2) <= 0.05 * camera.height
    assert filled(lens, view.maps).all() and usable(lens, view.maps).all()
    # Each pixel of the view shows the lens's pixel of the same ray.
    y, x = np.mgrid[0 : camera.height : 37, 0 : camera.width : 41]
    shown = np.stack([view.maps[0][y, x], view.maps[1][y, x]], axis=-1).reshape(-1, 2)
    bearings = camera.bearings(np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64))
    np.testing.assert_allclose(lens.lens_rays(shown.astype(np.float64)), bearings, atol=2e-6)


@pytest.mark.parametrize("name", NARROW)
def test_other_lenses_stay_as_they_are(name: str) -> None:
    assert lens_view(NARROW[name]) is None


def test_straight_lines_are_straight_in_the_view() -> None:
    lens = WIDE["T265"]
    view = lens_view(lens)
    assert view is not None
    # A line in space, 2 m ahead and 1 m above, drawn in the image of the lens.
    along = np.linspace(-30.0, 30.0, 20001)
    points = np.stack([along, np.full_like(along, -1.0), np.full_like(along, 2.0)], axis=1)
    pixels = np.rint(lens.lens_pixels(points)).astype(int)
    recorded = np.zeros((400, 424), np.uint8)
    recorded[pixels[:, 1], pixels[:, 0]] = 255
    seen = view.image(np.asarray(cv2.GaussianBlur(recorded, (0, 0), 1.5), np.uint8))
    rows = np.average(
        np.broadcast_to(np.arange(400)[:, None], seen.shape), axis=0, weights=seen + 1e-9
    )
    expected = view.camera.cy - 0.5 * view.camera.fy
    assert np.abs(rows - expected)[20:-20].max() < 1.0


@pytest.mark.parametrize("model", ["equidistant", "double_sphere", "eucm", "fov"])
def test_a_crop_beside_the_optical_axis_is_shown_around_its_own_centre(model: str) -> None:
    whole = next(lens for lens in WIDE.values() if lens.distortion_model == model)
    cut = replace(whole, height=80, cy=-20.0)
    view = lens_view(cut)
    assert view is not None and view.camera.cy < 0
    assert filled(cut, view.maps).all()


def test_depth_and_read_out_rows_follow_the_view(
    tmp_path: Path, write: Callable, write_calibration: Callable
) -> None:
    path = tmp_path / "walk"
    write_calibration(
        path / "calibration.yaml", **TINY_SIZE, distortion=TINY, readout_s=0.02, fps=10.0
    )
    y, x = np.mgrid[0:48, 0:64].astype(np.float64)
    lens = Camera(**TINY_SIZE, distortion_model="double_sphere", distortion=(0.0, 0.5))  # type: ignore[arg-type]
    # A wall 2 m ahead, in which the red channel is the column and green the row.
    rays = lens.lens_rays(np.stack([x.ravel(), y.ravel()], axis=1))
    depth = np.where(rays[:, 2] > 0.05, 2.0, 0.0).reshape(48, 64)
    colors = np.stack([np.full_like(x, 7.0), 4 * y, 4 * x], axis=2)
    for number in range(2):
        write(path / "left" / f"{number}.png", colors.astype(np.uint8))
        write(path / "depth" / f"{number}.png", (1000 * depth).astype(np.uint16))
    with shown_notices(lambda _: None) as handler:
        sequence = open_sequence(path)
    assert "undistorted_view" in [notice.topic for notice in handler.notices]
    frame = sequence[0]
    camera = sequence.camera
    assert frame.sensor == "rgbd" and frame.camera == camera
    assert camera.distortion_model == "none" and camera.readout_s == 0.02
    assert frame.depth is not None and (frame.depth == 2.0).all()
    # The colours of a pixel are its place in the image as recorded.
    pixels = np.array([[10.0, 12.0], [50.0, 40.0], [31.0, 23.0]])
    expected = lens.lens_pixels(camera.bearings(pixels))
    assert frame.color is not None
    found = frame.color.image()[pixels[:, 1].astype(int), pixels[:, 0].astype(int)]
    np.testing.assert_allclose(found[:, :2] / 4.0, expected, atol=0.3)
    np.testing.assert_allclose(rows_at(frame, pixels), expected[:, 1], atol=1e-3)
    assert np.array_equal(sequence.color(0), frame.color.image())  # type: ignore[attr-defined]
    assert np.abs(frame.color.at(pixels)[:, :2] / 4.0 - expected).max() <= 0.75
    mono = open_sequence(path, sensor="mono", stride=2)
    assert mono.camera == replace(camera, fps=mono.camera.fps)
    assert np.array_equal(mono[0].image, frame.image)


def test_videos_of_wide_lenses_are_undistorted(tmp_path: Path, write_calibration: Callable) -> None:
    write_calibration(tmp_path / "calibration.yaml", **TINY_SIZE, distortion=TINY, fps=10.0)
    writer = cv2.VideoWriter(
        str(tmp_path / "walk.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48)
    )
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    ramp = np.broadcast_to(4 * np.arange(64, dtype=np.uint8)[None, :, None], (48, 64, 3))
    for _ in range(3):
        writer.write(np.ascontiguousarray(ramp))
    writer.release()
    sequence = open_sequence(tmp_path / "walk.avi")
    camera, frame = sequence.camera, sequence[1]
    assert camera.distortion_model == "none" and frame.camera == camera
    lens = Camera(**TINY_SIZE, distortion_model="double_sphere", distortion=(0.0, 0.5))  # type: ignore[arg-type]
    row = np.stack([np.arange(4.0, 60.0), np.full(56, 23.0)], axis=1)
    expected = lens.lens_pixels(camera.bearings(row))[:, 0]
    np.testing.assert_allclose(frame.image[23, 4:60] / 4.0, expected, atol=1.5)
    assert frame.color is not None and frame.color.image().shape == (48, 64, 3)


def test_pixels_of_a_pair_that_no_lens_fills_are_masked() -> None:
    """OpenCV's view of this pair has 0.6 % of black pixels, seven times as many near them."""
    lens = Camera(
        640, 480, 535.0, 400.0, 387.0, 253.0, "radtan", (-0.018, -0.019, -2.8e-3, -2.9e-3)
    )
    turn = so3_exp(np.radians([6.0, 1.0, 10.0]))
    rectifier = StereoRectifier(lens, lens, make_transform(turn, np.array([0.1, 0.019, -0.04])))
    assert 0.001 < rectifier.empty < 0.05
    white = np.full((480, 640), 255, np.uint8)
    mask = rectifier.mask_left
    assert mask is not None and rectifier.mask_right is not None
    black = rectifier.rectify(white, white)[0] == 0
    assert black.any() and not (black & mask).any()
    near = cv2.dilate(black.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not (near & mask).any() and mask.mean() > 0.9


def test_a_view_without_black_pixels_has_no_mask() -> None:
    lens = Camera(212, 200, 71.4, 71.6, 104.5, 99.8, "equidistant", K_T265)
    rectifier = StereoRectifier(lens, lens, make_transform(np.eye(3), np.array([0.064, 0, 0])))
    assert rectifier.mask_left is None and rectifier.mask_right is None
    assert LensView(lens, rectifier.camera.K).camera.fx == rectifier.camera.fx
