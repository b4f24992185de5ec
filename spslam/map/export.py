"""Export of maps: a description, one submap, and the pose graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.backend_interfaces import PoseGraphEdges
from spslam.camera import Camera
from spslam.errors import MapError
from spslam.map.covisibility import essential_graph
from spslam.map.io import FORMAT_VERSION, SavedMap, fill_map
from spslam.map.map import Map, Origin
from spslam.map.submaps import keyframes_of, points_of, scene_of, submap_numbers
from spslam.typing import FloatArray

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


def needed_origin(slam_map: Map) -> Origin:
    """Return the sensor and camera that recorded a map.

    Raises:
        MapError: The map does not say it.
    """
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
    with_scale = not needed_origin(slam_map).camera.has_depth
    extracted = extract_submap(slam_map, submap)
    nodes = extracted.T_world_keyframe
    return (
        nodes,
        essential_graph(extracted, with_scale, min_covisibility),
        np.arange(len(nodes)) == 0,
    )
