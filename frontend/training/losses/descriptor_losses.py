"""Losses of the descriptors: the same place alike in both views, other places not (see `losses`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...superpoint.superpoint import CELL, Sampling
from ..data.homography import warp_points
from .detector_losses import full_precision, masked_mean, valid_cells

# Far below any similarity, yet finite: a row without a single valid entry must not become NaN.
_MASKED = -1e30
# As in `superpoint`: the bicubic kernel's free parameter in torch.nn.functional.grid_sample.
_BICUBIC_A = -0.75
_BICUBIC, _BILINEAR = Sampling("bicubic"), Sampling("bilinear")


@dataclass(frozen=True)
class HingeDescriptorLoss:
    """Hinge loss between each cell of one view and each of the other (DeTone et al., section 3.4).

    Two cells correspond if the first's centre, warped, lies within 8 px of the second's. Averaged over the pairs
    of valid cells. Descriptors have unit length here.

    Attributes:
        positive_margin: m_p, the similarity that corresponding cells should reach.
        negative_margin: m_n, the similarity that others should stay below.
        positive_weight: lambda_d, which outweighs the many pairs that do not correspond.
        radius_px: the 8 px.
    """

    positive_margin: float = 1.0
    negative_margin: float = 0.2
    positive_weight: float = 250.0
    radius_px: float = 8.0

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        first, second = (
            unit_descriptors(pred["descriptors0"]),
            unit_descriptors(pred["descriptors1"]),
        )
        similarity = bmm(first.flatten(2).transpose(1, 2), second.flatten(2))
        warped = warp_points(_cell_centres(first), batch["homography"].double())
        corresponds = _near_cells(warped, second, self.radius_px)
        valid0, valid1 = (valid_cells(batch[key]).flatten(1) for key in ("valid0", "valid1"))
        counted = valid0[:, :, None] & valid1[:, None]
        # Both hinges in one: few passes over what is by far the largest array.
        slope = torch.where(corresponds, -self.positive_weight, 1.0) * counted
        margin = torch.where(corresponds, self.positive_margin, self.negative_margin)
        total = functional.relu(slope * (similarity - margin)).flatten(1).sum(dim=1)
        return {"total": total / counted.flatten(1).sum(dim=1).clamp(min=1)}


@dataclass(frozen=True)
class ContrastiveDescriptorLoss:
    """Dual softmax between the cells of view 0 and the places of view 1 where the homography sends their centres.

    A cell counts if it is valid and its centre falls into a valid cell of view 1. The value is the mean negative log
    likelihood -log(p(1|0) p(0|1)) of the cells that count (LoFTR, Sun et al., CVPR 2021, sections 3.3 and 3.5).

    Attributes:
        temperature: by which similarities are divided.
    """

    temperature: float = 0.06

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
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
    """Dual softmax between the same labelled points of both views, read as they will be when the network is used.

    The value is the mean negative log likelihood -log(p(1|0) p(0|1)) of the valid points; the other valid points of
    the pair are the negatives, and those of the pairs beside it in the batch. Among the points of one pair only, no
    descriptor learns that there may be no match for it.

    Attributes:
        temperature: by which similarities are divided.
        sampling: the network's rule.
        group: so many pairs, one after the other in the batch, are each other's negatives.
    """

    temperature: float = 0.06
    sampling: Sampling = _BICUBIC
    group: int = 1

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
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
    """Unit descriptors (B, N, D) at pixels (B, N, 2), as `sample_descriptors`, but with gradients.

    Args:
        descriptors: (B, D, h, w), of any length; cells are normalised before they are interpolated.
        points: (B, N, 2) x y, pixels.
        sampling: the network's rule.
    """
    unit = unit_descriptors(descriptors)
    rows, columns = unit.shape[2:]
    across = _cell_weights(points[:, :, 0].to(unit.dtype), columns, sampling)
    down = _cell_weights(points[:, :, 1].to(unit.dtype), rows, sampling)
    # A matrix product, because on CUDA the gradients of grid_sample are not the same bits every time.
    weights = (down[:, :, :, None] * across[:, :, None]).flatten(2)
    return functional.normalize(bmm(weights, unit.flatten(2).transpose(1, 2)), dim=2)


def unit_descriptors(descriptors: Tensor) -> Tensor:
    return functional.normalize(full_precision(descriptors), dim=1)


def bmm(first: Tensor, second: Tensor) -> Tensor:
    # Autocast would multiply in half precision, whose steps near a cosine of 1 are as large as what is compared.
    with torch.autocast(first.device.type, enabled=False):
        return torch.bmm(first, second)


def _cell_centres(descriptors: Tensor) -> Tensor:
    """Pixels (B, h·w, 2) of the centres of the cells of a map (B, D, h, w), row by row."""
    batch, _, rows, columns = descriptors.shape
    y, x = torch.meshgrid(
        _centres(rows, descriptors.device), _centres(columns, descriptors.device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)


def _centres(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device=device) * CELL + (CELL - 1) / 2


def _near_cells(points: Tensor, descriptors: Tensor, radius_px: float) -> Tensor:
    """(B, N, h·w) bool: cells of a map (B, D, h, w) whose centre is within a radius of points (B, N, 2)."""
    rows, columns = descriptors.shape[2:]
    points = points.float()
    across = (points[:, :, None, 0] - _centres(columns, points.device)).square()
    down = (points[:, :, None, 1] - _centres(rows, points.device)).square()
    return (down[:, :, :, None] + across[:, :, None] <= radius_px**2).flatten(2)


def _in_valid_cell(points: Tensor, cells: Tensor) -> Tensor:
    """(B, N) bool: points (B, N, 2) that fall into a valid cell of (B, h, w) bool."""
    rows, columns = cells.shape[1:]
    x, y = ((points + 0.5) / CELL).floor().unbind(2)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    index = y.clamp(0, rows - 1).long() * columns + x.clamp(0, columns - 1).long()
    return inside & cells.flatten(1).gather(1, index)


def _cell_weights(pixels: Tensor, count: int, sampling: Sampling) -> Tensor:
    """Weights (B, N, count) of the cells along one axis at pixel coordinates (B, N)."""
    cells = (pixels - (CELL - 1) / 2) / CELL
    if sampling.align_corners:
        cells = cells * CELL * (count - 1) / (count * CELL - (CELL + 1) / 2)
    distance = (
        cells[:, :, None] - torch.arange(count, dtype=cells.dtype, device=cells.device)
    ).abs()
    if sampling.interpolation == "bilinear":
        return (1 - distance).clamp(min=0.0)
    # Keys, Cubic convolution interpolation for digital image processing, 1981.
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))


def _grouped(values: Tensor, group: int) -> Tensor:
    """Values (B, N, …) with the points of `group` images in one row: (B / group, group · N, …)."""
    return values.reshape(values.shape[0] // group, group * values.shape[1], *values.shape[2:])


def _dual_softmax(first: Tensor, second: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Negative log likelihood (B, N) that descriptor i of (B, N, D) matches i of the other, both ways."""
    similarity = bmm(first / temperature, second.transpose(1, 2))
    similarity = similarity.masked_fill(~(valid[:, :, None] & valid[:, None]), _MASKED)
    matched = similarity.diagonal(dim1=1, dim2=2)
    return similarity.logsumexp(dim=1) + similarity.logsumexp(dim=2) - 2 * matched
