"""Training loop of one stage of SuperPoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spslam.errors import TrainingError
from spslam.notices import counted

from ...superpoint.superpoint import SuperPoint
from ..config import TrainingConfig
from ..data.loading import step_batches
from ..data.reading import Batch
from ..data.sources import Source
from ..objectives import Objective
from ..precision import autocast
from .training_loop import LoopOptions, TrainingLoop

# Function that measures weights; its value `metric` chooses the best ones, higher is better.
Validation = Callable[[SuperPoint], dict[str, float]]


class StageModel(nn.Module):
    """Network with the predictions of a stage: from a batch to what the loss needs."""

    def __init__(self, network: SuperPoint, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self._objective = objective
        if not objective.learns_descriptors:
            for layer in (network.convDa, network.convDb):
                layer.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the objective's predictions for a batch."""
        return self._objective.predict(self.network, batch)


class Trainer(TrainingLoop[SuperPoint, Batch]):
    """Trains one stage; batch norm of the resulting network is not folded.

    Args:
        stage: name of the stage.
        objective: predictions and loss.
        config: all settings; saved in the folder.
        network: initial network; it is changed.
        source: images to train with.
        validate: measures the averaged weights regularly, in the first process.
        options: folder, processes, reports.

    Raises:
        TrainingError: the folder has another stage or configuration, or the batch cannot be split.
    """

    def __init__(
        self,
        stage: str,
        objective: Objective,
        config: TrainingConfig,
        network: SuperPoint,
        source: Source,
        validate: Validation,
        options: LoopOptions,
    ) -> None:
        processes = options.processes
        self._stage, self._config, self._source = stage, config, source
        blocks = config.optimizer.batch // config.optimizer.block
        if blocks % processes.count:
            raise TrainingError(
                f"{processes.count} processes cannot share a step of "
                f"{counted(blocks, 'block')}: make "
                f"optimizer.batch a multiple of {processes.count * config.optimizer.block}"
            )
        device = processes.device
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if processes.count > 1 and device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self._tie_breaking = torch.Generator(device)
        self._loss = objective.loss(
            config.loss, network.sampling, self._tie_breaking, config.optimizer.block
        )
        super().__init__(
            {"stage": stage},
            f"stage {stage}: the loss",
            config,
            StageModel(network, objective),
            network,
            validate,
            options,
            config.optimizer.batch * objective.views,
        )

    def _batches(self) -> Iterator[Batch]:
        return step_batches(self._source, self._config, self._processes, self._step, self._overfit)

    def _losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        processes = self._processes
        number = 0 if self._overfit else self._step
        self._tie_breaking.manual_seed(number * processes.count + processes.rank)
        with autocast(processes.device, self._config.optimizer.precision):
            predictions = model(batch)
        losses: dict[str, Tensor] = self._loss(predictions, batch)
        return losses

    def _parallel_options(self) -> dict[str, Any]:
        device = self._processes.device
        return {"device_ids": [device.index] if device.type == "cuda" else None}

    def _differences(self, state: dict[str, Any]) -> list[str]:
        differences = super()._differences(state)
        if not differences and state.get("stage") != self._stage:
            return [f"stage {state.get('stage')} instead of {self._stage}"]
        return differences
