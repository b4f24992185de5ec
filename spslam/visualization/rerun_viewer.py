"""Record runs for Rerun's viewer (https://rerun.io), live or to a file.

Images and keypoints are recorded with every frame. Map, trajectory and keyframes change as a whole
when the map is refined, so they are recorded as a whole, but only after they grew by a tenth or a
loop was closed. All of these records together are about eleven times as large as the last one, for
runs of any length.
"""

from __future__ import annotations

import importlib
import logging
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from spslam.camera import Camera
from spslam.errors import MissingDependencyError, OutputError
from spslam.io.files import check_printable, final_path, printable
from spslam.slam.track_results import TrackState
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray, UInt8Array
from spslam.visualization.draw_tracks import MATCHED, UNMATCHED
from spslam.visualization.layers import Lines, Look, Points, draw_layers, frame_map_view
from spslam.visualization.live_map_view import live_map_view
from spslam.visualization.map_view import MapView
from spslam.visualization.open3d_window import has_display

if TYPE_CHECKING:
    from spslam.frame import Frame, FrameAssociations
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

_log = logging.getLogger(__name__)

# Maximum width of recorded images, pixels, and their JPEG quality, 0 to 100.
_MOST_IMAGE_WIDTH, _JPEG_QUALITY = 640, 70
# Ratio by which the map must grow before it is recorded again.
_GROWTH = 1.1
# Smallest stamp that is read as seconds since 1970, seconds.
_FIRST_EPOCH_S = 1e8
# Maximum time to wait for the viewer at the end, seconds.
_FLUSH_S = 20.0
# Rerun's classes of keypoints with and without a map point.
_MATCHED, _UNMATCHED = 1, 0
# Style of the recorded scene.
_LOOK = Look(dark=True)
# Radii of paths, thin lines and points; Rerun reads a negative radius as pixels.
_PATH, _THIN, _DOT = -1.5, -0.6, -1.5
# Rerun's entities of the layers; Rerun draws a grid of its own.
_ENTITIES = {
    "points": "world/map",
    "trajectory": "world/trajectory",
    "keyframes": "world/keyframes",
    "covisibility": "world/keyframes/covisibility",
    "loops": "world/loops",
    "truth": "world/ground_truth",
}


def import_rerun() -> Any:
    """Import Rerun's SDK.

    Raises:
        MissingDependencyError: the package is missing or does not load.
    """
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "Rerun is missing: pip install 'spslam[rerun]' (or rerun-sdk)"
        ) from None
    except (ImportError, OSError) as error:
        raise MissingDependencyError(f"Rerun does not load: {str(error).splitlines()[0]}") from None


class _Recording:
    """A stream of entities to a file or to Rerun's viewer.

    Args:
        file: path of the file; None: start Rerun's viewer.
        title: title of the recording.

    Raises:
        MissingDependencyError: Rerun is missing, or there is no display for its viewer.
        OutputError: the file cannot be written.
    """

    def __init__(self, file: Path | None, title: str) -> None:
        self.rerun = import_rerun()
        blueprint = _blueprint()
        self.stream: Any = self.rerun.RecordingStream("spslam")
        self.stream.send_recording_name(printable(title))
        if file is None:
            if not has_display():
                raise MissingDependencyError(
                    "Rerun's viewer needs a display, found none: use --rerun FILE.rrd"
                )
            _spawn(self.stream, blueprint)
        else:
            check_printable(file)
            # Written directly, not to a temporary file: a killed run leaves its recording.
            file = final_path(file)
            try:
                # Rerun's own error does not name the cause.
                with file.open("wb"):
                    pass
                self.stream.save(file, default_blueprint=blueprint)
            except (OSError, RuntimeError) as error:
                reason = getattr(error, "strerror", None) or error
                raise OutputError(f"cannot write {file}: {reason}") from None
        self.log("world", self.rerun.ViewCoordinates.RDF, static=True)
        context = [
            (_UNMATCHED, "sees no map point", UNMATCHED[::-1]),
            (_MATCHED, "sees a map point", MATCHED[::-1]),
        ]
        self.log("world/camera/image/keypoints", self.rerun.AnnotationContext(context), static=True)

    def log(self, path: str, entity: Any, static: bool = False) -> None:
        self.stream.log(path, entity, static=static)

    def set_time(self, counter: str, index: int, stamp: float) -> None:
        """Set the time of the following records: a named counter and a stamp, seconds."""
        self.stream.set_time(counter, sequence=index)
        if stamp >= _FIRST_EPOCH_S:
            self.stream.set_time("stamp", timestamp=stamp)
        else:
            self.stream.set_time("stamp", duration=stamp)

    def log_camera(self, T_world_cam: FloatArray | None) -> None:
        if T_world_cam is None:
            self.log("world/camera", self.rerun.Clear(recursive=False))
            return
        self.log(
            "world/camera",
            self.rerun.Transform3D(translation=T_world_cam[:3, 3], mat3x3=T_world_cam[:3, :3]),
        )

    def log_map_view(self, scene: MapView) -> None:
        """Record map, trajectory, keyframes, edges and ground truth."""
        if len(scene.trajectory) == 0:
            return
        layers = draw_layers(scene, _LOOK, frame_map_view(scene, 4 / 3))
        points = layers.get("points")
        if isinstance(points, Points):
            self.log(
                _ENTITIES["points"],
                self.rerun.Points3D(
                    points.positions.astype(np.float32), colors=_bytes(points.colors), radii=_DOT
                ),
            )
        radii = {"trajectory": _PATH, "truth": _PATH, "loops": _PATH}
        for name, path in _ENTITIES.items():
            lines = layers.get(name)
            if isinstance(lines, Lines):
                strips = np.stack([lines.starts, lines.ends], axis=1).astype(np.float32)
                self.log(
                    path,
                    self.rerun.LineStrips3D(
                        strips, colors=_bytes(np.array(lines.color)), radii=radii.get(name, _THIN)
                    ),
                )

    def close(self, flush_s: float = _FLUSH_S) -> None:
        """Write the rest of the recording; do not wait for a viewer that was closed.

        Args:
            flush_s: maximum time to wait for the viewer, seconds.
        """
        try:
            self.stream.flush(timeout_sec=flush_s)
        except RuntimeError as error:
            _log.warning(
                "Rerun's viewer did not receive all of the recording: %s",
                str(error).strip().splitlines()[0],
            )
        self.stream.disconnect()


class RerunViewer:
    """Records a run in progress (a `Viewer`).

    Args:
        file: path of the file; None: start Rerun's viewer.
        ground_truth: the ground truth; None: only the estimate is recorded.
        title: title of the recording.
        flush_s: maximum time to wait for Rerun's viewer at the end, seconds.

    Raises:
        MissingDependencyError: Rerun is missing, or there is no display for its viewer.
        OutputError: the file cannot be written.
    """

    def __init__(
        self,
        file: Path | None,
        ground_truth: Trajectory | None = None,
        title: str = "spslam",
        flush_s: float = _FLUSH_S,
    ) -> None:
        self._flush_s = flush_s
        self._recording = _Recording(file, title)
        self._ground_truth = ground_truth
        self._camera: Camera | None = None
        self._size = _Growth()
        self._state: TrackState | None = None
        self._slam: Slam | None = None

    def update(self, slam: Slam, frame: Frame, result: TrackResult) -> None:
        """Record a frame, and the map if it has changed enough."""
        recording, self._slam = self._recording, slam
        recording.set_time("frame", frame.index, frame.timestamp)
        scale = min(_MOST_IMAGE_WIDTH / frame.image.shape[1], 1.0)
        if frame.camera != self._camera:
            self._camera = frame.camera
            recording.log(
                "world/camera/image", _pinhole(recording.rerun, frame.camera, scale), static=True
            )
        recording.log_camera(result.T_world_cam)
        recording.log("world/camera/image", _jpeg(recording.rerun, frame.image, scale))
        if slam.associations is not None:
            recording.log(
                "world/camera/image/keypoints",
                _keypoints(recording.rerun, frame.camera, slam.associations, scale),
            )
            seen = slam.map.point_rows(slam.associations.point_ids)
            positions = slam.map.positions[seen[seen >= 0]].astype(np.float32)
            recording.log(
                "world/map/seen",
                recording.rerun.Points3D(positions, colors=MATCHED[::-1], radii=2 * _DOT),
            )
        recording.log("tracking/inliers", recording.rerun.Scalars(result.inliers))
        recording.log("tracking/matches", recording.rerun.Scalars(result.matches))
        if result.state is not self._state or result.is_keyframe:
            recording.log("log", recording.rerun.TextLog(f"{result.state.value}: {result.reason}"))
        self._state = result.state
        statistics = slam.statistics
        if self._size.has_grown(
            statistics.points, len(slam.map.keyframes), result.index, statistics.loops
        ):
            recording.log_map_view(live_map_view(slam, self._ground_truth))

    def close(self) -> None:
        """Record the final map and end the recording."""
        if self._slam is not None:
            self._recording.log_map_view(live_map_view(self._slam, self._ground_truth))
            self._slam = None
        self._recording.close(self._flush_s)


def record_map_view(file: Path | None, scene: MapView) -> None:
    """Record a saved run without its images.

    Args:
        file: path of the file; None: start Rerun's viewer.
        scene: the whole scene.

    Raises:
        MissingDependencyError: Rerun is missing, or there is no display for its viewer.
        OutputError: the file cannot be written.
    """
    recording = _Recording(file, scene.title)
    size = _Growth()
    for row, (time, T_world_cam) in enumerate(
        zip(scene.times.tolist(), scene.trajectory, strict=True)
    ):
        recording.set_time("pose", row, time)
        recording.log_camera(T_world_cam)
        last = row == len(scene.trajectory) - 1
        points, keyframes = (
            np.count_nonzero(times <= time) for times in (scene.point_times, scene.keyframe_times)
        )
        if size.has_grown(int(points), int(keyframes), row, 0) or last:
            recording.log_map_view(scene if last else scene.until(time))
    recording.close()


class _Growth:
    """Decides when a map has grown enough to be recorded again."""

    def __init__(self) -> None:
        self._points, self._keyframes, self._frames, self._loops = 0, 0, 0, 0

    def has_grown(self, points: int, keyframes: int, frames: int, loops: int) -> bool:
        """Whether the map has grown enough; if so, remember its size."""
        now = (points, keyframes, frames)
        before = (self._points, self._keyframes, self._frames)
        grown = (
            any(new > _GROWTH * old + 1 for new, old in zip(now, before, strict=True))
            or loops != self._loops
        )
        if grown:
            self._points, self._keyframes, self._frames, self._loops = (
                points,
                keyframes,
                frames,
                loops,
            )
        return grown


def _spawn(stream: Any, blueprint: Any) -> None:
    """Start Rerun's viewer.

    Rerun looks for its viewer in PATH only, but installs it beside Python: extend PATH.
    """
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), before])
    try:
        stream.spawn(default_blueprint=blueprint)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingDependencyError(
            f"Rerun's viewer did not start ({reason}): use --rerun FILE.rrd"
        ) from None
    finally:
        os.environ["PATH"] = before


def _blueprint() -> Any:
    blueprint = importlib.import_module("rerun.blueprint")
    views = blueprint.Horizontal(
        blueprint.Spatial3DView(origin="world", name="map"),
        blueprint.Vertical(
            blueprint.Spatial2DView(origin="world/camera/image", name="image"),
            blueprint.TimeSeriesView(origin="tracking", name="tracking"),
            blueprint.TextLogView(origin="log", name="log"),
        ),
        column_shares=[3, 2],
    )
    return blueprint.Blueprint(views, collapse_panels=True)


def _pinhole(rerun: Any, camera: Camera, scale: float) -> Any:
    # Rerun counts pixels from the corner of the first one, spslam from its centre.
    centre = [scale * (camera.cx + 0.5), scale * (camera.cy + 0.5)]
    return rerun.Pinhole(
        focal_length=[scale * focal for focal in camera.ideal_focal],
        principal_point=centre,
        resolution=[round(scale * camera.width), round(scale * camera.height)],
        camera_xyz=rerun.ViewCoordinates.RDF,
    )


def _jpeg(rerun: Any, image: UInt8Array, scale: float) -> Any:
    if scale < 1.0:
        size = (round(scale * image.shape[1]), round(scale * image.shape[0]))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return rerun.EncodedImage(contents=data.tobytes(), media_type="image/jpeg")


def _keypoints(rerun: Any, camera: Camera, associations: FrameAssociations, scale: float) -> Any:
    # The image is distorted.
    pixels = scale * (camera.distort(associations.pixels) + 0.5)
    classes = np.where(associations.point_ids >= 0, _MATCHED, _UNMATCHED).astype(np.uint16)
    return rerun.Points2D(pixels.astype(np.float32), class_ids=classes, radii=-2.0)


def _bytes(colors: FloatArray) -> UInt8Array:
    return np.round(255 * colors).astype(np.uint8)
