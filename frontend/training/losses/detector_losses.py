"""Detector losses: cross entropy, localisation, and consistency between two views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...superpoint.decoder import HEAT_RADIUS
from ...superpoint.superpoint import CELL, detector_probabilities

# Amplitude of the noise that breaks ties between several labels in a cell.
_TIE_NOISE = 0.1
# Least probability around a label; below it, the localisation losses have no effect.
_LEAST_MASS = 1e-3
# Least distance, pixels; keeps the square root differentiable at zero.
_LEAST_ERROR = 1e-2


def splat_points(
    points: Tensor, mass: Tensor, valid: Tensor, size: tuple[int, int], subpixel: bool
) -> Tensor:
    """Draw label maps (B, H, W): the mass of the points at each pixel, at most 1.

    Args:
        points: (B, N, 2) x y, pixels; points outside the image are dropped.
        mass: (B, N) in [0, 1].
        valid: (B, N) bool; invalid points may have any value, also NaN.
        size: H and W.
        subpixel: split the mass bilinearly among the four pixels around a point; otherwise give it
            to the nearest pixel.
    """
    height, width = size
    points = torch.where(valid[:, :, None], points, 0.0)
    mass = torch.where(valid, mass, 0.0)[:, :, None]
    if subpixel:
        corner = torch.tensor(
            [[0, 0], [1, 0], [0, 1], [1, 1]], dtype=points.dtype, device=points.device
        )
        first = points.floor()
        fraction = (points - first)[:, :, None]
        pixels = first[:, :, None] + corner
        mass = mass * torch.where(corner > 0, fraction, 1 - fraction).prod(3)
    else:
        pixels = (points + 0.5).floor()[:, :, None]
    x, y = pixels.unbind(3)
    mass = torch.where((x >= 0) & (x < width) & (y >= 0) & (y < height), mass, 0.0)
    index = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    flat = mass.new_zeros(len(points), height * width).scatter_add(
        1, index.flatten(1), mass.flatten(1)
    )
    return flat.clamp(max=1.0).reshape(-1, height, width)


def space_to_depth(image: Tensor) -> Tensor:
    """Rearrange (B, H, W) as (B, 64, h, w): channel 8·y + x is pixel (x, y) of a cell."""
    return functional.pixel_unshuffle(image[:, None], CELL)


def valid_cells(valid: Tensor) -> Tensor:
    """Return which cells (B, h, w) have only valid pixels, from (B, H, W) bool."""
    return space_to_depth(valid).all(dim=1)


def detector_targets(
    label_map: Tensor,
    valid: Tensor,
    kind: Literal["hard", "soft"],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the detector's targets and which cells count.

    Args:
        label_map: (B, H, W) float in [0, 1], H and W multiples of 8.
        valid: (B, H, W) bool.
        kind: `hard`: class (B, h, w) int64 of one label, random among several, or 64, the dustbin
            (DeTone et al., SuperPoint, 2018, section 3.3). Needs labels at whole pixels: a label
            counts only with at least half of its mass in a pixel. `soft`: probabilities (B, 65, h,
            w), the labels' mass; the dustbin gets the rest to 1.
        generator: random numbers for the choice, on any device; None: the device's default.

    Returns:
        The targets and which cells count, (B, h, w) bool.
    """
    cells = space_to_depth(label_map)
    if kind == "soft":
        targets = torch.cat([cells, (1 - cells.sum(1, keepdim=True)).clamp(min=0.0)], dim=1)
        return targets / targets.sum(1, keepdim=True), valid_cells(valid)
    scores = torch.cat([2 * cells, torch.ones_like(cells[:, :1])], dim=1)
    device = scores.device if generator is None else generator.device
    noise = torch.rand(scores.shape, generator=generator, dtype=scores.dtype, device=device).to(
        scores.device
    )
    return (scores + _TIE_NOISE * noise).argmax(dim=1), valid_cells(valid)


@dataclass(frozen=True)
class DetectorLoss:
    """Cross entropy over the 65 classes, averaged over the valid cells, then over the views.

    Source: DeTone et al., SuperPoint, 2018, section 3.3.

    Attributes:
        kind: see `detector_targets`.
        generator: random numbers for hard targets.
    """

    kind: Literal["hard", "soft"] = "soft"
    generator: torch.Generator | None = None

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        views = ("0", "1") if "logits0" in pred else ("",)
        losses = [
            self._view(pred[f"logits{v}"], batch[f"label_map{v}"], batch[f"valid{v}"])
            for v in views
        ]
        return {"total": torch.stack(losses).mean(dim=0)}

    def _view(self, logits: Tensor, label_map: Tensor, valid: Tensor) -> Tensor:
        logits = full_precision(logits)
        targets, counted = detector_targets(
            label_map.to(logits.dtype), valid, self.kind, self.generator
        )
        return masked_mean(functional.cross_entropy(logits, targets, reduction="none"), counted)


@dataclass(frozen=True)
class LocalisationLoss:
    """Distance between labelled points and detections, pixels.

    It is averaged over the points of an image, weighted by mass, then over the views of a pair. The
    detection is the largest probability nearby, refined by `refine_on_heat`. Cross entropy
    penalises a neighbouring pixel as much as a distant one; this loss gives the direction towards
    the label.

    Attributes:
        search: radius around a label in which the detection is searched, pixels.
    """

    search: int = 3

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        views = ("0", "1") if "logits0" in pred else ("",)
        valid, mass = batch["points_valid"], batch["points_mass"]
        losses = [self._view(pred[f"logits{v}"], batch[f"points{v}"], mass, valid) for v in views]
        return {"total": torch.stack(losses).mean(dim=0)}

    def _view(self, logits: Tensor, points: Tensor, mass: Tensor, valid: Tensor) -> Tensor:
        position, _ = detected_points(logits, points, valid, self.search)
        distance = _length(position - torch.where(valid[:, :, None], points, 0.0))
        return _weighted_mean(distance, torch.where(valid, mass, 0.0))


@dataclass(frozen=True)
class ConsistencyLoss:
    """Distance between the detections of a point in both views, pixels of view 1.

    It is averaged over the points of a pair, weighted by the detector's own probabilities. Labels
    are off by half a pixel themselves; this loss rewards the same place in both views instead. With
    gradients through the weights, the detector also learns to prefer points that it localises well:
    probability moves from points with more than the mean distance to points with less.

    Attributes:
        selectivity: fraction of the gradient through the weights; 0: only positions are learned.
        search: radius around a label in which the detection is searched, pixels.
        limit: larger distances count as this one, pixels: such detections are not the same point.
    """

    selectivity: float = 0.0
    search: int = 3
    limit: float = 4.0

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the loss as `total` (B,)."""
        valid = batch["points_valid"]
        (first, mass0), (second, mass1) = (
            detected_points(pred[f"logits{view}"], batch[f"points{view}"], valid, self.search)
            for view in ("0", "1")
        )
        homography = batch["homography"].to(first.dtype)
        # Valid points lie in front of both cameras; invalid ones may be anywhere.
        moved = torch.cat([first, torch.ones_like(first[:, :, :1])], dim=2)
        moved = (homography[:, None] @ moved[..., None])[..., 0]
        depth = torch.where(moved[:, :, 2:] > _LEAST_MASS, moved[:, :, 2:], 1.0)
        distance = _length(moved[:, :, :2] / depth - second).clamp(max=self.limit)
        weight = (mass0 * mass1 + _LEAST_MASS**2).sqrt()
        weight = self.selectivity * weight + (1 - self.selectivity) * weight.detach()
        return {"total": _weighted_mean(distance, torch.where(valid, weight, 0.0))}


def detected_points(
    logits: Tensor, points: Tensor, valid: Tensor, search: int
) -> tuple[Tensor, Tensor]:
    """Return the detected positions of points and their probabilities, both with gradients.

    Args:
        logits: (B, 65, h, w).
        points: (B, N, 2) x y, pixels.
        valid: (B, N) bool; invalid points may have any value.
        search: radius around each point in which the largest probability is searched, pixels.

    Returns:
        Positions (B, N, 2), refined as by `refine_on_heat`, and the probability around them (B, N).
    """
    heat = detector_probabilities(full_precision(logits))
    base = torch.where(valid[:, :, None], points, 0.0).round().long()
    side = 2 * search + 1
    largest = _patches(heat.detach(), base, search).flatten(2).argmax(dim=2)
    maximum = base + torch.stack([largest % side, largest // side], dim=2) - search
    patch = _patches(heat, maximum, HEAT_RADIUS)
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1, dtype=heat.dtype, device=heat.device)
    # Not a matrix product, because autocast would compute it in half precision.
    moment = torch.stack([(patch.sum(dim=axis) * steps).sum(dim=2) for axis in (2, 3)], dim=2)
    mass = patch.sum(dim=(2, 3))
    return maximum + moment / (mass + _LEAST_MASS)[:, :, None], mass


def _length(vectors: Tensor) -> Tensor:
    # The constant keeps the square root differentiable at zero.
    return (vectors.square().sum(dim=2) + _LEAST_ERROR**2).sqrt()


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(values.dtype)
    return (weights * values).sum(dim=1) / weights.sum(dim=1).clamp(min=_LEAST_MASS)


def _patches(heat: Tensor, centres: Tensor, radius: int) -> Tensor:
    """Cut patches (B, N, rows, columns) of (B, H, W) around pixels (B, N, 2); zero outside."""
    height, width = heat.shape[1:]
    steps = torch.arange(-radius, radius + 1, device=heat.device)
    x, y = (centres[:, :, axis, None] + steps for axis in (0, 1))
    inside = ((x >= 0) & (x < width))[:, :, None] & ((y >= 0) & (y < height))[:, :, :, None]
    index = y.clamp(0, height - 1)[:, :, :, None] * width + x.clamp(0, width - 1)[:, :, None]
    return heat.flatten(1).gather(1, index.flatten(1)).reshape(index.shape) * inside


def full_precision(values: Tensor) -> Tensor:
    """Convert half precision to float32; keep float64."""
    return values if values.dtype == torch.float64 else values.float()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the means (B,) of the values in the mask; 0 for an empty mask."""
    total = torch.where(mask, values, 0.0).flatten(1).sum(dim=1)
    return total / mask.flatten(1).sum(dim=1).clamp(min=1)
