"""Train one stage from photographs, labels and initial weights to a weights file with its card."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import JsonValue

from spslam.codebook import Codebook
from spslam.config import FeatureConfig

from ..extractors.superpoint_extractor import SuperPointExtractor
from ..photos import evenly_spread, read_photo
from ..superpoint.superpoint import SuperPoint
from ..superpoint.weights_file import Card, StageRecord, describe_network, export_weights, read_card
from .codebook import learn_codebook_from_images
from .config import TrainingConfig
from .evaluation.validation import PairValidation
from .inputs import StageInputs, split_photos
from .loop.progress import Progress
from .loop.trainer import Trainer
from .loop.training_loop import LoopOptions, TrainingResult
from .networks import network_config
from .processes import Processes
from .stages import STAGES, Stage, StageSetup
from .teacher import INHERITED, watch_inheritance

# Name of the weights file in the folder of a stage.
WEIGHTS = "weights.safetensors"
# Most photographs from which the codebook of place recognition is learned.
_CODEBOOK_IMAGES = 200


def run_stage(
    name: str,
    config: TrainingConfig,
    inputs: StageInputs,
    processes: Processes | None = None,
    report: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> tuple[Path, TrainingResult[SuperPoint]]:
    """Train one stage; return its weights file and the result.

    If the stage is stopped, the best weights found until then are written.

    Args:
        name: name of the stage, a key of `STAGES`.
        config: configuration of the stage.
        inputs: files and folders.
        processes: this process among all that train together.
        report: called regularly in the first process.
        stopped: called after every step; True ends the call, and the same call resumes it.

    Raises:
        DatasetError: photographs or labels are missing.
        TrainingError: the stage lacks an input, or cannot resume the training in `out`.
        TrainingStoppedError: stopped before anything could be saved.
        WeightsError: initial weights or the teacher cannot be read.
    """
    processes = processes or Processes()
    stage = STAGES[name]
    torch.manual_seed(config.seed)
    setup = stage.set_up(config, inputs, processes, watch_inheritance(config, report, stopped))
    # Save the shape of the trained network; it may come from initial weights or a teacher.
    config = config.model_copy(update={"network": network_config(setup.network)})
    trainer = Trainer(
        stage.name,
        stage.objective,
        config,
        setup.network,
        setup.source,
        setup.validate,
        LoopOptions(inputs.out, processes, inputs.overfit, report, stopped),
    )
    result = trainer.train()
    weights = inputs.out / WEIGHTS
    if processes.first:
        _export(stage, config, inputs, setup, result)
    return weights, result


def _export(
    stage: Stage,
    config: TrainingConfig,
    inputs: StageInputs,
    setup: StageSetup,
    result: TrainingResult[SuperPoint],
) -> None:
    codebook = None
    if stage.objective.learns_descriptors:
        codebook = _codebook(stage, result.network, inputs, config)
        if isinstance(setup.validate, PairValidation):
            result.network.max_descriptor_distance = setup.validate.matching_distance(
                result.network
            )
    card = _card(stage.name, config, inputs, result, setup.image_counts)
    export_weights(result.network, inputs.out / WEIGHTS, card, codebook)


def _codebook(
    stage: Stage, network: SuperPoint, inputs: StageInputs, config: TrainingConfig
) -> Codebook:
    photos = split_photos(stage.name, config, inputs).train
    extractor = SuperPointExtractor(FeatureConfig(max_keypoints=500), copy.deepcopy(network).cpu())
    images = (read_photo(path) for path in evenly_spread(photos, _CODEBOOK_IMAGES, config.seed))
    return learn_codebook_from_images(extractor, images, seed=config.seed)


def _card(
    stage: str,
    config: TrainingConfig,
    inputs: StageInputs,
    result: TrainingResult[SuperPoint],
    groups: dict[str, int],
) -> Card:
    # The history of a teacher is also part of its student's history.
    before = _card_before(inputs.init or inputs.teacher)
    record = StageRecord(
        stage=stage,
        config=hashlib.sha256(config.to_yaml().encode()).hexdigest()[:12],
        steps=result.steps,
        images=result.examples,
        minutes=round(result.minutes, 1),
        init=_began_with(inputs),
    )
    metrics: dict[str, JsonValue] = {"validation": dict(result.metrics)}
    return describe_network(
        result.network,
        inputs.name,
        inputs.created,
        {**(before.training_data if before else {}), **groups},
        [*(before.stages if before else ()), record],
        metrics,
        [*(before.commands if before else ()), *inputs.commands],
    )


def _began_with(inputs: StageInputs) -> str | None:
    if inputs.init is None and inputs.teacher is not None and (inputs.out / INHERITED).exists():
        return f"inherited from {inputs.teacher.name}"
    return inputs.init.name if inputs.init else None


def _card_before(init: Path | None) -> Card | None:
    if init is None:
        return None
    if not init.is_dir():
        return read_card(init)
    return read_card(init / WEIGHTS) if (init / WEIGHTS).is_file() else None
