"""Files and folders of a training stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from spslam.errors import DatasetError, TrainingError

from ..photos import find_photos, held_out
from .config import TrainingConfig


@dataclass(frozen=True)
class StageInputs:
    """Files and folders of a training stage, beside its configuration.

    Attributes:
        out: folder of checkpoints, logs and the weights; a training found there is resumed.
        photos: folder of photographs; not for shapes.
        held_out: folder of the photographs to validate with; then all of `photos` are trained with.
        labels: label folder of these photographs; for detector and joint.
        init: initial weights (a file or the folder of an earlier training); they set the network's
            shape.
        teacher: weights file of the large network; for distil.
        cache: folder of the synthetic shapes.
        overfit: train with the first batch only.
        commands: commands that made the weights, for the card.
        created: date for the card.
        name: name of the network, for the card.
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


@dataclass(frozen=True)
class PhotoSplit:
    """Photographs to train with and those to validate with.

    Attributes:
        root: folder to which the names of photographs are relative.
        train: photographs to train with.
        held_out: photographs to validate with.
    """

    root: Path
    train: list[Path]
    held_out: list[Path]


def split_photos(stage: str, config: TrainingConfig, inputs: StageInputs) -> PhotoSplit:
    """Split the photographs of a stage into training and validation.

    Raises:
        DatasetError: too few photographs.
        TrainingError: no folder was given.
    """
    if inputs.photos is None:
        raise TrainingError(f"stage {stage} needs photographs: give a folder with --photos")
    if inputs.held_out is not None:
        train, unseen = find_photos(inputs.photos), find_photos(inputs.held_out)
    else:
        train, unseen = held_out(find_photos(inputs.photos), config.holdout, config.seed)
    if not train or not unseen:
        raise DatasetError(
            f"{inputs.photos} holds too few photographs: expected some for training and some held "
            f"out (holdout {config.holdout}), found {len(train)} and {len(unseen)}"
        )
    return PhotoSplit(inputs.photos, train, unseen)


def photo_groups(paths: list[Path], root: Path) -> dict[str, int]:
    """Count photographs by the first folder below the root."""
    parts = [path.relative_to(root).parts for path in paths]
    return dict(sorted(Counter(part[0] if len(part) > 1 else root.name for part in parts).items()))
