"""Lines and stars."""

from __future__ import annotations

import numpy as np

from spslam.typing import FloatArray

from .geometry import (
    ellipse_outline,
    find_crossings,
    point_distances,
    random_rotation,
    segment_distances,
    vector_lengths,
)
from .scene import LINE_CONTRAST, Scene, clear_grey, random_centre

# Least distance of a line from other junctions and lines, pixels.
_LINE_CLEARANCE_PX = 6.0
# Smallest angle between two lines that meet, degrees.
_LEAST_LINE_ANGLE_DEG = 35.0
# Range of the line width, pixels.
_LINE_WIDTH_PX = (1.3, 2.6)


def stroke_outline(segment: FloatArray, width: float) -> FloatArray:
    """Return the rectangle (4, 2) of a line with butt ends."""
    along = segment[1] - segment[0]
    aside = np.array([-along[1], along[0]]) * (width / 2 / vector_lengths(along))
    return np.stack(
        [segment[0] - aside, segment[1] - aside, segment[1] + aside, segment[0] + aside]
    )


def _joint(centre: FloatArray, width: float) -> FloatArray:
    """Return a small disc that fills the notch between strokes of one width."""
    return ellipse_outline(centre, np.full(2, width / 2), np.eye(2), 12)


def _start_of_line(scene: Scene, rng: np.random.Generator) -> tuple[FloatArray, bool]:
    """Return a line's start and whether it is on an earlier line: at its end (L, Y) or side (T)."""
    kind = rng.random()
    if kind < 0.65 or not len(scene.outlines):
        return random_centre(rng, scene, 0.0), False
    host = scene.outlines[rng.integers(len(scene.outlines))]
    fraction = float(rng.integers(2)) if kind < 0.85 else float(rng.uniform(0.2, 0.8))
    return host[0] + fraction * (host[1] - host[0]), True


def _add_line(scene: Scene, rng: np.random.Generator, grey: int, width: float) -> None:
    """Draw another line, unless its junctions would be too close or too flat to learn."""
    start, anchored = _start_of_line(scene, rng)
    reach = scene.side * rng.uniform(0.15, 0.9)
    line = np.stack([start, start + reach * random_rotation(rng)[0]])
    labels, others, known = line, scene.outlines, scene.labels
    if anchored:
        # Lines touched at the start must differ in angle; all others must keep their distance.
        hosts = segment_distances(start[None], others)[0] < 1e-6
        if (_hosting_angles(line, others[hosts]) < _LEAST_LINE_ANGLE_DEG).any():
            return
        others, known = others[~hosts], known[vector_lengths(known - start) > 1e-6]
        labels = line if len(known) == len(scene.labels) else line[1:]
    if (segment_distances(known, line[None]) < _LINE_CLEARANCE_PX).any():
        return
    if (segment_distances(line, others) < _LINE_CLEARANCE_PX).any():
        return
    met, _, sine = find_crossings(line[None], others)
    if (sine < np.sin(np.radians(_LEAST_LINE_ANGLE_DEG))).any():
        return
    labels = np.concatenate([labels, met])
    if (
        point_distances(labels, labels) + np.eye(len(labels)) * _LINE_CLEARANCE_PX
        < _LINE_CLEARANCE_PX
    ).any():
        return
    scene.labels = np.concatenate([scene.labels, labels])
    scene.outlines = np.concatenate([scene.outlines, line[None]])
    scene.faces.append((stroke_outline(line, width), grey))
    if anchored:
        scene.faces.append((_joint(start, width), grey))


def _hosting_angles(line: FloatArray, hosts: FloatArray) -> FloatArray:
    """Return the angles, degrees, between a line and each arm of lines (S, 2, 2) at its start."""
    direction = (line[1] - line[0]) / vector_lengths(line[1] - line[0])
    arms = (hosts - line[0]).reshape(-1, 2)
    arms = arms[vector_lengths(arms) > 1e-6]
    cosine = (arms @ direction) / vector_lengths(arms)
    angles: FloatArray = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    # A line that continues a single arm straight makes no corner.
    return np.minimum(angles, np.where(len(hosts) == 1 and len(arms) == 1, 180 - angles, np.inf))


def draw_lines(scene: Scene, rng: np.random.Generator) -> None:
    """Draw lines with labelled ends and crossings."""
    wanted = int(rng.integers(2, 12))
    grey = clear_grey(rng, scene.background_greys(), LINE_CONTRAST)
    width = float(rng.uniform(*_LINE_WIDTH_PX))
    for _ in range(2 * wanted):
        if len(scene.outlines) < wanted:
            _add_line(scene, rng, grey, width)


def draw_star(scene: Scene, rng: np.random.Generator) -> None:
    """Draw a star of lines, labelled at its centre and ends."""
    branches = int(rng.integers(3, 7))
    angle = (np.arange(branches) + rng.uniform(-0.2, 0.2, branches)) * (
        2 * np.pi / branches
    ) + rng.uniform(0, 2 * np.pi)
    length = scene.side * rng.uniform(0.2, 0.7) * rng.uniform(0.5, 1, branches)
    centre = random_centre(rng, scene)
    ends = centre + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    grey = clear_grey(rng, scene.background_greys(), LINE_CONTRAST)
    width = float(rng.uniform(*_LINE_WIDTH_PX))
    scene.faces = [(stroke_outline(np.stack([centre, end]), width), grey) for end in ends]
    scene.faces.append((_joint(centre, width), grey))
    scene.labels = np.concatenate([centre[None], ends])
