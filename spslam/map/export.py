"""Export of maps: a description, COLMAP's text model and the pose graph.

COLMAP's text format: https://colmap.github.io/format.html (Schönberger & Frahm,
Structure-from-Motion Revisited, CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam import geometry
from spslam.camera import Camera
from spslam.errors import MapError, OutputError
from spslam.interfaces import PoseGraphEdges
from spslam.io.files import write_atomic
from spslam.map.covisibility import essential_graph
from spslam.map.io import FORMAT_VERSION, SavedMap, fill_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import keyframes_of, points_of, scene_of, submap_numbers
from spslam.typing import FloatArray

# Files of a COLMAP model.
COLMAP_FILES = ("cameras.txt", "images.txt", "points3D.txt")
# First line of exported files: only files that start with it are replaced by a later export.
_COLMAP_MARK = "# Written by spslam map export, which may replace this file."
# Offset of pixel coordinates, pixels: COLMAP's origin is the corner of the first pixel, that of
# spslam its centre.
_COLMAP_PIXEL_SHIFT = 0.5
# Colour of all exported points.
_GREY = "128 128 128"
# Percentage of points left out of the extent on each side of each axis, because they can be
# outliers.
_OUTERMOST_PERCENT = 1.0


# -- description ----------------------------------------------------------------------------------


def describe_map(path: Path | str, saved: SavedMap) -> dict[str, Any]:
    """Describe a map file, ready for JSON; values that an empty map lacks are None.

    Args:
        path: The map file.
        saved: The map read from it.

    Returns:
        `path`, `format_version`, `size_mb`, `sensor`, `camera` (`width`, `height`, `fx`, `fy`,
        `cx`, `cy` in pixels, `baseline_m`), `extractor`, `scale`, `unit` of lengths, `keyframes`,
        `points`, `observations`, `linked_observations`, `submaps` (one per submap: its number
        `submap`, `keyframes`, `points` and `extent`, see `extent`), `sessions`, `loops`,
        `points_per_keyframe` (mean) and `places` (whether a place index is stored).
    """
    slam_map, origin = saved.map, saved.map.origin
    keyframes, linked = (
        len(slam_map.keyframes),
        int(np.count_nonzero(slam_map.observations["point"] >= 0)),
    )
    return {
        "path": str(path),
        "format_version": FORMAT_VERSION,
        "size_mb": round(Path(path).stat().st_size / 1e6, 3),
        "sensor": origin and origin.sensor,
        "camera": origin and _describe_camera(origin.camera),
        "extractor": origin and origin.extractor,
        "scale": origin and origin.scale,
        "unit": "map units" if origin is None or origin.scale == "arbitrary" else "m",
        "keyframes": keyframes,
        "points": len(slam_map.points),
        "observations": len(slam_map.observations),
        "linked_observations": linked,
        "submaps": [_describe_submap(slam_map, int(submap)) for submap in submap_numbers(slam_map)],
        "sessions": len(np.unique(slam_map.keyframes["session"])),
        "loops": len(slam_map.loops),
        "points_per_keyframe": round(linked / keyframes, 1) if keyframes else None,
        "places": bool(saved.places),
    }


def extent(points: FloatArray, T_world_keyframe: FloatArray) -> FloatArray:
    """Return the size (3,) along x, y, z of the bounding box of keyframes and points, map units.

    The outermost percent of the points on each side of each axis is left out.

    Args:
        points: (P, 3), map units.
        T_world_keyframe: (K, 4, 4), at least one.
    """
    centres = T_world_keyframe[:, :3, 3]
    low, high = centres.min(axis=0), centres.max(axis=0)
    if len(points):
        outer = np.percentile(points, [_OUTERMOST_PERCENT, 100 - _OUTERMOST_PERCENT], axis=0)
        low, high = np.minimum(low, outer[0]), np.maximum(high, outer[1])
    size: FloatArray = high - low
    return size


def _describe_camera(camera: Camera) -> dict[str, Any]:
    return {
        name: getattr(camera, name)
        for name in ("width", "height", "fx", "fy", "cx", "cy", "baseline_m")
    }


def _describe_submap(slam_map: Map, submap: int) -> dict[str, Any]:
    points, T_world_keyframe = scene_of(slam_map, submap)
    return {
        "submap": submap,
        "keyframes": len(T_world_keyframe),
        "points": len(points),
        "extent": extent(points, T_world_keyframe).round(4).tolist(),
    }


# -- submaps --------------------------------------------------------------------------------------


def choose_submap(slam_map: Map, wanted: int | None = None) -> int:
    """Return the wanted submap or, with None, the one with most keyframes (the oldest of a tie).

    Raises:
        MapError: The map is empty or has no such submap.
    """
    submaps, counts = np.unique(slam_map.keyframes["submap"], return_counts=True)
    if len(submaps) == 0:
        raise MapError("the map is empty: expected keyframes to export, found none")
    if wanted is None:
        return int(submaps[counts.argmax()])
    if wanted not in submaps:
        found = ", ".join(map(str, submaps.tolist()))
        raise MapError(f"the map has no submap {wanted}: found {found}; see spslam map info")
    return wanted


def extract_submap(slam_map: Map, submap: int) -> Map:
    """Copy one submap to a new map, with the same ids, its loop edges and no descriptors.

    Args:
        slam_map: The whole map; it is not changed.
        submap: A submap that has keyframes.
    """
    ids = keyframes_of(slam_map, submap)
    rows: dict[str, Any] = {
        "keyframes": slam_map.keyframes["submap"] == submap,
        "points": slam_map.point_rows(points_of(slam_map, submap)),
        "observations": slam_map.rows_of_keyframes(ids),
        "loops": np.isin(slam_map.loops["i"], ids) & np.isin(slam_map.loops["j"], ids),
    }
    columns = {
        name: {
            c: (table[c][:, :0] if c == "descriptor" else table[c])[rows[name]] for c in table.names
        }
        for name, table in slam_map.tables().items()
    }
    extracted = Map(descriptor_size=0)
    fill_map(extracted, columns, slam_map.next_ids)
    extracted.origin, extracted.submap, extracted.session = (
        slam_map.origin,
        submap,
        slam_map.session,
    )
    return extracted


def _origin(slam_map: Map) -> Origin:
    if slam_map.origin is None:
        raise MapError("the map does not say which camera recorded it: export it as --ply")
    return slam_map.origin


# -- pose graph -----------------------------------------------------------------------------------


def submap_graph(
    slam_map: Map, submap: int, min_covisibility: int
) -> tuple[FloatArray, PoseGraphEdges, NDArray[np.bool_]]:
    """Return the essential graph of a submap; it is Sim(3) for a single camera, else SE(3).

    The nodes are the keyframes, oldest first; the oldest is fixed.

    Args:
        slam_map: The map.
        submap: A submap that has keyframes.
        min_covisibility: Number of shared points that makes an edge, see `LoopConfig`.

    Returns:
        Nodes (K, 4, 4) `T_world_cam`, edges between their rows, and which are fixed, (K,) bool.

    Raises:
        MapError: The map does not say which camera recorded it.
    """
    with_scale = not _origin(slam_map).camera.has_depth
    extracted = extract_submap(slam_map, submap)
    nodes = extracted.T_world_keyframe
    return (
        nodes,
        essential_graph(extracted, with_scale, min_covisibility),
        np.arange(len(nodes)) == 0,
    )


# -- COLMAP ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColmapSummary:
    """The content of a COLMAP model.

    Attributes:
        images: Number of images.
        points: Number of points.
        observations: Number of observations of points in images.
        mean_error_px: Mean reprojection error, pixels, as COLMAP computes it: the mean over the
            points of their mean errors; NaN without points.
    """

    images: int
    points: int
    observations: int
    mean_error_px: float


def write_colmap(folder: Path | str, slam_map: Map, submap: int) -> ColmapSummary:
    """Write a submap as COLMAP's text model: `cameras.txt`, `images.txt` and `points3D.txt`.

    The camera is a PINHOLE, for images without distortion. Images are keyframes, named
    `frame_000123.png` after their index in the sequence, in `session_N/` if the map has several
    sessions. Ids are those of the map plus one. Lengths are map units. Points that fewer than two
    images see are left out, because COLMAP's bundle adjustment refuses them. Points are grey. Their
    error is the mean over the images that see them, or -1 if they are in front of no image.

    Args:
        folder: Output folder, created if missing. It may only contain an earlier exported model.
        slam_map: The map.
        submap: A submap that has keyframes.

    Raises:
        MapError: The map does not say which camera recorded it.
        OutputError: The folder contains other files or another program's model, or cannot be
            written to.
    """
    folder = Path(folder)
    camera, extracted = _origin(slam_map).camera, extract_submap(slam_map, submap)
    several_sessions = len(np.unique(slam_map.keyframes["session"])) > 1
    extracted.remove_points(extracted.points["id"][extracted.observation_counts() < 2])
    errors = reprojection_errors(extracted, camera)
    texts = (_cameras(camera), _images(extracted, several_sessions), _points(extracted, errors))
    _prepare_folder(folder)
    for name, text in zip(COLMAP_FILES, texts, strict=True):
        write_atomic(folder / name, f"{_COLMAP_MARK}\n{text}")
    known = errors[np.isfinite(errors)]
    return ColmapSummary(
        images=len(extracted.keyframes),
        points=len(extracted.points),
        observations=int(np.count_nonzero(extracted.observations["point"] >= 0)),
        mean_error_px=float(known.mean()) if len(known) else float("nan"),
    )


def reprojection_errors(slam_map: Map, camera: Camera) -> FloatArray:
    """Return the mean reprojection error (P,) of each point, pixels, by row.

    It is the mean over the observations of the point; NaN if the point is in front of no camera.
    """
    linked = np.flatnonzero(slam_map.observations["point"] >= 0)
    points = slam_map.point_rows(slam_map.observations["point"][linked])
    T_cam_world = geometry.inverse(slam_map.T_world_keyframe)
    keyframes = slam_map.keyframe_rows(slam_map.observations["keyframe"][linked])
    projected = camera.project(geometry.apply(T_cam_world[keyframes], slam_map.positions[points]))
    errors = np.linalg.norm(projected - slam_map.observations["pixel"][linked], axis=1)
    finite = np.isfinite(errors)
    count = len(slam_map.points)
    seen = np.bincount(points[finite], minlength=count)
    summed = np.bincount(points[finite], errors[finite], minlength=count)
    means: FloatArray = np.divide(summed, seen, out=np.full(count, np.nan), where=seen > 0)
    return means


def _cameras(camera: Camera) -> str:
    cx, cy = camera.cx + _COLMAP_PIXEL_SHIFT, camera.cy + _COLMAP_PIXEL_SHIFT
    return (
        "# Camera list with one line of data per camera:\n"
        "#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
        f"1 PINHOLE {camera.width} {camera.height} "
        f"{float(camera.fx)} {float(camera.fy)} {float(cx)} {float(cy)}\n"
    )


def _images(slam_map: Map, several_sessions: bool) -> str:
    keyframes, observations = slam_map.keyframes, slam_map.observations
    T_cam_world = geometry.inverse(slam_map.T_world_keyframe)
    # COLMAP's order is w x y z.
    quaternions = np.roll(geometry.rotation_to_quaternion(T_cam_world[:, :3, :3]), 1, axis=1)
    ids, points = keyframes["id"], observations["point"]
    names = _cells("frame_%06d.png", keyframes["frame"])
    if several_sessions:
        names = [
            f"session_{session}/{name}"
            for session, name in zip(keyframes["session"], names, strict=True)
        ]
    # Adding 0.0 turns -0.0 into 0.0.
    heads = _cells(
        f"%d{' %r' * 7} 1",
        ids + 1,
        *(np.concatenate([quaternions, T_cam_world[:, :3, 3]], axis=1) + 0.0).T,
    )
    seen = _cells(
        "%.6f %.6f %d",
        *(observations["pixel"] + _COLMAP_PIXEL_SHIFT).T,
        np.where(points >= 0, points + 1, -1),
    )
    bounds = [*np.searchsorted(observations["keyframe"], ids).tolist(), len(observations)]
    lines = (
        f"{head} {name}\n{' '.join(seen[start:stop])}\n"
        for head, name, start, stop in zip(heads, names, bounds[:-1], bounds[1:], strict=True)
    )
    return (
        "# Image list with two lines of data per image:\n"
        "#   IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n"
        "#   POINTS2D[] as (X, Y, POINT3D_ID)\n"
        f"# Number of images: {len(ids)}\n" + "".join(lines)
    )


def _points(slam_map: Map, errors: FloatArray) -> str:
    keyframe, point = slam_map.observations["keyframe"], slam_map.observations["point"]
    place_in_image = np.arange(len(keyframe)) - np.searchsorted(keyframe, keyframe)
    linked = np.flatnonzero(point >= 0)
    by_point = linked[np.argsort(point[linked], kind="stable")]
    tracks = _cells("%d %d", keyframe[by_point] + 1, place_in_image[by_point])
    heads = _cells(
        f"%d %r %r %r {_GREY} %r",
        *(slam_map.points["id"] + 1, *slam_map.positions.T, np.nan_to_num(errors, nan=-1.0)),
    )
    bounds = [0, *np.cumsum(slam_map.observation_counts()).tolist()]
    lines = (
        f"{head} {' '.join(tracks[start:stop])}\n"
        for head, start, stop in zip(heads, bounds[:-1], bounds[1:], strict=True)
    )
    return (
        "# 3D point list with one line of data per point:\n"
        "#   POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
        f"# Number of points: {len(heads)}\n" + "".join(lines)
    )


def _cells(pattern: str, *columns: NDArray[Any]) -> list[str]:
    """Format each row of the columns, each (N,), with a pattern."""
    rows: Iterable[tuple[Any, ...]] = zip(*(column.tolist() for column in columns), strict=True)
    return [pattern % row for row in rows]


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
    except OSError as error:
        raise OutputError(
            f"cannot write a COLMAP model to {folder}: {error.strerror or error}"
        ) from None
    if foreign:
        raise OutputError(
            f"{folder} is left alone: expected a new folder or an earlier model of spslam, "
            f"found {foreign[0]}"
            f"{' of another program' if foreign[0] in COLMAP_FILES else ''}; name another folder"
        )


def _is_ours(path: Path) -> bool:
    if path.name not in COLMAP_FILES or path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_COLMAP_MARK) + 1) == f"{_COLMAP_MARK}\n".encode()
