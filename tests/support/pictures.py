"""Pictures of the tests: files, and two views of a flat scene, related by a known homography."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from spslam.typing import FloatArray, UInt8Array


def read_picture(path: Path, flags: int = cv2.IMREAD_COLOR) -> UInt8Array:
    """The pixels of a picture with 8 bits a channel, colour or (`cv2.IMREAD_GRAYSCALE`) grey."""
    image = cv2.imread(str(path), flags)
    assert image is not None, path
    return np.asarray(image, dtype=np.uint8)


def scene(height: int = 200, width: int = 280, seed: int = 0) -> UInt8Array:
    """Rectangles of many sizes (H, W), slightly blurred and noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 120, np.uint8)
    for _ in range(height * width // 500):
        x, y, w, h = (int(value) for value in rng.integers(0, [width, height, 40, 40]))
        cv2.rectangle(image, (x, y), (x + w, y + h), int(rng.integers(0, 255)), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.8), np.uint8)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def warped_pair() -> tuple[UInt8Array, UInt8Array, FloatArray]:
    """Two views (H, W), and the homography (3, 3) from the first to the second."""
    first = scene()
    H_10 = np.array([[1.05, 0.06, -12.0], [-0.05, 0.98, 9.0], [1e-4, -1e-4, 1.0]])
    second = cv2.warpPerspective(first, H_10, first.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    return first, np.asarray(second, np.uint8), H_10


def corner_error(estimated: np.ndarray, truth: np.ndarray) -> float:
    """The mean distance of the warped corners of the first view, pixels."""
    corners = np.array([[[0, 0], [279, 0], [279, 199], [0, 199]]], np.float64)
    found, true = (cv2.perspectiveTransform(corners, H) for H in (estimated, truth))
    return float(np.linalg.norm(found - true, axis=-1).mean())
