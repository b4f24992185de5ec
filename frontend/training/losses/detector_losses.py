"""Losses of the detector: what is a point, where it is, and that both views agree about it (see `losses`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...superpoint.decoder import HEAT_RADIUS
from ...superpoint.superpoint import CELL, detector_probabilities

_TIE_NOISE = 0.1
# Of the probability around a label; a detector that sees nothing there is left to the cross entropy.
_LEAST_MASS = 1e-3
_LEAST_ERROR = 1e-2


def splat_points(
    points: Tensor, mass: Tensor, valid: Tensor, size: tuple[int, int], subpixel: bool
) -> Tensor:
    """Label maps (B, H, W): the mass of the points at each pixel, at most 1.

    Args:
        points: (B, N, 2) x y, pixels; what falls outside the image is lost.
        mass: (B, N) in [0, 1].
        valid: (B, N) bool; the others may hold anything, NaN too.
        size: H and W.
        subpixel: share the mass bilinearly among the four pixels around a point, else give it to the nearest.
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
    """(B, H, W) as (B, 64, h, w): channel 8·y + x of a cell is its pixel (x, y), as in the detector's logits."""
    return functional.pixel_unshuffle(image[:, None], CELL)


def valid_cells(valid: Tensor) -> Tensor:
    """(B, h, w) bool: cells all of whose pixels are valid, of (B, H, W) bool."""
    return space_to_depth(valid).all(dim=1)


def detector_targets(
    label_map: Tensor,
    valid: Tensor,
    kind: Literal["hard", "soft"],
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """What the detector should say in each cell, and which cells count.

    Args:
        label_map: (B, H, W) float in [0, 1], H and W multiples of 8.
        valid: (B, H, W) bool.
        kind: `hard`: the class (B, h, w) int64 of one label, chosen at random among several, or 64, the dustbin
            (DeTone et al., section 3.3); it wants labels at whole pixels, a label must keep half its mass to win.
            `soft`: probabilities (B, 65, h, w), the labels' mass, to the dustbin what is missing to 1.
        generator: of the random choice, on any device; None takes the device's default.

    Returns:
        The targets and the cells that count, (B, h, w) bool.
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
    """Cross entropy over the 65 classes, averaged over the valid cells of an image, then over the views of a pair.

    Source: DeTone et al., section 3.3.

    Attributes:
        kind: see `detector_targets`.
        generator: of the random choices of hard targets.
    """

    kind: Literal["hard", "soft"] = "soft"
    generator: torch.Generator | None = None

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
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
    """Distance, pixels, of labelled points from where the detector puts them, averaged over the points of an image by
    their mass, then over the views of a pair.

    Where it puts them is what `refine_on_heat` makes of the largest probability nearby. Cross entropy punishes a
    neighbouring pixel as much as a far one; this tells the detector which way to go.

    Attributes:
        search: pixels around a label's where the detector's point is looked for.
    """

    search: int = 3

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
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
    """Distance, pixels of view 1, between where the detector puts a point in both views, averaged over the points of a
    pair by the probability that the detector gives them.

    Labels are out by half a pixel themselves; what counts is that a point is found at the same place again. As the
    weights are the detector's own, it can also be told to prefer the points that it places well: the gradient then
    moves probability from those farther apart than the mean to those nearer.

    Attributes:
        selectivity: the share of the gradient through the weights that counts; 0: only places are learned.
        search: pixels around a label's where the detector's point is looked for.
        limit: distance that larger ones count as: such points are not the same.
    """

    selectivity: float = 0.0
    search: int = 3
    limit: float = 4.0

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        valid = batch["points_valid"]
        (first, mass0), (second, mass1) = (
            detected_points(pred[f"logits{view}"], batch[f"points{view}"], valid, self.search)
            for view in ("0", "1")
        )
        homography = batch["homography"].to(first.dtype)
        # A warped pair's points are in front of both cameras; those that are not valid may be anywhere.
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
    """Where the detector puts points, and how probable it finds them there, both with gradients.

    Args:
        logits: (B, 65, h, w).
        points: (B, N, 2) x y, pixels.
        valid: (B, N) bool; the others may hold anything.
        search: pixels around each point where the largest probability is looked for.

    Returns:
        Positions (B, N, 2), as `refine_on_heat` makes them, and the probability gathered around them (B, N).
    """
    heat = detector_probabilities(full_precision(logits))
    base = torch.where(valid[:, :, None], points, 0.0).round().long()
    side = 2 * search + 1
    largest = _patches(heat.detach(), base, search).flatten(2).argmax(dim=2)
    maximum = base + torch.stack([largest % side, largest // side], dim=2) - search
    patch = _patches(heat, maximum, HEAT_RADIUS)
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1, dtype=heat.dtype, device=heat.device)
    # Not a matrix product, which autocast would do in half precision.
    moment = torch.stack([(patch.sum(dim=axis) * steps).sum(dim=2) for axis in (2, 3)], dim=2)
    mass = patch.sum(dim=(2, 3))
    return maximum + moment / (mass + _LEAST_MASS)[:, :, None], mass


def _length(vectors: Tensor) -> Tensor:
    # Differentiable at zero.
    return (vectors.square().sum(dim=2) + _LEAST_ERROR**2).sqrt()


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    weights = weights.to(values.dtype)
    return (weights * values).sum(dim=1) / weights.sum(dim=1).clamp(min=_LEAST_MASS)


def _patches(heat: Tensor, centres: Tensor, radius: int) -> Tensor:
    """(B, N, rows, columns) of (B, H, W) around pixels (B, N, 2); zero outside the image."""
    height, width = heat.shape[1:]
    steps = torch.arange(-radius, radius + 1, device=heat.device)
    x, y = (centres[:, :, axis, None] + steps for axis in (0, 1))
    inside = ((x >= 0) & (x < width))[:, :, None] & ((y >= 0) & (y < height))[:, :, :, None]
    index = y.clamp(0, height - 1)[:, :, :, None] * width + x.clamp(0, width - 1)[:, :, None]
    return heat.flatten(1).gather(1, index.flatten(1)).reshape(index.shape) * inside


def full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means (B,) of what the mask keeps; 0 where it keeps nothing."""
    total = torch.where(mask, values, 0.0).flatten(1).sum(dim=1)
    return total / mask.flatten(1).sum(dim=1).clamp(min=1)
