"""Losses of the detector and of the descriptors.

Every loss is called with what the network gave and what the data know, `loss(pred, batch)`, and returns a
dictionary of tensors (B,): one value for each image or pair, never averaged over the batch, `total` being what is
minimised. h = H/8 and w = W/8 are the sizes of the network's maps.

- One view: `pred["logits"]` (B, 65, h, w), `batch["label_map"]` (B, H, W) in [0, 1], `batch["valid"]` (B, H, W) bool,
  and `batch["points"]` (B, N, 2) x y, some of the labelled points, their mass `batch["points_mass"]` (B, N) in [0, 1]
  and which of them count, `batch["points_valid"]` (B, N).
- Two views: the same keys ending in 0 and 1 (but mass and validity: the points are the same in both views),
  `pred["descriptors0"]` and `pred["descriptors1"]` (B, D, h, w) as they leave the network, and `batch["homography"]`
  (B, 3, 3) from pixels of view 0 to pixels of view 1.

Whatever the network's precision, losses are computed in float32 at least, also inside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..decoder import HEAT_RADIUS
from ..superpoint import CELL, Sampling, detector_probabilities
from .config import LossConfig
from .homography import warp_points

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]

_TIE_NOISE = 0.1
# Of the probability around a label; a detector that sees nothing there is left to the cross entropy.
_LEAST_MASS = 1e-3
_LEAST_ERROR = 1e-2
# Far below any similarity, yet finite: a row without a single valid entry must not become NaN.
_MASKED = -1e30
# As in `superpoint`: the bicubic kernel's free parameter in torch.nn.functional.grid_sample.
_BICUBIC_A = -0.75
_BICUBIC, _BILINEAR = Sampling("bicubic"), Sampling("bilinear")


def splat_points(points: Tensor, mass: Tensor, valid: Tensor, size: tuple[int, int], subpixel: bool) -> Tensor:
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
        corner = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=points.dtype, device=points.device)
        first = points.floor()
        fraction = (points - first)[:, :, None]
        pixels = first[:, :, None] + corner
        mass = mass * torch.where(corner > 0, fraction, 1 - fraction).prod(3)
    else:
        pixels = (points + 0.5).floor()[:, :, None]
    x, y = pixels.unbind(3)
    mass = torch.where((x >= 0) & (x < width) & (y >= 0) & (y < height), mass, 0.0)
    index = y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()
    flat = mass.new_zeros(len(points), height * width).scatter_add(1, index.flatten(1), mass.flatten(1))
    return flat.clamp(max=1.0).reshape(-1, height, width)


def space_to_depth(image: Tensor) -> Tensor:
    """(B, H, W) as (B, 64, h, w): channel 8·y + x of a cell is its pixel (x, y), as in the detector's logits."""
    return functional.pixel_unshuffle(image[:, None], CELL)


def valid_cells(valid: Tensor) -> Tensor:
    """(B, h, w) bool: cells all of whose pixels are valid, of (B, H, W) bool."""
    return space_to_depth(valid).all(dim=1)


def detector_targets(
    label_map: Tensor, valid: Tensor, kind: Literal["hard", "soft"], generator: torch.Generator | None = None
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
    noise = torch.rand(scores.shape, generator=generator, dtype=scores.dtype, device=device).to(scores.device)
    return (scores + _TIE_NOISE * noise).argmax(dim=1), valid_cells(valid)


def sample_descriptor_map(descriptors: Tensor, points: Tensor, sampling: Sampling) -> Tensor:
    """Unit descriptors (B, N, D) at pixels (B, N, 2), as `sample_descriptors`, but with gradients.

    Args:
        descriptors: (B, D, h, w), of any length; cells are normalised before they are interpolated.
        points: (B, N, 2) x y, pixels.
        sampling: the network's rule.
    """
    unit = _unit(descriptors)
    rows, columns = unit.shape[2:]
    across = _cell_weights(points[:, :, 0].to(unit.dtype), columns, sampling)
    down = _cell_weights(points[:, :, 1].to(unit.dtype), rows, sampling)
    # A matrix product, because on CUDA the gradients of grid_sample are not the same bits every time.
    weights = (down[:, :, :, None] * across[:, :, None]).flatten(2)
    return functional.normalize(_bmm(weights, unit.flatten(2).transpose(1, 2)), dim=2)


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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = ("0", "1") if "logits0" in pred else ("",)
        losses = [self._view(pred[f"logits{v}"], batch[f"label_map{v}"], batch[f"valid{v}"]) for v in views]
        return {"total": torch.stack(losses).mean(dim=0)}

    def _view(self, logits: Tensor, label_map: Tensor, valid: Tensor) -> Tensor:
        logits = _full_precision(logits)
        targets, counted = detector_targets(label_map.to(logits.dtype), valid, self.kind, self.generator)
        return _masked_mean(functional.cross_entropy(logits, targets, reduction="none"), counted)


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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        valid = batch["points_valid"]
        (first, mass0), (second, mass1) = (
            detected_points(pred[f"logits{view}"], batch[f"points{view}"], valid, self.search) for view in ("0", "1")
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


def detected_points(logits: Tensor, points: Tensor, valid: Tensor, search: int) -> tuple[Tensor, Tensor]:
    """Where the detector puts points, and how probable it finds them there, both with gradients.

    Args:
        logits: (B, 65, h, w).
        points: (B, N, 2) x y, pixels.
        valid: (B, N) bool; the others may hold anything.
        search: pixels around each point where the largest probability is looked for.

    Returns:
        Positions (B, N, 2), as `refine_on_heat` makes them, and the probability gathered around them (B, N).
    """
    heat = detector_probabilities(_full_precision(logits))
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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first, second = _unit(pred["descriptors0"]), _unit(pred["descriptors1"])
        similarity = _bmm(first.flatten(2).transpose(1, 2), second.flatten(2))
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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        centres = _cell_centres(pred["descriptors0"])
        warped = warp_points(centres, batch["homography"].double())
        valid = valid_cells(batch["valid0"]).flatten(1) & _in_valid_cell(warped, valid_cells(batch["valid1"]))
        first = _unit(pred["descriptors0"]).flatten(2).transpose(1, 2)
        second = sample_descriptor_map(pred["descriptors1"], warped, _BILINEAR)
        return {"total": _masked_mean(_dual_softmax(first, second, valid, self.temperature), valid)}


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

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        valid = batch["points_valid"]
        first, second = (
            sample_descriptor_map(
                pred[f"descriptors{view}"], torch.where(valid[:, :, None], batch[f"points{view}"], 0.0), self.sampling
            )
            for view in ("0", "1")
        )
        together = [_grouped(values, self.group) for values in (first, second, valid)]
        likelihood = _dual_softmax(together[0], together[1], together[2], self.temperature)
        return {"total": _masked_mean(likelihood.reshape(valid.shape), valid)}


@dataclass(frozen=True)
class WeightedLoss:
    """Several losses together: `total` is the sum of weight · loss; each is returned under its name, too.

    Attributes:
        parts: weight and loss by name.
    """

    parts: Mapping[str, tuple[float, Loss]]

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {name: loss(pred, batch)["total"] for name, (_, loss) in self.parts.items()}
        total = torch.stack([weight * values[name] for name, (weight, _) in self.parts.items()]).sum(dim=0)
        return {"total": total, **values}


@dataclass(frozen=True)
class DistillationLoss:
    """What a small network (student) should learn from a large one (teacher), on single views.

    `detector` is the cross entropy to `batch["teacher_probabilities"]` (B, 65, h, w). `descriptor` compares
    `pred["descriptors"]` (B, D, h, w) to `batch["teacher_descriptors"]` (B, D', h, w): mean 1 - cosine where
    D = D', else the mean squared difference of the cosines among the cells of one image, which do not depend on the
    length (relational distillation: Tung and Mori, Similarity-preserving knowledge distillation, ICCV 2019).

    Attributes:
        descriptor_weight: `total` is `detector` + descriptor_weight · `descriptor`.
        stride: every so many cells, in both directions, are compared among each other.
    """

    descriptor_weight: float = 1.0
    stride: int = 2

    def __call__(self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        counted = valid_cells(batch["valid"])
        logits = _full_precision(pred["logits"])
        entropy = functional.cross_entropy(logits, batch["teacher_probabilities"].to(logits.dtype), reduction="none")
        student = _unit(pred["descriptors"])
        teacher = _unit(batch["teacher_descriptors"].to(student.dtype))
        if student.shape[1] == teacher.shape[1]:
            descriptor = _masked_mean(1 - (student * teacher).sum(dim=1), counted)
        else:
            descriptor = self._relational(student, teacher, counted)
        detector = _masked_mean(entropy, counted)
        total = detector + self.descriptor_weight * descriptor
        return {"total": total, "detector": detector, "descriptor": descriptor}

    def _relational(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        every = slice(None, None, self.stride)
        difference = _self_similarity(student[..., every, every]) - _self_similarity(teacher[..., every, every])
        cells = counted[:, every, every].flatten(1)
        return _masked_mean(difference.square(), cells[:, :, None] & cells[:, None])


def build_loss(
    config: LossConfig,
    stage: Literal["shapes", "detector", "joint", "distil"],
    sampling: Sampling,
    generator: torch.Generator | None = None,
    block: int = 1,
) -> Loss:
    """The loss of a training stage.

    Args:
        config: kind of targets and descriptor loss, weights.
        stage: `shapes` and `detector` train the detector on single views, `joint` everything on pairs, `distil`
            everything on single views that a teacher has labelled.
        sampling: the network's rule.
        generator: of everything random in the loss.
        block: pairs in the batch that were made together, one after the other.
    """
    if stage == "distil":
        return DistillationLoss(config.descriptor_weight)
    parts: dict[str, tuple[float, Loss]] = {"detector": (1.0, DetectorLoss(config.targets, generator))}
    if config.localisation_weight > 0:
        parts["localisation"] = (config.localisation_weight, LocalisationLoss())
    if stage == "joint" and config.consistency_weight > 0:
        parts["consistency"] = (config.consistency_weight, ConsistencyLoss(config.selectivity))
    if stage == "joint":
        parts["descriptor"] = (config.descriptor_weight, _descriptor_loss(config, sampling, block))
    return WeightedLoss(parts)


def _descriptor_loss(config: LossConfig, sampling: Sampling, block: int) -> Loss:
    if config.descriptor == "hinge":
        return HingeDescriptorLoss(config.positive_margin, config.negative_margin, config.positive_weight)
    if config.descriptor == "contrastive":
        return ContrastiveDescriptorLoss(config.temperature)
    return SparseDescriptorLoss(config.temperature, sampling, block if config.negatives == "block" else 1)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _unit(descriptors: Tensor) -> Tensor:
    return functional.normalize(_full_precision(descriptors), dim=1)


def _bmm(first: Tensor, second: Tensor) -> Tensor:
    # Autocast would multiply in half precision, whose steps near a cosine of 1 are as large as what is compared.
    with torch.autocast(first.device.type, enabled=False):
        return torch.bmm(first, second)


def _self_similarity(unit: Tensor) -> Tensor:
    flat = unit.flatten(2)
    return _bmm(flat.transpose(1, 2), flat)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Means (B,) of what the mask keeps; 0 where it keeps nothing."""
    total = torch.where(mask, values, 0.0).flatten(1).sum(dim=1)
    return total / mask.flatten(1).sum(dim=1).clamp(min=1)


def _cell_centres(descriptors: Tensor) -> Tensor:
    """Pixels (B, h·w, 2) of the centres of the cells of a map (B, D, h, w), row by row."""
    batch, _, rows, columns = descriptors.shape
    y, x = torch.meshgrid(_centres(rows, descriptors.device), _centres(columns, descriptors.device), indexing="ij")
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
    distance = (cells[:, :, None] - torch.arange(count, dtype=cells.dtype, device=cells.device)).abs()
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
    similarity = _bmm(first / temperature, second.transpose(1, 2))
    similarity = similarity.masked_fill(~(valid[:, :, None] & valid[:, None]), _MASKED)
    matched = similarity.diagonal(dim1=1, dim2=2)
    return similarity.logsumexp(dim=1) + similarity.logsumexp(dim=2) - 2 * matched
