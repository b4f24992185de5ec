"""Stages of a training: initial network, images, objective and validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from spslam.errors import TrainingError

from ..engines.engine import usable_cores
from ..superpoint.checkpoints import load_superpoint
from ..superpoint.superpoint import SuperPoint
from .config import TrainingConfig
from .data.labelled_photos import LabelledPhotos
from .data.shapes.cache import open_shapes
from .data.sources import PhotoSource, ShapeSource, Source, TeacherSource
from .evaluation.validation import PairValidation, ShapeValidation
from .inherit import can_inherit
from .inputs import PhotoSplit, StageInputs, photo_groups, split_photos
from .loop.trainer import Validation
from .networks import initial_network
from .objectives import DetectorObjective, DistillationObjective, Objective, PairObjective
from .processes import Processes
from .teacher import AfterStep, inherited_network

# Seed of the validation shapes; larger than usual training seeds, so they differ from training
# shapes.
_VALIDATION_SEED = 1 << 20
# Bytes in a megabyte.
_MB = 1_000_000


@dataclass(frozen=True)
class StageSetup:
    """Network, images and validation of a stage.

    Attributes:
        network: initial network.
        source: images to train with.
        validate: measures weights.
        image_counts: number of images by group, for the card.
    """

    network: SuperPoint
    source: Source
    validate: Validation
    image_counts: dict[str, int]


class Stage(ABC):
    """One stage.

    Attributes:
        name: name in commands, checkpoints and cards, and of the built-in configuration.
        objective: predictions and loss.
    """

    name: ClassVar[str]
    objective: ClassVar[Objective]

    @abstractmethod
    def set_up(
        self,
        config: TrainingConfig,
        inputs: StageInputs,
        processes: Processes,
        after_step: AfterStep,
    ) -> StageSetup:
        """Prepare network, images and validation.

        Args:
            config: configuration of the stage.
            inputs: files and folders.
            processes: this process among all that train together.
            after_step: called after each step in which a student is initialised from its teacher.

        Raises:
            DatasetError: photographs or labels are missing.
            TrainingError: an input is missing.
            WeightsError: initial weights or the teacher cannot be read.
        """


class ShapesStage(Stage):
    """Train the detector on synthetic shapes (MagicPoint)."""

    name = "shapes"
    objective = DetectorObjective()

    def set_up(
        self,
        config: TrainingConfig,
        inputs: StageInputs,
        processes: Processes,
        after_step: AfterStep,
    ) -> StageSetup:
        """See `Stage`."""
        network = initial_network(config.network, inputs.init)
        drawn = (inputs.cache, config.shapes.count, config.shapes.size, config.seed)
        if processes.first:
            open_shapes(*drawn, processes=usable_cores())
        processes.wait()
        unseen = open_shapes(
            inputs.cache, config.shapes.validation, config.shapes.size, _VALIDATION_SEED
        )
        source = ShapeSource(open_shapes(*drawn), config.data)
        return StageSetup(network, source, ShapeValidation(unseen), {"shapes": config.shapes.count})


class LabelledStage(Stage):
    """Train on labelled photographs."""

    def set_up(
        self,
        config: TrainingConfig,
        inputs: StageInputs,
        processes: Processes,
        after_step: AfterStep,
    ) -> StageSetup:
        """See `Stage`."""
        split = split_photos(self.name, config, inputs)
        network = initial_network(config.network, inputs.init)
        validate = _validation(split, config, self.objective)
        if inputs.labels is None:
            raise TrainingError(
                f"stage {self.name} needs labels: make them with spslam train label, give --labels"
            )
        photos = LabelledPhotos(
            split.train,
            split.root,
            inputs.labels,
            config.labels.size,
            config.data.settle_labels,
            config.data.strength_exponent,
            config.data.mass_exponent,
            _cache_bytes(config),
        )
        source = PhotoSource(photos, config.data, pairs=self.objective.views == 2)
        return StageSetup(network, source, validate, photo_groups(photos.paths, split.root))


class DetectorStage(LabelledStage):
    """Train the detector on labelled photographs."""

    name = "detector"
    objective = DetectorObjective()


class JointStage(LabelledStage):
    """Train detector and descriptors on pairs of views of labelled photographs."""

    name = "joint"
    objective = PairObjective()


class DistilStage(Stage):
    """Train a small network to predict the output of a large one, its teacher, for photographs."""

    name = "distil"
    objective = DistillationObjective()

    def set_up(
        self,
        config: TrainingConfig,
        inputs: StageInputs,
        processes: Processes,
        after_step: AfterStep,
    ) -> StageSetup:
        """See `Stage`."""
        split = split_photos(self.name, config, inputs)
        if inputs.teacher is None:
            raise TrainingError(
                f"stage {self.name} needs a teacher: give a weights file with --teacher"
            )
        teacher = load_superpoint(inputs.teacher)
        if (
            inputs.init is None
            and config.distillation.inherit_steps
            and can_inherit(teacher, config.network)
        ):
            network, teacher = inherited_network(
                teacher, config, split, inputs.out, processes, after_step
            )
        else:
            network = initial_network(config.network, inputs.init)
        photos = LabelledPhotos(
            split.train, split.root, None, config.labels.size, cache_bytes=_cache_bytes(config)
        )
        source = TeacherSource(
            photos, config.data, teacher.to(processes.device), config.distillation
        )
        validate = _validation(split, config, self.objective)
        return StageSetup(network, source, validate, photo_groups(photos.paths, split.root))


# Stages by name.
STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (ShapesStage(), DetectorStage(), JointStage(), DistilStage())
}


def _validation(split: PhotoSplit, config: TrainingConfig, objective: Objective) -> PairValidation:
    return PairValidation(
        split.held_out, config.schedule.validation_pairs, descriptors=objective.learns_descriptors
    )


def _cache_bytes(config: TrainingConfig) -> int:
    """Return the cache size of each process that reads photographs, bytes."""
    return config.loading.cache_mb * _MB // max(config.loading.workers, 1)
