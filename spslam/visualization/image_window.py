"""A window of Open3D that shows pictures: the OpenCV that spslam depends on has no windows."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np

from spslam.errors import MissingDependencyError
from spslam.typing import UInt8Array
from spslam.visualization.open3d_window import has_display, import_open3d


class ImageWindow:
    """Shows one picture after the other (a `VideoWriter`) until it is closed.

    Args:
        title: title of the window.
        visible: whether the window is visible; invisible windows are for tests.
        place: position of its upper left corner on the screen, pixels.

    Raises:
        MissingDependencyError: Open3D or a system library is missing, or there is no display.
    """

    def __init__(self, title: str, visible: bool = True, place: tuple[int, int] = (50, 50)) -> None:
        if visible and not has_display():
            raise MissingDependencyError(
                "a window needs a display, found none: give --out FILE.mp4 or --out FOLDER"
            )
        self._open3d = import_open3d()
        self._title, self._visible, self._place = title, visible, place
        self._window: Any = None
        self._shown: Any = None

    def __enter__(self) -> ImageWindow:
        return self

    def show(self, image: UInt8Array) -> bool:
        """Show a picture (H, W, 3) uint8, blue first; return False once the window is closed."""
        pixels = self._open3d.geometry.Image(np.ascontiguousarray(image[:, :, ::-1]))
        if self._window is None:
            self._open(image.shape[1], image.shape[0])
        else:
            self._window.remove_geometry(self._shown)
        self._window.add_geometry(pixels)
        self._shown = pixels
        goes_on = bool(self._window.poll_events())
        self._window.update_renderer()
        return goes_on

    def _open(self, width: int, height: int) -> None:
        self._window = self._open3d.visualization.Visualizer()
        if not self._window.create_window(
            self._title, width, height, *self._place, visible=self._visible
        ):
            raise MissingDependencyError(
                "Open3D could not open a window (OpenGL): give --out FILE.mp4 or --out FOLDER"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the window."""
        if self._window is not None:
            self._window.destroy_window()
            self._window = None
