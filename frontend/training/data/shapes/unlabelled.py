"""Shapes without junctions, and therefore without labels."""

from __future__ import annotations

import numpy as np

from .geometry import ellipse_outline, point_distances, random_rotation
from .scene import CONTRAST, Scene, clear_grey


def draw_ellipses(scene: Scene, rng: np.random.Generator) -> None:
    """Draw ellipses that do not overlap."""
    count = int(rng.integers(2, 20))
    centres = scene.extent * rng.uniform(0, 1, (count, 2))
    radii = np.maximum(
        scene.side * rng.uniform(0.04, 0.3, (count, 1)) * rng.uniform(0.45, 1, (count, 2)), 4.0
    )
    reach = radii.max(axis=1)
    # Overlapping ellipses would have junctions.
    apart = point_distances(centres, centres) > reach[:, None] + reach + 2
    kept: list[int] = []
    for i in range(count):
        if apart[i, kept].all():
            kept.append(i)
            grey = clear_grey(rng, scene.background_greys(), CONTRAST)
            scene.faces.append(
                (ellipse_outline(centres[i], radii[i], random_rotation(rng), 64), grey)
            )


def draw_noise(scene: Scene, rng: np.random.Generator) -> None:
    """Add noise to the background."""
    spread = rng.uniform(15, 128)
    noise = rng.random(scene.background.shape, np.float32) * np.float32(2 * spread) - np.float32(
        spread
    )
    scene.background = np.clip(scene.background + noise, 0, 255)
