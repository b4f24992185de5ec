"""The moving average of the weights is exponential; its decay grows at the start."""

import copy

import pytest
import torch
from torch import nn

from spslam.frontend.superpoint.superpoint import SuperPoint
from spslam.frontend.training.config import OptimizerConfig
from spslam.frontend.training.loop.optimizer import (
    averaged_model,
    learning_rate,
    set_averaged_steps,
)


@torch.no_grad()
def reference_update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update tensor by tensor: `decay` × old + (1 - `decay`) × new; counters are copied."""
    new = network.state_dict()
    for name, value in average.state_dict().items():
        if value.dtype.is_floating_point:
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])


def small_network() -> SuperPoint:
    torch.manual_seed(0)
    return SuperPoint((4, 4, 8, 8, 16), 16, "before")


@torch.no_grad()
def train_a_little(network: SuperPoint) -> None:
    """Change the weights and the statistics of batch norm."""
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    network.train()(torch.rand(2, 1, 32, 40))


@pytest.mark.parametrize("decay", [0.3, 0.998])
def test_the_average_equals_the_reference_bit_by_bit(decay: float) -> None:
    network = small_network()
    average = averaged_model(network, decay)
    expected = copy.deepcopy(network)
    for step in range(12):
        train_a_little(network)
        average.update_parameters(network)
        reference_update(expected, network, min(decay, (1 + step) / (10 + step)))
    found = average.module.state_dict()
    assert found.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(found[name], value), name
    assert int(found["conv1a.bn.num_batches_tracked"]) == 12
    assert not average.module.training


def test_a_resumed_average_continues_with_its_decay() -> None:
    network = small_network()
    whole = averaged_model(network, 0.998)
    for _ in range(4):
        train_a_little(network)
        whole.update_parameters(network)
    resumed = averaged_model(small_network(), 0.998)
    resumed.module.load_state_dict(whole.module.state_dict())
    set_averaged_steps(resumed, 4)
    train_a_little(network)
    for average in (whole, resumed):
        average.update_parameters(network)
    weights = [average.module.state_dict()["convPb.conv.weight"] for average in (whole, resumed)]
    assert torch.equal(*weights)


def test_the_learning_rate_without_warm_up_is_half_a_cosine() -> None:
    settings = OptimizerConfig(learning_rate=0.1, warmup=0, final_fraction=0.0)
    assert learning_rate(settings, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(settings, 7, 0.5) == pytest.approx(0.05)
    assert learning_rate(settings, 9, 2.0) == pytest.approx(0.0)
