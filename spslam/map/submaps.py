"""Submaps: their keyframes and points, changes of their world, and the union of two maps.

A map starts with one submap. When tracking is lost and the camera cannot be relocalized, a new
submap starts, with its own world (and, for a single camera, its own scale), until a loop closure
joins it to another (docs/decisions/0007-parts.md).
"""

from __future__ import annotations

import numpy as np

from spslam import geometry
from spslam.map.map import Map
from spslam.typing import FloatArray, IntArray

# -- reading --------------------------------------------------------------------------------------


def submap_numbers(slam_map: Map) -> IntArray:
    """Return the numbers of the submaps that have keyframes, ascending."""
    return np.unique(slam_map.keyframes["submap"])


def submap_of(slam_map: Map, keyframe_id: int) -> int:
    """Return the submap of a keyframe."""
    return int(slam_map.keyframes["submap"][slam_map.keyframe_rows(np.asarray(keyframe_id))])


def keyframes_of(slam_map: Map, submap: int) -> IntArray:
    """Return the ids of a submap's keyframes, oldest first."""
    ids: IntArray = slam_map.keyframes["id"][slam_map.keyframes["submap"] == submap]
    return ids


def points_of(slam_map: Map, submap: int) -> IntArray:
    """Return the sorted ids of the points that a submap's keyframes see."""
    if len(submap_numbers(slam_map)) == 1:
        return (
            slam_map.points["id"].copy()
            if submap in slam_map.keyframes["submap"]
            else np.zeros(0, np.int64)
        )
    return slam_map.points_seen_by(keyframes_of(slam_map, submap))


def first_keyframes(slam_map: Map) -> IntArray:
    """Return the id of each submap's oldest keyframe, which fixes the submap's world."""
    _, first = np.unique(slam_map.keyframes["submap"], return_index=True)
    ids: IntArray = slam_map.keyframes["id"][first]
    return ids


def scene_of(slam_map: Map, submap: int) -> tuple[FloatArray, FloatArray]:
    """Return points (P, 3) and poses of keyframes (K, 4, 4) of a submap, in its world."""
    return (
        slam_map.positions[slam_map.point_rows(points_of(slam_map, submap))],
        slam_map.T_world_keyframe[slam_map.keyframes["submap"] == submap],
    )


# -- changing --------------------------------------------------------------------------------------


def begin_submap(slam_map: Map) -> None:
    """Start a new submap for the next keyframes."""
    slam_map.submap = int(slam_map.keyframes["submap"].max(initial=-1)) + 1


def move_submap(slam_map: Map, submap: int, S: FloatArray, into: int) -> None:
    """Move a submap into the world of another and join it to that one.

    The two must not share points yet.

    Args:
        slam_map: The map of both.
        submap: The submap that moves.
        S: Similarity (4, 4) that maps coordinates of its world to those of the other's.
        into: The submap that it becomes part of.
    """
    keyframe_rows = np.flatnonzero(slam_map.keyframes["submap"] == submap)
    point_rows = slam_map.point_rows(points_of(slam_map, submap))
    scale = float(geometry.similarity_scale(S))
    moved = S @ slam_map.T_world_keyframe[keyframe_rows]
    moved[:, :3, :3] /= scale
    slam_map.T_world_keyframe[keyframe_rows] = geometry.orthonormalize(moved)
    slam_map.keyframes["submap"][keyframe_rows] = into
    slam_map.positions[point_rows] = geometry.apply(S, slam_map.positions[point_rows])
    slam_map.points["normal"][point_rows] = (
        slam_map.points["normal"][point_rows] @ S[:3, :3].T / scale
    )
    slam_map.points["distance"][point_rows] *= scale
    rescale_loops(
        slam_map, slam_map.keyframes["id"][keyframe_rows], np.full(len(keyframe_rows), scale)
    )
    if slam_map.submap == submap:
        slam_map.submap = into


def rescale_loops(slam_map: Map, keyframe_ids: IntArray, factors: FloatArray) -> None:
    """Adapt loop edges to a change of scale around keyframes.

    Args:
        slam_map: The map of the loop edges.
        keyframe_ids: (K,) ids, ascending.
        factors: (K,) factors that lengths around these keyframes are multiplied by.
    """
    for end in ("i", "j"):
        changed = np.flatnonzero(np.isin(slam_map.loops[end], keyframe_ids))
        factor = factors[np.searchsorted(keyframe_ids, slam_map.loops[end][changed])][:, None, None]
        if end == "i":
            slam_map.loops["S_i_j"][changed, :3] *= factor
        else:
            slam_map.loops["S_i_j"][changed, :3, :3] /= factor
            slam_map.loops["information"][changed, :3] /= factor
            slam_map.loops["information"][changed, :, :3] /= factor


def rescale_submap(slam_map: Map, submap: int, factor: float) -> None:
    """Multiply all lengths of a submap by a factor, except measured depths."""
    move_submap(slam_map, submap, np.diag([factor, factor, factor, 1.0]), submap)


def append_map(slam_map: Map, other: Map) -> IntArray:
    """Add all submaps and sessions of another map as new ones.

    Returns:
        The new ids of its keyframes.
    """
    point_offset, keyframe_offset = slam_map.next_ids
    added_points, added_keyframes = other.next_ids
    offsets = {
        "submap": int(slam_map.keyframes["submap"].max(initial=-1)) + 1,
        "session": int(slam_map.keyframes["session"].max(initial=-1)) + 1,
        "born": keyframe_offset,
        "keyframe": keyframe_offset,
        "i": keyframe_offset,
        "j": keyframe_offset,
    }
    id_offsets = {"keyframes": keyframe_offset, "points": point_offset}
    mine, theirs = slam_map.tables(), other.tables()
    for name, table in theirs.items():
        columns = {column: table[column].copy() for column in table.names}
        for column in columns.keys() & offsets.keys():
            columns[column] += offsets[column]
        if name in id_offsets:
            columns["id"] += id_offsets[name]
        if name == "observations":
            columns["point"][columns["point"] >= 0] += point_offset
        mine[name].append(len(table), **columns)
    slam_map.reindex((point_offset + added_points, keyframe_offset + added_keyframes))
    return other.keyframes["id"] + keyframe_offset
