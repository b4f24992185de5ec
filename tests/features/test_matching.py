"""`match_pairs`: right matches, the same bytes in every way, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import random_features, write_random

from spslam.cli.app import main
from spslam.config import MatchingConfig
from spslam.errors import ConfigError, FeatureFileError, WeightsError
from spslam.features.h5 import StoredFeatures, match_names, read_matches
from spslam.features.matching import MatchSettings, match_pairs
from spslam.features.pairs import exhaustive_pairs

h5py: Any = pytest.importorskip("h5py")
ALONE = MatchSettings(workers=1)


def shuffled(features: StoredFeatures, seed: int) -> tuple[StoredFeatures, np.ndarray]:
    """The features in another order, moved by a homography, and the index of each old one."""
    order = np.random.default_rng(seed).permutation(len(features))
    moved = features.keypoints * np.float32(0.9) + np.float32(seed)
    changed = StoredFeatures(
        moved[order], features.scores[order], features.descriptors[order], (640, 480), 0.7
    )
    return changed, np.argsort(order)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    first = random_features(0)
    images = {f"x__{seed}.png": shuffled(first, seed)[0] for seed in range(1, 6)}
    return write_random(tmp_path / "f.h5", a=first, z=random_features(9, 0), **images)


PAIRS = exhaustive_pairs(["a", "z", *(f"x/{seed}.png" for seed in range(1, 6))])


def test_matches_are_the_same_points(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.h5"
    summary = match_pairs(source, PAIRS, out, replace(ALONE, verify=True))
    assert (summary.done, summary.present) == (21, 0)
    found, scores = read_matches(out, "a", "x/3.png")
    assert found[:, 1].tolist() == shuffled(random_features(0), 3)[1].tolist()
    assert len(found) == 40 and np.allclose(scores, 1, atol=1e-3)
    # An image without keypoints matches nothing, and is no error.
    assert len(read_matches(out, "a", "z")[0]) == 0
    assert (summary.verified, summary.inliers) == (15, 15 * 40)
    attributes, pairs = match_names(out)
    assert attributes["max_descriptor_distance"] == 0.7 and len(pairs) == 21


def test_the_maximum_distance_and_the_ratio_limit_matches(tmp_path: Path) -> None:
    first = random_features(0, 3)
    # The distances to the nearest are 0.1, 0.5 and 0.9.
    angle = 2 * np.arcsin(np.array([[0.1], [0.5], [0.9]]) / 2)
    across = np.random.default_rng(1).normal(size=first.descriptors.shape)
    across -= (across * first.descriptors).sum(axis=1, keepdims=True) * first.descriptors
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    turned = (np.cos(angle) * first.descriptors + np.sin(angle) * across).astype(np.float32)
    second = replace(first, descriptors=turned)
    source = write_random(tmp_path / "f.h5", a=first, b=second)
    for changes, expected in (
        ({}, [0, 1]),
        ({"max_descriptor_distance": 1.0}, [0, 1, 2]),
        ({"max_descriptor_distance": 0.3}, [0]),
        ({"ratio": 0.2}, [0]),
    ):
        out = tmp_path / "m.h5"
        out.unlink(missing_ok=True)
        match_pairs(source, [("a", "b")], out, replace(ALONE, **changes))  # type: ignore[arg-type]
        matches, scores = read_matches(out, "a", "b")
        assert matches.tolist() == [[index, index] for index in expected], changes
        # 1 - d² / 4, hloc's score.
        exact = 1 - np.array([0.1, 0.5, 0.9])[expected] ** 2 / 4
        assert np.allclose(scores, exact, atol=1e-3)


def test_interruptions_and_further_pairs_continue(source: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.h5"
    match_pairs(source, PAIRS, whole, ALONE)
    part = tmp_path / "part.h5"
    first = match_pairs(source, PAIRS, part, ALONE, stopped=lambda: True)
    assert first.stopped and first.done == 16 and not part.exists()
    second = match_pairs(source, PAIRS, part, ALONE)
    assert (second.done, second.present) == (5, 16)
    assert part.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "part.h5.partial").exists()
    # The other order is the same pair.
    again = match_pairs(source, [pair[::-1] for pair in PAIRS], part, ALONE)
    assert again.done == 0 and part.read_bytes() == whole.read_bytes()
    few = tmp_path / "few.h5"
    match_pairs(source, PAIRS[:3], few, ALONE)
    assert match_pairs(source, PAIRS, few, ALONE).present == 3
    assert match_names(few)[1] == match_names(whole)[1]


def test_other_settings_and_foreign_files_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.h5"
    match_pairs(source, PAIRS[:2], out, ALONE)
    before = out.read_bytes()
    with pytest.raises(FeatureFileError, match=r"ratio 0\.0, now 0\.8"):
        match_pairs(source, PAIRS, out, replace(ALONE, ratio=0.8))
    assert out.read_bytes() == before
    with pytest.raises(ConfigError, match="holds the features"):
        match_pairs(source, PAIRS, source, ALONE)
    with h5py.File(source, "a") as file:
        del file.attrs["max_descriptor_distance"]
    with pytest.raises(FeatureFileError, match="--max-distance"):
        match_pairs(source, PAIRS, tmp_path / "other.h5", ALONE)
    assert not (tmp_path / "other.h5").exists()


def test_descriptors_of_two_sizes_end_the_command_in_one_line(tmp_path: Path) -> None:
    source = write_random(
        tmp_path / "f.h5", a=random_features(0), b=random_features(1, dimension=8)
    )
    with pytest.raises(FeatureFileError, match=r"a has descriptors of 16 numbers, b of 8"):
        match_pairs(source, [("a", "b")], tmp_path / "m.h5", ALONE)


def test_matches_of_other_features_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "f.h5", tmp_path / "m.h5"
    write_random(source, a=random_features(0), b=random_features(1))
    match_pairs(source, [("a", "b")], out, ALONE)
    before = out.read_bytes()
    write_random(source, a=random_features(0, 30), b=random_features(1))
    for pair in (("a", "b"), ("b", "a")):
        with pytest.raises(FeatureFileError, match=r"m\.h5 holds .*: 40 keypoints of a, .* has 30"):
            match_pairs(source, [pair], out, ALONE)
    assert out.read_bytes() == before


def test_matches_of_features_with_other_settings_are_refused(tmp_path: Path) -> None:
    source, out = tmp_path / "f.h5", tmp_path / "m.h5"

    def write(settings: str) -> None:
        write_random(source, a=random_features(0), b=random_features(1))
        with h5py.File(source, "a") as file:
            file.attrs["settings"] = settings

    write('{"features": {"nms_radius": 4}}')
    match_pairs(source, [("a", "b")], out, ALONE)
    assert match_pairs(source, [("a", "b")], out, ALONE).present == 1
    write('{"features": {"nms_radius": 8}}')
    with pytest.raises(FeatureFileError, match=r"nms_radius 4, now 8"):
        match_pairs(source, [("a", "b")], out, ALONE)


# -- by a learned matcher --------------------------------------------------------------------------


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    torch = pytest.importorskip("torch")
    from spslam.frontend.learned_matching.matcher_file import describe_matcher, write_matcher
    from spslam.frontend.learned_matching.network import MatcherNetwork
    from spslam.frontend.learned_matching.weights import MatcherShape

    torch.manual_seed(0)
    network, path = MatcherNetwork(MatcherShape(16, 32, 2)), tmp_path / "toy.safetensors"
    write_matcher(network, path, describe_matcher(network, "toy", "superpoint abc"))
    return path


def learned(path: Path, **changes: Any) -> MatchSettings:
    matching = MatchingConfig(learned="on", weights=str(path), engine="torch")
    return replace(ALONE, matching=matching, **changes)


def described(path: Path, identity: str) -> Path:
    """A file of features of an extractor: two views of the same points."""
    first = random_features(0)
    write_random(path, a=first, b=shuffled(first, 3)[0], c=random_features(9, 1))
    with h5py.File(path, "a") as file:
        file.attrs["extractor_identity"] = identity
    return path


def test_a_learned_matcher_writes_its_probabilities_and_its_name(toy: Path, tmp_path: Path) -> None:
    source, out = described(tmp_path / "f.h5", "superpoint abc"), tmp_path / "m.h5"
    summary = match_pairs(source, [("a", "b"), ("a", "c")], out, learned(toy))
    assert (summary.done, summary.present) == (2, 0)
    found, scores = read_matches(out, "a", "b")
    expected = shuffled(random_features(0), 3)[1]
    assert len(found) > 30 and (found[:, 1] == expected[found[:, 0]]).mean() > 0.9
    assert (scores > 0.1).all() and (scores <= 1).all() and scores.std() > 0
    assert match_names(out)[0]["matcher"].startswith("learned matcher ")
    # The same bytes by two processes, and no mixture with nearest neighbours.
    again = tmp_path / "again.h5"
    match_pairs(source, [("a", "b"), ("a", "c")], again, learned(toy, workers=2))
    assert again.read_bytes() == out.read_bytes()
    with pytest.raises(FeatureFileError, match="other settings"):
        match_pairs(source, [("b", "c")], out, ALONE)
    with pytest.raises(ConfigError, match="are of nearest neighbours"):
        match_pairs(source, PAIRS, tmp_path / "r.h5", learned(toy, ratio=0.8))


@pytest.mark.parametrize("identity", ["orb", "superpoint other", ""])
def test_features_of_another_extractor_are_refused(
    toy: Path, tmp_path: Path, identity: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, out = described(tmp_path / "f.h5", identity), tmp_path / "m.h5"
    with pytest.raises(WeightsError, match="matches features of superpoint abc"):
        match_pairs(source, [("a", "b")], out, learned(toy))
    assert not out.exists()
    auto = replace(ALONE, matching=MatchingConfig(learned="auto", weights=str(toy)))
    match_pairs(source, [("a", "b")], out, auto)
    nearest = tmp_path / "nearest.h5"
    match_pairs(source, [("a", "b")], nearest, ALONE)
    assert out.read_bytes() == nearest.read_bytes()
    assert "nearest neighbours are matched" in caplog.text


def test_the_command_refuses_in_one_line(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = described(tmp_path / "f.h5", "orb")
    command = ["match", str(source), "--pairs", "exhaustive", "--out", str(tmp_path / "m.h5")]
    for given, expected in (
        (["matching.learned=on"], "there is no matcher of orb"),
        (["matching.learned=on", f"matching.weights={toy}"], "found orb: use --extractor"),
        (["tracking.min_inliers=20"], "takes matching.KEY=VALUE only"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, *(item for value in given for item in ("--set", value))])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert expected in error and len(error.strip().splitlines()) == 1
