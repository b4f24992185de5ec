import numpy as np
import pytest
from recordings.board_pictures import poses

from spslam.calibrate.board_fit import BoardFit, fit_camera, fit_pair
from spslam.calibrate.board_views import choose_views, missing_views
from spslam.calibrate.boards import BoardView, Checkerboard
from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import so3_exp, so3_log

BOARD = Checkerboard(8, 5, 0.03)
LEFT = Camera(640, 480, 500.0, 502.0, 321.5, 238.0, "radtan", (-0.28, 0.09, 0.0008, -0.0005))
FISHEYE = Camera(640, 480, 300.0, 301.0, 318.0, 243.0, "equidistant", (0.02, -0.01, 0.003, -0.001))
NOISE_PX = 0.1


def seen(camera: Camera, T: np.ndarray, seed: int = 0) -> BoardView:
    """What a camera sees of the board, with noise; corners outside of the image are missing."""
    points = BOARD.corners
    pixels = camera.lens_pixels(points @ T[:3, :3].T + T[:3, 3])
    pixels += np.random.default_rng(seed).normal(scale=NOISE_PX, size=pixels.shape)
    inside = camera.in_image(pixels)
    return BoardView(np.flatnonzero(inside), points[inside], pixels[inside])


def views_of(camera: Camera, count: int = 16, distance: float = 0.3) -> list[BoardView]:
    views = [seen(camera, T, k) for k, T in enumerate(poses(BOARD, count, 1, distance))]
    return [view for view in views if len(view) >= 12]


def surely(fit: BoardFit, camera: Camera) -> bool:
    """Whether the focal lengths and the principal point are within four deviations of the truth."""
    found = np.array([fit.camera.fx, fit.camera.fy, fit.camera.cx, fit.camera.cy])
    true = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    return bool((np.abs(found - true) <= 4 * np.array(fit.deviations[:4])).all())


@pytest.mark.parametrize(("camera", "lens"), [(LEFT, "auto"), (FISHEYE, "equidistant")])
def test_the_camera_comes_back_within_its_deviations(camera: Camera, lens: str) -> None:
    fit = fit_camera(views_of(camera), (640, 480), lens)
    assert fit.camera.distortion_model == camera.distortion_model
    assert len(fit.camera.distortion) == len(camera.distortion)
    assert surely(fit, camera) and max(fit.deviations[:4]) < 2.0
    assert fit.rms_px == pytest.approx(NOISE_PX * np.sqrt(2), rel=0.15)


def test_auto_takes_more_coefficients_only_for_a_lens_that_has_them() -> None:
    bent = Camera(640, 480, 500.0, 500.0, 320.0, 240.0, "radtan", (-0.4, 0.3, 0.0, 0.0, -0.25))
    assert len(fit_camera(views_of(LEFT), (640, 480)).camera.distortion) == 4
    assert len(fit_camera(views_of(bent, 24, 0.2), (640, 480)).camera.distortion) > 4


def test_a_view_that_does_not_fit_is_dropped() -> None:
    views = views_of(LEFT)
    views[3].pixels[::2] += 6.0
    fit = fit_camera(views, (640, 480))
    assert not fit.used[3] and fit.used.sum() == len(views) - 1
    assert np.isnan(fit.errors_px[3]) and surely(fit, LEFT)


def test_a_pair_comes_back() -> None:
    T_left_right = np.eye(4)
    T_left_right[:3, 3] = 0.12, 0.002, -0.003
    right = Camera(640, 480, 505.0, 505.0, 318.0, 241.0, "radtan", (-0.27, 0.08, 0.0, 0.0))
    pairs = []
    for k, T in enumerate(poses(BOARD, 16, 1, 0.5)):
        pair = seen(LEFT, T, k), seen(right, np.linalg.inv(T_left_right) @ T, 100 + k)
        if min(map(len, pair)) >= 12:
            pairs.append(pair)
    fits = [fit_camera([pair[side] for pair in pairs], (640, 480)) for side in (0, 1)]
    found = fit_pair(fits[0], fits[1], pairs)
    # The principal points leave room for shifts along the axes; the baseline has little.
    assert np.allclose(found.T_left_right[:3, 3], T_left_right[:3, 3], atol=0.005)
    assert np.linalg.norm(found.T_left_right[:3, 3]) == pytest.approx(0.12, abs=0.001)
    assert found.T_left_right[0, 3] > 0 and found.rms_px < 0.3 and found.views == len(pairs)


def test_too_few_views_are_refused() -> None:
    with pytest.raises(
        CalibrationError, match="expected at least 4 images with the board, found 3"
    ):
        fit_camera(views_of(LEFT)[:3], (640, 480))


def test_missing_views_are_named() -> None:
    flat = poses(BOARD, 6, 5)
    for T in flat:
        T[:3, :3] = so3_exp(so3_log(T[:3, :3]) / 6)
        T[:3, 3] = np.array((0.03, 0.03, 0.5)) - T[:3, :3] @ BOARD.corners.mean(axis=0)
    views = [seen(LEFT, T, k) for k, T in enumerate(flat)]
    lines = " / ".join(missing_views(fit_camera(views, (640, 480), "none"), views))
    assert "6 views: take 15 to 40" in lines
    assert "no views in the upper left" in lines and "tilt it by 20 to 45 degrees" in lines
    good = views_of(LEFT, 24)
    assert missing_views(fit_camera(good, (640, 480)), good) == []


def test_the_most_different_views_are_chosen() -> None:
    still = [seen(LEFT, poses(BOARD, 1, 7)[0], 7)] * 80
    various = views_of(LEFT, 20)
    rows = choose_views([*still, *various], (640, 480))
    assert len(rows) == 60 and set(range(80, 80 + len(various))) <= {*rows.tolist()}
