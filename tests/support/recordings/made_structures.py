"""Structures of points and cameras whose intrinsic parameters are known."""

from __future__ import annotations

from typing import Literal

import numpy as np

from spslam.calibrate.model import Intrinsics, Structure, project
from spslam.geometry import make_transform, so3_exp

Motion = Literal["walk", "turn", "forward"]
TRUE = Intrinsics(640, 480, np.array([520.0, 1.0, 316.0, 243.0, -0.2, 0.05, 0.0, 0.0]))


def made_structure(
    motion: Motion, seed: int, images: int = 14, points: int = 160, sigma_px: float = 0.5
) -> Structure:
    """A camera that moves among points; the structure holds disturbed poses and points.

    Args:
        motion: walk: moves and turns; turn: turns in one place; forward: moves along its axis.
        seed: of points, noise and disturbances.
        images, points: how many.
        sigma_px: standard deviation of the noise of each coordinate of a pixel.
    """
    rng = np.random.default_rng(seed)
    time = np.linspace(0.0, 2.0 * np.pi, images)
    zero = np.zeros_like(time)
    world = rng.uniform((-4.0, -3.0, 3.0), (4.0, 3.0, 9.0), (points, 3))
    angles = np.stack([0.15 * np.sin(2 * time), 0.35 * np.sin(time), 0.1 * np.cos(time)], axis=1)
    places = np.stack([1.5 * np.cos(time), 0.4 * np.sin(2 * time), 0.7 * np.sin(time)], axis=1)
    if motion == "turn":
        places *= 0.001
    elif motion == "forward":
        angles *= 0.0
        places = np.stack([zero, zero, 0.3 * time], axis=1)
    R = so3_exp(angles)
    T = make_transform(R, -np.einsum("nij,nj->ni", R, places))
    in_camera = np.einsum("nij,mj->nmi", R, world) + T[:, None, :3, 3]
    pixels, _, _ = project(in_camera.reshape(-1, 3), TRUE.values)
    pixels = pixels.reshape(images, points, 2)
    # No wrapped rays: k1 and k2 fold back only far outside of the image.
    seen = TRUE.camera().in_image(pixels) & (in_camera[..., 2] > 0.5)
    seen &= np.abs(in_camera[..., :2] / in_camera[..., 2:]).max(axis=-1) < 1.0
    seen &= (seen.sum(axis=0) >= 3)[None]
    image, point = np.nonzero(seen)
    used = np.flatnonzero(seen.any(axis=0))
    noise = rng.normal(0.0, sigma_px, (len(image), 2))
    T[1:, :3, 3] += rng.normal(0.0, 0.01, (images - 1, 3))
    return Structure(
        tuple(f"frame{index:06d}" for index in range(images)),
        T,
        world[used] + rng.normal(0.0, 0.01, (len(used), 3)),
        image.astype(np.int64),
        np.searchsorted(used, point).astype(np.int64),
        pixels[seen] + noise,
    )
