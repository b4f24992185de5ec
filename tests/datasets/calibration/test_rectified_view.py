"""Views of wide fisheye pairs compared with OpenCV's lens functions and a rendered world."""

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.calibration.rectified_view import field_across, rectified_view
from spslam.datasets.calibration.rectify import StereoRectifier
from spslam.datasets.world.cache import cached_atlas
from spslam.datasets.world.path import PATHS
from spslam.datasets.world.render import Renderer
from spslam.datasets.world.world import world_faces, world_spec
from spslam.errors import CalibrationError
from spslam.geometry import apply, inverse, make_transform, so3_exp
from spslam.notices import shown_notices
from spslam.typing import FloatArray

K_T265 = (-0.0064, 0.0426, -0.0401, 0.0070)


def fisheye(
    width: int = 848,
    height: int = 800,
    f: float = 285.8,
    cx: float = 419.0,
    cy: float = 400.0,
    k: tuple[float, ...] = K_T265,
) -> Camera:
    return Camera(width, height, f, 1.002 * f, cx, cy, "equidistant", k)


def pose(
    x: float = 0.064, y: float = 0.0, z: float = 0.0, turn: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> np.ndarray:
    return make_transform(so3_exp(np.radians(turn)), np.array([x, y, z]))


IDEAL_220 = fisheye(640, 480, 320 / np.radians(110), 318.0, 243.0, (0.0, 0.0, 0.0, 0.0))
NARROW = fisheye(640, 480, 380.0, 322.0, 236.0, (0.01, -0.005, 0.001, 0.0))
CUT_OUT = fisheye(848, 300, cy=-50.0)
PAIRS: dict[str, tuple[Camera, Camera, FloatArray]] = {
    "T265": (
        fisheye(),
        fisheye(f=285.2, cx=421.3, cy=397.2),
        pose(0.0641, -0.0003, 0.0002, (0.15, -0.2, 0.05)),
    ),
    "220 degrees": (IDEAL_220, IDEAL_220, pose(0.1, turn=(0.3, 0.5, 0.0))),
    "toed in": (fisheye(), fisheye(), pose(turn=(0.0, -8.0, 0.0))),
    "toed out": (fisheye(), fisheye(), pose(turn=(0.0, 8.0, 0.0))),
    "focal lengths": (fisheye(), fisheye(f=240.0), pose(turn=(1.0, 0.0, 0.0))),
    "off centre": (fisheye(cx=350.0, cy=470.0), fisheye(cx=480.0, cy=330.0), pose()),
    "rolled": (fisheye(), fisheye(), pose(y=0.01, turn=(0.0, 0.0, 10.0))),
    "one in front": (fisheye(), fisheye(), pose(z=0.02)),
    "narrow": (NARROW, NARROW, pose(turn=(0.5, -1.0, 0.5))),
    "rows cut out": (CUT_OUT, CUT_OUT, pose()),
    "one no fisheye": (
        fisheye(),
        Camera(848, 800, 400.0, 400.0, 419.0, 400.0, "radtan", (-0.2, 0.03, 0, 0)),
        pose(),
    ),
}


def seen(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Project points (N, 3) in front of a camera by OpenCV's own functions."""
    still = np.zeros(3)
    function = (
        cv2.fisheye.projectPoints if camera.distortion_model == "equidistant" else cv2.projectPoints
    )
    pixels, _ = function(
        points.reshape(-1, 1, 3), still, still, camera.K, np.array(camera.distortion)
    )
    return pixels.reshape(-1, 2)


@pytest.mark.parametrize("name", PAIRS)
def test_the_view_is_centred_filled_and_has_equal_rows(name: str) -> None:
    left, right, T_left_right = PAIRS[name]
    rectifier = StereoRectifier(left, right, T_left_right)
    camera = rectifier.camera
    assert camera.fx == camera.fy
    assert abs(camera.cx - (camera.width - 1) / 2) <= 0.05 * camera.width
    assert abs(camera.cy - (camera.height - 1) / 2) <= 0.05 * camera.height
    assert rectifier.empty == 0.0
    assert camera.baseline_m == pytest.approx(np.linalg.norm(T_left_right[:3, 3]))
    # Maps and lenses must agree on each point, which lies in one row of both views.
    pixels = np.random.default_rng(0).uniform(
        (60, 5), (camera.width - 5, camera.height - 5), (500, 2)
    )
    depths = np.random.default_rng(1).uniform(2.0, 30.0, 500)
    points = apply(rectifier.T_left_rectified, camera.unproject(pixels, depths))
    shifted = pixels - np.stack([camera.bf / depths, np.zeros(500)], axis=1)
    for lens, maps, where, what in (
        (left, rectifier.maps_left, pixels, points),
        (right, rectifier.maps_right, shifted, apply(inverse(T_left_right), points)),
    ):
        x, y = where.astype(np.float32).T[:, None]
        mapped = np.stack([cv2.remap(part, x, y, cv2.INTER_LINEAR)[0] for part in maps], axis=1)
        ahead = what[:, 2] > 0.02 * np.linalg.norm(what, axis=1)
        assert ahead.mean() > 0.9
        assert np.abs(mapped - seen(lens, what))[ahead].max() < 0.1


def test_a_wide_pair_reports_the_width_of_its_rectified_view() -> None:
    with shown_notices(lambda _: None) as handler:
        StereoRectifier(IDEAL_220, IDEAL_220, pose(0.1))
    (notice,) = handler.notices
    assert notice.topic == "rectified_view"
    assert notice.text == "the rectified stereo view is 120 degrees wide of the lens's 220"
    assert np.degrees(field_across(IDEAL_220)) == pytest.approx(220.0, abs=1.0)


def test_the_view_of_opencv_is_used_where_it_is_better() -> None:
    """For this crop OpenCV's view is three times too narrow, unless the lens is ideal."""
    lens = Camera(640, 235, 460.0, 458.0, 322.0, -8.6, "radtan", (-0.28, 0.07, 0.0002, 0.00002))
    turned = pose(0.1, turn=(0.5, -1.0, 0.5))
    own = StereoRectifier(lens, lens, turned).camera
    assert own.fx < 1.1 * lens.fx and abs(own.cy - 117.0) < 12.0
    ideal = lens.without_distortion()
    opencv = StereoRectifier(ideal, ideal, pose(0.1, turn=(0.0, 0.1, 0.0))).camera
    assert opencv.fx < 1.02 * ideal.fx and opencv.cy == pytest.approx(-8.6, abs=3.0)


def test_cameras_without_a_common_view_are_refused() -> None:
    narrow = fisheye(640, 480, 700.0, 320.0, 240.0, (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(
        CalibrationError, match="look 80 degrees apart, and no view is in both images"
    ):
        rectified_view(narrow, narrow, pose(turn=(0.0, 80.0, 0.0)))
    with pytest.raises(CalibrationError, match="behind each other"):
        StereoRectifier(fisheye(), fisheye(), pose(z=0.1))


def lens_image(
    renderer: Renderer, pinhole: Camera, lens: Camera, T_world_cam: np.ndarray
) -> np.ndarray:
    """A rendered fisheye image up to 70 degrees off axis, by OpenCV's inverse of the lens."""
    y, x = np.mgrid[0 : lens.height, 0 : lens.width].astype(np.float64)
    pixels = np.stack([x, y], axis=-1).reshape(-1, 1, 2)
    rays = cv2.fisheye.undistortPoints(pixels, lens.K, np.array(lens.distortion)).reshape(-1, 2)
    wide = np.linalg.norm((pixels[:, 0] - (lens.cx, lens.cy)) / lens.fx, axis=1) > np.radians(70)
    there = rays * (pinhole.fx, pinhole.fy) + (pinhole.cx, pinhole.cy)
    there[wide | ~np.isfinite(there).all(axis=1)] = -1e3
    map_x, map_y = there.astype(np.float32).reshape(lens.height, lens.width, 2).transpose(2, 0, 1)
    return cv2.remap(
        renderer.image(T_world_cam),
        np.ascontiguousarray(map_x),
        np.ascontiguousarray(map_y),
        cv2.INTER_LINEAR,
    )


def test_disparities_of_a_rendered_fisheye_pair_are_true() -> None:
    spec = world_spec("demo-small")
    faces = world_faces(spec)
    atlas = cached_atlas(spec.layout, faces, spec.texels_per_m, spec.seed)
    T_world_left = PATHS[spec.path](np.array([1.0]))[0]
    T_left_right = pose(0.11, 0.002, -0.001, (0.5, -3.0, 0.7))
    left = fisheye(424, 400, 142.9, 209.5, 200.0)
    right = fisheye(424, 400, 141.8, 214.0, 196.0)
    pinhole = Camera(1000, 1000, 170.0, 170.0, 499.5, 499.5)
    renderer = Renderer(faces, atlas, pinhole)
    rectifier = StereoRectifier(left, right, T_left_right)
    seen_left, seen_right = (
        lens_image(renderer, pinhole, lens, place).round().clip(0, 255).astype(np.uint8)
        for lens, place in ((left, T_world_left), (right, T_world_left @ T_left_right))
    )
    found_left, found_right = rectifier.rectify(seen_left, seen_right)
    ideal = Renderer(faces, atlas, rectifier.camera)
    T_world_rectified = T_world_left @ rectifier.T_left_rectified
    T_beside = make_transform(np.eye(3), np.array([rectifier.camera.baseline_m, 0.0, 0.0]))
    for found, expected in (
        (found_left, ideal.image(T_world_rectified)),
        (found_right, ideal.image(T_world_rectified @ T_beside)),
    ):
        middle = (slice(60, -60), slice(60, -60))
        assert np.corrcoef(found[middle].ravel(), expected[middle].ravel())[0, 1] > 0.95
        shift, _ = cv2.phaseCorrelate(
            found[middle].astype(np.float64), expected[middle].astype(np.float64)
        )
        assert np.abs(shift).max() < 0.1
    matcher = cv2.StereoSGBM.create(
        numDisparities=48, blockSize=5, P1=200, P2=800, uniquenessRatio=15
    )
    disparity = matcher.compute(found_left, found_right).astype(np.float64) / 16.0
    with np.errstate(divide="ignore"):
        truth = rectifier.camera.bf / ideal.depth(T_world_rectified).astype(np.float64)
    matched = (disparity > 0) & np.isfinite(truth) & (truth < 47)
    matched[:40], matched[-40:], matched[:, :60], matched[:, -40:] = False, False, False, False
    error = (disparity - truth)[matched]
    assert matched.mean() > 0.3
    assert abs(np.median(error)) < 0.05
    assert np.percentile(np.abs(error), 70) < 0.5
