"""Training loop of a matcher: one or several processes, resumable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from spslam.errors import TrainingError
from spslam.notices import counted

from ...training.loop.training_loop import LoopOptions, TrainingLoop
from ...training.precision import autocast
from ..network import Assignment, ImageState, MatcherNetwork
from ..torch_matching import predicted_matches
from .configuration import MatcherConfig
from .losses import (
    assignment_loss,
    confidence_loss,
    match_counts,
)
from .pairs import PairBatch, PairSampler, ViewBatch

# Function that measures weights; its value `metric` chooses the best ones, higher is better.
MatcherValidation = Callable[[MatcherNetwork], dict[str, float]]
STAGE = "matcher"


class MatcherLossModel(nn.Module):
    """Network and loss: from a batch of pairs to the losses of each pair.

    In each step the loss counts after the last layer and after one of the earlier layers, in turn.
    """

    def __init__(self, network: MatcherNetwork, config: MatcherConfig) -> None:
        super().__init__()
        self.network = network
        self._config = config.loss
        self._precision = config.optimizer.precision

    def forward(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Return losses (B,), and counts of matches (B,) under `found`, `predicted` and `true`."""
        network, layers = self.network, self.network.shape.layers
        early = step % (layers - 1) if layers > 1 else None
        device = batch.view0.positions.device
        with autocast(device, self._precision):
            images = (_embed(network, batch.view0), _embed(network, batch.view1))
            states, found = None, None
            for index in range(layers):
                images = network.layer(index, *images)
                if index == early:
                    states = images
                    found = network.heads[index](*images)
            last: Assignment = network.heads[-1](*images)
        losses = assignment_loss(last, batch.true)
        index0, index1 = predicted_matches(last, self._config.threshold)
        total = losses["total"]
        if early is not None and states is not None and found is not None:
            earlier = assignment_loss(found, batch.true)["total"]
            early0, early1 = predicted_matches(found, self._config.threshold)
            # Detached: confidence learns about the matches and must not change them.
            sides = (
                (states[0], early0 == index0, batch.view0),
                (states[1], early1 == index1, batch.view1),
            )
            confidence = torch.stack(
                [
                    confidence_loss(
                        network.confidence[early](image.states.detach().float())[..., 0],
                        right,
                        view.points.exist,
                    )
                    for image, right, view in sides
                ]
            ).mean(dim=0)
            total = (
                total + self._config.early_layers * earlier + self._config.confidence * confidence
            )
            losses |= {"early": earlier, "confidence": confidence}
        counts = {name: count.float() for name, count in match_counts(index0, batch.true).items()}
        return {**losses, "final": losses["total"], **counts, "total": total}


class MatcherTrainer(TrainingLoop[MatcherNetwork, PairBatch]):
    """Trains a matcher.

    Args:
        config: all settings; saved in the folder.
        network: initial network; it is changed.
        sampler: pairs to train with.
        validate: measures the averaged weights regularly, in the first process.
        origin: identity of the extractor of the features; a training of another is refused.
        options: folder, processes, reports.
        initial: hash of the matcher that the training starts from; a training from another is
            refused. Empty: nearest neighbours.
        maps: hash of the saved maps trained with; a training with others is refused.

    Raises:
        TrainingError: the folder has another configuration, or the batch cannot be split.
    """

    def __init__(
        self,
        config: MatcherConfig,
        network: MatcherNetwork,
        sampler: PairSampler,
        validate: MatcherValidation,
        origin: str,
        options: LoopOptions,
        initial: str = "",
        maps: str = "",
    ) -> None:
        processes = options.processes
        self._batch, self._sampler, self._origin = config.optimizer.batch, sampler, origin
        self._initial, self._maps = initial, maps
        if self._batch % processes.count:
            raise TrainingError(
                f"{processes.count} processes cannot share a step of "
                f"{counted(self._batch, 'pair')}: make optimizer.batch a multiple of "
                f"{processes.count}"
            )
        network = network.to(processes.device)
        super().__init__(
            {"stage": STAGE, "origin": origin, "initial": initial, "maps": maps},
            "the loss of the matcher",
            config,
            MatcherLossModel(network, config),
            network,
            validate,
            options,
            self._batch,
        )

    def _batches(self) -> Iterator[PairBatch]:
        share = self._batch // self._processes.count
        first = self._processes.rank * share
        numbers = range(first, first + share)
        for step in itertools.count(self._step):
            yield self._sampler.batch(0 if self._overfit else step, numbers, self._batch)

    def _losses(self, model: nn.Module, batch: PairBatch) -> dict[str, Tensor]:
        # The layer of the earlier loss changes also when the batch does not.
        losses: dict[str, Tensor] = model(batch, self._step)
        return losses

    def _parallel_options(self) -> dict[str, Any]:
        # A step uses one of the earlier heads only.
        return {"find_unused_parameters": True}

    def _shown(self, means: dict[str, float]) -> dict[str, float]:
        found, predicted, true = (means.pop(name) for name in ("found", "predicted", "true"))
        return means | {
            "recall": found / max(true, 1e-9),
            "precision": found / max(predicted, 1e-9),
        }

    def _differences(self, state: dict[str, Any]) -> list[str]:
        differences = super()._differences(state)
        if state.get("stage") != STAGE or state.get("origin") != self._origin:
            differences.append(f"features of {state.get('origin')} instead of {self._origin}")
        elif state.get("initial", "") != self._initial:
            differences.append("another initial matcher")
        elif state.get("maps", "") != self._maps:
            differences.append("other saved maps")
        return differences


def _embed(network: MatcherNetwork, view: ViewBatch) -> ImageState:
    return network.embed(view.positions, view.descriptors, view.exist)
