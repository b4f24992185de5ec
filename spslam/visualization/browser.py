"""A window in which a saved run is looked at."""

from __future__ import annotations

from time import monotonic, sleep

import numpy as np

from spslam.typing import FloatArray
from spslam.visualization.camera_path import chase_view
from spslam.visualization.controls import Controls
from spslam.visualization.layers import draw_layers, frame_scene
from spslam.visualization.open3d_window import Canvas, moved_along
from spslam.visualization.scene import Scene

_SIZE = (1280, 960)
_POINT_SIZE = 3.0
# Mouse and keys are asked for that often while nothing moves, a second.
_IDLE_S = 0.02


class Browser:
    """Shows a scene until its window is closed.

    Args:
        scene: all of it.
        controls: how it is shown at first.
        seconds: how long playing it takes.
        visible: without, nobody sees it (for tests).

    Raises:
        MissingDependencyError: Open3D, a system library or OpenGL is missing, or there is no display.
    """

    def __init__(
        self, scene: Scene, controls: Controls, seconds: float, visible: bool = True
    ) -> None:
        self._scene, self._controls, self._seconds = scene, controls, seconds
        self._canvas = Canvas(f"spslam view {scene.title}", _SIZE, visible, controls.bindings())
        self._framing = frame_scene(scene, _SIZE[0] / _SIZE[1])
        # All of it; the row of the latest pose while it is played.
        self._row = len(scene.trajectory) - 1
        self._seen: FloatArray | None = None
        self._draw(anew=True)
        self._canvas.look_from(self._framing.viewpoint)

    def run(self) -> None:
        """Show it until the window is closed."""
        last = monotonic()
        pending = 0.0
        try:
            while self._canvas.poll():
                now = monotonic()
                if self._controls.playing:
                    pending += (now - last) * len(self._scene.trajectory) / self._seconds
                    self._advance(int(pending))
                    pending -= int(pending)
                else:
                    sleep(_IDLE_S)
                last = now
                self.refresh()
        finally:
            self._canvas.close()

    def refresh(self) -> None:
        """Do what keys asked for."""
        if not self._controls.changed:
            return
        self._controls.changed = False
        end = len(self._scene.trajectory) - 1
        self._row = int(np.clip(self._row + self._controls.take_steps(), min(end, 0), end))
        self._draw()
        if self._controls.take_home():
            self._canvas.look_from(self._framing.viewpoint)
        self._follow()

    def _advance(self, frames: int) -> None:
        """Let time go on by some frames; from its end it begins again."""
        end = len(self._scene.trajectory) - 1
        if self._row >= end:
            self._row = min(end, 0)
        elif frames:
            self._row = min(self._row + frames, end)
        else:
            return
        self._controls.playing, self._controls.changed = self._row < end, True

    def _draw(self, anew: bool = False) -> None:
        look = self._controls.look
        moving = 0 <= self._row < len(self._scene.trajectory) - 1
        shown = self._scene.until(float(self._scene.times[self._row])) if moving else self._scene
        self._canvas.style(look.palette, _POINT_SIZE)
        layers = draw_layers(shown, look, self._framing, moving)
        self._canvas.draw(layers, self._framing.viewpoint.pixel_size(_SIZE[1]), anew)

    def _follow(self) -> None:
        """Keep the view at the camera's side; from behind it at first, from wherever the mouse turned it then."""
        if not self._controls.following or self._row < 0:
            self._seen = None
            return
        pose = self._scene.trajectory[self._row]
        view = self._canvas.viewpoint
        if self._seen is None or view is None:
            self._canvas.look_from(chase_view(pose, self._scene, self._framing))
        else:
            self._canvas.look_from(moved_along(view, pose[:3, 3] - self._seen))
        self._seen = pose[:3, 3].copy()
