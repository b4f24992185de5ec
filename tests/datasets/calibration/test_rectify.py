from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.datasets.calibration.rectify import StereoRectifier, rectified_camera
from spslam.errors import CalibrationError
from spslam.geometry import apply, inverse, se3_exp

RADTAN = Camera(640, 480, 460.0, 458.0, 322.0, 236.0, "radtan", (-0.28, 0.07, 0.0002, 0.00002))
FISHEYE = Camera(640, 480, 380.0, 379.0, 322.0, 236.0, "equidistant", (0.01, -0.005, 0.001, 0.0))
T_LEFT_RIGHT = se3_exp(np.array([0.1, 0.003, -0.002, 0.01, -0.02, 0.015]))


def blobs(camera: Camera, points: np.ndarray) -> np.ndarray:
    """An image through the lens with one soft spot at each camera-frame point (N, 3)."""
    pixels = camera.distort(camera.project(points))
    y, x = np.mgrid[0 : camera.height, 0 : camera.width]
    image = np.zeros((camera.height, camera.width))
    for u, v in pixels:
        image += 255.0 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 2.5**2))
    return image.round().clip(0, 255).astype(np.uint8)


def centroid(image: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Centre of the spot within 12 pixels of `near`."""
    x0, y0 = np.round(near).astype(int) - 12
    window = image[y0 : y0 + 25, x0 : x0 + 25].astype(float)
    y, x = np.mgrid[0:25, 0:25]
    return np.array([(window * x).sum(), (window * y).sum()]) / window.sum() + (x0, y0)


@pytest.mark.parametrize(
    ("camera", "other"),
    [(RADTAN, RADTAN), (FISHEYE, FISHEYE), (RADTAN, FISHEYE)],
    ids=["radtan", "equidistant", "both"],
)
def test_rectified_images_agree_with_the_rectified_cameras(camera: Camera, other: Camera) -> None:
    rectifier = StereoRectifier(camera, other, T_LEFT_RIGHT)
    grid = np.stack(
        np.meshgrid(np.linspace(150, 500, 4), np.linspace(110, 380, 3)), axis=-1
    ).reshape(-1, 2)
    points = camera.unproject(
        grid, np.linspace(1.5, 6.0, len(grid))
    )  # in the left camera's own coordinates
    left, right = rectifier.rectify(
        blobs(camera, points), blobs(other, apply(inverse(T_LEFT_RIGHT), points))
    )
    ideal = apply(inverse(rectifier.T_left_rectified), points)
    expected_left = rectifier.camera.project(ideal)
    expected_right = expected_left - np.stack(
        [rectifier.camera.bf / ideal[:, 2], np.zeros(len(ideal))], axis=1
    )
    for seen, expected in ((left, expected_left), (right, expected_right)):
        found = np.array([centroid(seen, pixel) for pixel in expected])
        assert np.abs(found - expected).max() < 0.15
    assert rectifier.camera.distortion_model == "none"
    assert rectifier.camera.baseline_m == pytest.approx(np.linalg.norm(T_LEFT_RIGHT[:3, 3]))


def test_no_empty_border_is_left() -> None:
    rectifier = StereoRectifier(RADTAN, RADTAN, T_LEFT_RIGHT)
    white = np.full((480, 640), 255, np.uint8)
    for image in rectifier.rectify(white, white):
        assert image[3:-3, 3:-3].min() == 255


def test_a_wide_fisheye_is_limited_to_120_degrees() -> None:
    wide = Camera(
        512, 512, 190.98, 190.97, 254.93, 256.89, "equidistant", (0.0035, 0.0007, -0.002, 0.0002)
    )
    camera = StereoRectifier(wide, wide, T_LEFT_RIGHT).camera
    assert 2 * np.degrees(np.arctan(256 / camera.fx)) <= 120.0 + 1e-9


def test_a_rectified_pair_is_recognised() -> None:
    left = RADTAN.without_distortion()
    straight = np.eye(4)
    straight[0, 3] = 0.2
    camera = rectified_camera(left, left, straight)
    assert camera is not None and camera.baseline_m == 0.2
    assert rectified_camera(RADTAN, RADTAN, straight) is None
    assert rectified_camera(left, left, T_LEFT_RIGHT) is None


def test_impossible_pairs_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"stands 0\.100 m left of the left one"):
        StereoRectifier(RADTAN, RADTAN, inverse(T_LEFT_RIGHT))
    with pytest.raises(CalibrationError, match="above each other"):
        StereoRectifier(RADTAN, RADTAN, se3_exp(np.array([0.0, 0.1, 0, 0, 0, 0])))
    with pytest.raises(CalibrationError, match="stand in the same place"):
        StereoRectifier(RADTAN, RADTAN, np.eye(4))
    # Without a fisheye lens OpenCV gives an entirely black view.
    narrow, past = (
        Camera(640, 480, 400.0, 400.0, 319.0, 239.0),
        se3_exp(np.array([0.1, 0, 0, 0, np.radians(-80), 0])),
    )
    past[:3, 3] = (0.1, 0, 0)
    with pytest.raises(
        CalibrationError, match="look 80 degrees apart, and no view is in both images"
    ):
        StereoRectifier(narrow, narrow, past)
    small = Camera(320, 240, 230.0, 230.0, 160.0, 120.0)
    with pytest.raises(CalibrationError, match="640x480 and 320x240"):
        StereoRectifier(RADTAN, small, T_LEFT_RIGHT)


@pytest.mark.parametrize("sequence", ["V1_01_easy_still", "V1_01_easy_keyframes"])
def test_matches_of_real_pairs_lie_in_equal_rows(test_data: Path, sequence: str) -> None:
    frame = open_sequence(test_data / "euroc", sequence=sequence)[10]
    assert frame.image_right is not None
    sift = cv2.SIFT.create(600)
    (points0, descriptors0), (points1, descriptors1) = (
        sift.detectAndCompute(image, None) for image in (frame.image, frame.image_right)
    )
    pairs = cv2.BFMatcher().knnMatch(descriptors0, descriptors1, k=2)
    good = [first for first, second in pairs if first.distance < 0.7 * second.distance]
    left = np.array([points0[match.queryIdx].pt for match in good])
    right = np.array([points1[match.trainIdx].pt for match in good])
    rows = right[:, 1] - left[:, 1]
    assert len(good) > 100
    assert np.median(np.abs(rows)) < 0.3
    assert abs(np.median(rows)) < 0.1
    assert np.median(left[:, 0] - right[:, 0]) > 5.0
