"""Open3D windows: missing packages are named, live and saved runs shown, closing ends no run."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from egl import need_egl
from room_scene import WatchedSlam, room_scene

from spslam.errors import MissingDependencyError
from spslam.geometry import inverse
from spslam.slam.track_results import TrackResult, TrackState
from spslam.trajectory import Trajectory
from spslam.visualization.browser import Browser
from spslam.visualization.controls import Controls
from spslam.visualization.image_window import ImageWindow
from spslam.visualization.layers import DARK, LAYERS, LIGHT, Palette
from spslam.visualization.live_window import Open3DViewer
from spslam.visualization.map_view import Viewpoint
from spslam.visualization.open3d_window import import_open3d, moved_along


@pytest.fixture
def open3d() -> Any:
    try:
        return import_open3d()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'open3d'"), r"pip install 'spslam\[viewer\]'"),
        (
            ImportError("libusb-1.0.so.0: cannot open shared object file"),
            (
                r"libusb-1\.0\.so\.0.*apt-get install -y libusb-1\.0-0 "
                r"libgl1 libegl1 libgomp1 libx11-6"
            ),
        ),
    ],
)
def test_missing_packages_are_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError, match=message) as caught:
        import_open3d()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (Open3DViewer, "--viewer none, or --rerun FILE.rrd"),
        (lambda: Browser(room_scene(), Controls(), 5.0), "--render FILE.png"),
        (lambda: ImageWindow("x"), "--out FILE.mp4"),
    ],
)
def test_without_a_display_there_is_no_window(
    monkeypatch: pytest.MonkeyPatch, open3d: Any, make: Callable[[], Any], instead: str
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependencyError, match=instead):
        make()


class StubWindow:
    """A window that counts what it shows, presses keys and is closed after a number of events."""

    made: list[StubWindow]

    def __init__(self, events: int = 10**6) -> None:
        self.shapes: list[Any] = []
        self.left, self.destroyed = events, 0
        self.keys: dict[int, Callable[[Any], bool]] = {}
        self.extrinsic: Any = None
        self.background: Any = None
        self.script: list[str] = []

    def create_window(self, *_: Any, **__: Any) -> bool:
        return True

    def register_key_callback(self, code: int, call: Callable[[Any], bool]) -> None:
        self.keys[code] = call

    def press(self, name: str) -> None:
        self.keys[{"SPACE": 32, "RIGHT": 262, "LEFT": 263}.get(name, ord(name[0]))](self)

    def get_render_option(self) -> Any:
        return SimpleNamespace()

    def get_view_control(self) -> Any:
        def set_view(camera: Any, **_: Any) -> None:
            self.extrinsic = np.array(camera.extrinsic)

        return SimpleNamespace(
            set_constant_z_near=lambda _: None,
            set_constant_z_far=lambda _: None,
            convert_from_pinhole_camera_parameters=set_view,
            convert_to_pinhole_camera_parameters=lambda: SimpleNamespace(extrinsic=self.extrinsic),
        )

    def add_geometry(self, shape: Any, **_: Any) -> None:
        self.shapes.append(shape)

    def remove_geometry(self, shape: Any, **_: Any) -> None:
        self.shapes.remove(shape)

    def poll_events(self) -> bool:
        self.left -= 1
        if self.script and self.left >= 0:
            self.press(self.script.pop(0))
        return self.left >= 0

    def update_renderer(self) -> None:
        pass

    def destroy_window(self) -> None:
        self.destroyed += 1


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, open3d: Any) -> SimpleNamespace:
    """The stubs opened instead of the windows of the scene and of the image."""
    stubs = SimpleNamespace(scene=StubWindow(), image=StubWindow())
    monkeypatch.setattr(open3d.visualization, "VisualizerWithKeyCallback", lambda: stubs.scene)
    monkeypatch.setattr(open3d.visualization, "Visualizer", lambda: stubs.image)
    return stubs


def drawn_colors(shape: Any) -> np.ndarray:
    return np.asarray(shape.vertex_colors if hasattr(shape, "vertex_colors") else shape.colors)


def count_of(shape: Any, color: tuple[float, float, float]) -> int:
    """The number of vertices or lines with a colour."""
    return int(np.isclose(drawn_colors(shape), color, atol=1e-6).all(axis=1).sum())


def colors_of(shape: Any, palette: Palette = LIGHT) -> set[str]:
    """The layers whose colours a shape has; no vertex has another colour."""
    names = (*(name for name in LAYERS if name != "points"), "camera")
    counts = {name: count_of(shape, getattr(palette, name)) for name in names}
    assert sum(counts.values()) == len(drawn_colors(shape))
    return {name for name, count in counts.items() if count}


def show(viewer: Open3DViewer, slam: WatchedSlam) -> None:
    result = TrackResult(
        slam.frame.index, slam.frame.timestamp, TrackState.TRACKING, inliers=12, matches=15
    )
    viewer.update(slam, slam.frame, result)  # type: ignore[arg-type]


def test_the_live_window_shows_the_latest_state(windows: SimpleNamespace, landmarks: Any) -> None:
    slam = WatchedSlam(landmarks, 6)
    truth = Trajectory(slam.trajectory().timestamps, slam.trajectory().T_world_cam)
    viewer = Open3DViewer(truth, visible=False)
    for poses in (0, 1, 4, 6):
        show(viewer, WatchedSlam(landmarks, poses))
    # Edges are hidden at first.
    names = {"trajectory", "keyframes", "truth", "grid", "camera"}
    points, lines = windows.scene.shapes
    assert len(points.points) >= 0.9 * len(slam.map.points)
    assert colors_of(lines) == names
    windows.scene.press("V")
    windows.scene.press("P")
    show(viewer, WatchedSlam(landmarks, 6))
    (lines,) = windows.scene.shapes
    assert colors_of(lines) == names | {"covisibility"}
    picture = np.asarray(windows.image.shapes[0])
    assert picture.shape == (slam.frame.camera.height, slam.frame.camera.width, 3)
    greenish = (picture[:, :, 1] > 180) & (picture[:, :, 0] < 120)
    orange = (picture[:, :, 0] > 180) & (picture[:, :, 2] < 120)
    assert greenish.sum() > 50 and orange.sum() > 30
    viewer.close()
    assert (windows.scene.destroyed, windows.image.destroyed) == (1, 1)


def test_closing_windows_does_not_stop_the_run(windows: SimpleNamespace, landmarks: Any) -> None:
    windows.image.left, windows.scene.left = 1, 3
    viewer = Open3DViewer(visible=False)
    for poses in range(2, 8):
        show(viewer, WatchedSlam(landmarks, poses))
    # The image window closes alone; the scene window closes both. Neither is polled again.
    assert windows.scene.left == -1
    assert (windows.scene.destroyed, windows.image.destroyed) == (1, 1)
    viewer.close()
    assert (windows.scene.destroyed, windows.image.destroyed) == (1, 1)


def test_the_live_view_follows_the_camera_until_following_is_switched_off(
    windows: SimpleNamespace, landmarks: Any
) -> None:
    viewer = Open3DViewer(visible=False)
    eyes = []
    for poses in (2, 3, 4, 5, 6):
        if poses == 5:
            windows.scene.press("F")
        show(viewer, WatchedSlam(landmarks, poses))
        eyes.append(inverse(windows.scene.extrinsic)[:3, 3])
    steps = np.diff(eyes, axis=0)
    np.testing.assert_allclose(steps[:2], [[0.05, 0.0, 0.0]] * 2, atol=1e-9)
    np.testing.assert_allclose(steps[2:], 0.0, atol=1e-12)


def test_a_live_truth_is_shown_once_a_map_without_scale_can_be_aligned(
    windows: SimpleNamespace, landmarks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spslam.visualization.live_map_view import live_map_view

    slam = WatchedSlam(landmarks, 8)
    bent = slam.trajectory().T_world_cam.copy()
    bent[:, 1, 3] = 0.02 * np.arange(8) ** 2
    estimate = Trajectory(slam.trajectory().timestamps, bent)
    monkeypatch.setattr(slam, "trajectory", lambda: estimate)
    larger = bent.copy()
    larger[:, :3, 3] *= 7.0
    truth = Trajectory(estimate.timestamps, larger)
    slam.map.origin = SimpleNamespace(metric=False)  # type: ignore[assignment]
    np.testing.assert_allclose(live_map_view(slam, truth).ground_truth, bent, atol=1e-9)  # type: ignore[arg-type]
    monkeypatch.setattr(slam, "trajectory", lambda: estimate.select(np.arange(2)))
    assert len(live_map_view(slam, truth).ground_truth) == 0  # type: ignore[arg-type]
    slam.map.origin = SimpleNamespace(metric=True)  # type: ignore[assignment]
    joined = live_map_view(slam, truth).ground_truth  # type: ignore[arg-type]
    np.testing.assert_allclose(joined[0], bent[0], atol=1e-12)


def test_a_saved_run_is_played_stepped_through_and_left(windows: SimpleNamespace) -> None:
    controls = Controls()
    browser = Browser(room_scene(), controls, seconds=0.2, visible=False)
    bars, points, hairs = windows.scene.shapes
    assert colors_of(bars) == {"trajectory", "keyframes", "loops", "truth"}
    assert colors_of(hairs) == {"covisibility", "grid"}
    assert len(points.points) == 3000
    windows.scene.script = ["LEFT", "LEFT", "P", "B"]
    windows.scene.left = 6
    browser.run()
    assert windows.scene.destroyed == 1
    # Without points but with the camera, on a dark background; two frames before the end.
    now, hairs = windows.scene.shapes
    assert colors_of(now, DARK) - {"loops"} == {"trajectory", "keyframes", "truth", "camera"}
    assert colors_of(hairs, DARK) == {"covisibility", "grid"}
    assert browser.row == 97
    assert count_of(now, DARK.trajectory) == count_of(bars, LIGHT.trajectory) - 2 * 12
    windows.scene.left, windows.scene.script = 10**6, ["SPACE"]
    while browser.row != 0:
        windows.scene.poll_events()
        browser.advance(2)
        browser.refresh()
    browser.advance(40)
    browser.refresh()
    assert browser.row == 40 and controls.playing
    browser.advance(99)
    assert browser.row == 99 and not controls.playing


def test_the_home_view_shows_everything(windows: SimpleNamespace) -> None:
    browser = Browser(room_scene(), Controls(), seconds=5.0, visible=False)
    home = windows.scene.extrinsic.copy()
    windows.scene.press("F")
    browser.refresh()
    behind = windows.scene.extrinsic.copy()
    assert np.abs(behind - home).max() > 0.1
    # Behind and above the last camera, which looks along z from (0, 0, 1.5); y points down.
    eye = inverse(behind)[:3, 3]
    assert eye[2] < 1.0 and eye[1] < -0.5
    windows.scene.press("R")
    browser.refresh()
    np.testing.assert_allclose(windows.scene.extrinsic, home)


def test_a_viewpoint_moves_without_turning() -> None:
    turned = np.eye(4)
    turned[:3, :3] = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    turned[:3, 3] = [1.0, 2.0, 3.0]
    moved = moved_along(Viewpoint(turned, 5.0), np.array([1.0, -2.0, 0.5]))
    np.testing.assert_allclose(
        inverse(moved.T_cam_world)[:3, 3] - inverse(turned)[:3, 3], [1.0, -2.0, 0.5], atol=1e-12
    )
    np.testing.assert_array_equal(moved.T_cam_world[:3, :3], turned[:3, :3])


def test_windows_draw_on_a_real_context() -> None:
    need_egl()
    # In a separate process: a crashing driver must not end the tests.
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from conftest import Landmarks\n"
        "from room_scene import WatchedSlam, room_scene\n"
        "from test_open3d_window import show\n"
        "from spslam.visualization.controls import Controls\n"
        "from spslam.visualization.browser import Browser\n"
        "from spslam.visualization.live_window import Open3DViewer\n"
        "viewer = Open3DViewer(visible=False)\n"
        "for poses in (0, 1, 3, 6):\n    show(viewer, WatchedSlam(Landmarks, poses))\n"
        "viewer.close()\n"
        "controls = Controls()\n"
        "browser = Browser(room_scene(), controls, 5.0, visible=False)\n"
        "for key in 'PTKVLGXCBFR':\n"
        "    controls.bindings()[key]()\n    browser.refresh()\n"
        "    assert browser.canvas.poll()\n"
        "browser.canvas.close()\n"
    )
    tests = Path(__file__).parents[1]
    folders = [str(tests), str(tests / "visualization"), str(tests / "support")]
    done = subprocess.run(
        [sys.executable, "-c", code, *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
