"""Losses of the training stages, made of those of the detector and of the descriptors.

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
    """Several losses together: `total` is the sum of weight · loss; each is returned under its name, too.

    Attributes:
        parts: weight and loss by name.
    """

    parts: Mapping[str, tuple[float, Loss]]

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        values = {name: loss(pred, batch)["total"] for name, (_, loss) in self.parts.items()}
        total = torch.stack(
            [weight * values[name] for name, (weight, _) in self.parts.items()]
        ).sum(dim=0)
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

    def __call__(
        self, pred: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
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
    """The loss of single labelled views: cross entropy and localisation.

    Args:
        config: kind of targets, weights.
        generator: of everything random in the loss.
    """
    return WeightedLoss(_detector_parts(config, generator))


def pair_loss(
    config: LossConfig, sampling: Sampling, generator: torch.Generator | None = None, block: int = 1
) -> Loss:
    """The loss of pairs of labelled views: the detector's in both, consistency and descriptors.

    Args:
        config: kind of targets and descriptor loss, weights.
        sampling: the network's rule.
        generator: of everything random in the loss.
        block: pairs in the batch that were made together, one after the other.
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
