"""Polygons, and the removal of labels that they hide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

from .geometry import (
    LEAST_ANGLE_DEG,
    edges_of,
    find_crossings,
    inside_polygons,
    point_distances,
    ring_indices,
    segment_distances,
    well_formed,
)
from .scene import CONTRAST, MAX_VERTICES, Scene, random_centre, random_grey

# Least distance of a label from other labels and from outlines that it does not lie on, pixels.
_CLEARANCE_PX = 3.0


def _random_polygons(
    rng: np.random.Generator,
    scene: Scene,
    tries: int,
    radii: tuple[float, float],
    middle: FloatArray,
    spread: float,
) -> list[FloatArray]:
    """Return the well-formed ones of `tries` random polygons of 3 to 8 vertices.

    The vertices lie on ellipses, so the polygons are convex. Half axes `radii` are fractions of the
    image's shorter side. Centres are spread around `middle` over the fraction `spread` of the
    image.
    """
    sizes = rng.integers(3, MAX_VERTICES + 1, tries)
    owner = np.repeat(np.arange(tries), sizes)
    first, _, _ = ring_indices(sizes)
    turn = np.arange(len(owner)) - first[owner] + rng.uniform(-0.4, 0.4, len(owner))
    angle = turn * (2 * np.pi / sizes)[owner] + rng.uniform(0, 2 * np.pi, tries)[owner]
    axes = (scene.side * rng.uniform(*radii, (tries, 1)) * rng.uniform(0.5, 1, (tries, 2)))[owner]
    x, y = axes[:, 0] * np.cos(angle), axes[:, 1] * np.sin(angle)
    tilt = rng.uniform(0, 2 * np.pi, tries)[owner]
    turned = np.stack(
        [np.cos(tilt) * x - np.sin(tilt) * y, np.sin(tilt) * x + np.cos(tilt) * y], axis=1
    )
    vertices = (middle + spread * scene.extent * rng.uniform(-0.5, 0.5, (tries, 2)))[owner] + turned
    good = np.flatnonzero(well_formed(vertices, sizes))
    return [vertices[first[i] : first[i] + sizes[i]] for i in good]


def _hidden(points: FloatArray, layers: NDArray[np.int64], covers: FloatArray) -> NDArray[np.bool_]:
    """Return which points (N, 2) on shapes `layers` a later shape covers, (N,) bool."""
    later = np.arange(1, len(covers) + 1)[None] > layers[:, None]
    return np.asarray((inside_polygons(points, covers) & later).any(axis=1), np.bool_)


def cover_with(
    scene: Scene, polygon: FloatArray, rng: np.random.Generator, avoided: list[int]
) -> bool:
    """Draw a polygon on top; False if junctions would be too close, flat or faint to learn."""
    edges = edges_of(polygon)
    met = _meetings(scene, polygon, edges)
    if met is None:
        return False
    grey = random_grey(rng, avoided + _overlapped_greys(scene, polygon), CONTRAST)
    if grey is None:
        return False
    padded = np.concatenate([polygon, np.repeat(polygon[-1:], MAX_VERTICES - len(polygon), axis=0)])
    scene.covers = np.concatenate([scene.covers, padded[None]])
    scene.cover_greys.append(grey)
    scene.faces.append((polygon, grey))
    kept = scene.labels[~inside_polygons(scene.labels, polygon[None])[:, 0]]
    scene.labels = np.concatenate([kept, polygon, met])
    scene.outlines = np.concatenate([scene.outlines, edges])
    scene.layers = np.concatenate([scene.layers, np.full(len(edges), len(scene.covers))])
    return True


def _meetings(scene: Scene, polygon: FloatArray, edges: FloatArray) -> FloatArray | None:
    """Return where a new outline meets visible ones (N, 2); None if a junction would be unclear."""
    low, high = polygon.min(axis=0) - _CLEARANCE_PX, polygon.max(axis=0) + _CLEARANCE_PX
    start, end = scene.outlines[:, 0], scene.outlines[:, 1]
    near = np.flatnonzero(
        ((np.maximum(start, end) > low) & (np.minimum(start, end) < high)).all(axis=1)
    )
    if not len(near):
        return np.zeros((0, 2))
    outlines = scene.outlines[near]
    if (segment_distances(polygon, outlines) < _CLEARANCE_PX).any():
        return None
    if (segment_distances(scene.labels, edges) < _CLEARANCE_PX).any():
        return None
    met, segment, sine = find_crossings(edges, outlines)
    if not len(met):
        return met
    seen = ~_hidden(met, scene.layers[near[segment]], scene.covers)
    met = met[seen]
    if (sine[seen] < np.sin(np.radians(LEAST_ANGLE_DEG))).any():
        return None
    # All other labels are clear of the new edges, so compare only with its vertices and each other.
    apart = point_distances(met, np.concatenate([polygon, met]))
    apart[np.arange(len(met)), len(polygon) + np.arange(len(met))] = np.inf
    return met if (apart >= _CLEARANCE_PX).all() else None


def _overlapped_greys(scene: Scene, polygon: FloatArray) -> list[int]:
    apart = (scene.covers.min(axis=1) > polygon.max(axis=0)) | (
        scene.covers.max(axis=1) < polygon.min(axis=0)
    )
    return [
        grey
        for grey, beside in zip(scene.cover_greys, apart.any(axis=1), strict=True)
        if not beside
    ]


def occlude(scene: Scene, rng: np.random.Generator) -> None:
    """Cover the shape with a polygon in 40 % of the images, if one fits."""
    if rng.random() > 0.4:
        return
    avoided = scene.background_greys() + [grey for _, grey in scene.faces]
    middle = scene.labels[rng.integers(len(scene.labels))]
    for polygon in _random_polygons(rng, scene, 24, (0.15, 0.45), middle, 0.3):
        if cover_with(scene, polygon, rng, avoided):
            return


def draw_polygon(scene: Scene, rng: np.random.Generator) -> None:
    """Draw one polygon, labelled at its corners."""
    middle = scene.extent / 2
    while not (polygons := _random_polygons(rng, scene, 3, (0.15, 0.6), middle, 0.7)):
        pass
    cover_with(scene, polygons[0], rng, scene.background_greys())


def draw_polygons(scene: Scene, rng: np.random.Generator) -> None:
    """Draw overlapping polygons with labelled corners and T junctions."""
    wanted = int(rng.integers(3, 15))
    largest, spread = float(rng.uniform(0.15, 0.4)), float(rng.uniform(0.3, 1))
    for polygon in _random_polygons(
        rng, scene, 3 * wanted, (0.1, largest), random_centre(rng, scene, 0.3), spread
    ):
        if len(scene.covers) < wanted:
            cover_with(scene, polygon, rng, scene.background_greys())
