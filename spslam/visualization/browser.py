"""A window that shows a saved run."""

from __future__ import annotations

from time import monotonic, sleep

import numpy as np

from spslam.typing import FloatArray
from spslam.visualization.camera_path import chase_view
from spslam.visualization.controls import Controls
from spslam.visualization.layers import draw_layers, frame_map_view
from spslam.visualization.map_view import MapView
from spslam.visualization.open3d_window import Canvas, moved_along

# Width and height of the window, pixels.
_SIZE = (1280, 960)
# Diameter of a point, pixels.
_POINT_SIZE = 3.0
# Time between polls of mouse and keys while nothing moves, seconds.
_IDLE_S = 0.02


class Browser:
    """Shows a scene until its window is closed.

    Args:
        scene: the whole scene.
        controls: initial state of the controls.
        seconds: duration of playing the whole run, seconds.
        visible: whether the window is visible; invisible windows are for tests.

    Attributes:
        row: row of the latest pose that is shown; at the end, the whole scene is shown.
        canvas: the window.

    Raises:
        MissingDependencyError: Open3D, a system library, OpenGL or a display is missing.
    """

    def __init__(
        self, scene: MapView, controls: Controls, seconds: float, visible: bool = True
    ) -> None:
        self._scene, self._controls, self._seconds = scene, controls, seconds
        self.canvas = Canvas(f"spslam view {scene.title}", _SIZE, visible, controls.bindings())
        self._framing = frame_map_view(scene, _SIZE[0] / _SIZE[1])
        self.row = len(scene.trajectory) - 1
        self._seen: FloatArray | None = None
        self._draw(refit=True)
        self.canvas.look_from(self._framing.viewpoint)

    def run(self) -> None:
        """Show the scene until the window is closed."""
        last = monotonic()
        pending = 0.0
        try:
            while self.canvas.poll():
                now = monotonic()
                if self._controls.playing:
                    pending += (now - last) * len(self._scene.trajectory) / self._seconds
                    self.advance(int(pending))
                    pending -= int(pending)
                else:
                    sleep(_IDLE_S)
                last = now
                self.refresh()
        finally:
            self.canvas.close()

    def refresh(self) -> None:
        """Apply the changes that keys requested."""
        if not self._controls.changed:
            return
        self._controls.changed = False
        end = len(self._scene.trajectory) - 1
        self.row = int(np.clip(self.row + self._controls.take_steps(), min(end, 0), end))
        self._draw()
        if self._controls.take_home():
            self.canvas.look_from(self._framing.viewpoint)
        self._follow()

    def advance(self, frames: int) -> None:
        """Advance the time by some frames; from the end, restart at the beginning."""
        end = len(self._scene.trajectory) - 1
        if self.row >= end:
            self.row = min(end, 0)
        elif frames:
            self.row = min(self.row + frames, end)
        else:
            return
        self._controls.playing, self._controls.changed = self.row < end, True

    def _draw(self, refit: bool = False) -> None:
        look = self._controls.look
        moving = 0 <= self.row < len(self._scene.trajectory) - 1
        shown = self._scene.until(float(self._scene.times[self.row])) if moving else self._scene
        self.canvas.style(look.palette, _POINT_SIZE)
        layers = draw_layers(shown, look, self._framing, moving)
        self.canvas.draw(layers, self._framing.viewpoint.pixel_size(_SIZE[1]), refit)

    def _follow(self) -> None:
        """Move the view with the camera: first from behind, then from where the mouse turned it."""
        if not self._controls.following or self.row < 0:
            self._seen = None
            return
        pose = self._scene.trajectory[self.row]
        view = self.canvas.viewpoint
        if self._seen is None or view is None:
            self.canvas.look_from(chase_view(pose, self._scene, self._framing))
        else:
            self.canvas.look_from(moved_along(view, pose[:3, 3] - self._seen))
        self._seen = pose[:3, 3].copy()
