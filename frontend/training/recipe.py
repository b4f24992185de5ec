"""Recipes: several consecutive stages, as YAML files in `configs/training/recipes`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spslam.config import config_names, load_settings
from spslam.errors import ConfigError, TrainingError
from spslam.io.files import write_atomic

from ..photos import find_photos, held_out
from .config import TrainingConfig, load_training_config
from .data.labelling import LabelSummary, label_images
from .inputs import StageInputs
from .processes import Processes
from .run import WEIGHTS

# Folder of the built-in recipes, below configs.
FOLDER = "training/recipes"
# File in a step's folder that marks the step as done; it holds the step's settings.
_FINISHED = "finished.json"


class RecipeStep(BaseModel):
    """One step of a recipe; `init`, `labels`, `teacher` and `weights` name earlier steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: Literal["shapes", "label", "detector", "joint", "distil"] = Field(
        description="command to run: spslam train COMMAND"
    )
    config: str = Field(description="built-in training configuration, changed by the settings")
    settings: dict[str, Any] = Field({}, description="values of the configuration, by section")
    name: str = Field("superpoint", description="name of the network, for its card")
    init: str | None = Field(None, description="step whose network is trained further")
    labels: str | None = Field(None, description="label step; for detector and joint")
    teacher: str | None = Field(None, description="step whose network is the teacher; for distil")
    weights: str | None = Field(None, description="step whose network labels; for label")
    processes: int = Field(1, ge=1, description="number of labelling processes; for label")
    shard: tuple[int, int] = Field(
        (0, 1), description="label only shard i of n of the photographs; for label"
    )

    def training_config(self) -> TrainingConfig:
        """Return the resolved configuration."""
        return load_training_config(
            self.config, [f"{key}={json.dumps(value)}" for key, value in _flat(self.settings)]
        )

    @property
    def earlier(self) -> tuple[str, ...]:
        """Names of the steps that must come before."""
        return tuple(
            name
            for name in (self.init, self.labels, self.teacher, self.weights)
            if name is not None
        )


class Recipe(BaseModel):
    """Steps of a recipe in their order, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    after: str | None = Field(None, description="recipe whose steps come first")
    steps: dict[str, RecipeStep]


@dataclass(frozen=True)
class RecipeFolders:
    """Folders of a recipe.

    Attributes:
        photos: folder of photographs.
        out: folder of the results, with a folder for each step.
        cache: folder of the synthetic shapes.
    """

    photos: Path
    out: Path
    cache: Path = Path("runs/training/shapes")

    def finished(self, name: str, step: RecipeStep) -> bool:
        """Return whether an earlier call did the step.

        Raises:
            TrainingError: it was done with other settings.
        """
        path = self.out / name / _FINISHED
        if not path.is_file():
            return False
        if path.read_text(encoding="utf-8") != _text(step):
            raise TrainingError(
                f"{path.parent} was made with other settings: give another --out or remove it"
            )
        return True

    def finish(self, name: str, step: RecipeStep) -> None:
        """Mark a step as done."""
        write_atomic(self.out / name / _FINISHED, _text(step))

    def inputs(
        self, name: str, step: RecipeStep, commands: tuple[str, ...], created: date | None
    ) -> StageInputs:
        """Return files and folders for the stage of a step."""
        return StageInputs(
            self.out / name,
            photos=None if step.command == "shapes" else self.photos,
            labels=self.out / step.labels if step.labels else None,
            init=self.out / step.init if step.init else None,
            teacher=self.out / step.teacher / WEIGHTS if step.teacher else None,
            cache=self.cache,
            commands=commands,
            created=created,
            name=step.name,
        )


def recipe_names() -> list[str]:
    """Return the names of the built-in recipes."""
    return config_names(FOLDER)


def load_recipe(name_or_path: str) -> Recipe:
    """Load a recipe with the steps of the recipes before it.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key, impossible value, or a step needs a
            later one.
    """
    recipe = load_settings(Recipe, name_or_path, folder=FOLDER, kind="recipe")
    before = load_recipe(recipe.after).steps if recipe.after else {}
    if twice := sorted(before.keys() & recipe.steps.keys()):
        raise ConfigError(
            f"recipe {name_or_path}: {recipe.after} also has a step {twice[0]}: rename one of them"
        )
    steps = before | recipe.steps
    known: set[str] = set()
    for step_name, step in steps.items():
        for missing in set(step.earlier) - known:
            raise ConfigError(
                f"recipe {name_or_path}: step {step_name} needs {missing}, which is no earlier step"
            )
        known.add(step_name)
    return recipe.model_copy(update={"steps": steps})


def label_step(
    name: str,
    step: RecipeStep,
    folders: RecipeFolders,
    processes: Processes,
    progress: Callable[[int, int], None],
) -> LabelSummary | None:
    """Label photographs in the first process; the others wait and return None."""
    config = step.training_config()
    summary = None
    if processes.first:
        train, _ = held_out(find_photos(folders.photos), config.holdout, config.seed)
        summary = label_images(
            train,
            folders.photos,
            folders.out / name,
            folders.out / step.weights / WEIGHTS if step.weights else None,
            config.labels,
            config.seed,
            processes=step.processes,
            device=processes.device.type,
            shard=step.shard,
            progress=progress,
        )
    processes.wait()
    return summary


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(step: RecipeStep) -> str:
    return step.model_dump_json(indent=2) + "\n"
