"""Synthetic shapes with the exact positions of their junctions, to train a first detector.

The kinds follow DeTone et al., SuperPoint, 2018, section 4. All geometry is in pixels of the final
image; only the rendering has a higher resolution. A later shape removes the labels that it covers.
Where its outline meets another visible outline, it adds a T junction.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from .grids import draw_checkerboard, draw_cube, draw_stripes
from .lines import draw_lines, draw_star
from .polygons import draw_polygon, draw_polygons
from .rendering import SHIFT, render_scene, visible_labels
from .scene import Scene, random_background
from .unlabelled import draw_ellipses, draw_noise

# Range of the sigma of the final Gaussian blur, pixels.
_BLUR_SIGMA = (0.2, 1.0)

# Functions that draw a primitive into a scene, by its name.
DRAWERS: dict[str, Callable[[Scene, np.random.Generator], None]] = {
    "lines": draw_lines,
    "polygon": draw_polygon,
    "polygons": draw_polygons,
    "ellipses": draw_ellipses,
    "star": draw_star,
    "checkerboard": draw_checkerboard,
    "stripes": draw_stripes,
    "cube": draw_cube,
    "noise": draw_noise,
}

# Names of the primitives; a shape's number refers to this order.
PRIMITIVES: tuple[str, ...] = tuple(DRAWERS)


def draw_shape(
    primitive: str, size: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw one synthetic image and its junctions.

    Labels are corners of polygons and boxes (L, Y), ends and crossings of lines (X, T), crossings
    of boards (X), and points where outlines of overlapping shapes meet (T). Hidden junctions and
    those outside the image are not labelled.

    Args:
        primitive: one of PRIMITIVES.
        size: height and width, pixels.
        rng: random numbers.

    Returns:
        The image (H, W) uint8 and the junctions (N, 2) x y, sub-pixel, inside the image.

    Raises:
        KeyError: unknown primitive.
    """
    scene = Scene(random_background(size, rng))
    DRAWERS[primitive](scene, rng)
    return render_scene(scene, float(rng.uniform(*_BLUR_SIGMA))), visible_labels(scene)


def contact_sheet(size: tuple[int, int], seed: int, columns: int = 4) -> NDArray[np.uint8]:
    """Draw examples at three times their size, BGR: a row per primitive, junctions marked."""
    rows = []
    for i, primitive in enumerate(PRIMITIVES):
        lots = (np.random.default_rng([seed, i + j * len(PRIMITIVES)]) for j in range(columns))
        rows.append(np.hstack([_marked(*draw_shape(primitive, size, rng)) for rng in lots]))
    return np.vstack(rows)


def _marked(
    image: NDArray[np.uint8], corners: NDArray[np.float32], scale: int = 3
) -> NDArray[np.uint8]:
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    picture = np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)
    for x, y in np.rint((corners * scale + (scale - 1) / 2) * 2**SHIFT).astype(int).tolist():
        cv2.circle(picture, (x, y), 4 << SHIFT, (0, 255, 0), 1, cv2.LINE_AA, SHIFT)
    # A thin frame separates neighbours.
    return np.asarray(
        cv2.copyMakeBorder(picture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(32, 32, 32)), np.uint8
    )
