"""Training of a matcher from stored views: resumption, determinism, refusals, weights files."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spslam.config import MatchingConfig
from spslam.errors import ConfigError, DatasetError, TrainingError, WeightsError
from spslam.frame import Features
from spslam.frontend.learned_matching.data.true_matches import IGNORED
from spslam.frontend.learned_matching.data.view_store import View, ViewStore, fill
from spslam.frontend.learned_matching.matcher import LearnedMatcher, create_matcher
from spslam.frontend.learned_matching.matcher_file import (
    describe_matcher,
    read_matcher,
    write_matcher,
)
from spslam.frontend.learned_matching.network import MatcherNetwork
from spslam.frontend.learned_matching.torch_matching import UNMATCHED
from spslam.frontend.learned_matching.training.configuration import (
    MatcherConfig,
    load_matcher_config,
)
from spslam.frontend.learned_matching.training.pairs import PairSampler
from spslam.frontend.learned_matching.training.training_loop import MatcherLossModel, MatcherTrainer
from spslam.frontend.learned_matching.training.unfinished import read_training
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.frontend.superpoint.checkpoints import find_weights
from spslam.frontend.training.loop.checkpoints import BEST, CHECKPOINT
from spslam.frontend.training.loop.training_loop import LoopOptions, TrainingResult

DIM, POINTS, SIZE = 16, 48, (320, 240)
SMALL = ["network.width=32", "network.layers=2", "optimizer.batch=2", "optimizer.warmup=0"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Waiting threads spin, which on shared cores takes ten times the time of so small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def views_of(group: int) -> list[View]:
    """Three views of a plane, shifted and scaled, with a few points of their own each."""
    rng = np.random.default_rng(group)
    places = np.c_[rng.uniform(30, 200, (60, 2)), np.ones(60)]
    shared = rng.normal(size=(60, DIM))
    views = []
    for _ in range(3):
        homography = np.diag([*rng.uniform(0.8, 1.1, 2), 1.0])
        homography[:2, 2] = rng.uniform(-10, 10, 2)
        chosen = rng.permutation(60)[:40]
        lifted = places[chosen] @ homography.T
        descriptors = shared[chosen] + 0.3 * rng.normal(size=(40, DIM))
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        features = Features(
            lifted[:, :2].astype(np.float32),
            rng.uniform(size=40).astype(np.float32),
            descriptors.astype(np.float32),
        )
        views.append(View(features, places[chosen], np.c_[homography, np.zeros(3)]))
    return views


@pytest.fixture
def store(tmp_path: Path) -> ViewStore:
    made = ViewStore(tmp_path / "views", {"of": "test"}, 6, 3, POINTS, DIM)
    assert fill(made, views_of)
    return made


def settings(*overrides: str) -> MatcherConfig:
    return load_matcher_config("default", [*SMALL, *overrides])


def train(
    store: ViewStore,
    out: Path,
    *overrides: str,
    stop_after: int | None = None,
    overfit: bool = False,
    origin: str = "test",
    maps: str = "",
) -> TrainingResult[MatcherNetwork]:
    config = settings(*overrides)
    torch.manual_seed(config.seed)
    network = MatcherNetwork(config.network.shape(DIM))
    sampler = PairSampler(store, None, SIZE, config.pairs, config.seed)
    calls = iter(range(10**6))
    return MatcherTrainer(
        config,
        network,
        sampler,
        lambda network: {"metric": float(network.input.weight.sum())},
        origin,
        LoopOptions(
            out,
            overfit=overfit,
            stopped=lambda: stop_after is not None and next(calls) + 1 >= stop_after,
        ),
        maps=maps,
    ).train()


def test_a_stopped_training_continues_to_the_same_weights(store: ViewStore, tmp_path: Path) -> None:
    whole = train(store, tmp_path / "whole", "optimizer.steps=5", "schedule.validate_every=2")
    part = train(
        store, tmp_path / "part", "optimizer.steps=5", "schedule.validate_every=2", stop_after=3
    )
    assert (part.finished, part.steps) == (False, 3)
    unfinished, card = read_training(tmp_path / "part")
    assert (card.steps, card.training_data, card.extractor) == (3, {"pairs": 6}, "test")
    state = torch.load(tmp_path / "part" / CHECKPOINT, weights_only=True)
    assert torch.equal(unfinished.input.weight, state["average"]["input.weight"])
    with pytest.raises(TrainingError, match="no checkpoint"):
        read_training(tmp_path)
    rest = train(store, tmp_path / "part", "optimizer.steps=5", "schedule.validate_every=2")
    assert (rest.finished, rest.steps, rest.examples) == (True, 5, 10)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name]), name
    assert (tmp_path / "part" / BEST).is_file()


def test_overfitting_one_batch_brings_the_loss_to_zero(store: ViewStore, tmp_path: Path) -> None:
    given = ["optimizer.steps=80", "optimizer.learning_rate=0.003", "schedule.log_every=80"]
    train(store, tmp_path / "out", *given, overfit=True)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    values = [line for line in lines if "final" in line]
    checkpoint = torch.load(tmp_path / "out" / CHECKPOINT, weights_only=True)
    network = MatcherNetwork(settings().network.shape(DIM))
    network.load_state_dict(checkpoint["network"])
    batch = PairSampler(store, None, SIZE, settings().pairs, 0).batch(0, range(2), 2)
    with torch.no_grad():
        last = MatcherLossModel(network, settings())(batch, 0)
    assert float(last["final"].mean()) < 0.2 * values[0]["final"]
    assert torch.equal(last["found"], last["true"])


def test_other_settings_or_features_are_refused(store: ViewStore, tmp_path: Path) -> None:
    train(store, tmp_path / "out", "optimizer.steps=1")
    with pytest.raises(TrainingError, match=r"optimizer\.steps"):
        train(store, tmp_path / "out", "optimizer.steps=2")
    with pytest.raises(TrainingError, match="features of test instead of another"):
        train(store, tmp_path / "out", "optimizer.steps=1", origin="another")
    with pytest.raises(TrainingError, match="other saved maps"):
        train(store, tmp_path / "out", "optimizer.steps=1", maps="abc")
    with pytest.raises(TrainingError, match="views of other settings"):
        ViewStore(store.folder, {"of": "others"}, 6, 3, POINTS, DIM)


def test_pairs_depend_on_step_and_seed_only(store: ViewStore) -> None:
    def sampler(seed: int) -> PairSampler:
        return PairSampler(store, None, SIZE, settings().pairs, seed)

    first, again = sampler(0).batch(7, range(4), 4), sampler(0).batch(7, range(4), 4)
    assert torch.equal(first.view0.descriptors, again.view0.descriptors)
    assert torch.equal(first.true.index1, again.true.index1)
    half = sampler(0).batch(7, range(2, 4), 4)
    assert torch.equal(first.view1.positions[2:], half.view1.positions)
    other = sampler(1).batch(7, range(4), 4)
    assert not torch.equal(first.view0.descriptors, other.view0.descriptors)


def test_points_of_other_places_have_no_match(store: ViewStore) -> None:
    foreign = settings("pairs.foreign_fraction=1.0").pairs
    batch = PairSampler(store, None, SIZE, foreign, 0).batch(0, range(4), 4)
    real = batch.view0.points.exist
    assert (batch.true.index0[real] == UNMATCHED).all()
    assert (batch.true.index0[~real] == IGNORED).all()


def test_keyframes_of_maps_are_never_foreign(store: ViewStore, tmp_path: Path) -> None:
    """Groups of a map often show the same place."""
    pairs = settings("pairs.map_fraction=1.0", "pairs.foreign_fraction=1.0").pairs
    pairs = pairs.model_copy(update={"world_fraction": 0.0})
    batch = PairSampler(store, None, SIZE, pairs, 0, maps=store).batch(0, range(4), 4)
    assert (batch.true.index0 >= 0).any(dim=1).all()
    empty = ViewStore(tmp_path / "empty", {"of": "nothing"}, 2, 3, POINTS, DIM)
    with pytest.raises(DatasetError, match="no group of keyframes has 32 keypoints"):
        PairSampler(store, None, SIZE, pairs, 0, maps=empty)
    with pytest.raises(TrainingError, match="more than 1 together"):
        PairSampler(
            store, store, SIZE, pairs.model_copy(update={"world_fraction": 0.5}), 0, maps=store
        )


def test_an_interrupted_extraction_continues(tmp_path: Path) -> None:
    calls = iter(range(100))
    store = ViewStore(tmp_path, {}, 6, 3, POINTS, DIM)
    assert not fill(store, views_of, stopped=lambda: next(calls) >= 2)
    assert store.missing().tolist() == [2, 3, 4, 5]
    again = ViewStore(tmp_path, {}, 6, 3, POINTS, DIM)
    done: list[int] = []

    def more(group: int) -> list[View]:
        done.append(group)
        return views_of(group)

    assert fill(again, more)
    assert done == [2, 3, 4, 5]
    best = views_of(3)[1].features
    stored = again.read(np.array([3]), np.array([1]))
    assert np.array_equal(stored["keypoints"][0, 0], best.keypoints[int(np.argmax(best.scores))])


def test_a_weights_file_keeps_the_network_and_says_whose_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MatcherNetwork(settings().network.shape(DIM)).eval()
    card = describe_matcher(network, "toy", "superpoint abc", steps=5, metrics={"metric": 0.5})
    path = tmp_path / "toy.safetensors"
    write_matcher(network, path, card)
    first = path.read_bytes()
    write_matcher(network, path, card)
    assert path.read_bytes() == first
    read, found = read_matcher(path)
    assert found == card
    assert all(
        torch.equal(value, read.state_dict()[name]) for name, value in network.state_dict().items()
    )
    assert "superpoint abc" in path.with_suffix(".md").read_text()
    # A flipped bit in the last tensor.
    path.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    with pytest.raises(WeightsError, match="damaged"):
        read_matcher(path)


def test_the_configuration_chooses_the_matcher(tmp_path: Path) -> None:
    network = MatcherNetwork(settings().network.shape(DIM)).eval()
    path = tmp_path / "toy.safetensors"
    write_matcher(network, path, describe_matcher(network, "toy", "superpoint abc"))
    on = MatchingConfig(learned="on", weights=str(path), engine="torch")
    assert isinstance(create_matcher(on, "superpoint abc"), LearnedMatcher)
    for config in (MatchingConfig(), MatchingConfig(learned="auto")):
        assert type(create_matcher(config, "superpoint abc")) is DescriptorMatcher
    with pytest.raises(WeightsError, match="matches features of superpoint abc, found orb"):
        create_matcher(on, "orb")
    with pytest.raises(ConfigError, match="there is no matcher of superpoint abc"):
        create_matcher(MatchingConfig(learned="on"), "superpoint abc")
    views = views_of(0)
    long = replace(views[0].features, descriptors=np.ones((40, 8), np.float32))
    with pytest.raises(WeightsError, match="needs descriptors of 16 numbers, found 8"):
        create_matcher(on, "superpoint abc").match_images(long, long, SIZE, SIZE)


def test_other_files_are_no_matchers(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="found none"):
        read_matcher(tmp_path / "missing.safetensors")
    with pytest.raises(WeightsError, match="holds no matcher"):
        read_matcher(find_weights(None))
