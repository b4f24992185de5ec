"""Frames of built-in worlds are rendered once for all tests of all processes of a session.

Rendering a stereo pair of demo-small takes longer than tracking it, and many tests take the
same frames as their input.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spslam.datasets.world.world import RenderedWorld

# Bytes of images and depth maps kept in memory: all of demo-small, and a walk of 150 frames as
# large. Others are read from the folder again.
_MOST_BYTES = 80_000_000

_kept: dict[str, np.ndarray] = {}


def keep_renderings(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let worlds return copies of what was rendered before, while the patch lasts.

    Args:
        patch: ends the change.
        folder: where processes share images and depth maps; it must exist.
    """
    patch.setattr(RenderedWorld, "_photo", _once("photo", RenderedWorld._photo, folder))
    patch.setattr(RenderedWorld, "depth", _once("depth", RenderedWorld.depth, folder))


def _once(kind: str, render: Callable[..., np.ndarray], folder: Path) -> Callable[..., np.ndarray]:
    def rendered(world: RenderedWorld, index: int, right: bool = False) -> np.ndarray:
        name = _name(kind, world, world._checked(index), right)
        image = _kept.get(name)
        if image is None:
            image = _shared(folder / name, lambda: render(world, index, right=right))
            if sum(kept.nbytes for kept in [*_kept.values()]) + image.nbytes < _MOST_BYTES:
                _kept[name] = image
        return np.array(image)

    return rendered


def _name(kind: str, world: RenderedWorld, index: int, right: bool) -> str:
    """The name of what decides an image: the sensor chooses only which images are read.

    Tests may move or replace the camera of a world, so pose and lens belong to it.
    """
    lens = replace(world.camera, baseline_m=None)
    pose: Any = world._T_world_cam[index]
    if kind == "photo":
        pose = world._path(world._timestamps[index : index + 1])
    about = repr((kind, world.spec, lens, index, right)).encode()
    return hashlib.sha256(about + pose.tobytes()).hexdigest()


def _shared(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """Read an array that some process has made, or make it; whole files only get their name."""
    try:
        found: np.ndarray = np.load(path)
    except FileNotFoundError:
        found = make()
        part = path.with_name(f"{path.name}-{os.getpid()}-{threading.get_ident()}.npy")
        np.save(part, found)
        part.replace(path)
    return found
