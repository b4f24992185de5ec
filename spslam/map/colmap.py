"""Export of a map as a COLMAP model, text or binary, with rigs and frames as COLMAP 4 writes them.

Formats: https://colmap.github.io/format.html and the files that COLMAP 4.2.1 writes (Schönberger &
Frahm, Structure-from-Motion Revisited, CVPR 2016).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.errors import MapError, OutputError
from spslam.io.files import write_atomic
from spslam.map.colors import point_colors
from spslam.map.export import extract_submap, needed_origin
from spslam.map.map import Map
from spslam.typing import FloatArray, IntArray

# Values of `formats`, and the endings of the files.
COLMAP_FORMATS = {"text": (".txt",), "binary": (".bin",), "both": (".txt", ".bin")}
# Files of a model, without ending.
COLMAP_FILES = ("cameras", "images", "points3D", "rigs", "frames")
# File with the checksums of the binary files, which have no place for a mark.
MARK_FILE = "written_by_spslam.txt"
# First line of exported files: only files that start with it are replaced by a later export.
_MARK = "# Written by spslam map export, which may replace this file."
# Offset of pixel coordinates, pixels: COLMAP's origin is the corner of the first pixel, that of
# spslam its centre.
PIXEL_SHIFT = 0.5
# Numbers of the model PINHOLE and of the sensor type CAMERA in binary files.
_PINHOLE, _CAMERA = 1, 0
# Number of the only rig.
_RIG = 1
# Largest id of an image.
_MOST_IMAGES = 2**31 - 1
# Point of an observation without one, in binary files.
_NO_POINT = 2**64 - 1
_GREY = 128


@dataclass(frozen=True)
class ColmapSummary:
    """The content of a COLMAP model.

    Attributes:
        images: Number of images.
        points: Number of points.
        observations: Number of observations of points in images.
        mean_error_px: Mean reprojection error, pixels, as COLMAP computes it: the mean over the
            points of their mean errors; NaN without points.
        colored: Whether points have the colours of images; otherwise they are grey.
    """

    images: int
    points: int
    observations: int
    mean_error_px: float
    colored: bool


def image_names(slam_map: Map) -> list[str]:
    """Return the name of each keyframe's image, by row of the keyframe.

    It is `frame_000123.png` after the index in the sequence, in `session_N/` if the map has several
    sessions.
    """
    keyframes = slam_map.keyframes
    names = [f"frame_{frame:06d}.png" for frame in keyframes["frame"].tolist()]
    sessions = keyframes["session"].tolist()
    if len(set(sessions)) <= 1:
        return names
    return [f"session_{session}/{name}" for session, name in zip(sessions, names, strict=True)]


def right_name(name: str) -> str:
    """Return the name of the right image of a stereo pair, given that of the left one."""
    return f"right/{name}"


def write_colmap(
    folder: Path | str, slam_map: Map, submap: int, formats: str = "text"
) -> ColmapSummary:
    """Write a submap as a COLMAP model: cameras, images, points, rigs and frames.

    Cameras are PINHOLE, for images without distortion. Images are keyframes (see `image_names`).
    A stereo map has a rig of two cameras, and two images per keyframe; the right ones are in
    `right/`. Ids of left images, frames and points are those of the map plus one. Lengths are map
    units. Points that fewer than two images see are left out, because COLMAP's bundle adjustment
    refuses them. Their error is the mean over the images that see them, or -1 if they are in front
    of no image.

    Args:
        folder: Output folder, created if missing. It may only contain an earlier exported model,
            which is replaced.
        slam_map: The map.
        submap: A submap that has keyframes.
        formats: `text`, `binary` or `both`. COLMAP reads the binary files where it finds both.

    Raises:
        MapError: The map does not say which camera recorded it, or has too large ids.
        OutputError: The folder contains other files or another program's model, or cannot be
            written to.
    """
    folder = Path(folder)
    model = _Model.of(slam_map, submap)
    written: dict[str, bytes] = {}
    for suffix in COLMAP_FORMATS[formats]:
        contents = _text_files(model) if suffix == ".txt" else _binary_files(model)
        written |= {f"{name}{suffix}": content for name, content in contents.items()}
    _write_files(folder, written)
    known = model.errors[np.isfinite(model.errors)]
    return ColmapSummary(
        images=len(model.images),
        points=len(model.map.points),
        observations=int(np.count_nonzero(model.seen_point >= 0)),
        mean_error_px=float(known.mean()) if len(known) else float("nan"),
        colored=model.colored,
    )


@dataclass(frozen=True, eq=False)
class _Image:
    """An image: its id, name, camera id, pose and rows of its keypoints."""

    id: int
    name: str
    camera: int
    T_cam_world: FloatArray
    rows: slice


@dataclass(frozen=True, eq=False)
class _Model:
    """A model's content; keypoints of all images lie one after the other.

    Attributes:
        map: Submap with the points of the model only.
        camera: Camera of the left images, and of the right ones.
        stereo: Whether there are right images.
        images: Images by id.
        seen_image: (O,) int64, id of the image of each keypoint, ascending.
        seen_pixel: (O, 2) float64, keypoints, with `PIXEL_SHIFT`.
        seen_point: (O,) int64, id of the point plus one; -1 without one.
        errors: (P,) float64, reprojection errors, pixels.
        colors: (P, 3) uint8.
        colored: Whether colours are known.
    """

    map: Map
    camera: Camera
    stereo: bool
    images: list[_Image]
    seen_image: IntArray
    seen_pixel: FloatArray
    seen_point: IntArray
    errors: FloatArray
    colors: NDArray[np.uint8]
    colored: bool

    @classmethod
    def of(cls, slam_map: Map, submap: int) -> _Model:
        origin, one = needed_origin(slam_map), extract_submap(slam_map, submap)
        stereo = origin.sensor == "stereo"
        one.remove_points(one.points["id"][_image_counts(one, stereo) < 2])
        largest = int(_image_ids(one, stereo).max())
        if largest > _MOST_IMAGES:
            raise MapError(
                f"the map cannot be a COLMAP model: its largest image id would be {largest}, "
                f"COLMAP's largest is {_MOST_IMAGES}"
            )
        names = image_names(slam_map)
        rows = np.flatnonzero(slam_map.keyframes["submap"] == submap)
        image_ids, pixels, points, at = _keypoints(one, stereo)
        bounds = [*np.searchsorted(image_ids, _image_ids(one, stereo)).tolist(), len(image_ids)]
        T_left = geometry.inverse(one.T_world_keyframe)
        poses = [T_left]
        if stereo:
            right = T_left.copy()
            right[:, 0, 3] -= origin.camera.baseline_m or 0.0
            poses.append(right)
        images = []
        count = len(rows)
        for number, image_id in enumerate(_image_ids(one, stereo).tolist()):
            side, row = divmod(number, count)
            name = names[rows[row]]
            images.append(
                _Image(
                    image_id,
                    right_name(name) if side else name,
                    side + 1,
                    poses[side][row],
                    slice(bounds[number], bounds[number + 1]),
                )
            )
        stacked = np.concatenate(poses)
        errors = _errors(one, origin.camera, stacked, np.asarray(at), pixels, points)
        colors = point_colors(one, one.points["id"])
        grey = np.full((len(one.points), 3), _GREY, dtype=np.uint8)
        return cls(
            one,
            origin.camera,
            stereo,
            images,
            image_ids,
            pixels + PIXEL_SHIFT,
            np.where(points >= 0, points + 1, -1),
            errors,
            grey if colors is None else colors,
            colors is not None,
        )

    @cached_property
    def tracks(self) -> tuple[IntArray, IntArray, list[int]]:
        """Image ids (T,) and places in them (T,), by point, and P + 1 bounds of the points."""
        first = np.searchsorted(self.seen_image, self.seen_image)
        place = np.arange(len(self.seen_image)) - first
        linked = np.flatnonzero(self.seen_point >= 0)
        order = linked[np.argsort(self.seen_point[linked], kind="stable")]
        bounds = np.searchsorted(self.seen_point[order], self.map.points["id"] + 1).tolist()
        return self.seen_image[order], place[order], [*bounds, len(order)]

    @property
    def cameras(self) -> list[int]:
        return [1, 2] if self.stereo else [1]

    @property
    def intrinsics(self) -> list[float]:
        camera = self.camera
        return [
            float(camera.fx),
            float(camera.fy),
            float(camera.cx) + PIXEL_SHIFT,
            float(camera.cy) + PIXEL_SHIFT,
        ]

    @property
    def T_right_left(self) -> list[float]:
        """Quaternion w x y z and translation of the right camera of the rig."""
        return [1.0, 0.0, 0.0, 0.0, -float(self.camera.baseline_m or 0.0), 0.0, 0.0]

    @cached_property
    def poses(self) -> list[list[float]]:
        """Quaternion w x y z and translation of each image."""
        return _pose_numbers(np.array([image.T_cam_world for image in self.images]))

    @property
    def frames(self) -> list[tuple[int, list[float], list[tuple[int, int]]]]:
        """Id, pose, and (camera id, image id) of each frame."""
        count = len(self.map.keyframes)
        ids = (self.map.keyframes["id"] + 1).tolist()
        return [
            (
                ids[row],
                self.poses[row],
                [(image.camera, image.id) for image in self.images[row::count]],
            )
            for row in range(count)
        ]


def _image_ids(one: Map, stereo: bool) -> IntArray:
    """Ids of all images, those of the left camera first."""
    left = one.keyframes["id"] + 1
    # Right images follow all left ones, so that ids of left images are those of the map plus one.
    return np.concatenate([left, left + one.next_ids[1]]) if stereo else left


def _image_counts(one: Map, stereo: bool) -> IntArray:
    """How many images see each point, (P,)."""
    counts = one.observation_counts()
    if stereo:
        linked = (one.observations["point"] >= 0) & np.isfinite(one.observations["u_right"])
        rows = one.point_rows(one.observations["point"][linked])
        counts = counts + np.bincount(rows, minlength=len(one.points))
    return counts


def _keypoints(one: Map, stereo: bool) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
    """Image id, pixel, point id and number of the image of every keypoint, image by image."""
    seen = one.observations
    keyframe_rows = one.keyframe_rows(seen["keyframe"])
    image_ids, pixels, points = seen["keyframe"] + 1, seen["pixel"], seen["point"]
    if not stereo:
        return image_ids, pixels, points, keyframe_rows
    right = np.flatnonzero(np.isfinite(seen["u_right"]))
    beside = np.stack([seen["u_right"][right], pixels[right, 1]], axis=1)
    return (
        np.concatenate([image_ids, image_ids[right] + one.next_ids[1]]),
        np.concatenate([pixels, beside]),
        np.concatenate([points, points[right]]),
        np.concatenate([keyframe_rows, keyframe_rows[right] + len(one.keyframes)]),
    )


def _errors(
    one: Map,
    camera: Camera,
    T_cam_world: FloatArray,
    image: IntArray,
    pixels: FloatArray,
    points: IntArray,
) -> FloatArray:
    """Mean reprojection error (P,) of each point over its keypoints, pixels; NaN without one."""
    linked = np.flatnonzero(points >= 0)
    rows = one.point_rows(points[linked])
    projected = camera.project(geometry.apply(T_cam_world[image[linked]], one.positions[rows]))
    errors = np.linalg.norm(projected - pixels[linked], axis=1)
    finite = np.isfinite(errors)
    count = len(one.points)
    seen = np.bincount(rows[finite], minlength=count)
    summed = np.bincount(rows[finite], errors[finite], minlength=count)
    means: FloatArray = np.divide(summed, seen, out=np.full(count, np.nan), where=seen > 0)
    return means


def _pose_numbers(T: FloatArray) -> list[list[float]]:
    # COLMAP's order is w x y z. Adding 0.0 turns -0.0 into 0.0.
    quaternions = np.roll(geometry.rotation_to_quaternion(T[:, :3, :3]), 1, axis=1)
    numbers: list[list[float]] = (np.concatenate([quaternions, T[:, :3, 3]], axis=1) + 0.0).tolist()
    return numbers


# -- text -----------------------------------------------------------------------------------------


def _text_files(model: _Model) -> dict[str, bytes]:
    """Contents of the text files by name; numbers have all their digits."""
    texts = {
        "cameras": _cameras_text(model),
        "images": _images_text(model),
        "points3D": _points_text(model),
        "rigs": _rigs_text(model),
        "frames": _frames_text(model),
    }
    return {name: f"{_MARK}\n{text}".encode() for name, text in texts.items()}


def _cameras_text(model: _Model) -> str:
    camera = model.camera
    lines = [
        f"{number} PINHOLE {camera.width} {camera.height} {_row(model.intrinsics)}\n"
        for number in model.cameras
    ]
    return (
        "# Camera list with one line of data per camera:\n"
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
        f"# Number of cameras: {len(lines)}\n" + "".join(lines)
    )


def _images_text(model: _Model) -> str:
    seen = _cells("%r %r %d", *model.seen_pixel.T, model.seen_point)
    lines = [
        f"{image.id} {_row(pose)} {image.camera} {image.name}\n{' '.join(seen[image.rows])}\n"
        for image, pose in zip(model.images, model.poses, strict=True)
    ]
    return (
        "# Image list with two lines of data per image:\n"
        "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
        "#   POINTS2D[] as (X, Y, POINT3D_ID)\n"
        f"# Number of images: {len(lines)}\n" + "".join(lines)
    )


def _points_text(model: _Model) -> str:
    images, places, bounds = model.tracks
    tracks = _cells("%d %d", images, places)
    heads = _cells(
        "%d %r %r %r %d %d %d %r",
        model.map.points["id"] + 1,
        *(model.map.positions.T + 0.0),
        *model.colors.T,
        np.nan_to_num(model.errors, nan=-1.0),
    )
    lines = [
        f"{head} {' '.join(tracks[start:stop])}\n"
        for head, (start, stop) in zip(heads, pairwise(bounds), strict=True)
    ]
    return (
        "# 3D point list with one line of data per point:\n"
        "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
        f"# Number of points: {len(lines)}\n" + "".join(lines)
    )


def _rigs_text(model: _Model) -> str:
    right = f" CAMERA 2 1 {_row(model.T_right_left)}" if model.stereo else ""
    return (
        "# Rig list with one line of data per rig:\n"
        "#   RIG_ID, NUM_SENSORS, REF_SENSOR_TYPE, REF_SENSOR_ID, SENSORS[] as (SENSOR_TYPE, "
        "SENSOR_ID, HAS_POSE, [QW, QX, QY, QZ, TX, TY, TZ])\n"
        f"# Number of rigs: 1\n{_RIG} {len(model.cameras)} CAMERA 1{right}\n"
    )


def _frames_text(model: _Model) -> str:
    lines = [
        f"{number} {_RIG} {_row(pose)} {len(data)} "
        + " ".join(f"CAMERA {camera} {image}" for camera, image in data)
        + "\n"
        for number, pose, data in model.frames
    ]
    return (
        "# Frame list with one line of data per frame:\n"
        "#   FRAME_ID, RIG_ID, RIG_FROM_WORLD[QW, QX, QY, QZ, TX, TY, TZ], NUM_DATA_IDS, "
        "DATA_IDS[] as (SENSOR_TYPE, SENSOR_ID, DATA_ID)\n"
        f"# Number of frames: {len(lines)}\n" + "".join(lines)
    )


def _row(numbers: list[float]) -> str:
    return " ".join(map(repr, numbers))


def _cells(pattern: str, *columns: NDArray[Any]) -> list[str]:
    """Format each row of the columns, each (N,), with a pattern."""
    rows: Iterable[tuple[Any, ...]] = zip(*(column.tolist() for column in columns), strict=True)
    return [pattern % row for row in rows]


# -- binary ---------------------------------------------------------------------------------------


def _binary_files(model: _Model) -> dict[str, bytes]:
    """Contents of the binary files, little-endian, by name."""
    return {
        "cameras": _cameras_binary(model),
        "images": _images_binary(model),
        "points3D": _points_binary(model),
        "rigs": _rigs_binary(model),
        "frames": _frames_binary(model),
    }


def _cameras_binary(model: _Model) -> bytes:
    camera = model.camera
    rows = [
        struct.pack("<IiQQ4d", number, _PINHOLE, camera.width, camera.height, *model.intrinsics)
        for number in model.cameras
    ]
    return _counted(rows)


def _images_binary(model: _Model) -> bytes:
    seen = np.empty(len(model.seen_point), dtype=[("pixel", "<f8", (2,)), ("point", "<u8")])
    seen["pixel"] = model.seen_pixel
    seen["point"] = np.where(
        model.seen_point >= 0, model.seen_point.astype(np.uint64), np.uint64(_NO_POINT)
    )
    rows = [
        struct.pack("<I7dI", image.id, *pose, image.camera)
        + image.name.encode()
        + struct.pack("<BQ", 0, image.rows.stop - image.rows.start)
        + seen[image.rows].tobytes()
        for image, pose in zip(model.images, model.poses, strict=True)
    ]
    return _counted(rows)


def _points_binary(model: _Model) -> bytes:
    images, places, bounds = model.tracks
    tracks = np.stack([images, places], axis=1).astype("<u4")
    rows = [
        struct.pack("<Q3d3BdQ", point, *position, *color, error, stop - start)
        + tracks[start:stop].tobytes()
        for point, position, color, error, (start, stop) in zip(
            (model.map.points["id"] + 1).tolist(),
            (model.map.positions + 0.0).tolist(),
            model.colors.tolist(),
            np.nan_to_num(model.errors, nan=-1.0).tolist(),
            pairwise(bounds),
            strict=True,
        )
    ]
    return _counted(rows)


def _rigs_binary(model: _Model) -> bytes:
    rig = struct.pack("<IIiI", _RIG, len(model.cameras), _CAMERA, 1)
    if model.stereo:
        rig += struct.pack("<iIB7d", _CAMERA, 2, 1, *model.T_right_left)
    return _counted([rig])


def _frames_binary(model: _Model) -> bytes:
    rows = [
        struct.pack("<II7dI", number, _RIG, *pose, len(data))
        + b"".join(struct.pack("<iIQ", _CAMERA, camera, image) for camera, image in data)
        for number, pose, data in model.frames
    ]
    return _counted(rows)


def _counted(rows: list[bytes]) -> bytes:
    return struct.pack("<Q", len(rows)) + b"".join(rows)


# -- folder ---------------------------------------------------------------------------------------


def _write_files(folder: Path, written: dict[str, bytes]) -> None:
    """Write the files of a model; remove those of an earlier model."""
    known = _prepare_folder(folder)
    sums = {
        f"{hashlib.sha256(content).hexdigest()} {name}"
        for name, content in written.items()
        if name.endswith(".bin")
    }
    # First with the files of before: if the export is killed, the next one still knows them.
    write_atomic(folder / MARK_FILE, _mark_of(known | sums))
    for name, content in written.items():
        write_atomic(folder / name, content)
    # COLMAP would read an earlier binary model instead of a new text model.
    for stem in COLMAP_FILES:
        for suffix in (".txt", ".bin"):
            if stem + suffix not in written:
                (folder / (stem + suffix)).unlink(missing_ok=True)
    if sums:
        write_atomic(folder / MARK_FILE, _mark_of(sums))
    else:
        (folder / MARK_FILE).unlink()


def _mark_of(sums: set[str]) -> str:
    return "".join(f"{line}\n" for line in [_MARK, *sorted(sums)])


def _prepare_folder(folder: Path) -> set[str]:
    """Create the folder if missing; return the checksums of an earlier model's binary files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = _known_sums(folder / MARK_FILE)
        foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path, known))
    except OSError as error:
        raise OutputError(
            f"cannot write a COLMAP model to {folder}: {error.strerror or error}"
        ) from None
    if foreign:
        model = Path(foreign[0]).stem in COLMAP_FILES
        raise OutputError(
            f"{folder} is left alone: expected a new folder or an earlier model of spslam, "
            f"found {foreign[0]}{' of another program' if model else ''}; name another folder"
        )
    return known


def _known_sums(mark: Path) -> set[str]:
    """Return the lines of a mark file; none without one."""
    if not _is_marked(mark):
        return set()
    return set(mark.read_text(encoding="utf-8", errors="replace").splitlines()[1:])


def _is_ours(path: Path, known: set[str]) -> bool:
    if path.stem not in COLMAP_FILES or path.suffix != ".bin":
        named = path.name == MARK_FILE or (path.stem in COLMAP_FILES and path.suffix == ".txt")
        return named and _is_marked(path)
    if path.is_symlink() or not path.is_file():
        return False
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.name}" in known


def _is_marked(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MARK) + 1) == f"{_MARK}\n".encode()
