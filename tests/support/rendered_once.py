"""Frames of built-in worlds are rendered once for all tests of a process.

Rendering a stereo pair of demo-small takes longer than tracking it, and many tests take the
same frames as their input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spslam.datasets.world.world import RenderedWorld, WorldSpec

# Bytes of kept images and depth maps: all of demo-small, and a walk of 150 frames as large.
_MOST_BYTES = 80_000_000

Key = tuple[str, WorldSpec, int, bool]
_kept: dict[Key, np.ndarray] = {}


def keep_renderings(patch: pytest.MonkeyPatch) -> None:
    """Let worlds return copies of what this process rendered before, while the patch lasts."""
    patch.setattr(RenderedWorld, "_photo", _once("photo", RenderedWorld._photo))
    patch.setattr(RenderedWorld, "depth", _once("depth", RenderedWorld.depth))


def _once(kind: str, render: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def rendered(world: RenderedWorld, index: int, right: bool = False) -> np.ndarray:
        # The spec and the index decide all of it: the sensor chooses which images are read.
        key = (kind, world.spec, world._checked(index), right)
        image: Any = _kept.get(key)
        if image is None:
            image = render(world, index, right=right)
            if sum(kept.nbytes for kept in [*_kept.values()]) + image.nbytes < _MOST_BYTES:
                _kept[key] = image
        return np.array(image)

    return rendered
