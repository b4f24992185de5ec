"""Weights of a training of a matcher that has not ended, from its last checkpoint."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from spslam.errors import TrainingError

from ...training.loop.checkpoints import CHECKPOINT, read_checkpoint
from ..card import MatcherCard
from ..matcher_file import describe_matcher
from ..network import MatcherNetwork
from .configuration import MatcherConfig


def read_training(folder: Path) -> tuple[MatcherNetwork, MatcherCard]:
    """Read the averaged weights of the last checkpoint of a training, and describe them.

    Args:
        folder: the `--out` of `spslam train matcher`.

    Raises:
        TrainingError: the folder holds no checkpoint of a matcher, or a damaged one.
    """
    path = folder / CHECKPOINT
    state = read_checkpoint(path)
    try:
        config = MatcherConfig.model_validate(yaml.safe_load(state["config"]))
        average = state["average"]
        network = MatcherNetwork(config.network.shape(average["input.weight"].shape[1]))
        network.load_state_dict(average)
        card = describe_matcher(
            network,
            f"{folder.name} at step {state['step']}",
            state["origin"],
            steps=state["step"],
            minutes=round(state["seconds"] / 60, 1),
            training_data={"pairs": state["step"] * config.optimizer.batch},
            metrics=state["metrics"],
            notes="Averaged weights of an unfinished training.",
        )
    except (KeyError, TypeError, ValidationError, RuntimeError, yaml.YAMLError) as error:
        raise TrainingError(
            f"{path} is no checkpoint of a matcher ({' '.join(str(error).split())[:200]})"
        ) from None
    return network.eval().requires_grad_(False), card
