"""Windows that show a run in progress: the scene, and the current image."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from spslam.notices import counted
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray
from spslam.visualization.camera_path import chase_view
from spslam.visualization.controls import Controls
from spslam.visualization.draw_tracks import draw_associations
from spslam.visualization.image_window import ImageWindow
from spslam.visualization.layers import Look, draw_layers, frame_map_view
from spslam.visualization.live_map_view import live_map_view
from spslam.visualization.map_view import MapView
from spslam.visualization.open3d_window import Canvas, moved_along

if TYPE_CHECKING:
    from spslam.frame import Frame
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

_log = logging.getLogger(__name__)

# Size and position of the scene's window, pixels.
_SIZE, _PLACE = (1200, 860), (40, 60)
# Position and maximum width of the image's window, pixels: over the lower right corner of the
# scene, if the window manager allows it.
_IMAGE_PLACE, _IMAGE_WIDTH = (820, 660), 720
# Diameter of a point, pixels.
_POINT_SIZE = 2.5
# Ratio by which the scene's extent must change before it is framed again. In between, colours and
# grid stay the same.
_GROWTH = 1.15


class Open3DViewer:
    """Shows a run in progress (a `Viewer`) in two windows.

    One window shows map points, keyframes, trajectory and ground truth, the other one the current
    image and its keypoints. Closing a window does not stop the run.

    Args:
        ground_truth: the ground truth; None: only the estimate is shown.
        title: title of the windows.
        every: the scene is refreshed at every n-th frame.
        visible: whether the windows are visible; invisible windows are for tests.

    Raises:
        MissingDependencyError: Open3D or a system library is missing, or there is no display.
    """

    def __init__(
        self,
        ground_truth: Trajectory | None = None,
        title: str = "spslam",
        every: int = 1,
        visible: bool = True,
    ) -> None:
        self._controls = Controls(look=Look(hidden=frozenset({"covisibility"})), following=True)
        instead = "use --viewer none, or --rerun FILE.rrd to look later"
        self._canvas: Canvas | None = Canvas(
            title, _SIZE, visible, self._controls.bindings(), instead, _PLACE
        )
        self._image: ImageWindow | None = ImageWindow(f"{title}: image", visible, _IMAGE_PLACE)
        self._ground_truth = ground_truth
        self._every, self._updates = max(every, 1), 0
        self._scene: MapView | None = None
        self._extent = 0.0
        self._seen: FloatArray | None = None

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Show the state of `slam` and handle mouse and keys."""
        if self._canvas is None:
            return
        if self._updates % self._every == 0:
            self._scene = live_map_view(slam, self._ground_truth)
            self._controls.changed = True
        self._updates += 1
        if self._controls.changed:
            self._controls.changed = False
            self._show(self._canvas)
        if not self._canvas.poll():
            _log.info("the viewer's window was closed; the run continues")
            self.close()
            return
        if self._image is not None and slam.associations is not None:
            picture = draw_associations(
                frame.image, frame.camera, slam.associations, _caption(result), _IMAGE_WIDTH
            )
            if not self._image.show(picture):
                self._image.close()
                self._image = None

    def close(self) -> None:
        """Close the windows."""
        canvas, self._canvas = self._canvas, None
        image, self._image = self._image, None
        for window in (canvas, image):
            if window is not None:
                window.close()

    def _show(self, canvas: Canvas) -> None:
        scene = self._scene
        if scene is None or len(scene.trajectory) == 0:
            return
        extent = float(np.linalg.norm(np.ptp(scene.path, axis=0))) + scene.depth
        refit = extent > _GROWTH * self._extent or extent < self._extent / _GROWTH
        if refit:
            self._extent, self._framing = extent, frame_map_view(scene, _SIZE[0] / _SIZE[1])
        canvas.style(self._controls.look.palette, _POINT_SIZE)
        # Lines as hairlines, which are drawn fast.
        canvas.draw(draw_layers(scene, self._controls.look, self._framing, moving=True), 0.0, refit)
        pose = scene.trajectory[-1]
        view = canvas.viewpoint
        if self._controls.take_home() or view is None:
            canvas.look_from(self._framing.viewpoint)
        if not self._controls.following:
            self._seen = None
            return
        if self._seen is None or view is None:
            canvas.look_from(chase_view(pose, scene, self._framing))
        else:
            # Keep the direction to which the mouse turned the view.
            canvas.look_from(moved_along(view, pose[:3, 3] - self._seen))
        self._seen = pose[:3, 3].copy()


def _caption(result: TrackResult) -> str:
    return (
        f"frame {result.index}  {result.state.value}  {result.inliers} of "
        f"{counted(result.matches, 'match', 'matches')}"
    )
