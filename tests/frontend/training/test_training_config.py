"""The built-in training configurations."""

from spslam.config import config_names
from spslam.frontend.training.config import TrainingConfig, load_training_config
from spslam.frontend.training.networks import new_network


def test_every_built_in_training_configuration_changes_a_default() -> None:
    names = config_names("training")
    assert {"shapes", "shapes_half", "shapes_full", "detector", "joint", "adapt"} <= set(names)
    plain = TrainingConfig()
    for name in set(names) - {"default"}:
        assert load_training_config(name) != plain, name


def test_later_stages_build_on_earlier_ones() -> None:
    detector, joint, adapt = (load_training_config(name) for name in ("detector", "joint", "adapt"))
    assert detector.data.size == joint.data.size == adapt.data.size == (120, 160)
    assert joint.loss.descriptor_weight > 0
    assert adapt.optimizer.learning_rate < joint.optimizer.learning_rate


def test_network_shapes_match_the_built_in_weights() -> None:
    sizes = {
        name: sum(
            value.numel() for value in new_network(load_training_config(name).network).parameters()
        )
        for name in ("shapes", "shapes_half", "shapes_full")
    }
    assert sizes["shapes"] > 2 * sizes["shapes_half"]
    assert sizes["shapes_full"] > 1.5 * sizes["shapes"]
