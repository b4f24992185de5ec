"""Grids and boxes in perspective."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from spslam.typing import FloatArray

from .geometry import (
    LEAST_EDGE_PX,
    cross_product,
    edges_of,
    random_rotation,
    vector_lengths,
    well_formed,
)
from .polygons import occlude
from .scene import CONTRAST, Scene, clear_grey, random_centre


def _perspective_grid(
    rng: np.random.Generator, scene: Scene, columns: FloatArray, rows: FloatArray
) -> FloatArray:
    """Return a grid (R, C, 2) at these coordinates of the unit square, in a random perspective."""
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    while True:
        spread = (unit - 0.5) * scene.side * rng.uniform(0.4, 1.4, 2) + scene.side * rng.normal(
            0, 0.1, (4, 2)
        )
        quad = random_centre(rng, scene, 0.3) + spread @ random_rotation(rng).T
        if not well_formed(quad, np.array([4])).all() or not cv2.isContourConvex(
            quad.astype(np.float32)
        ):
            continue
        matrix = cv2.getPerspectiveTransform(unit.astype(np.float32), quad.astype(np.float32))
        grid = np.stack(np.meshgrid(columns, rows), axis=-1)
        flat = cv2.perspectiveTransform(grid.reshape(-1, 1, 2), matrix)
        placed: FloatArray = np.asarray(flat, np.float64).reshape(grid.shape)
        shortest = min(vector_lengths(np.diff(placed, axis=axis)).min() for axis in (0, 1))
        if shortest >= LEAST_EDGE_PX:
            return placed
        # Thin the grid, because a grid too fine for most views could be tried forever.
        columns, rows = _thinned(columns, rng), _thinned(rows, rng)


def _thinned(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Remove one of the inner values with a probability of 1/4."""
    if len(values) <= 2 or rng.random() > 0.25:
        return values
    return np.delete(values, rng.integers(1, len(values) - 1))


def _grid_lines(grid: FloatArray) -> FloatArray:
    """Return the straight lines (R + C, 2, 2) of a grid (R, C, 2)."""
    return np.concatenate([grid[:, [0, -1]], grid[[0, -1]].swapaxes(0, 1)])


def draw_checkerboard(scene: Scene, rng: np.random.Generator) -> None:
    """Draw a checkerboard, labelled at all crossings."""
    columns, rows = rng.integers(3, 9, 2)
    grid = _perspective_grid(
        rng, scene, np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1)
    )
    first = clear_grey(rng, scene.background_greys(), CONTRAST + 10)
    second = clear_grey(rng, [*scene.background_greys(), first], CONTRAST + 10)
    scene.faces = [(np.stack([grid[0, 0], grid[0, -1], grid[-1, -1], grid[-1, 0]]), first)]
    cells = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], axis=2)
    row, column = np.nonzero(np.indices(cells.shape[:2]).sum(axis=0) % 2)
    shades = np.clip(second + rng.integers(-10, 11, len(row)), 0, 255)
    scene.faces += [
        (cells[r, c], int(shade)) for r, c, shade in zip(row, column, shades, strict=True)
    ]
    _finish_grid(scene, grid, rng)


def draw_stripes(scene: Scene, rng: np.random.Generator) -> None:
    """Draw parallel stripes of random widths in perspective."""
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.3, 1, rng.integers(3, 12)))])
    grid = _perspective_grid(rng, scene, edges / edges[-1], np.array([0.0, 1.0]))
    grey = -1
    for left, right, beyond in _stripe_corners(grid):
        avoided = scene.background_greys()
        grey = clear_grey(rng, avoided if grey < 0 else [*avoided, grey], CONTRAST)
        # Extend each stripe below the next one, so that no background shows between them.
        end = right + 0.3 * (beyond - right)
        scene.faces.append((np.stack([left[0], end[0], end[1], left[1]]), grey))
    _finish_grid(scene, grid, rng)


def _stripe_corners(grid: FloatArray) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Yield both ends (2, 2) of the left, the right and the next right edge of each stripe."""
    for i in range(grid.shape[1] - 1):
        yield grid[:, i], grid[:, i + 1], grid[:, min(i + 2, grid.shape[1] - 1)]


def _finish_grid(scene: Scene, grid: FloatArray, rng: np.random.Generator) -> None:
    scene.labels = grid.reshape(-1, 2)
    scene.outlines = _grid_lines(grid)
    scene.layers = np.zeros(len(scene.outlines), np.int64)
    occlude(scene, rng)


def _box_corners(rng: np.random.Generator, scene: Scene) -> FloatArray:
    """Return corners (7, 2) of a random box in perspective: the nearest, then the outline."""
    # Multiples of the three edges at the nearest corner.
    steps = np.array(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]], np.float64
    )
    while True:
        axes: FloatArray = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        # All three edges lead away from the viewer, so that the three faces between them are
        # visible.
        axes = axes * np.where(axes[:, 2:] < 0, -1.0, 1.0)
        points = steps @ (axes * scene.side * rng.uniform(0.2, 0.7, (3, 1)))
        depth = 1 + points[:, 2:] / scene.side * rng.uniform(0, 0.8)
        corners: FloatArray = points[:, :2] / depth
        corners = corners - corners.mean(axis=0) + random_centre(rng, scene, 0.25)
        faces = corners[[[0, 1, 2, 3], [0, 3, 4, 5], [0, 5, 6, 1]]]
        vertices = np.concatenate([faces.reshape(-1, 2), corners[1:]])
        same_side = (
            np.abs(
                np.sign(cross_product(faces[:, 1] - faces[:, 0], faces[:, 3] - faces[:, 0])).sum()
            )
            == 3
        )
        if same_side and well_formed(vertices, np.array([4, 4, 4, 6])).all():
            return corners


def draw_cube(scene: Scene, rng: np.random.Generator) -> None:
    """Draw a box in perspective with its three visible faces."""
    corners = _box_corners(rng, scene)
    # Extend the second face below the third one, so that the first does not show between them.
    across = corners[1] - corners[0]
    below = (corners[0] + corners[5]) / 2 + across / vector_lengths(across)
    second, third = np.concatenate([corners[[0, 3, 4, 5]], below[None]]), corners[[0, 5, 6, 1]]
    for face in (corners[1:], second, third):
        avoided = scene.background_greys() + [grey for _, grey in scene.faces]
        scene.faces.append((face, clear_grey(rng, avoided, CONTRAST)))
    scene.labels = corners
    scene.outlines = np.concatenate(
        [edges_of(corners[1:]), np.stack([corners[[0, 0, 0]], corners[[1, 3, 5]]], axis=1)]
    )
    scene.layers = np.zeros(len(scene.outlines), np.int64)
    occlude(scene, rng)
