"""Recipes: the built-in ones can be run; a mistake in a recipe gives one line."""

from pathlib import Path

import pytest
import yaml

from spslam.errors import ConfigError, TrainingError
from spslam.frontend.training.recipe import RecipeFolders, RecipeStep, load_recipe, recipe_names
from spslam.frontend.training.stages import STAGES


def written(folder: Path, **steps: dict[str, object]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"description": "mine", "steps": steps}))
    return str(path)


@pytest.mark.parametrize("name", recipe_names())
def test_every_built_in_recipe_is_valid(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    folders = RecipeFolders(tmp_path / "photos", tmp_path)
    for step_name, step in recipe.steps.items():
        step.training_config()
        inputs = folders.inputs(step_name, step, (), None)
        assert step.command == "label" or step.command in STAGES
        assert (inputs.labels is not None) == (step.command in ("detector", "joint"))
        assert (inputs.teacher is not None) == (step.command == "distil")
        assert (inputs.photos is None) == (step.command == "shapes")


def test_the_recipe_of_the_default_network_produces_it() -> None:
    steps = load_recipe("superpoint_lite").steps
    name, last = list(steps.items())[-1]
    assert (name, last.name, last.init) == ("lite", "superpoint_lite", "distilled")
    config = last.training_config()
    assert (config.data.size, config.loss.consistency_weight, config.schedule.minutes) == (
        (160, 208),
        3.0,
        21,
    )
    # Compare with the built-in configuration that it changes.
    assert config.loss.descriptor_weight == 1.5
    assert next(iter(steps)) == "magic"
    assert len(steps) == 17


def test_mistakes_are_reported_in_one_line(tmp_path: Path) -> None:
    joint: dict[str, object] = {"command": "joint", "config": "joint"}
    with pytest.raises(ConfigError, match="step a needs b, which is no earlier step"):
        load_recipe(written(tmp_path, a=joint | {"init": "b"}, b=joint))
    with pytest.raises(ConfigError, match=r"unknown key steps\.a\.start"):
        load_recipe(written(tmp_path, a=joint | {"start": "b"}))
    with pytest.raises(ConfigError, match="no config named 'nothing'"):
        load_recipe("nothing")
    wrong = load_recipe(written(tmp_path, a=joint | {"settings": {"loss": {"weight": 1}}})).steps[
        "a"
    ]
    with pytest.raises(ConfigError, match=r"unknown key loss\.weight"):
        wrong.training_config()


def test_a_finished_step_is_kept_unless_its_settings_changed(tmp_path: Path) -> None:
    folders, step = RecipeFolders(tmp_path, tmp_path), RecipeStep(command="joint", config="joint")
    assert not folders.finished("a", step)
    (tmp_path / "a").mkdir()
    folders.finish("a", step)
    assert folders.finished("a", step)
    with pytest.raises(TrainingError, match="made with other settings"):
        folders.finished("a", step.model_copy(update={"name": "other"}))
