"""Views to train a matcher with from saved maps: real images with the poses and points of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import DatasetError, WeightsError
from spslam.frame import Features
from spslam.map.io import load_map
from spslam.map.map import Map, Origin
from spslam.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from spslam.frontend.learned_matching.data.view_store import View

# Fewest points that two keyframes of a group share.
_LEAST_SHARED = 20


@dataclass(frozen=True, eq=False)
class MapGroups:
    """Keyframes of saved maps that show the same things.

    Attributes:
        maps: the maps.
        groups: the number of the map and the ids of the keyframes of each group.
        digest: a hash of the files.
    """

    maps: Sequence[Map]
    groups: Sequence[tuple[int, tuple[int, ...]]]
    digest: str

    def __len__(self) -> int:
        return len(self.groups)

    def views(self, group: int, size: tuple[int, int]) -> list[View]:
        """Return the views of a group, parts of `size` (height, width) of the keyframes' images."""
        number, keyframes = self.groups[group]
        shown = self.maps[number]
        seen = shown.points_seen_by(np.array(keyframes[:1]))
        return [_view(shown, keyframe, seen, size) for keyframe in keyframes]


def read_map_groups(paths: Sequence[Path], extractor: str, per_group: int) -> MapGroups:
    """Group the keyframes of saved maps.

    Each keyframe is the first of a group. The others share points with it, some many and some few:
    the number of shared points is spread evenly. Keyframes that share points with too few others
    are left out.

    Args:
        paths: files of maps.
        extractor: identity of the extractor whose features the matcher is for.
        per_group: keyframes of a group.

    Raises:
        DatasetError: a map has no such group.
        MapError: a file is no map.
        WeightsError: a map has features of another extractor.
    """
    maps: list[Map] = []
    groups: list[tuple[int, tuple[int, ...]]] = []
    digest = hashlib.sha256()
    for path in paths:
        shown = load_map(path).map
        origin = shown.origin
        if origin is None or origin.extractor != extractor:
            found = "no features" if origin is None else f"features of {origin.extractor}"
            raise WeightsError(
                f"{path} holds {found}, the matcher is for {extractor}: make the map with these "
                "weights (spslam run --weights)"
            )
        grouped = _groups(shown, per_group)
        if not grouped:
            raise DatasetError(
                f"{path}: no keyframe shares {_LEAST_SHARED} points with {per_group - 1} others: "
                "leave this map out, or set views.per_group to a smaller number"
            )
        groups += [(len(maps), ids) for ids in grouped]
        maps.append(shown)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return MapGroups(maps, groups, digest.hexdigest()[:16])


def _groups(shown: Map, per_group: int) -> list[tuple[int, ...]]:
    groups = []
    for keyframe in shown.keyframes["id"].tolist():
        others, _ = shown.covisible(keyframe, least=_LEAST_SHARED)
        if len(others) >= per_group - 1:
            chosen = np.linspace(0, len(others) - 1, per_group - 1).round().astype(np.int64)
            groups.append((keyframe, *others[chosen].tolist()))
    return groups


def _view(shown: Map, keyframe: int, seen: IntArray, size: tuple[int, int]) -> View:
    """Return the features in a part of a keyframe's image around the points `seen`, and places."""
    from spslam.frontend.learned_matching.data.view_store import View

    origin = shown.origin
    assert origin is not None
    rows = shown.observation_rows(keyframe)
    pixels, points = shown.observations["pixel"][rows], shown.observations["point"][rows]
    corner = _corner(pixels[np.isin(points, seen)], origin, size)
    inside = ((pixels >= corner) & (pixels <= corner + np.array(size[::-1]) - 1)).all(axis=1)
    kept = np.flatnonzero(inside)
    known = points[kept] >= 0
    places = np.full((len(kept), 3), np.nan)
    places[known] = shown.positions[shown.point_rows(points[kept][known])]
    features = Features(
        (pixels[kept] - corner).astype(np.float32),
        # Points of the map first, where a view has too many keypoints.
        known.astype(np.float32),
        shown.observations["descriptor"][rows][kept].astype(np.float32),
    )
    return View(features, places, _projection(shown, keyframe, origin, corner))


def _corner(pixels: FloatArray, origin: Origin, size: tuple[int, int]) -> FloatArray:
    """Return the upper left pixel of a part of the image around the middle of some pixels."""
    camera, extent = origin.camera, np.array(size[::-1])
    room = np.maximum(np.array([camera.width, camera.height]) - extent, 0)
    corner: FloatArray = np.clip(np.median(pixels, axis=0) - extent / 2, 0, room).round()
    return corner


def _projection(shown: Map, keyframe: int, origin: Origin, corner: FloatArray) -> FloatArray:
    camera = origin.camera
    fx, fy = camera.ideal_focal
    matrix = np.array([[fx, 0, camera.cx - corner[0]], [0, fy, camera.cy - corner[1]], [0, 0, 1.0]])
    projection: FloatArray = matrix @ np.linalg.inv(shown.pose(keyframe))[:3]
    return projection
