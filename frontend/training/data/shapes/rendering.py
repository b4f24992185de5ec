"""Rendering of a scene to an image and its visible labels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.typing import FloatArray

from .geometry import cross_product, ring_indices, vector_lengths
from .scene import Scene

# Enlargement of the canvas on which shapes are drawn before averaging.
_SUPERSAMPLING = 4
# Fractional bits of OpenCV's fixed-point coordinates.
SHIFT = 8
# Growth of polygons at each side by OpenCV's anti-aliased filling, pixels of the canvas.
_OUTLINE_PX = 0.665


def _inset(vertices: FloatArray, sizes: NDArray[np.int64], distance: float) -> FloatArray:
    """Move every edge of polygons (vertices (V, 2), concatenated) inwards by `distance`."""
    first, following, previous = ring_indices(sizes)
    along = vertices[following] - vertices
    along /= np.maximum(vector_lengths(along), 1e-9)[:, None]
    before = along[previous]
    inwards = np.sign(np.add.reduceat(cross_product(vertices, vertices[following]), first))
    # Move by `distance` across one edge, and along it up to the moved neighbouring edge.
    cosine = before[:, 0] * along[:, 0] + before[:, 1] * along[:, 1]
    slide = np.tan(np.arctan2(cross_product(before, along), cosine) / 2)
    shift = slide[:, None] * before + np.stack([before[:, 1], -before[:, 0]], axis=1)
    return vertices - distance * np.repeat(inwards, sizes)[:, None] * shift


def _canvas_vertices(polygons: list[FloatArray]) -> list[NDArray[np.int32]]:
    """Return fixed-point vertices on the canvas, inset so that OpenCV fills the true polygons."""
    sizes = np.array([len(polygon) for polygon in polygons], np.int64)
    # Coordinates refer to pixel centres: x of the image is s·x + (s − 1)/2 of the canvas.
    large = np.concatenate(polygons) * _SUPERSAMPLING + (_SUPERSAMPLING - 1) / 2
    fixed = np.rint(_inset(large, sizes, _OUTLINE_PX) * 2**SHIFT).astype(np.int32)
    return np.split(fixed, np.cumsum(sizes)[:-1])


def render_scene(scene: Scene, blur_sigma: float) -> NDArray[np.uint8]:
    """Render the image (H, W): fill enlarged polygons, average, blur."""
    height, width = scene.background.shape
    image = np.rint(scene.background).astype(np.uint8)
    if scene.faces:
        large = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
        canvas = cv2.resize(image, large, interpolation=cv2.INTER_LINEAR)
        vertices = _canvas_vertices([polygon for polygon, _ in scene.faces])
        # All faces are convex: fillConvexPoly is more precise than fillPoly, which rounds to whole
        # rows.
        for polygon, (_, grey) in zip(vertices, scene.faces, strict=True):
            cv2.fillConvexPoly(canvas, polygon, grey, cv2.LINE_AA, SHIFT)
        image = np.asarray(
            cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur_sigma), np.uint8)


def visible_labels(scene: Scene) -> NDArray[np.float32]:
    """Return the labels (N, 2) inside the image."""
    inside = (scene.labels >= 0).all(axis=1) & (scene.labels <= scene.extent - 1).all(axis=1)
    return scene.labels[inside].astype(np.float32)
