"""What a stage learns: which predictions it takes from the network, and which loss they minimise."""

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
        views: of each image in a batch.
        learns_descriptors: False: the layers of the descriptors stay as they are.
    """

    views: ClassVar[int] = 1
    learns_descriptors: ClassVar[bool] = True

    @abstractmethod
    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """What the loss compares with the batch."""

    @abstractmethod
    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """The loss of these predictions.

        Args:
            config: kinds and weights.
            sampling: the network's rule.
            generator: of everything random in the loss.
            block: pairs in the batch that were made together, one after the other.
        """


class DetectorObjective(Objective):
    """Keypoints alone, on single labelled views."""

    learns_descriptors = False

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """`logits`."""
        return {"logits": network.detector_logits(_channels_last(batch["image"]))}

    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Cross entropy and localisation."""
        return detector_loss(config, generator)


class PairObjective(Objective):
    """Keypoints and descriptors, on pairs of labelled views."""

    views = 2

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """`logits` and `descriptors` of both views, with 0 and 1 after their names."""
        # Both views at once: batch norm sees them together.
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
        """Cross entropy, localisation, consistency and descriptors."""
        return pair_loss(config, sampling, generator, block)


class DistillationObjective(Objective):
    """What a teacher predicts for single views."""

    def predict(self, network: SuperPoint, batch: Batch) -> dict[str, Tensor]:
        """`logits` and `descriptors`."""
        logits, descriptors = network(_channels_last(batch["image"]))
        return {"logits": logits, "descriptors": descriptors}

    def loss(
        self, config: LossConfig, sampling: Sampling, generator: torch.Generator | None, block: int
    ) -> Loss:
        """Cross entropy with the teacher's probabilities, distance to its descriptors."""
        return DistillationLoss(config.descriptor_weight)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
