"""Looking at a run: a live window, and the finished map as a picture.

The picture is rendered by a process of its own (`python -m spslam.viewer SCENE PICTURE`): where drivers are broken
Open3D takes its whole process down, and that must not cost anybody a finished run.
"""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.errors import MissingDependencyError
from spslam.files import write_atomic
from spslam.scene import (
    BACKGROUND,
    Scene,
    Viewpoint,
    choose_viewpoint,
    frustum_lines,
    inlier_points,
    point_colors,
    tube,
    typical_size,
)
from spslam.trajectory import Trajectory

if TYPE_CHECKING:
    from spslam.frame import Frame
    from spslam.slam import Slam
    from spslam.tracking import TrackResult

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]

_APT = "apt-get install -y libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6"
_TIMEOUT_S = 120.0
_WIDTH, _HEIGHT = 1280, 960
# Rendered larger and reduced: smooth edges without the driver's help.
_SUPERSAMPLING = 2

_POINT_SIZE = 3.0
_MANY_POINTS = 4000
_ESTIMATE_COLOR = (1.0, 0.62, 0.12)
_TRUTH_COLOR = (0.55, 0.95, 0.65)
_KEYFRAME_COLOR = (0.35, 0.65, 1.0)


class Viewer(Protocol):
    """Something that looks at a run; it never changes it."""

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None: ...
    def close(self) -> None: ...


class NullViewer:
    """Nobody looks."""

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Viewers:
    """Several that look at the same run."""

    def __init__(self, *viewers: Viewer) -> None:
        self._viewers = viewers

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Let each of them look."""
        for viewer in self._viewers:
            viewer.update(slam, frame, result)

    def close(self) -> None:
        """Close each of them."""
        for viewer in self._viewers:
            viewer.close()


class Open3DViewer:
    """A live window with map points, key frames, the trajectory and the ground truth.

    Closing the window does not stop the run.

    Raises:
        MissingDependencyError: Open3D or a system library is missing, or there is no display.
    """

    def __init__(
        self, ground_truth: Trajectory | None = None, title: str = "spslam", every: int = 1, visible: bool = True
    ) -> None:
        """`every` n-th frame refreshes the scene; `ground_truth` is drawn from the estimate's first pose on."""
        self._open3d = import_open3d()
        if visible and not has_display():
            raise MissingDependencyError("the live viewer needs a display, found none: use --viewer none")
        self._window: Any = self._open3d.visualization.Visualizer()
        if not self._window.create_window(title, _WIDTH, _HEIGHT, visible=visible):
            raise MissingDependencyError(f"Open3D could not open a window (OpenGL): use --viewer none, or {_APT}")
        _style(self._window, 2.0)
        self._ground_truth = ground_truth
        self._every = max(every, 1)
        self._updates = 0
        self._shapes: dict[str, Any] = {}

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Show the state of `slam` and let the window answer the mouse."""
        if self._window is None:
            return
        if self._updates % self._every == 0:
            trajectory = slam.trajectory()
            self._show(*slam.map.scene_of(slam.main_part), trajectory)
        self._updates += 1
        if not self._window.poll_events():
            _log.info("the viewer's window was closed; the run goes on")
            self.close()
            return
        self._window.update_renderer()

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.destroy_window()
            self._window = None

    def _show(self, positions: Array, T_world_keyframes: Array, trajectory: Trajectory) -> None:
        if len(trajectory) == 0:
            return
        scene = Scene(positions, T_world_keyframes, trajectory.T_world_cam, self._truth_beside(trajectory))
        first = not self._shapes
        for name, shape in _live_shapes(self._open3d, scene).items():
            old = self._shapes.pop(name, None)
            if old is not None:
                self._window.remove_geometry(old, reset_bounding_box=False)
            self._window.add_geometry(shape, reset_bounding_box=False)
            self._shapes[name] = shape
        if first or self._updates < 50 * self._every:
            _look(self._open3d, self._window, choose_viewpoint(scene, _WIDTH / _HEIGHT), _WIDTH, _HEIGHT)

    def _truth_beside(self, trajectory: Trajectory) -> Array:
        """Ground-truth poses up to now, in the estimate's world (joined at the first pose, not aligned)."""
        truth = self._ground_truth
        if truth is None or len(truth) == 0:
            return np.zeros((0, 4, 4))
        row = int(np.argmin(np.abs(truth.timestamps - trajectory.timestamps[0])))
        end = int(np.searchsorted(truth.timestamps, trajectory.timestamps[-1], side="right"))
        join = trajectory.T_world_cam[0] @ np.linalg.inv(truth.T_world_cam[row])
        poses: Array = join @ truth.T_world_cam[row:end]
        return poses


def has_display() -> bool:
    """Whether a window can be opened; without a display Open3D quietly renders to nowhere instead of failing."""
    return not sys.platform.startswith("linux") or any(os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY"))


def import_open3d() -> Any:
    """Open3D, or an error that says what to install.

    Raises:
        MissingDependencyError: the package or a system library is missing.
    """
    try:
        return importlib.import_module("open3d")
    except ModuleNotFoundError:
        raise MissingDependencyError("the viewer needs Open3D: pip install open3d-cpu (or open3d)") from None
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"Open3D lacks a system library ({str(error).splitlines()[0]}): {_APT}") from None


def render_scene(
    path_png: Path | str,
    points: Array,
    T_world_keyframes: Array,
    trajectory: Trajectory,
    ground_truth: Trajectory | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> bool:
    """Render the finished map to a PNG, without a display.

    Args:
        path_png: the picture, 1280×960.
        points: (P, 3) map points, metres; stray ones are left out of the picture.
        T_world_keyframes: (K, 4, 4) key frames, drawn as frusta.
        trajectory: the estimate, in the world of the points.
        ground_truth: drawn as it is: align it with the estimate first.
        colors: (P, 3) uint8 of the points; else they are coloured by height.

    Returns:
        Whether there is a picture now. If not (no Open3D, no EGL, a crash), the log says why.
    """
    path_png = Path(path_png)
    with tempfile.TemporaryDirectory(prefix="spslam-scene-") as folder:
        scene, picture = Path(folder) / "scene.npz", Path(folder) / "scene.png"
        truth = np.zeros((0, 4, 4)) if ground_truth is None else ground_truth.T_world_cam
        Scene(points, T_world_keyframes, trajectory.T_world_cam, truth, colors).save(scene)
        command = [sys.executable, "-m", "spslam.viewer", str(scene), str(picture)]
        # The child must find this very package, wherever it was imported from.
        search = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.warning("%s was not rendered: %s", path_png.name, error)
            return False
        if done.returncode != 0 or not picture.is_file():
            reason = (done.stderr.strip().splitlines() or [f"the renderer ended with {done.returncode}"])[-1]
            _log.warning("%s was not rendered: %s", path_png.name, reason)
            return False
        write_atomic(path_png, picture.read_bytes())
    return True


def _render(scene: Scene, picture: Path) -> None:
    import cv2

    open3d = import_open3d()
    width, height = _WIDTH * _SUPERSAMPLING, _HEIGHT * _SUPERSAMPLING
    window = open3d.visualization.Visualizer()
    if not window.create_window("spslam", width, height, visible=False):
        raise MissingDependencyError(f"no OpenGL context without a display (EGL): {_APT}")
    # Few points are drawn larger: a sparse map shall still be seen.
    growth = np.clip((_MANY_POINTS / max(len(scene.points), 1)) ** 0.25, 1.0, 2.0)
    _style(window, _POINT_SIZE * _SUPERSAMPLING * float(growth))
    viewpoint = choose_viewpoint(scene, _WIDTH / _HEIGHT)
    for shape in _picture_shapes(open3d, scene, viewpoint):
        window.add_geometry(shape)
    _look(open3d, window, viewpoint, width, height)
    image = np.asarray(window.capture_screen_float_buffer(do_render=True))
    window.destroy_window()
    image = cv2.resize(image, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    pixels = np.ascontiguousarray(np.round(image[:, :, ::-1] * 255).clip(0, 255).astype(np.uint8))
    for row, (text, color) in enumerate(_legend(scene)):
        at, bgr = (24, _HEIGHT - 24 - 26 * row), tuple(255 * channel for channel in reversed(color))
        cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, bgr, 1, cv2.LINE_AA)
    cv2.imwrite(str(picture), pixels)


def _legend(scene: Scene) -> list[tuple[str, tuple[float, float, float]]]:
    """Lines of text and their colours, from the bottom up."""
    lines = [(f"{np.count_nonzero(inlier_points(scene))} of {len(scene.points)} points", (0.75, 0.75, 0.75))]
    if len(scene.keyframes):
        lines.append((f"{len(scene.keyframes)} key frames", _KEYFRAME_COLOR))
    if len(scene.ground_truth):
        lines.append(("ground truth", _TRUTH_COLOR))
    lines.append((f"estimate, {len(scene.trajectory)} poses", _ESTIMATE_COLOR))
    return lines


def _style(window: Any, point_size: float) -> None:
    options = window.get_render_option()
    options.background_color = np.array(BACKGROUND)
    options.point_size = point_size
    options.light_on = False
    options.mesh_show_back_face = True


def _look(open3d: Any, window: Any, viewpoint: Viewpoint, width: int, height: int) -> None:
    camera = open3d.camera.PinholeCameraParameters()
    focal = 0.5 * height / np.tan(0.5 * viewpoint.field_of_view)
    camera.intrinsic = open3d.camera.PinholeCameraIntrinsic(
        width, height, focal, focal, 0.5 * width - 0.5, 0.5 * height - 0.5
    )
    camera.extrinsic = viewpoint.T_cam_world
    control = window.get_view_control()
    control.set_constant_z_near(0.02 * viewpoint.distance)
    control.set_constant_z_far(20.0 * viewpoint.distance)
    control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)


def _cloud(open3d: Any, scene: Scene) -> Any:
    kept = inlier_points(scene)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(scene.points[kept]))
    cloud.colors = open3d.utility.Vector3dVector(point_colors(scene)[kept])
    return cloud


def _lines(open3d: Any, starts: Array, ends: Array, color: tuple[float, float, float]) -> Any:
    count = len(starts)
    lines = np.stack([np.arange(count), np.arange(count) + count], axis=1)
    shape = open3d.geometry.LineSet(
        open3d.utility.Vector3dVector(np.concatenate([starts, ends])), open3d.utility.Vector2iVector(lines)
    )
    shape.colors = open3d.utility.Vector3dVector(np.tile(color, (count, 1)))
    return shape


def _tubes(open3d: Any, starts: Array, ends: Array, radius: float, color: tuple[float, float, float]) -> Any:
    vertices, triangles = tube(starts, ends, radius)
    shape = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(vertices), open3d.utility.Vector3iVector(triangles)
    )
    shape.paint_uniform_color(color)
    return shape


def _live_shapes(open3d: Any, scene: Scene) -> dict[str, Any]:
    """Thin lines: a window is refreshed many times."""
    path, truth = scene.trajectory[:, :3, 3], scene.ground_truth[:, :3, 3]
    frusta = frustum_lines(scene.keyframes, typical_size(scene))
    shapes = {
        "estimate": _lines(open3d, path[:-1], path[1:], _ESTIMATE_COLOR),
        "truth": _lines(open3d, truth[:-1], truth[1:], _TRUTH_COLOR),
        "keyframes": _lines(open3d, *frusta, _KEYFRAME_COLOR),
    }
    shapes = {name: shape for name, shape in shapes.items() if len(shape.lines)}
    if len(scene.points):
        shapes["points"] = _cloud(open3d, scene)
    return shapes


def _picture_shapes(open3d: Any, scene: Scene, viewpoint: Viewpoint) -> list[Any]:
    path, truth = scene.trajectory[:, :3, 3], scene.ground_truth[:, :3, 3]
    unit = viewpoint.pixel_size(_HEIGHT)
    shapes = [
        _tubes(open3d, truth[:-1], truth[1:], 1.0 * unit, _TRUTH_COLOR),
        _tubes(open3d, path[:-1], path[1:], 1.9 * unit, _ESTIMATE_COLOR),
        _tubes(open3d, *frustum_lines(scene.keyframes, typical_size(scene)), 0.6 * unit, _KEYFRAME_COLOR),
    ]
    shapes = [shape for shape in shapes if len(shape.triangles)]
    return [*shapes, _cloud(open3d, scene)] if len(scene.points) else shapes


def main(arguments: list[str]) -> int:
    """Render the scene file `arguments[0]` to the picture `arguments[1]`; the exit status."""
    try:
        _render(Scene.load(Path(arguments[0])), Path(arguments[1]))
    except MissingDependencyError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
