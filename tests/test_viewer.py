import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from spslam import viewer
from spslam.errors import MissingDependencyError
from spslam.geometry import apply, make_transform, so3_exp
from spslam.scene import (
    Scene,
    choose_viewpoint,
    frustum_lines,
    inlier_points,
    point_colors,
    tube,
    typical_size,
    up_direction,
)
from spslam.trajectory import Trajectory
from spslam.viewer import NullViewer, Open3DViewer, import_open3d, render_scene


@pytest.fixture(scope="module")
def open3d():
    try:
        return import_open3d()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def room(strays=50):
    """Points on a floor and walls around a loop of cameras that look outwards; y down."""
    rng = np.random.default_rng(0)
    floor = rng.uniform([-4, 1.5, -3], [4, 1.5, 3], (1500, 3))
    wall = rng.uniform([-4, -1.5, 3], [4, 1.5, 3], (1500, 3))
    angle = np.linspace(0, 2 * np.pi, 100)
    positions = np.stack([2.5 * np.sin(angle), 0 * angle, 1.5 * np.cos(angle)], axis=1)
    poses = make_transform(so3_exp(angle[:, None] * np.array([0.0, 1.0, 0.0])), positions)
    points = np.concatenate([floor, wall, 500 * rng.normal(size=(strays, 3))])
    return points, poses[::10], Trajectory(0.05 * np.arange(100), poses)


def scene(**changes):
    points, keyframes, trajectory = room()
    return Scene(**({"points": points, "keyframes": keyframes, "trajectory": trajectory.T_world_cam} | changes))


def test_the_picture_shows_points_path_and_truth(tmp_path, open3d):
    points, keyframes, trajectory = room()
    truth = Trajectory(
        trajectory.timestamps, trajectory.T_world_cam @ make_transform(np.eye(3), np.array([0, -0.4, 0]))
    )
    assert render_scene(tmp_path / "map.png", points, keyframes, trajectory, truth)
    image = cv2.imread(str(tmp_path / "map.png"))[:, :, ::-1].astype(int)
    assert image.shape == (960, 1280, 3)
    # Leave out the legend, which has the colours of everything.
    image[840:, :400] = 0
    for color in (viewer._ESTIMATE_COLOR, viewer._TRUTH_COLOR, viewer._KEYFRAME_COLOR):
        close = np.abs(image - 255 * np.array(color)).max(axis=2) < 12
        assert close.sum() > 150
    lit = image.max(axis=2) > 60
    assert lit.mean() > 0.01
    # The room fills the picture in spite of points half a kilometre away.
    columns = np.flatnonzero(lit.any(axis=0))
    assert np.ptp(columns) > 0.7 * 1280


def test_colours_are_taken_over(tmp_path, open3d):
    points, keyframes, trajectory = room()
    red = np.tile(np.array([[255, 0, 0]], dtype=np.uint8), (len(points), 1))
    assert render_scene(tmp_path / "map.png", points, keyframes, trajectory, colors=red)
    image = cv2.imread(str(tmp_path / "map.png")).astype(int)
    assert ((image[:, :, 2] > 200) & (image[:, :, :2] < 40).all(axis=2)).sum() > 1000


def test_an_empty_map_is_rendered(tmp_path, open3d):
    assert render_scene(
        tmp_path / "map.png", np.zeros((0, 3)), np.zeros((0, 4, 4)), Trajectory(np.zeros(0), np.zeros((0, 4, 4)))
    )


@pytest.mark.parametrize("poses", [0, 1, 2])
@pytest.mark.parametrize("points", [0, 1])
def test_there_is_a_viewpoint_for_hardly_anything(poses, points):
    few = scene(
        points=np.full((points, 3), 2.0), keyframes=np.zeros((0, 4, 4)), trajectory=np.tile(np.eye(4), (poses, 1, 1))
    )
    viewpoint = choose_viewpoint(few, 4 / 3)
    assert np.isfinite(viewpoint.T_cam_world).all()
    assert viewpoint.distance > 0
    assert np.isfinite(point_colors(few)).all()
    assert typical_size(few) > 0


def fake_run(result):
    def run(command, **_):
        if isinstance(result, Exception):
            raise result
        return subprocess.CompletedProcess(command, *result)

    return run


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ((-11, "", ""), "ended with -11"),
        ((2, "", "noise\nOpen3D lacks a system library\n"), "Open3D lacks a system library"),
        ((0, "", ""), "ended with 0"),
        (subprocess.TimeoutExpired("python", 120), "timed out"),
        (OSError("no such interpreter"), "no such interpreter"),
    ],
)
def test_a_renderer_that_fails_costs_the_picture_only(tmp_path, monkeypatch, caplog, result, reason):
    monkeypatch.setattr(viewer.subprocess, "run", fake_run(result))
    with caplog.at_level(logging.WARNING):
        assert render_scene(tmp_path / "map.png", *room()) is False
    assert reason in caplog.text
    assert not (tmp_path / "map.png").exists()


def test_the_renderer_finds_this_package_from_anywhere(tmp_path, monkeypatch):
    environments = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        viewer.subprocess, "run", lambda command, env, **_: environments.append(env) or _failed(command)
    )
    render_scene(tmp_path / "map.png", *room())
    monkeypatch.undo()
    # Without site packages (-S) only the environment leads to it.
    command = [sys.executable, "-S", "-c", "import spslam; print(spslam.__path__[0])"]
    done = subprocess.run(command, cwd=tmp_path, env=environments[0], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == Path(viewer.__file__).parent


def _failed(command):
    return subprocess.CompletedProcess(command, 1, "", "")


def test_the_renderer_says_in_one_line_what_is_missing(tmp_path, monkeypatch, capsys):
    def missing():
        raise MissingDependencyError("the viewer needs Open3D")

    monkeypatch.setattr(viewer, "import_open3d", missing)
    scene().save(tmp_path / "scene.npz")
    assert viewer.main([str(tmp_path / "scene.npz"), str(tmp_path / "map.png")]) == 2
    assert capsys.readouterr().err == "the viewer needs Open3D\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'open3d'"), "pip install open3d-cpu"),
        (
            ImportError("libusb-1.0.so.0: cannot open shared object file"),
            r"libusb-1\.0\.so\.0.*apt-get install -y libusb-1\.0-0 libgl1 libegl1 libgomp1 libx11-6",
        ),
    ],
)
def test_what_is_missing_comes_with_the_command_that_installs_it(monkeypatch, error, message):
    def fail(name):
        raise error

    monkeypatch.setattr(viewer.importlib, "import_module", fail)
    with pytest.raises(MissingDependencyError, match=message) as caught:
        import_open3d()
    assert "\n" not in str(caught.value)


def test_without_a_display_there_is_no_live_window(monkeypatch, open3d):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependencyError, match="--viewer none"):
        Open3DViewer()


def test_importing_the_viewer_loads_no_open3d():
    code = "import sys, spslam.viewer; sys.exit('open3d' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class StubSlam:
    """As much of a Slam as a viewer reads."""

    def __init__(self, poses):
        points, keyframes, trajectory = room()
        self.main_part = 0
        self.map = SimpleNamespace(scene_of=lambda part: (points, keyframes[: 1 + poses // 10]))
        self._trajectory = Trajectory(trajectory.timestamps[:poses], trajectory.T_world_cam[:poses])

    def trajectory(self):
        return self._trajectory


class StubWindow:
    """A window that counts what it shows, and is closed by its user after three events."""

    def __init__(self):
        self.shapes, self.events, self.destroyed = [], 0, 0

    def create_window(self, *_, **__):
        return True

    def get_render_option(self):
        return SimpleNamespace()

    def get_view_control(self):
        return SimpleNamespace(
            set_constant_z_near=lambda _: None,
            set_constant_z_far=lambda _: None,
            convert_from_pinhole_camera_parameters=lambda *_, **__: True,
        )

    def add_geometry(self, shape, **_):
        self.shapes.append(shape)

    def remove_geometry(self, shape, **_):
        self.shapes.remove(shape)

    def poll_events(self):
        self.events += 1
        return self.events <= 3

    def update_renderer(self):
        pass

    def destroy_window(self):
        self.destroyed += 1


def test_the_live_window_shows_the_latest_state_and_outlives_being_closed(monkeypatch, open3d):
    window = StubWindow()
    monkeypatch.setattr(open3d.visualization, "Visualizer", lambda: window)
    _, _, trajectory = room()
    shown = Open3DViewer(trajectory, visible=False)
    for poses in (0, 1, 50):
        shown.update(StubSlam(poses), None, None)
    # Points, estimate, truth and key frames, each once.
    assert len(window.shapes) == 4
    assert max(len(shape.points) for shape in window.shapes) >= 2900
    for poses in (60, 70, 80):
        shown.update(StubSlam(poses), None, None)
    assert window.events == 4
    assert window.destroyed == 1
    shown.close()
    assert window.destroyed == 1


def test_the_live_window_draws_on_a_real_context():
    # In a process of its own: a driver that crashes must not take the tests with it.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_viewer import StubSlam, room\n"
        "from spslam.errors import MissingDependencyError\n"
        "from spslam.viewer import Open3DViewer\n"
        "try:\n    shown = Open3DViewer(room()[2], visible=False)\n"
        "except MissingDependencyError as error:\n    sys.exit(77)\n"
        "for poses in (0, 1, 30, 60):\n    shown.update(StubSlam(poses), None, None)\n"
        "shown.close()\n"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("no Open3D, or no OpenGL context")
    assert done.returncode == 0, done.stderr


def test_nobody_looking_costs_nothing():
    null = NullViewer()
    null.update(None, None, None)
    null.close()


def test_a_scene_survives_the_way_to_the_renderer(tmp_path):
    original = scene(colors=np.zeros((len(room()[0]), 3), dtype=np.uint8))
    original.save(tmp_path / "scene.npz")
    back = Scene.load(tmp_path / "scene.npz")
    for name in ("points", "keyframes", "trajectory", "ground_truth", "colors"):
        assert (getattr(back, name) == getattr(original, name)).all()
    assert Scene(np.array([[np.nan, 0, 0], [1, 2, 3]]), np.zeros((0, 4, 4)), np.zeros((0, 4, 4))).points.tolist() == [
        [1.0, 2.0, 3.0]
    ]


def test_the_viewpoint_is_above_and_holds_the_scene():
    shown = scene()
    np.testing.assert_allclose(up_direction(shown), [0, -1, 0], atol=1e-9)
    viewpoint = choose_viewpoint(shown, 4 / 3)
    T = viewpoint.T_cam_world
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    eye = -T[:3, :3].T @ T[:3, 3]
    assert eye[1] < -3
    # The longest side of the room (x) lies across the picture.
    assert abs(T[0, 0]) > 0.95
    seen = apply(T, shown.points[inlier_points(shown)])
    half = np.tan(0.5 * viewpoint.field_of_view)
    image = seen[:, :2] / seen[:, 2:] / half / [4 / 3, 1.0]
    assert (seen[:, 2] > 0).all()
    assert (np.abs(image) < 1.0).all(axis=1).mean() > 0.97
    assert np.abs(image).max() < 1.2
    assert np.percentile(np.abs(image), 99) > 0.8


def before_a_wall():
    """Cameras that sway 4 m before a wall 2 m wide and look at it."""
    rng = np.random.default_rng(1)
    angle = np.linspace(0, 2 * np.pi, 60)
    positions = np.stack([0.6 * np.sin(angle), 0 * angle, 0.2 * np.cos(angle)], axis=1)
    poses = make_transform(np.tile(np.eye(3), (60, 1, 1)), positions)
    return scene(points=rng.uniform([-1, -1, 4], [1, 1, 4.1], (800, 3)), keyframes=poses[::6], trajectory=poses)


def drive():
    """A long straight street with houses on both sides."""
    rng = np.random.default_rng(2)
    poses = np.tile(np.eye(4), (50, 1, 1))
    poses[:, 2, 3] = np.arange(50.0)
    houses = rng.uniform([-8, -4, 5], [8, 1, 80], (2000, 3))
    houses[:, 0] = np.where(houses[:, 0] > 0, 7, -7) + 0.1 * houses[:, 0]
    return scene(points=houses, keyframes=poses[::4], trajectory=poses)


def test_a_wall_that_cameras_looked_at_is_not_seen_from_its_edge():
    shown = before_a_wall()
    T = choose_viewpoint(shown, 4 / 3).T_cam_world
    # From behind the cameras, and the wall's width (x) rather than its distance (z) lies across the picture.
    assert T[2, 2] > 0.3
    assert abs(T[0, 0]) > abs(T[0, 2])


@pytest.mark.parametrize("make", [before_a_wall, drive])
def test_the_path_stays_clear_of_the_text(make):
    shown = make()
    viewpoint = choose_viewpoint(shown, 4 / 3)
    seen = apply(viewpoint.T_cam_world, shown.path)
    image = seen[:, :2] / seen[:, 2:] / np.tan(0.5 * viewpoint.field_of_view) / [4 / 3, 1.0]
    assert not ((image[:, 0] < -0.65) & (image[:, 1] > 0.7)).any()


def test_a_street_runs_through_the_picture_not_along_its_middle():
    shown = drive()
    viewpoint = choose_viewpoint(shown, 4 / 3)
    seen = apply(viewpoint.T_cam_world, shown.points)
    image = seen[:, :2] / seen[:, 2:] / np.tan(0.5 * viewpoint.field_of_view) / [4 / 3, 1.0]
    assert (np.ptp(np.percentile(image, [3, 97], axis=0), axis=0) > 1.2).all()


def test_stray_points_are_left_out_and_do_not_move_the_viewpoint():
    with_strays, without = scene(), scene(points=room(strays=0)[0])
    kept = inlier_points(with_strays)
    assert kept[:3000].all()
    assert kept[3000:].sum() <= 2
    ratio = choose_viewpoint(with_strays, 1.0).distance / choose_viewpoint(without, 1.0).distance
    assert ratio == pytest.approx(1.0, abs=0.1)


def test_points_are_coloured_by_height():
    colors = point_colors(scene())
    floor, wall_top = colors[:1500], colors[1500:3000][room()[0][1500:3000, 1] < -1.3]
    assert wall_top[:, 0].mean() > floor[:, 0].mean() + 0.3
    assert colors.min() >= 0.0
    assert colors.max() <= 1.0


def test_frusta_open_in_the_viewing_direction_and_are_thinned_out():
    starts, ends = frustum_lines(np.eye(4)[None], 0.5)
    assert starts.shape == ends.shape == (8, 3)
    assert max(starts[:, 2].max(), ends[:, 2].max()) == pytest.approx(0.5)
    assert len(frustum_lines(np.tile(np.eye(4), (1000, 1, 1)), 0.5)[0]) == 8 * 120
    assert frustum_lines(np.zeros((0, 4, 4)), 0.5)[0].shape == (0, 3)
    assert 0.05 < typical_size(scene()) < 1.0


def test_tubes_have_their_radius_everywhere():
    starts, ends = np.array([[0.0, 0, 0], [1, 1, 1], [2, 2, 2]]), np.array([[0.0, 0, 2], [1, 1, 1], [5, 3, 1]])
    vertices, triangles = tube(starts, ends, 0.1)
    # The one without length is left out.
    assert vertices.shape == (24, 3)
    assert triangles.shape == (24, 3)
    assert triangles.max() == 23
    np.testing.assert_allclose(np.linalg.norm(vertices[:12, :2], axis=1), 0.1)
    assert set(vertices[:12, 2]) == {0.0, 2.0}
