"""`LearnedMatcher.match_views` and the choice of a matcher."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from spslam.config import MatchingConfig, load_config
from spslam.errors import ConfigError, WeightsError
from spslam.frame import Features, KeypointView
from spslam.frontend.learned_matching.card import matcher_beside
from spslam.frontend.learned_matching.matcher import (
    LearnedMatcher,
    create_matcher,
)
from spslam.frontend.learned_matching.matcher_file import describe_matcher, write_matcher
from spslam.frontend.learned_matching.network import MatcherNetwork
from spslam.frontend.learned_matching.weights import MatcherShape, MatcherWeights
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.interfaces import WideStage

SIZE = (320, 240)
SHAPE = MatcherShape(16, 32, 2)


def network() -> MatcherNetwork:
    torch.manual_seed(0)
    return MatcherNetwork(SHAPE).eval().requires_grad_(False)


def view(count: int, seed: int) -> KeypointView:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return KeypointView(rng.uniform(0, 239, (count, 2)), descriptors, SIZE)


def moved(first: KeypointView, seed: int) -> KeypointView:
    """The same points 5 px to the right, in reversed order, with some noise."""
    rng = np.random.default_rng(seed)
    noisy = first.descriptors + rng.normal(0, 0.02, first.descriptors.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    return KeypointView(first.pixels[::-1] + np.array([5.0, 0.0]), noisy[::-1], SIZE)


def matcher() -> LearnedMatcher:
    return LearnedMatcher(MatcherWeights.of(network()), "torch", adaptive=False)


def test_views_are_matched_as_images_and_only_once() -> None:
    first = view(60, 1)
    second, used = moved(first, 2), matcher()
    found = used.match_views(first, second, 0.0, stage=WideStage.LOOPS)
    right = found.matches0 == np.arange(60)[::-1]
    assert right.mean() > 0.9
    assert found.probability is not None
    assert (found.probability[found.matches0 >= 0] > 0.1).all()
    assert (found.probability[found.matches0 < 0] == 0).all()
    features = [
        Features(
            side.pixels.astype(np.float32),
            np.ones(60, np.float32),
            side.descriptors.astype(np.float32),
        )
        for side in (first, second)
    ]
    whole = used.match_images(features[0], features[1], SIZE, SIZE)
    assert np.array_equal(whole, found.matches0)
    # The same views for another stage: nothing is matched or counted again.
    again = used.match_views(first, second, 0.0, stage=WideStage.START)
    assert np.array_equal(again.matches0, found.matches0)
    assert used.learned_pairs == {WideStage.LOOPS: 1}
    elsewhere = KeypointView(second.pixels + 1e-3, second.descriptors, SIZE)
    used.match_views(first, elsewhere, 0.0, stage=WideStage.START)
    assert used.learned_pairs == {WideStage.LOOPS: 1, WideStage.START: 1}


def test_views_that_are_near_have_nearest_neighbours() -> None:
    first = view(60, 1)
    second, used = moved(first, 2), matcher()
    near = used.match_views(first, second, 0.5)
    assert near.probability is None and used.learned_pairs == {}
    assert np.array_equal(
        near.matches0, DescriptorMatcher().match_views(first, second, 0.5).matches0
    )
    assert (near.matches0 == np.arange(60)[::-1]).all()
    assert used.attempts(WideStage.LOOPS) == (None, WideStage.LOOPS)
    assert DescriptorMatcher().attempts(WideStage.LOOPS) == (None,)


def test_points_without_a_pixel_are_not_matched() -> None:
    """They are left out on both sides, and the other points keep their indices."""
    first = view(60, 1)
    second, used = moved(first, 2), matcher()
    first.pixels[:10] = np.nan
    second.pixels[::4, 0] = np.nan
    found = used.match_views(first, second, 0.0, stage=WideStage.LOOPS).matches0
    assert (found[:10] == -1).all()
    assert not set(found[found >= 0]) & set(range(0, 60, 4))
    rows = np.flatnonzero(found >= 0)
    assert len(rows) > 25 and (found[rows] == 59 - rows).mean() > 0.9


def test_only_wanted_points_are_matched() -> None:
    first = view(60, 1)
    second, used, wanted = moved(first, 2), matcher(), np.arange(0, 60, 2)
    every = used.match_views(first, second, 0.5, stage=WideStage.LOOPS)
    some = used.match_views(first, second, 0.5, among=wanted, stage=WideStage.LOOPS)
    expected = np.where(np.isin(every.matches0, wanted), every.matches0, -1)
    assert np.array_equal(some.matches0, expected) and (expected >= 0).sum() > 20
    nearest = used.match_views(first, second, 0.5, among=wanted).matches0
    assert set(nearest[nearest >= 0]) <= set(wanted)
    assert (nearest[nearest >= 0] == 59 - np.flatnonzero(nearest >= 0)).all()


@pytest.mark.parametrize("count", [0, 1])
def test_views_with_too_few_points_have_nearest_neighbours(count: int) -> None:
    used = matcher()
    found = used.match_views(view(count, 1), view(9, 2), 2.0, stage=WideStage.START)
    assert len(found.matches0) == count and used.learned_pairs == {}


# -- the choice ------------------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "walk.matcher.safetensors"
    write_matcher(network(), path, describe_matcher(network(), "toy", "superpoint abc"))
    return path


def test_a_matcher_beside_the_weights_is_found(toy: Path) -> None:
    weights = toy.with_name("walk.safetensors")
    assert matcher_beside(weights) == toy
    for learned in ("on", "auto"):
        config = MatchingConfig.model_validate({"learned": learned, "engine": "torch"})
        found = create_matcher(config, "superpoint abc", weights=weights)
        assert isinstance(found, LearnedMatcher)
        assert found.description.startswith("learned matcher ")
    off = create_matcher(MatchingConfig(), "superpoint abc", weights=weights)
    assert off.learned_pairs is None and off.description == "mutual nearest neighbours"


@pytest.mark.parametrize("extractor", ["orb", "sift", "superpoint other", ""])
def test_a_foreign_matcher_is_refused_and_auto_falls_back(
    toy: Path, extractor: str, caplog: pytest.LogCaptureFixture
) -> None:
    on = MatchingConfig(learned="on", weights=str(toy), engine="torch")
    with pytest.raises(WeightsError, match="matches features of superpoint abc, found") as refused:
        create_matcher(on, extractor)
    assert "\n" not in str(refused.value)
    auto = MatchingConfig(learned="auto", weights=str(toy), engine="torch")
    with caplog.at_level(logging.WARNING):
        assert type(create_matcher(auto, extractor)) is DescriptorMatcher
    (record,) = caplog.records
    assert getattr(record, "notice_topic", "") == "foreign_matcher"
    assert "nearest neighbours are matched" in record.getMessage()


def test_without_a_matcher_on_is_refused_and_auto_falls_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "walk.safetensors"
    with pytest.raises(ConfigError, match="no matcher of orb"):
        create_matcher(MatchingConfig(learned="on"), "orb", weights=weights)
    with caplog.at_level(logging.WARNING):
        found = create_matcher(MatchingConfig(learned="auto"), "orb", weights=weights)
    assert type(found) is DescriptorMatcher
    assert [getattr(record, "notice_topic", "") for record in caplog.records] == ["no_matcher"]


def test_yaml_reads_on_and_off_as_booleans() -> None:
    for text, expected in (("on", "on"), ("off", "off"), ("auto", "auto"), ('"on"', "on")):
        assert load_config("default", [f"matching.learned={text}"]).matching.learned == expected
    with pytest.raises(ConfigError, match=r"matching\.learned"):
        load_config("default", ["matching.learned=1"])
