"""Synthetic scene: shapes, labels, outlines and grey levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

# Most vertices of a polygon.
MAX_VERTICES = 8
# Least difference between adjacent grey levels, of 255.
CONTRAST = 25
# The same for lines, which the blur weakens more.
LINE_CONTRAST = 60
# Range of the difference between the darkest and the brightest background, grey levels of 255.
_BACKGROUND_RANGE = (5.0, 50.0)


@dataclass
class Scene:
    """Shapes drawn until now, in painter's order.

    Attributes:
        background: (H, W) float32 grey levels.
        faces: filled convex polygons with grey levels.
        labels: (L, 2) visible junctions, also outside the image.
        outlines: (S, 2, 2) ends of the straight edges that later shapes may cross.
        layers: (S,) number of the shape, from 0, to which each outline belongs.
        covers: (F, MAX_VERTICES, 2) outlines of the shapes 1 to F; shape 0 covers only the
            background.
        cover_greys: grey levels of these shapes.
    """

    background: NDArray[np.float32]
    faces: list[tuple[FloatArray, int]] = field(default_factory=list)
    labels: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    outlines: FloatArray = field(default_factory=lambda: np.zeros((0, 2, 2)))
    layers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    covers: FloatArray = field(default_factory=lambda: np.zeros((0, MAX_VERTICES, 2)))
    cover_greys: list[int] = field(default_factory=list)

    @property
    def extent(self) -> FloatArray:
        """Width and height, pixels."""
        return np.array(self.background.shape[::-1], np.float64)

    @property
    def side(self) -> float:
        """The shorter side, pixels."""
        return float(min(self.background.shape))

    def background_greys(self) -> list[int]:
        """Return the darkest and the brightest grey level of the background."""
        return [int(self.background.min()), int(self.background.max())]


def random_centre(rng: np.random.Generator, scene: Scene, margin: float = 0.1) -> FloatArray:
    """Return a random point of the image outside a margin, a fraction of its extent."""
    point: FloatArray = scene.extent * rng.uniform(margin, 1 - margin, 2) - 0.5
    return point


def random_background(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return blurred blobs and a gradient between two grey levels at most 50 apart."""
    height, width = size
    cells = int(rng.integers(2, 9))
    blobs = rng.random((cells, max(cells * width // height, 2)), np.float32)
    mixed = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
    slope = rng.normal(size=2).astype(np.float32)
    mixed = mixed + slope[0] * np.linspace(0, 1, width, dtype=np.float32)
    mixed += slope[1] * np.linspace(0, 1, height, dtype=np.float32)[:, None]
    span = rng.uniform(*_BACKGROUND_RANGE)
    low = rng.uniform(0, 255 - span)
    mixed -= mixed.min()
    scaled: NDArray[np.float32] = np.asarray(
        mixed * np.float32(span / mixed.max()) + np.float32(low), np.float32
    )
    return scaled


def random_grey(rng: np.random.Generator, avoided: list[int], contrast: int) -> int | None:
    """Return a random grey level `contrast` or more from all `avoided` ones, None if impossible."""
    free = np.ones(256, np.bool_)
    for grey in avoided:
        free[max(grey - contrast + 1, 0) : grey + contrast] = False
    allowed = np.flatnonzero(free)
    return int(allowed[rng.integers(len(allowed))]) if len(allowed) else None


def clear_grey(rng: np.random.Generator, avoided: list[int], contrast: int) -> int:
    """Return `random_grey`, with less contrast if no grey level is left."""
    while (grey := random_grey(rng, avoided, contrast)) is None:
        contrast -= 5
    return grey
