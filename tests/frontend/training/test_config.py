"""The numbers of a training configuration."""

from pathlib import Path

import pytest

from spslam.errors import ConfigError
from spslam.frontend.training.config import load_training_config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {learning_rate: 1.0e+300}", r"learning_rate: Input should be between 1e-09"),
        ("optimizer: {weight_decay: 1.0e-300}", r"weight_decay: Input should be between 1e-09"),
        (
            "data: {size: [240, 10000000000]}",
            r"data.size: Input should be between 1e-09 and 1e\+09",
        ),
        ("data: {size: [240, 321]}", "data.size must be multiples of 8"),
        ("data: {colour: true}", "colour"),
    ],
)
def test_unusable_values_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "training.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_training_config(file)


def test_zero_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "training.yaml"
    file.write_text("optimizer: {weight_decay: 0}")
    assert load_training_config(file).optimizer.weight_decay == 0
