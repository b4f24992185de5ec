"""A training stage from files to files: photographs, labels, initial weights in, a weights file with its card out."""

from __future__ import annotations

import copy
import hashlib
import io
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from spslam.codebook import Codebook
from spslam.config import FeatureConfig
from spslam.errors import DatasetError, TrainingError, TrainingStoppedError
from spslam.io.files import write_atomic

from ..engines.engine import usable_cores
from ..extractors.superpoint_extractor import SuperPointExtractor
from ..photos import evenly_spread, find_photos, held_out, read_photo
from ..superpoint.checkpoints import Checkpoint, load_superpoint
from ..superpoint.superpoint import SuperPoint
from ..superpoint.weights_file import Card, StageRecord, describe_network, export_weights, read_card
from .codebook import learn_codebook_from_images
from .config import NetworkConfig, TrainingConfig, load_training_config
from .data.dataset import LabelledPhotos, PhotoSource, ShapeSource, Source, TeacherSource, augmented_views
from .data.shapes.cache import open_shapes
from .evaluation.validation import PairValidation, ShapeValidation
from .inherit import Inheritance, can_inherit, descriptor_projection, heir, with_projected_descriptors
from .trainer import (
    BEST,
    Processes,
    Progress,
    Stage,
    Trainer,
    TrainingResult,
    Validation,
    read_checkpoint,
)

WEIGHTS = "weights.safetensors"
_INHERITED = "inherited.pt"
_INHERITANCE_BATCH = 8
_PROJECTION_IMAGES = 64
# Called with the number of a step and its losses.
AfterStep = Callable[[int, dict[str, float]], None]
_CODEBOOK_IMAGES = 200
# Another seed than any training's: the shapes that validate are never trained with.
_VALIDATION_SEED = 1 << 20


@dataclass(frozen=True)
class StageInputs:
    """What a stage works with, beside its configuration.

    Attributes:
        out: folder of checkpoints, logs and the weights; a training that is there is resumed.
        photos: folder of photographs; not for shapes.
        held_out: folder of the photographs to validate with; all of `photos` are trained with then.
        labels: label folder of these photographs; for detector and joint.
        init: weights file or folder of an earlier training to start from; it decides the network's shape.
        teacher: weights file of the large network; for distil.
        cache: folder of the synthetic shapes.
        overfit: train with the first batch only.
        commands: that lead here, for the card.
        created: date for the card.
        name: of the network, for the card.
    """

    out: Path
    photos: Path | None = None
    labels: Path | None = None
    init: Path | None = None
    teacher: Path | None = None
    cache: Path = Path("runs/training/shapes")
    overfit: bool = False
    commands: tuple[str, ...] = ()
    created: date | None = None
    name: str = "superpoint"
    held_out: Path | None = None


def run_stage(
    stage: Stage,
    config: TrainingConfig,
    inputs: StageInputs,
    processes: Processes | None = None,
    report: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> tuple[Path, TrainingResult]:
    """Train one stage; the weights file and how it went.

    Weights are written also if the stage was stopped: the best ones so far.

    Raises:
        DatasetError: photographs or labels are missing.
        TrainingError: the stage lacks an input, or cannot go on from what is in `out`.
        TrainingStoppedError: before there was anything to go on from.
        WeightsError: initial weights or the teacher cannot be read.
    """
    processes = processes or Processes()
    torch.manual_seed(config.seed)
    network, teacher = _networks(stage, config, inputs, processes, _watch(config, report, stopped))
    # What is written beside the results is the network that was trained, wherever its shape came from.
    config = config.model_copy(update={"network": _network_config(network)})
    source, validate, groups = _data(stage, config, inputs, processes, teacher)
    trainer = Trainer(stage, config, network, source, validate, inputs.out, processes, inputs.overfit, report, stopped)
    result = trainer.train()
    weights = inputs.out / WEIGHTS
    if processes.first:
        codebook = _codebook(result.network, inputs, config) if stage in ("joint", "distil") else None
        if isinstance(validate, PairValidation) and codebook is not None:
            result.network.max_distance = validate.matching_distance(result.network)
        export_weights(result.network, weights, _card(stage, config, inputs, result, groups), codebook)
    return weights, result


def _networks(
    stage: Stage, config: TrainingConfig, inputs: StageInputs, processes: Processes, after: AfterStep
) -> tuple[SuperPoint, SuperPoint | None]:
    """What is trained, and for distil what it learns from."""
    if stage != "shapes":
        _check_photos(stage, config, inputs)
    if stage != "distil":
        return initial_network(config.network, inputs.init), None
    if inputs.teacher is None:
        raise TrainingError("stage distil needs a teacher: give a weights file with --teacher")
    teacher = load_superpoint(inputs.teacher)
    if inputs.init is None and config.distillation.inherit_steps and can_inherit(teacher, config.network):
        network, teacher = _inherited(teacher, config, inputs, processes, after)
    else:
        network = initial_network(config.network, inputs.init)
    return network, teacher.to(processes.device)


def _watch(
    config: TrainingConfig, report: Callable[[Progress], None] | None, stopped: Callable[[], bool] | None
) -> AfterStep:
    """What is done after each step in which a network takes over from its teacher."""
    steps, started = config.distillation.inherit_steps, time.monotonic()

    def after(step: int, losses: dict[str, float]) -> None:
        if stopped is not None and stopped():
            raise TrainingStoppedError(
                "stopped while the network took over what it can from its teacher, of which nothing is kept: the same "
                "command begins anew"
            )
        done = step + 1
        if report is not None and done % config.schedule.log_every == 0:
            rate = done / (time.monotonic() - started)
            left = (steps - done) / rate
            report(Progress("taking over", done, steps, done / steps, losses, rate * _INHERITANCE_BATCH, left, {}))

    return after


def _check_photos(stage: Stage, config: TrainingConfig, inputs: StageInputs) -> None:
    if inputs.photos is None:
        raise TrainingError(f"stage {stage} needs photographs: give a folder with --photos")
    train, unseen_photos = _split(inputs.photos, config, inputs)
    if not train or not unseen_photos:
        raise DatasetError(
            f"{inputs.photos} holds too few photographs: expected some to train with and some to hold out "
            f"(holdout {config.holdout}), found {len(train)} and {len(unseen_photos)}"
        )


def _inherited(
    teacher: SuperPoint, config: TrainingConfig, inputs: StageInputs, processes: Processes, after: AfterStep
) -> tuple[SuperPoint, SuperPoint]:
    """A network that has taken over what it can, and the teacher with descriptors as short as its own.

    The first process makes both and keeps them, for the others and for a training that is taken up again.

    Raises:
        TrainingError: what is kept is of another teacher or another network.
    """
    kept = inputs.out / _INHERITED
    origin = f"{Checkpoint.of(teacher).digest} {config.network.model_dump_json()}"
    if processes.first and not kept.exists():
        threads = torch.get_num_threads()
        # The others wait.
        torch.set_num_threads(usable_cores())
        try:
            student, projection = _inherit(teacher, config, inputs, processes.device, after)
        finally:
            torch.set_num_threads(threads)
        content = io.BytesIO()
        torch.save({"origin": origin, "network": student.state_dict(), "projection": projection}, content)
        inputs.out.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, content.getvalue())
    processes.wait()
    found = read_checkpoint(kept)
    if found.get("origin") != origin:
        raise TrainingError(
            f"{kept} is what another network took over, or from another teacher: give another folder with --out"
        )
    network = heir(teacher, config.network)
    network.load_state_dict(found["network"])
    return network, with_projected_descriptors(teacher, found["projection"])


def _inherit(
    teacher: SuperPoint, config: TrainingConfig, inputs: StageInputs, device: torch.device, after: AfterStep
) -> tuple[SuperPoint, Tensor]:
    assert inputs.photos is not None
    train, _ = _split(inputs.photos, config, inputs)
    photos = LabelledPhotos(train, inputs.photos, None, config.labels.size)
    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def views(step: int, count: int = _INHERITANCE_BATCH) -> Tensor:
        generator = torch.Generator(device).manual_seed(config.seed * config.distillation.inherit_steps + step)
        indices = np.random.default_rng([config.seed, step]).integers(len(photos), size=count)
        return augmented_views(photos, config.data, indices, generator)

    projection = descriptor_projection(teacher, views(0, _PROJECTION_IMAGES), config.network.descriptor_dim)
    shorter = with_projected_descriptors(teacher.cpu(), projection.cpu()).to(device)
    student = Inheritance(shorter, config.network, config.distillation.inherit_steps).student(views, after)
    return student.cpu(), projection.cpu()


def initial_network(config: NetworkConfig, init: Path | None = None) -> SuperPoint:
    """A network to train: a new one, or one with the weights of a file or an earlier training.

    Args:
        config: of a new network; with `init` only `skips` is used: a network without them is given them.
        init: weights file, or a folder that a stage wrote; its batch norm is kept then.

    Raises:
        TrainingError: the folder holds no training.
        WeightsError: the file cannot be read.
    """
    if init is None:
        return new_network(config)
    if init.is_dir():
        if not (init / BEST).is_file():
            raise TrainingError(f"{init} holds no trained network: expected {BEST} in it, or give a weights file")
        network = new_network(load_training_config(init / "config.yaml").network)
        network.load_state_dict(read_checkpoint(init / BEST)["network"])
    else:
        network = load_superpoint(init)
    if config.skips and not network.skips:
        network = _with_skips(network)
    return network.train().requires_grad_(True)


def _with_skips(network: SuperPoint) -> SuperPoint:
    skipping = network.alike(skips=True)
    # What is missing is zero: the network says the same as before.
    skipping.load_state_dict(skipping.state_dict() | network.state_dict())
    return skipping


def new_network(config: NetworkConfig) -> SuperPoint:
    """A network with random weights."""
    return SuperPoint(
        config.widths,
        config.descriptor_dim,
        "before" if config.batch_norm else "none",
        depths=config.depths,
        strided=config.strided,
        skips=config.skips,
        detector_width=config.detector_width,
    )


def _network_config(network: SuperPoint) -> NetworkConfig:
    return NetworkConfig(
        widths=network.widths,
        detector_width=network.detector_width,
        depths=network.depths,
        descriptor_dim=network.descriptor_dim,
        strided=network.strided,
        skips=network.skips,
        batch_norm=network.batch_norm == "before",
    )


def _data(
    stage: Stage, config: TrainingConfig, inputs: StageInputs, processes: Processes, teacher: SuperPoint | None
) -> tuple[Source, Validation, dict[str, int]]:
    """Where images come from, how weights are judged, and how many images there are by group."""
    if stage == "shapes":
        drawn = (inputs.cache, config.shapes.count, config.shapes.size, config.seed)
        if processes.first:
            open_shapes(*drawn, processes=usable_cores())
        processes.wait()
        unseen = open_shapes(inputs.cache, config.shapes.validation, config.shapes.size, _VALIDATION_SEED)
        return ShapeSource(open_shapes(*drawn), config), ShapeValidation(unseen), {"shapes": config.shapes.count}
    assert inputs.photos is not None
    train, unseen_photos = _split(inputs.photos, config, inputs)
    validate = PairValidation(unseen_photos, config.schedule.validation_pairs, descriptors=stage != "detector")
    if teacher is not None:
        photos = LabelledPhotos(train, inputs.photos, None, config.labels.size)
        source: Source = TeacherSource(photos, config.data, teacher, config.distillation)
    else:
        if inputs.labels is None:
            raise TrainingError(f"stage {stage} needs labels: make them with spslam train label, give --labels")
        photos = LabelledPhotos(
            train,
            inputs.photos,
            inputs.labels,
            config.labels.size,
            config.data.settle_labels,
            config.data.strength_exponent,
        )
        source = PhotoSource(photos, config.data, pairs=stage == "joint")
    return source, validate, photo_groups(photos.paths, inputs.photos)


def _split(photos: Path, config: TrainingConfig, inputs: StageInputs) -> tuple[list[Path], list[Path]]:
    """Photographs to train with and those to validate with."""
    if inputs.held_out is not None:
        return find_photos(photos), find_photos(inputs.held_out)
    return held_out(find_photos(photos), config.holdout, config.seed)


def photo_groups(paths: list[Path], root: Path) -> dict[str, int]:
    """Number of photographs by the first folder below the root."""
    parts = [path.relative_to(root).parts for path in paths]
    return dict(sorted(Counter(part[0] if len(part) > 1 else root.name for part in parts).items()))


def _codebook(network: SuperPoint, inputs: StageInputs, config: TrainingConfig) -> Codebook:
    assert inputs.photos is not None
    train, _ = _split(inputs.photos, config, inputs)
    extractor = SuperPointExtractor(FeatureConfig(max_keypoints=500), copy.deepcopy(network).cpu())
    images = (read_photo(path) for path in evenly_spread(train, _CODEBOOK_IMAGES, config.seed))
    return learn_codebook_from_images(extractor, images, seed=config.seed)


def _card(
    stage: Stage, config: TrainingConfig, inputs: StageInputs, result: TrainingResult, groups: dict[str, int]
) -> Card:
    # What a network learnt from a teacher, the teacher has learnt before.
    before = _card_before(inputs.init or inputs.teacher)
    record = StageRecord(
        stage=stage,
        config=hashlib.sha256(config.to_yaml().encode()).hexdigest()[:12],
        steps=result.steps,
        images=result.images,
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
    if inputs.init is None and inputs.teacher is not None and (inputs.out / _INHERITED).exists():
        return f"what it took over from {inputs.teacher.name}"
    return inputs.init.name if inputs.init else None


def _card_before(init: Path | None) -> Card | None:
    if init is None:
        return None
    if not init.is_dir():
        return read_card(init)
    return read_card(init / WEIGHTS) if (init / WEIGHTS).is_file() else None
