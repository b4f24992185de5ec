"""Images and labels of a batch before augmentation, read and padded on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Batch = dict[str, Tensor]


class Reader(Protocol):
    """Reads images and labels; it is copied into the worker processes of a training."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, indices: NDArray[np.int64]) -> Batch:
        """Return `images` (B, H, W) uint8 of these indices; with labels also `padded_labels`."""


def padded_labels(labels: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Batch:
    """Pad points (n, 2) and masses (n,) of several images to tensors of one size.

    Returns:
        `points` (B, P, 2) x y, pixels, `mass` (B, P) and `exist` (B, P) bool, which points are
        real.
    """
    longest = max(max(len(keypoints) for keypoints, _ in labels), 1)
    points = np.zeros((len(labels), longest, 2), np.float32)
    mass = np.zeros((len(labels), longest), np.float32)
    exist = np.zeros((len(labels), longest), np.bool_)
    for row, (keypoints, masses) in enumerate(labels):
        count = len(keypoints)
        points[row, :count], mass[row, :count], exist[row, :count] = keypoints, masses, True
    return {
        name: torch.from_numpy(array)
        for name, array in (("points", points), ("mass", mass), ("exist", exist))
    }
