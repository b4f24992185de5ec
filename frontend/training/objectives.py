"""Objectives of the stages: the predictions of the network and the loss to minimise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ..superpoint.superpoint import Sampling, SuperPoint
from .config import LossConfig
from .data.reading import Batch
from .losses.losses import DistillationLoss, Loss, detector_loss, pair_loss


class Objective(ABC):
    """Predictions and loss of a stage.

    Attributes:
        views: views of each image in a batch.
        learns_descriptors: whether the descriptor layers are trained.
    """

    views: ClassVar[int] = 1
    learns_descriptors: ClassVar[bool] = True

    @abstractmethod
    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """Return what the loss compares with the batch."""

    @abstractmethod
    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Return the loss of these predictions.

        Args:
            config: kinds and weights of the losses.
            sampling: how the network's descriptors are sampled.
            generator: random numbers of the loss.
            block: consecutive pairs of the batch that were augmented together.
        """


class DetectorObjective(Objective):
    """Learn keypoints only, from single labelled views."""

    learns_descriptors = False

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """Return `logits`."""
        return {"logits": network.detector_logits(_channels_last(batch["image"]))}

    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Return cross entropy and localisation."""
        return detector_loss(config, generator)


class PairObjective(Objective):
    """Learn keypoints and descriptors from pairs of labelled views."""

    views = 2

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """Return `logits` and `descriptors` of both views, named with suffix 0 and 1."""
        # Both views in one pass: batch norm sees them together.
        logits, descriptors = network(_channels_last(torch.cat([batch["image0"], batch["image1"]])))
        (logits0, logits1), (descriptors0, descriptors1) = logits.chunk(2), descriptors.chunk(2)
        return {
            "logits0": logits0,
            "logits1": logits1,
            "descriptors0": descriptors0,
            "descriptors1": descriptors1,
        }

    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Return cross entropy, localisation, consistency and descriptor loss."""
        return pair_loss(config, sampling, generator, block)


class DistillationObjective(Objective):
    """Learn a teacher's predictions for single views."""

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """Return `logits` and `descriptors`."""
        logits, descriptors = network(_channels_last(batch["image"]))
        return {"logits": logits, "descriptors": descriptors}

    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Return cross entropy with the teacher's probabilities and distance to its descriptors."""
        return DistillationLoss(config.descriptor_weight)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
