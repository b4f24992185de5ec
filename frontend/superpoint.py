"""The SuperPoint network.

DeTone, Malisiewicz, Rabinovich: SuperPoint: Self-Supervised Interest Point Detection and Description, CVPR
workshops 2018, section 3: a shared VGG-like encoder, a detector head of 65 channels and a descriptor head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

CELL = 8
FULL_WIDTHS = (64, 64, 128, 128, 256)
HALF_WIDTHS = (32, 32, 64, 64, 128)
# TensorFlow's default, which the published batch-norm weights were trained with.
_BATCH_NORM_EPS = 1e-3
# The bicubic kernel's free parameter in torch.nn.functional.grid_sample.
_BICUBIC_A = -0.75


@dataclass(frozen=True)
class Sampling:
    """How descriptors are read from the coarse map; it belongs to the weights that were trained with it.

    Attributes:
        interpolation: `bicubic` (the paper) or `bilinear` (both public releases).
        align_corners: False: cell i is centred on pixel 8i + 3.5. True: the rule of Magic Leap's releases,
            which stretches the map a little (cell centres agree at the left and upper border only).
    """

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    align_corners: bool = False

    def cell_coordinates(self, pixels: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        """Coordinates (N, 2) in a descriptor map of `size` (width, height) cells of pixels (N, 2)."""
        shifted = (pixels - (CELL / 2 - 0.5)) / CELL
        if not self.align_corners:
            return shifted
        cells = np.asarray(size, dtype=np.float64)
        return shifted * CELL * (cells - 1) / (cells * CELL - CELL / 2 - 0.5)


class ConvBlock(nn.Module):
    """A convolution, then ReLU, then optionally batch norm: in the order of the open retraining, where the
    norm follows the ReLU and so cannot be folded into the convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, relu: bool, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.relu = relu
        self.bn = nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.relu:
            x = functional.relu(x, inplace=not self.training)
        if self.bn is not None:
            x = self.bn(x)
        return x


class SuperPoint(nn.Module):
    """The network, without key-point selection.

    Args:
        widths: channels of the four encoder stages and of the two heads.
        descriptor_dim: length of a descriptor.
        batch_norm: batch norm after every ReLU and after the two last convolutions.
        sampling: how descriptors are read from the coarse map.

    Attributes:
        strip_rows: rows of the image that the first, full-resolution stage works on at a time; 0: all. The result
            is the same, but strips stay in the processor's cache (stage one takes 0.6 of the time).
    """

    def __init__(
        self,
        widths: Sequence[int] = FULL_WIDTHS,
        descriptor_dim: int = 256,
        batch_norm: bool = False,
        sampling: Sampling = Sampling(),
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, head = widths
        self.widths = (c1, c2, c3, c4, head)
        self.descriptor_dim = descriptor_dim
        self.sampling = sampling
        self.strip_rows = 0

        def block(inputs: int, outputs: int, kernel: int = 3, relu: bool = True) -> ConvBlock:
            return ConvBlock(inputs, outputs, kernel, relu, batch_norm)

        self.conv1a, self.conv1b = block(1, c1), block(c1, c1)
        self.conv2a, self.conv2b = block(c1, c2), block(c2, c2)
        self.conv3a, self.conv3b = block(c2, c3), block(c3, c3)
        self.conv4a, self.conv4b = block(c3, c4), block(c4, c4)
        self.convPa, self.convPb = block(c4, head), block(head, CELL * CELL + 1, 1, relu=False)
        self.convDa, self.convDb = block(c4, head), block(head, descriptor_dim, 1, relu=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs of both heads for a (B, 1, H, W) image in [0, 1], H and W multiples of 8.

        Returns:
            Detector logits (B, 65, H/8, W/8), the last channel being the dustbin, and descriptors
            (B, D, H/8, W/8), not normalised.
        """
        x = self.conv2b(self.conv2a(self._first_stage(image)))
        x = self.conv3b(self.conv3a(functional.max_pool2d(x, 2)))
        x = self.conv4b(self.conv4a(functional.max_pool2d(x, 2)))
        return self.convPb(self.convPa(x)), self.convDb(self.convDa(x))

    def _first_stage(self, image: Tensor) -> Tensor:
        height = image.shape[2]
        step = self.strip_rows if self.strip_rows > 0 else height
        pooled = []
        for top in range(0, height, step):
            bottom = min(top + step, height)
            # One row more for each of the two convolutions; their padding is right only at the image's border.
            wide_top, near_top = max(top - 2, 0), max(top - 1, 0)
            wide_bottom, near_bottom = min(bottom + 2, height), min(bottom + 1, height)
            x = self.conv1a(image[:, :, wide_top:wide_bottom])
            x = self.conv1b(x[:, :, near_top - wide_top : near_bottom - wide_top])
            pooled.append(functional.max_pool2d(x[:, :, top - near_top : bottom - near_top], 2))
        return torch.cat(pooled, dim=2) if len(pooled) > 1 else pooled[0]


def detector_probabilities(logits: Tensor) -> Tensor:
    """Key-point probabilities (B, H, W) of detector logits (B, 65, H/8, W/8): softmax, without the dustbin."""
    probabilities = functional.softmax(logits, dim=1)[:, :-1]
    batch, _, rows, columns = probabilities.shape
    cells = probabilities.permute(0, 2, 3, 1).reshape(batch, rows, columns, CELL, CELL)
    return cells.transpose(2, 3).reshape(batch, rows * CELL, columns * CELL)


def sample_descriptors(
    dense: NDArray[np.float32], keypoints: NDArray[np.float32], sampling: Sampling
) -> NDArray[np.float32]:
    """Unit descriptors (N, D) at pixels (N, 2), interpolated in a map (rows, columns, D) of any length.

    The same as normalising the map, `grid_sample` with zeros around it, and normalising again; only that
    the cells' norms go into the weights of the interpolation, a sparse matrix.
    """
    rows, columns, _ = dense.shape
    flat = dense.reshape(rows * columns, -1)
    position = sampling.cell_coordinates(keypoints.astype(np.float64), (columns, rows))
    first = np.floor(position).astype(np.int64)
    weights = _kernel(position - first, sampling.interpolation)
    taps = np.arange(weights.shape[1]) - (weights.shape[1] // 2 - 1)
    x, y = first[:, 0, None] + taps, first[:, 1, None] + taps
    weight_x = weights[:, :, 0] * ((x >= 0) & (x < columns))
    weight_y = weights[:, :, 1] * ((y >= 0) & (y < rows))
    index = np.clip(y, 0, rows - 1)[:, :, None] * columns + np.clip(x, 0, columns - 1)[:, None, :]
    weight = weight_y[:, :, None] * weight_x[:, None, :]

    norms = np.maximum(np.sqrt(np.einsum("nd,nd->n", flat, flat)), 1e-12)
    values = (weight / norms[index]).astype(np.float32).ravel()
    starts = np.arange(len(keypoints) + 1) * taps.size**2
    matrix = scipy.sparse.csr_matrix((values, index.ravel(), starts), shape=(len(keypoints), len(flat)))
    sampled: NDArray[np.float32] = matrix @ flat
    lengths = np.sqrt(np.einsum("nd,nd->n", sampled, sampled))
    sampled /= np.maximum(lengths, np.float32(1e-12))[:, None]
    return sampled


def _kernel(fraction: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """Weights (N, taps, 2) of the neighbours of positions with these fractions (N, 2)."""
    if interpolation == "bilinear":
        return np.stack([1 - fraction, fraction], axis=1)
    # Keys, Cubic convolution interpolation for digital image processing, 1981.
    distance = np.abs(fraction[:, None, :] - np.array([-1.0, 0.0, 1.0, 2.0])[None, :, None])
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    weights: NDArray[np.float64] = np.where(distance <= 1, near, far)
    return weights
