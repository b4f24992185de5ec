"""Descriptor losses: high similarity of the same place in both views, low similarity of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...superpoint.superpoint import CELL, Sampling
from ..data.homography import warp_points
from .detector_losses import full_precision, masked_mean, valid_cells

# Similarity of masked entries; far below any real one, but finite, so that empty rows do not give
# NaN.
_MASKED = -1e30
# Free parameter of the bicubic kernel of torch.nn.functional.grid_sample, as in `superpoint`.
_BICUBIC_A = -0.75
# Sampling rules.
_BICUBIC, _BILINEAR = Sampling("bicubic"), Sampling("bilinear")


@dataclass(frozen=True)
class HingeDescriptorLoss:
    """Hinge loss between each cell of one view and each cell of the other.

    Two cells correspond if the centre of the first, warped, lies within 8 px of the centre of the
    second. The loss is averaged over the pairs of valid cells, with descriptors of unit length
    (DeTone et al., SuperPoint, 2018, section 3.4).

    Attributes:
        positive_margin: m_p, the similarity that corresponding cells should reach.
        negative_margin: m_n, the similarity that other cells should not exceed.
        positive_weight: lambda_d, which balances the few corresponding pairs against the many
            others.
        radius_px: largest distance of corresponding cells, pixels.
    """

    positive_margin: float = 1.0
    negative_margin: float = 0.2
    positive_weight: float = 250.0
    radius_px: float = 8.0

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        first, second = (
            unit_descriptors(pred["descriptors0"]),
            unit_descriptors(pred["descriptors1"]),
        )
        similarity = bmm(first.flatten(2).transpose(1, 2), second.flatten(2))
        warped = warp_points(_cell_centres(first), batch["homography"].double())
        corresponds = _near_cells(warped, second, self.radius_px)
        valid0, valid1 = (valid_cells(batch[key]).flatten(1) for key in ("valid0", "valid1"))
        counted = valid0[:, :, None] & valid1[:, None]
        # Both hinges in one expression: fewer passes over the largest array.
        slope = torch.where(corresponds, -self.positive_weight, 1.0) * counted
        margin = torch.where(corresponds, self.positive_margin, self.negative_margin)
        total = functional.relu(slope * (similarity - margin)).flatten(1).sum(dim=1)
        return {"total": total / counted.flatten(1).sum(dim=1).clamp(min=1)}


@dataclass(frozen=True)
class ContrastiveDescriptorLoss:
    """Dual softmax between cells of view 0 and the places in view 1 of their warped centres.

    A cell counts if it is valid and its centre falls into a valid cell of view 1. The loss is the
    mean negative log likelihood -log(p(1|0) p(0|1)) of these cells (LoFTR, Sun et al., CVPR 2021,
    sections 3.3 and 3.5).

    Attributes:
        temperature: similarities are divided by it.
    """

    temperature: float = 0.06

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        centres = _cell_centres(pred["descriptors0"])
        warped = warp_points(centres, batch["homography"].double())
        valid = valid_cells(batch["valid0"]).flatten(1) & _in_valid_cell(
            warped, valid_cells(batch["valid1"])
        )
        first = unit_descriptors(pred["descriptors0"]).flatten(2).transpose(1, 2)
        second = sample_descriptor_map(pred["descriptors1"], warped, _BILINEAR)
        return {"total": masked_mean(_dual_softmax(first, second, valid, self.temperature), valid)}


@dataclass(frozen=True)
class SparseDescriptorLoss:
    """Dual softmax between the same labelled points of both views.

    Descriptors are sampled as when the network is used. The loss is the mean negative log
    likelihood -log(p(1|0) p(0|1)) of the valid points. Negatives are the other valid points of the
    pair and of neighbouring pairs of the batch: with points of one pair only, a network does not
    learn that a point may have no match.

    Attributes:
        temperature: similarities are divided by it.
        sampling: how the network's descriptors are sampled.
        group: number of consecutive pairs of the batch that are each other's negatives.
    """

    temperature: float = 0.06
    sampling: Sampling = _BICUBIC
    group: int = 1

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        valid = batch["points_valid"]
        first, second = (
            sample_descriptor_map(
                pred[f"descriptors{view}"],
                torch.where(valid[:, :, None], batch[f"points{view}"], 0.0),
                self.sampling,
            )
            for view in ("0", "1")
        )
        together = [_grouped(values, self.group) for values in (first, second, valid)]
        likelihood = _dual_softmax(together[0], together[1], together[2], self.temperature)
        return {"total": masked_mean(likelihood.reshape(valid.shape), valid)}


def sample_descriptor_map(descriptors: Tensor, points: Tensor, sampling: Sampling) -> Tensor:
    """Sample unit descriptors (B, N, D) at pixels (B, N, 2), with gradients.

    The result is that of `sample_descriptors`.

    Args:
        descriptors: (B, D, h, w), of any length; cells are normalised before the interpolation.
        points: (B, N, 2) x y, pixels.
        sampling: how the network's descriptors are sampled.
    """
    unit = unit_descriptors(descriptors)
    rows, columns = unit.shape[2:]
    across = _cell_weights(points[:, :, 0].to(unit.dtype), columns, sampling)
    down = _cell_weights(points[:, :, 1].to(unit.dtype), rows, sampling)
    # A matrix product, because gradients of grid_sample are not deterministic on CUDA.
    weights = (down[:, :, :, None] * across[:, :, None]).flatten(2)
    return functional.normalize(bmm(weights, unit.flatten(2).transpose(1, 2)), dim=2)


def unit_descriptors(descriptors: Tensor) -> Tensor:
    """Normalise descriptors (B, D, h, w) to unit length."""
    return functional.normalize(full_precision(descriptors), dim=1)


def bmm(first: Tensor, second: Tensor) -> Tensor:
    """Multiply batches of matrices in full precision, also inside autocast."""
    # Half precision is too coarse: near a cosine of 1 its steps are as large as the differences.
    with torch.autocast(first.device.type, enabled=False):
        return torch.bmm(first, second)


def _cell_centres(descriptors: Tensor) -> Tensor:
    """Return the pixels (B, h·w, 2) of the cell centres of a map (B, D, h, w), row by row."""
    batch, _, rows, columns = descriptors.shape
    y, x = torch.meshgrid(
        _centres(rows, descriptors.device), _centres(columns, descriptors.device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)


def _centres(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device=device) * CELL + (CELL - 1) / 2


def _near_cells(points: Tensor, descriptors: Tensor, radius_px: float) -> Tensor:
    """Return which cells (B, N, h·w) of a map (B, D, h, w) have centres near points (B, N, 2)."""
    rows, columns = descriptors.shape[2:]
    points = points.float()
    across = (points[:, :, None, 0] - _centres(columns, points.device)).square()
    down = (points[:, :, None, 1] - _centres(rows, points.device)).square()
    return (down[:, :, :, None] + across[:, :, None] <= radius_px**2).flatten(2)


def _in_valid_cell(points: Tensor, cells: Tensor) -> Tensor:
    """Return which points (B, N, 2) fall into a valid cell of (B, h, w) bool, as (B, N) bool."""
    rows, columns = cells.shape[1:]
    x, y = ((points + 0.5) / CELL).floor().unbind(2)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    index = y.clamp(0, rows - 1).long() * columns + x.clamp(0, columns - 1).long()
    return inside & cells.flatten(1).gather(1, index)


def _cell_weights(pixels: Tensor, count: int, sampling: Sampling) -> Tensor:
    """Return weights (B, N, count) of the cells along one axis at pixel coordinates (B, N)."""
    cells = (pixels - (CELL - 1) / 2) / CELL
    if sampling.align_corners:
        cells = cells * CELL * (count - 1) / (count * CELL - (CELL + 1) / 2)
    distance = (
        cells[:, :, None] - torch.arange(count, dtype=cells.dtype, device=cells.device)
    ).abs()
    if sampling.interpolation == "bilinear":
        return (1 - distance).clamp(min=0.0)
    # Cubic convolution (Keys, Cubic convolution interpolation for digital image processing, 1981).
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))


def _grouped(values: Tensor, group: int) -> Tensor:
    """Join the points of `group` images: (B, N, …) becomes (B / group, group · N, …)."""
    return values.reshape(values.shape[0] // group, group * values.shape[1], *values.shape[2:])


def _dual_softmax(first: Tensor, second: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Return the negative log likelihood (B, N) that descriptors i (B, N, D) match, both ways."""
    similarity = bmm(first / temperature, second.transpose(1, 2))
    similarity = similarity.masked_fill(~(valid[:, :, None] & valid[:, None]), _MASKED)
    matched = similarity.diagonal(dim1=1, dim2=2)
    return similarity.logsumexp(dim=1) + similarity.logsumexp(dim=2) - 2 * matched
