"""The network of the learned matcher, its loss, and its exported models."""

import numpy as np
import pytest
import torch
from torch import Tensor

from spslam.frame import Features, KeypointView
from spslam.frontend.learned_matching.data.true_matches import IGNORED
from spslam.frontend.learned_matching.matcher import LearnedMatcher
from spslam.frontend.learned_matching.network import (
    Assignment,
    MatcherNetwork,
    normalised_positions,
)
from spslam.frontend.learned_matching.torch_matching import (
    UNMATCHED,
    Adaptive,
    match_points,
    predicted_matches,
)
from spslam.frontend.learned_matching.training.losses import (
    TrueMatches,
    assignment_loss,
    match_counts,
)
from spslam.frontend.learned_matching.weights import MatcherShape, MatcherWeights
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.interfaces import ViewMatches, WideStage

SHAPE = MatcherShape(descriptor_dim=16, width=32, layers=2)
SIZE = (320, 240)


def network(shape: MatcherShape = SHAPE, zero: bool = False) -> MatcherNetwork:
    """A network with random layers, or with layers that add nothing, as training starts."""
    torch.manual_seed(0)
    made = MatcherNetwork(shape).eval()
    if not zero:
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return made


def set_logit(made: MatcherNetwork, name: str, value: float) -> None:
    """Give a linear layer of one output the same result for every point."""
    parameters = dict(made.named_parameters())
    with torch.no_grad():
        parameters[f"{name}.weight"].zero_()
        parameters[f"{name}.bias"].fill_(value)


def points(count: int, seed: int, like: Features | None = None) -> Features:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, SHAPE.descriptor_dim)) * (1 if like is None else 0.05)
    descriptors = noise if like is None else noise + like.descriptors[:count]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.uniform(0, 240, (count, 2)).astype(np.float32)
    return Features(keypoints, np.ones(count, np.float32), descriptors.astype(np.float32))


def batch(features: Features) -> tuple[Tensor, Tensor]:
    positions = normalised_positions(
        torch.from_numpy(features.keypoints)[None], torch.tensor([SIZE], dtype=torch.float32)
    )
    return positions, torch.from_numpy(np.asarray(features.descriptors, np.float32))[None]


def test_parameters_are_few() -> None:
    assert MatcherNetwork(MatcherShape(128, 96, 3)).parameter_count == pytest.approx(572e3, rel=0.1)
    assert MatcherNetwork(MatcherShape(256, 128, 4)).parameter_count < 1.5e6


def test_positions_are_normalised_by_the_longer_side() -> None:
    corners = torch.tensor([[[-0.5, -0.5], [319.5, 239.5], [159.5, 119.5]]])
    found = normalised_positions(corners, torch.tensor([[320.0, 240.0]]))
    assert found[0].tolist() == [[-1, -0.75], [1, 0.75], [0, 0]]


def test_a_new_network_matches_nearest_neighbours() -> None:
    made = network(MatcherShape(16, 32, 2), zero=True)
    first = points(60, 1)
    second = points(50, 2, first)
    matches = LearnedMatcher(MatcherWeights.of(made), "torch", adaptive=False).match_images(
        first, second, SIZE, SIZE
    )
    nearest = DescriptorMatcher().match_images(first, second, SIZE, SIZE)
    assert np.array_equal(matches[matches >= 0], nearest[matches >= 0])
    assert (matches[:50] == np.arange(50)).mean() > 0.9


def test_padding_changes_nothing() -> None:
    made, first, second = network(), batch(points(20, 1)), batch(points(30, 2))
    alone = made.heads[-1](*made.layer(0, made.embed(*first, None), made.embed(*second, None)))
    padded = [torch.cat([value, torch.full_like(value[:, :5], 0.3)], dim=1) for value in first]
    exist = (torch.arange(25) < 20)[None]
    images = made.layer(0, made.embed(padded[0], padded[1], exist), made.embed(*second, None))
    found = made.heads[-1](*images)
    assert torch.allclose(found.similarity[:, :20], alone.similarity, atol=1e-4)
    assert torch.allclose(found.matchable1, alone.matchable1, atol=1e-4)
    index0, _ = predicted_matches(found, 0.0)
    assert (index0[:, 20:] == UNMATCHED).all()


def test_only_differences_of_positions_count() -> None:
    made = network()
    (positions0, descriptors0), (positions1, descriptors1) = (
        batch(points(20, 1)),
        batch(points(9, 2)),
    )
    found = made(positions0, descriptors0, positions1, descriptors1)
    moved = made(positions0 + 0.5, descriptors0, positions1 - 0.2, descriptors1)
    assert torch.allclose(found, moved, atol=1e-3)
    turned = made(positions0.flip(2), descriptors0, positions1, descriptors1)
    assert not torch.allclose(found, turned, atol=1e-2)


def test_the_loss_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(1)
    true = TrueMatches(
        torch.tensor([[0, 2, UNMATCHED, IGNORED]]), torch.tensor([[0, UNMATCHED, 1]])
    )
    given = [torch.randn(1, 4, 3), torch.randn(1, 4), torch.randn(1, 3)]
    inputs = [value.double().requires_grad_() for value in given]
    assert torch.autograd.gradcheck(
        lambda *values: assignment_loss(Assignment(*values), true)["total"].sum(), inputs
    )


def test_the_loss_is_the_negative_log_likelihood() -> None:
    torch.manual_seed(1)
    found = Assignment(torch.randn(1, 4, 3), torch.randn(1, 4), torch.randn(1, 3))
    true = TrueMatches(
        torch.tensor([[0, 2, UNMATCHED, IGNORED]]), torch.tensor([[0, UNMATCHED, 1]])
    )
    scores = found.log_probability()[0]
    expected = -(scores[0, 0] + scores[1, 2]) / 2
    losses = assignment_loss(found, true)
    assert float(losses["matches"]) == pytest.approx(float(expected), rel=1e-5)
    wrong = -(1 - found.matchable0[0, 2].sigmoid()).log() / 2
    wrong = wrong - (1 - found.matchable1[0, 1].sigmoid()).log() / 2
    assert float(losses["unmatched"]) == pytest.approx(float(wrong), rel=1e-5)


def test_every_parameter_learns() -> None:
    made = network()
    images = made.embed(*batch(points(20, 1)), None), made.embed(*batch(points(20, 2)), None)
    true = TrueMatches(torch.arange(20)[None], torch.arange(20)[None])
    total = torch.zeros(1)
    for index in range(SHAPE.layers):
        images = made.layer(index, *images)
        total = total + assignment_loss(made.heads[index](*images), true)["total"]
    total.sum().backward()
    still = [
        name
        for name, parameter in made.named_parameters()
        if not name.startswith("confidence")
        and (parameter.grad is None or not parameter.grad.any())
    ]
    assert still == []


def test_counts_leave_out_what_is_not_judged() -> None:
    true = TrueMatches(torch.tensor([[3, 1, UNMATCHED, IGNORED, 0]]), torch.zeros(1, 5).long())
    counts = match_counts(torch.tensor([[3, 2, 4, 1, -1]]), true)
    assert {name: int(value) for name, value in counts.items()} == {
        "found": 1,
        "predicted": 3,
        "true": 3,
    }


def test_early_exit_and_pruning_keep_sure_matches() -> None:
    made = network(zero=True)
    first = points(300, 1)
    second = points(280, 2, first)
    sides = [(f.keypoints, np.asarray(f.descriptors, np.float32), SIZE) for f in (first, second)]
    whole = match_points(made, sides[0], sides[1])
    set_logit(made, "confidence.0", 9.0)
    # All points are confident: the first layer's matches are final, as layers add nothing yet.
    assert np.array_equal(match_points(made, sides[0], sides[1], adaptive=Adaptive()), whole)
    set_logit(made, "heads.0.matchable", -9.0)
    pruned = match_points(made, sides[0], sides[1], adaptive=Adaptive(early_exit=False))
    assert (pruned == -1).all()


@pytest.mark.parametrize("count", [0, 1])
def test_few_points_are_no_error(count: int) -> None:
    matcher = LearnedMatcher(MatcherWeights.of(network()), "torch")
    first, second = points(count, 1), points(5, 2)
    assert matcher.match_images(first, second, SIZE, SIZE).shape == (count,)
    assert matcher.match_images(second, first, SIZE, SIZE).shape == (5,)


@pytest.mark.slow
def test_engines_give_the_same_matches_and_the_same_bytes_again() -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    # Two heads and layers that change the states: what an engine computes otherwise shows.
    made = network(MatcherShape(16, 64, 2))
    for name, parameter in made.named_parameters():
        if name.endswith("second.weight"):
            torch.nn.init.normal_(parameter, std=0.4)
    weights = MatcherWeights.of(made)
    other = (200, 260)
    for size in ((60, 50), (40, 45)):
        first = points(size[0], 1)
        second = points(size[1], 2, first) if size[1] <= size[0] else points(size[1], 3)
        sides = [
            KeypointView(
                one.keypoints.astype(np.float64), one.descriptors.astype(np.float32), extent
            )
            for one, extent in ((first, SIZE), (second, other))
        ]

        def probabilities(matcher: LearnedMatcher, sides: list[KeypointView]) -> ViewMatches:
            return matcher.match_views(sides[0], sides[1], np.inf, stage=WideStage.LOOPS)

        expected = probabilities(LearnedMatcher(weights, "torch", 0.0, adaptive=False), sides)
        assert np.count_nonzero(expected.matches0 >= 0) >= 5
        assert expected.probability is not None
        for engine in ("openvino", "onnxruntime"):
            found = probabilities(LearnedMatcher(weights, engine, 0.0, threads=1), sides)
            assert np.array_equal(found.matches0, expected.matches0)
            assert found.probability is not None
            assert np.allclose(found.probability, expected.probability, rtol=1e-3, atol=1e-7)
            again = probabilities(LearnedMatcher(weights, engine, 0.0, threads=1), sides)
            assert again.probability is not None
            assert again.probability.tobytes() == found.probability.tobytes()
