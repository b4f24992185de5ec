"""Export of a map with its images, for 3-D Gaussian splatting and neural radiance fields.

The folder has the format of nerfstudio (https://docs.nerf.studio/quickstart/data_conventions.html):
`transforms.json`, undistorted images, depth images of RGB-D maps, and the points as PLY.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError, MapError, OutputError
from spslam.frame import ColorImage, Frame
from spslam.interfaces import Sequence
from spslam.io.files import exchange, write_atomic
from spslam.map.colmap import PIXEL_SHIFT, image_names, right_name
from spslam.map.colors import point_colors
from spslam.map.export import needed_origin
from spslam.map.map import Map
from spslam.map.submaps import points_of
from spslam.notices import counted, notice
from spslam.reports.plots import write_ply
from spslam.typing import FloatArray

logger = logging.getLogger(__name__)

TRANSFORMS = "transforms.json"
# Folder of COLMAP models, which a later export keeps.
_MODELS = "sparse"
# Files and folders of an export.
_NAMES = {TRANSFORMS, "points.ply", "images", "depth", "masks", _MODELS}
# Key and value of `transforms.json` that marks an export: only such a folder is replaced.
_MARK = ("written_by", "spslam map export")
# Turns the axes of a map (x right, y down, z forward in the first keyframe) to those of
# nerfstudio, whose z axis points up.
_APPLIED = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
# Axes of OpenGL's camera (x right, y up, z backwards) in those of OpenCV's.
_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# Length of one unit of the depth images, metres, and their largest value.
DEPTH_UNIT_M = 0.001
_LARGEST_DEPTH = 65535
# Largest difference between the stamps of a keyframe and of its image, seconds.
_SAME_STAMP_S = 1e-6
# Largest difference of a focal length or principal point, pixels.
_SAME_CAMERA_PX = 1e-6


@dataclass
class NerfstudioSummary:
    """What was exported.

    Attributes:
        images: Number of images.
        colored: Number of those in colour.
        depths: Number of depth images.
        points: Number of points.
        left_out: Number of keyframes of other sessions, whose images are in other recordings.
        unreadable: Indices of frames whose images cannot be read.
        too_far: Number of depths of more than 65.535 m, written as unknown.
    """

    images: int = 0
    colored: int = 0
    depths: int = 0
    points: int = 0
    left_out: int = 0
    unreadable: list[int] = field(default_factory=list)
    too_far: int = 0


def write_nerfstudio(
    folder: Path | str,
    slam_map: Map,
    submap: int,
    sequence: Sequence,
    session: int | None = None,
) -> NerfstudioSummary:
    """Write the keyframes of a submap with their images, in a folder of nerfstudio's format.

    Images are undistorted and in colour where the recording is. A stereo map gives right images,
    too. Names are those of `spslam.map.colmap.image_names`.

    Args:
        folder: Output folder. An earlier export is replaced as a whole.
        slam_map: The map.
        submap: A submap that has keyframes.
        sequence: The whole recording of one session of the map.
        session: The session; None: the newest one of the submap.

    Raises:
        MapError: The map does not say which camera recorded it, or has no such session.
        DatasetError: The recording is not that of the map.
        OutputError: The folder holds other files, or cannot be written.
    """
    folder = Path(folder).absolute()
    needed_origin(slam_map)
    _refuse_foreign(folder)
    rows = _rows(slam_map, submap, session)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:50]}.", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None
    try:
        part.chmod(0o755)
        summary = _Export(part, slam_map, submap, sequence, rows).write()
        _refuse_foreign(folder)
        _publish(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return summary


def _rows(slam_map: Map, submap: int, session: int | None) -> NDArray[np.int64]:
    """Return the rows of the keyframes of one session."""
    keyframes = slam_map.keyframes
    inside = keyframes["submap"] == submap
    sessions = np.unique(keyframes["session"][inside])
    wanted = int(sessions[-1]) if session is None else session
    if wanted not in sessions:
        found = ", ".join(map(str, sessions.tolist()))
        raise MapError(f"submap {submap} has no keyframes of session {wanted}: found {found}")
    return np.flatnonzero(inside & (keyframes["session"] == wanted))


class _Export:
    """An export in progress, in a hidden folder."""

    def __init__(
        self,
        folder: Path,
        slam_map: Map,
        submap: int,
        sequence: Sequence,
        rows: NDArray[np.int64],
    ) -> None:
        self._folder = folder
        self._map = slam_map
        self._submap = submap
        self._sequence = sequence
        self._rows = rows
        self._origin = needed_origin(slam_map)
        self._lens: _Undistortion | None = None
        self._summary = NerfstudioSummary(
            left_out=int(np.count_nonzero(slam_map.keyframes["submap"] == submap)) - len(rows)
        )

    def write(self) -> NerfstudioSummary:
        names = image_names(self._map)
        frames: list[dict[str, Any]] = []
        for row in self._rows.tolist():
            frame = self._frame(row)
            if frame is not None:
                frames += self._entries(frame, names[row], self._map.T_world_keyframe[row])
        if not frames:
            raise DatasetError(
                f"no image of the map's {counted(len(self._rows), 'keyframe')} can be read in "
                f"{self._sequence.source}"
            )
        self._summary.images = len(frames)
        self._write_points()
        document = self._document(frames)
        write_atomic(
            self._folder / TRANSFORMS, json.dumps(document, indent=2, allow_nan=False) + "\n"
        )
        return self._summary

    def _frame(self, row: int) -> Frame | None:
        """Return the frame of a keyframe, checked; None if its image cannot be read."""
        keyframes = self._map.keyframes
        index, stamp = int(keyframes["frame"][row]), float(keyframes["timestamp"][row])
        try:
            frame = self._sequence[index]
        except IndexError:
            raise DatasetError(
                f"{self._sequence.source} has no frame {index}, which is a keyframe of the map: "
                "give the recording of the map with --images"
            ) from None
        except DatasetError as error:
            logger.info("frame %d: %s", index, error)
            self._summary.unreadable.append(index)
            return None
        if abs(frame.timestamp - stamp) > _SAME_STAMP_S:
            raise DatasetError(
                f"frame {index} of {self._sequence.source} is of {frame.timestamp:.6f} s, that of "
                f"the map of {stamp:.6f} s: give the recording of the map with --images"
            )
        if self._lens is None:
            self._check_camera(frame.camera)
            self._lens = _Undistortion(frame.camera)
        return frame

    def _check_camera(self, camera: Camera) -> None:
        names = ("width", "height", "fx", "fy", "cx", "cy")
        here, there = (
            np.array([getattr(found, name) for name in names])
            for found in (camera, self._origin.camera)
        )
        if np.abs(here - there).max() > _SAME_CAMERA_PX:
            raise DatasetError(
                f"the camera of {self._sequence.source} ({_numbers(here)}) is not that of the map "
                f"({_numbers(there)}): give the calibration of the run with --calibration"
            )

    def _entries(self, frame: Frame, name: str, T_world_cam: FloatArray) -> list[dict[str, Any]]:
        """Write the images of a frame; return their entries."""
        entries = [self._entry(name, frame.image, frame.color, T_world_cam, frame.timestamp)]
        if frame.depth is not None:
            entries[0]["depth_file_path"] = self._write_depth(name, frame.depth)
        if self._origin.sensor == "stereo" and frame.image_right is not None:
            T_left_right = np.eye(4)
            T_left_right[0, 3] = self._origin.camera.baseline_m
            entries.append(
                self._entry(
                    right_name(name),
                    frame.image_right,
                    frame.color_right,
                    T_world_cam @ T_left_right,
                    frame.timestamp,
                )
            )
        return entries

    def _entry(
        self,
        name: str,
        grey: NDArray[np.uint8],
        color: ColorImage | None,
        T_world_cam: FloatArray,
        timestamp: float,
    ) -> dict[str, Any]:
        assert self._lens is not None, "the camera was checked"
        # OpenCV writes blue first.
        shown = grey if color is None else color.image()[:, :, ::-1]
        self._summary.colored += color is not None
        pixels = self._lens.image(np.ascontiguousarray(shown))
        transform = np.vstack([_APPLIED, [0.0, 0.0, 0.0, 1.0]]) @ T_world_cam @ _FROM_OPENGL
        entry: dict[str, Any] = {
            "file_path": self._write_image(f"images/{name}", pixels),
            "transform_matrix": (transform + 0.0).tolist(),
            "timestamp": timestamp,
        }
        if self._lens.mask is not None:
            entry["mask_path"] = "masks/mask.png"
            if not (self._folder / "masks/mask.png").exists():
                self._write_image("masks/mask.png", self._lens.mask)
        return entry

    def _write_depth(self, name: str, depth: NDArray[np.float32]) -> str:
        assert self._lens is not None, "the camera was checked"
        units = np.rint(self._lens.depth(depth).astype(np.float64) / DEPTH_UNIT_M)
        too_far = units > _LARGEST_DEPTH
        self._summary.too_far += int(np.count_nonzero(too_far))
        self._summary.depths += 1
        return self._write_image(f"depth/{name}", np.where(too_far, 0, units).astype(np.uint16))

    def _write_image(self, name: str, pixels: NDArray[Any]) -> str:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(".png", pixels)
        if not done:
            raise OutputError(f"cannot encode {name}")
        write_atomic(path, data.tobytes(), durable=False)
        return name

    def _write_points(self) -> None:
        ids = points_of(self._map, self._submap)
        points = self._map.positions[self._map.point_rows(ids)]
        moved = points @ _APPLIED[:, :3].T
        write_ply(self._folder / "points.ply", moved, point_colors(self._map, ids))
        self._summary.points = len(points)

    def _document(self, frames: list[dict[str, Any]]) -> dict[str, Any]:
        camera = self._origin.camera
        document: dict[str, Any] = {
            _MARK[0]: _MARK[1],
            "camera_model": "OPENCV",
            "w": camera.width,
            "h": camera.height,
            "fl_x": float(camera.fx),
            "fl_y": float(camera.fy),
            # The origin is the corner of the first pixel.
            "cx": float(camera.cx) + PIXEL_SHIFT,
            "cy": float(camera.cy) + PIXEL_SHIFT,
            **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
            "applied_transform": _APPLIED.tolist(),
            "ply_file_path": "points.ply",
            "unit": "m" if self._origin.metric else "map units",
            "frames": frames,
        }
        if self._summary.depths:
            document["depth_unit_scale_factor"] = DEPTH_UNIT_M
        return document


class _Undistortion:
    """Undistorts the images of one camera.

    Attributes:
        mask: (H, W) uint8, 0 where an undistorted image shows nothing; None if it has no such
            pixels.
    """

    def __init__(self, camera: Camera) -> None:
        self._maps: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.mask: NDArray[np.uint8] | None = None
        if camera.distortion_model == "none":
            return
        y, x = np.indices((camera.height, camera.width), dtype=np.float64)
        ideal = np.stack([x.ravel(), y.ravel()], axis=1)
        shown = camera.lens_pixels(camera.without_distortion().bearings(ideal))
        inside = camera.in_image(shown).reshape(x.shape)
        # Far outside of the image where the lens shows nothing.
        shown = np.where(np.isfinite(shown), np.clip(shown, -1e4, 1e4), -1e4)
        maps = shown.astype(np.float32).reshape(*x.shape, 2)
        self._maps = np.ascontiguousarray(maps[..., 0]), np.ascontiguousarray(maps[..., 1])
        if not inside.all():
            self.mask = np.where(inside, 255, 0).astype(np.uint8)

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Undistort an image (H, W) or (H, W, 3)."""
        if self._maps is None:
            return pixels
        return np.asarray(cv2.remap(pixels, *self._maps, cv2.INTER_LINEAR), dtype=np.uint8)

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undistort a depth image (H, W) without mixing depths; 0 where unknown."""
        if self._maps is None:
            return depth
        return np.asarray(cv2.remap(depth, *self._maps, cv2.INTER_NEAREST), dtype=np.float32)


def tell(summary: NerfstudioSummary) -> None:
    """Give notices about what an export lacks."""
    if summary.left_out:
        notice(
            logger,
            "keyframes_left_out",
            "%d keyframes of other sessions are left out: their images are in other recordings",
            summary.left_out,
            count=summary.left_out,
        )
    if summary.unreadable:
        notice(
            logger,
            "unreadable_images",
            "%d keyframes are left out: their images cannot be read, the first is frame %d",
            len(summary.unreadable),
            summary.unreadable[0],
            count=len(summary.unreadable),
        )
    if summary.too_far:
        notice(
            logger,
            "depth_too_far",
            "%d depths beyond %.3f m are written as unknown (0)",
            summary.too_far,
            _LARGEST_DEPTH * DEPTH_UNIT_M,
            count=summary.too_far,
        )


def _numbers(values: FloatArray) -> str:
    return "{:.0f}x{:.0f}, fx {:.6g}, fy {:.6g}, cx {:.6g}, cy {:.6g}".format(*values)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds anything else than an earlier export."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise OutputError(f"--nerfstudio must be a folder, found a file or a link: {folder}")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if name not in _NAMES]
    if foreign or (set(names) - {_MODELS} and not _is_marked(folder / TRANSFORMS)):
        raise OutputError(
            f"{folder} is left alone: expected a new folder or an earlier export of spslam, "
            f"found {(foreign or names)[0]}; name another folder"
        )


def _is_marked(path: Path) -> bool:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get(_MARK[0]) == _MARK[1]


def _publish(part: Path, folder: Path) -> None:
    """Move the finished folder to its place; an earlier one is removed, except for its models."""
    try:
        if not folder.exists():
            part.rename(folder)
            return
        if not exchange(part, folder):
            earlier = Path(tempfile.mkdtemp(prefix=f".{folder.name[:50]}.", dir=folder.parent))
            folder.rename(earlier / "export")
            part.rename(folder)
            (earlier / "export").rename(part)
            earlier.rmdir()
        if (part / _MODELS).exists():
            (part / _MODELS).rename(folder / _MODELS)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from None
