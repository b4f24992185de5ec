"""A window of Open3D, visible or not, that shows layers.

It uses Open3D's legacy visualiser, which draws without a display (EGL) and reports an error if it
cannot; the newer renderer ends the process in that case.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spslam.errors import MissingDependencyError
from spslam.typing import FloatArray, UInt8Array
from spslam.visualization.layers import Color, Layer, Lines, Palette, Points
from spslam.visualization.map_view import Viewpoint, tube

# Command that installs the system libraries of Open3D, for messages.
APT = "apt-get install -y libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6"
# Clipping distances, ratio to the distance of the scene; nearer and farther things are not drawn.
_NEAR, _FAR = 0.005, 25.0


def has_display() -> bool:
    """Whether there is a display for a window; without one, Open3D draws nothing and no error."""
    return not sys.platform.startswith("linux") or any(
        os.environ.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY")
    )


def import_open3d(what: str = "the viewer") -> Any:
    """Import Open3D.

    Args:
        what: what needs it, for the message.

    Raises:
        MissingDependencyError: the package or a system library is missing.
    """
    try:
        return importlib.import_module("open3d")
    except ModuleNotFoundError:
        raise MissingDependencyError(f"{what} needs Open3D: pip install 'spslam[viewer]'") from None
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"Open3D lacks a system library ({str(error).splitlines()[0]}): {APT}"
        ) from None


class Canvas:
    """A window that shows layers.

    Args:
        title: title of the window.
        size: width and height, pixels.
        visible: whether the window is visible; an invisible one is drawn in memory and needs no
            display.
        keys: functions to call, by key (one capital letter, or `SPACE`, `LEFT`, `RIGHT`).
        instead: alternatives to the window, for error messages.
        place: position of its upper left corner on the screen, pixels.

    Raises:
        MissingDependencyError: Open3D, a system library, OpenGL or a display is missing.
    """

    def __init__(
        self,
        title: str,
        size: tuple[int, int],
        visible: bool,
        keys: Mapping[str, Callable[[], None]] | None = None,
        instead: str = "use --render FILE.png",
        place: tuple[int, int] = (50, 50),
    ) -> None:
        self._open3d = import_open3d()
        if visible and not has_display():
            raise MissingDependencyError(f"a window needs a display, found none: {instead}")
        self.size = size
        self._window: Any = self._open3d.visualization.VisualizerWithKeyCallback()
        if not self._window.create_window(title, *size, *place, visible=visible):
            what = (
                f"could not open a window (OpenGL): {instead}, or"
                if visible
                else "has no OpenGL (EGL):"
            )
            raise MissingDependencyError(f"Open3D {what} {APT}")
        for name, call in (keys or {}).items():
            self._window.register_key_callback(_KEY_CODES.get(name, ord(name[0])), _callback(call))
        self._shapes: list[Any] = []
        self._radius = 0.0
        self._view: Viewpoint | None = None

    def style(self, palette: Palette, point_size: float) -> None:
        """Set the background and the diameter of points, pixels."""
        options = self._window.get_render_option()
        options.background_color = np.array(palette.background)
        options.point_size = point_size
        options.light_on = False
        options.mesh_show_back_face = True

    def draw(self, layers: Mapping[str, Layer], pixel: float, refit: bool = False) -> None:
        """Show these layers and nothing else.

        Args:
            layers: by name.
            pixel: length of a pixel in the scene, the unit of widths; 0: all lines are hairlines.
            refit: the extent of the scene has changed; turning and zooming by mouse use it.
        """
        seen = self.viewpoint
        for shape in self._shapes:
            self._window.remove_geometry(shape, reset_bounding_box=False)
        self._shapes = self._merged(list(layers.values()), pixel)
        for number, shape in enumerate(self._shapes):
            self._window.add_geometry(
                shape, reset_bounding_box=refit and number == len(self._shapes) - 1
            )
        if refit and seen is not None:
            self.look_from(seen)

    def look_from(self, view: Viewpoint) -> None:
        """Set the viewpoint."""
        width, height = self.size
        camera = self._open3d.camera.PinholeCameraParameters()
        focal = 0.5 * height / np.tan(0.5 * view.field_of_view)
        camera.intrinsic = self._open3d.camera.PinholeCameraIntrinsic(
            width, height, focal, focal, 0.5 * width - 0.5, 0.5 * height - 0.5
        )
        camera.extrinsic = view.T_cam_world
        control = self._window.get_view_control()
        control.set_constant_z_near(_NEAR * view.distance)
        control.set_constant_z_far(_FAR * view.distance)
        control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)
        self._view = view

    @property
    def viewpoint(self) -> Viewpoint | None:
        """The current viewpoint, also after mouse actions; None before the first `look_from`."""
        if self._view is None:
            return None
        camera = self._window.get_view_control().convert_to_pinhole_camera_parameters()
        return Viewpoint(np.array(camera.extrinsic), self._view.distance, self._view.field_of_view)

    def picture(self) -> UInt8Array:
        """The current picture (H, W, 3) uint8, blue first."""
        image = np.asarray(self._window.capture_screen_float_buffer(do_render=True))
        return np.ascontiguousarray(np.round(image[:, :, ::-1] * 255).clip(0, 255).astype(np.uint8))

    def poll(self) -> bool:
        """Handle mouse and keys; return False once the window is closed."""
        if not self._window.poll_events():
            return False
        self._window.update_renderer()
        return True

    def close(self) -> None:
        """Close the window."""
        self._window.destroy_window()

    def _merged(self, layers: list[Layer], pixel: float) -> list[Any]:
        """Merge all bars, all points and all hairlines to one shape each.

        Open3D draws three or more shapes in an order that depends on their addresses in memory.
        That order decides between equally distant pixels, so pictures would differ from run to
        run. It always draws two shapes in the same order.
        """
        clouds = [layer for layer in layers if isinstance(layer, Points)]
        lines = [layer for layer in layers if isinstance(layer, Lines)]
        hairs = [layer for layer in lines if layer.hairs or pixel == 0.0]
        bars = [layer for layer in lines if layer not in hairs]
        shapes = [self._bars(bars, pixel), self._cloud(clouds), self._hairs(hairs)]
        return [shape for shape in shapes if shape is not None]

    def _bars(self, layers: list[Lines], pixel: float) -> Any:
        tubes = [
            (*tube(layer.starts, layer.ends, 0.5 * layer.width * pixel), layer.color)
            for layer in layers
        ]
        tubes = [one for one in tubes if len(one[1])]
        if not tubes:
            return None
        counts = [len(vertices) for vertices, _, _ in tubes]
        before = np.cumsum(counts) - counts
        triangles = [corners + first for (_, corners, _), first in zip(tubes, before, strict=True)]
        geometry, vectors = self._open3d.geometry, self._open3d.utility
        mesh = geometry.TriangleMesh(
            vectors.Vector3dVector(np.concatenate([vertices for vertices, _, _ in tubes])),
            vectors.Vector3iVector(np.concatenate(triangles).astype(np.int32)),
        )
        mesh.vertex_colors = vectors.Vector3dVector(
            _repeated([(color, len(vertices)) for vertices, _, color in tubes])
        )
        return mesh

    def _cloud(self, layers: list[Points]) -> Any:
        if not layers:
            return None
        geometry, vectors = self._open3d.geometry, self._open3d.utility
        cloud = geometry.PointCloud(
            vectors.Vector3dVector(np.concatenate([layer.positions for layer in layers]))
        )
        cloud.colors = vectors.Vector3dVector(np.concatenate([layer.colors for layer in layers]))
        return cloud

    def _hairs(self, layers: list[Lines]) -> Any:
        if not layers:
            return None
        geometry, vectors = self._open3d.geometry, self._open3d.utility
        starts = np.concatenate([layer.starts for layer in layers])
        ends = np.concatenate([layer.ends for layer in layers])
        pairs = np.arange(2 * len(starts)).reshape(2, -1).T
        lines = geometry.LineSet(
            vectors.Vector3dVector(np.concatenate([starts, ends])),
            vectors.Vector2iVector(pairs.astype(np.int32)),
        )
        lines.colors = vectors.Vector3dVector(
            _repeated([(layer.color, len(layer.starts)) for layer in layers])
        )
        return lines


def _repeated(colors: list[tuple[Color, int]]) -> FloatArray:
    """Repeat each colour by its count: (V, 3)."""
    return np.concatenate([np.tile(color, (count, 1)) for color, count in colors])


# Key codes of GLFW.
_KEY_CODES = {"SPACE": 32, "RIGHT": 262, "LEFT": 263}


def _callback(call: Callable[[], None]) -> Callable[[Any], bool]:
    def pressed(window: Any) -> bool:
        call()
        # False: no redraw here, the caller of `poll` draws.
        return False

    return pressed


def moved_along(view: Viewpoint, step: FloatArray) -> Viewpoint:
    """Move a viewpoint by `step` (3,) in the world."""
    T_cam_world = view.T_cam_world.copy()
    T_cam_world[:3, 3] -= T_cam_world[:3, :3] @ step
    return Viewpoint(T_cam_world, view.distance, view.field_of_view)
