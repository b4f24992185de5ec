"""Losses of the training stages, combined from detector and descriptor losses.

Every loss is called as `loss(pred, batch)` with the network's predictions and the batch. It returns
a dictionary of tensors (B,), one value per image or pair, not averaged over the batch; `total` is
minimised. h = H/8 and w = W/8 are the sizes of the network's maps.

- One view: `pred["logits"]` (B, 65, h, w), `batch["label_map"]` (B, H, W) in [0, 1],
  `batch["valid"]` (B, H, W) bool, some labelled points `batch["points"]` (B, N, 2) x y in pixels,
  their mass `batch["points_mass"]` (B, N) in [0, 1] and which of them count,
  `batch["points_valid"]` (B, N) bool.
- Two views: the same keys with suffix 0 and 1 (mass and validity without: both views have the same
  points), `pred["descriptors0"]` and `pred["descriptors1"]` (B, D, h, w), not normalised, and
  `batch["homography"]` (B, 3, 3) from pixels of view 0 to pixels of view 1.

Losses are computed in float32 or float64, whatever the network's precision, also inside autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...superpoint.superpoint import Sampling
from ..config import LossConfig
from .descriptor_losses import (
    ContrastiveDescriptorLoss,
    HingeDescriptorLoss,
    SparseDescriptorLoss,
    bmm,
    unit_descriptors,
)
from .detector_losses import (
    ConsistencyLoss,
    DetectorLoss,
    LocalisationLoss,
    full_precision,
    masked_mean,
    valid_cells,
)

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class WeightedLoss:
    """Weighted sum of several losses as `total`; each loss is also returned by name.

    Attributes:
        parts: weight and loss, by name.
    """

    parts: Mapping[str, tuple[float, Loss]]

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return `total` and each loss, (B,)."""
        values = {name: loss(pred, batch)["total"] for name, (_, loss) in self.parts.items()}
        total = torch.stack(
            [weight * values[name] for name, (weight, _) in self.parts.items()]
        ).sum(dim=0)
        return {"total": total, **values}


@dataclass(frozen=True)
class DistillationLoss:
    """Loss of a small network (student) that learns from a large one (teacher), on single views.

    `detector` is the cross entropy with `batch["teacher_probabilities"]` (B, 65, h, w).
    `descriptor` compares `pred["descriptors"]` (B, D, h, w) with `batch["teacher_descriptors"]` (B,
    D', h, w). If D = D', it is the mean of 1 - cosine. Otherwise it is the mean squared difference
    of the cosines between the cells of one image, which do not depend on the length of descriptors
    (relational distillation: Tung and Mori, Similarity-preserving knowledge distillation, ICCV
    2019).

    Attributes:
        descriptor_weight: `total` is `detector` + descriptor_weight · `descriptor`.
        stride: the relational loss uses every `stride`-th cell in both directions.
    """

    descriptor_weight: float = 1.0
    stride: int = 2

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return `total`, `detector` and `descriptor`, (B,)."""
        counted = valid_cells(batch["valid"])
        logits = full_precision(pred["logits"])
        entropy = functional.cross_entropy(
            logits, batch["teacher_probabilities"].to(logits.dtype), reduction="none"
        )
        student = unit_descriptors(pred["descriptors"])
        teacher = unit_descriptors(batch["teacher_descriptors"].to(student.dtype))
        if student.shape[1] == teacher.shape[1]:
            descriptor = masked_mean(1 - (student * teacher).sum(dim=1), counted)
        else:
            descriptor = self._relational(student, teacher, counted)
        detector = masked_mean(entropy, counted)
        total = detector + self.descriptor_weight * descriptor
        return {"total": total, "detector": detector, "descriptor": descriptor}

    def _relational(self, student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
        every = slice(None, None, self.stride)
        difference = _self_similarity(student[..., every, every]) - _self_similarity(
            teacher[..., every, every]
        )
        cells = counted[:, every, every].flatten(1)
        return masked_mean(difference.square(), cells[:, :, None] & cells[:, None])


def detector_loss(config: LossConfig, generator: torch.Generator | None = None) -> Loss:
    """Return the loss of single labelled views: cross entropy and localisation.

    Args:
        config: kind of targets, weights.
        generator: random numbers of the loss.
    """
    return WeightedLoss(_detector_parts(config, generator))


def pair_loss(
    config: LossConfig, sampling: Sampling, generator: torch.Generator | None = None, block: int = 1
) -> Loss:
    """Return the loss of pairs of labelled views: detector, consistency and descriptors.

    Args:
        config: kind of targets and descriptor loss, weights.
        sampling: how the network's descriptors are sampled.
        generator: random numbers of the loss.
        block: consecutive pairs of the batch that were augmented together.
    """
    parts = _detector_parts(config, generator)
    if config.consistency_weight > 0:
        parts["consistency"] = (config.consistency_weight, ConsistencyLoss(config.selectivity))
    parts["descriptor"] = (config.descriptor_weight, _descriptor_loss(config, sampling, block))
    return WeightedLoss(parts)


def _detector_parts(
    config: LossConfig, generator: torch.Generator | None
) -> dict[str, tuple[float, Loss]]:
    parts: dict[str, tuple[float, Loss]] = {
        "detector": (1.0, DetectorLoss(config.targets, generator))
    }
    if config.localisation_weight > 0:
        parts["localisation"] = (config.localisation_weight, LocalisationLoss())
    return parts


def _descriptor_loss(config: LossConfig, sampling: Sampling, block: int) -> Loss:
    if config.descriptor == "hinge":
        return HingeDescriptorLoss(
            config.positive_margin, config.negative_margin, config.positive_weight
        )
    if config.descriptor == "contrastive":
        return ContrastiveDescriptorLoss(config.temperature)
    return SparseDescriptorLoss(
        config.temperature, sampling, block if config.negatives == "block" else 1
    )


def _self_similarity(unit: Tensor) -> Tensor:
    flat = unit.flatten(2)
    return bmm(flat.transpose(1, 2), flat)
