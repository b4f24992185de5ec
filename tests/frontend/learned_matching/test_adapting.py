"""A matcher is retrained for adapted weights, from the matcher of the former ones."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spslam.frontend.learned_matching.card import matcher_beside
from spslam.frontend.learned_matching.data.views import PosedImage
from spslam.frontend.learned_matching.matcher_file import (
    describe_matcher,
    read_matcher,
    write_matcher,
)
from spslam.frontend.learned_matching.network import MatcherNetwork
from spslam.frontend.learned_matching.training import adapting
from spslam.frontend.learned_matching.training.run import SpotRenderer
from spslam.frontend.learned_matching.weights import MatcherShape
from spslam.frontend.superpoint.checkpoints import (
    find_weights,
    load_superpoint,
    read_codebook,
)
from spslam.frontend.superpoint.weights_file import export_weights, read_card
from spslam.frontend.training.adaptation.session import SilentReporter
from spslam.frontend.training.processes import Processes


def open_wall(name: str, size: tuple[int, int], largest_angle_deg: float) -> SpotRenderer:
    """Open a world that is one textured wall, seen by cameras side by side."""

    def render(spot: int, count: int) -> Sequence[PosedImage]:
        height, width = size
        rng = np.random.default_rng(spot)
        wall = np.kron(rng.integers(0, 256, (40, 50)), np.ones((8, 8))).astype(np.uint8)
        matrix = np.array([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]])
        shown = []
        for number in range(count):
            pose = np.eye(4)
            pose[0, 3] = number / 50  # 4 pixels at 1 m
            crop = np.ascontiguousarray(wall[:height, 4 * number : 4 * number + width])
            shown.append(PosedImage(crop, np.ones(size, np.float32), pose, matrix))
        return shown

    return render


@pytest.mark.slow
def test_a_matcher_is_retrained_beside_adapted_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "_SPOTS", 1)
    monkeypatch.setattr(adapting, "_VALIDATION_SPOTS", 1)
    former, weights = tmp_path / "former.safetensors", tmp_path / "new.safetensors"
    for path in (former, weights):
        shutil.copy(find_weights(None), path)
    torch.manual_seed(0)
    network = MatcherNetwork(MatcherShape(128, 32, 2))
    card = describe_matcher(network, "toy", "superpoint of former weights")
    write_matcher(network, matcher_beside(former), card)
    photos = tmp_path / "new-adaptation/images/train"
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        image = np.kron(rng.integers(0, 256, (30, 40)), np.ones((8, 8))).astype(np.uint8)
        cv2.imwrite(str(photos / f"{number:02}.png"), image)

    path, result = adapting.adapt_matcher(
        weights, former, 0.02, open_wall, Processes(), SilentReporter(), lambda: False
    )

    assert (path, result.finished) == (tmp_path / "new.matcher.safetensors", True)
    assert result.steps > 0
    made, about = read_matcher(path)
    assert made.shape == network.shape
    assert about.extractor.startswith("superpoint ")
    assert about.extractor != card.extractor
    assert path.with_suffix(".md").is_file()
    # Its first layer is still near that of the matcher it started from.
    difference = (made.input.weight - network.input.weight).norm() / network.input.weight.norm()
    assert difference < 0.3

    # Other weights in the same file, as after a longer adaptation: trained again.
    changed = load_superpoint(weights)
    with torch.no_grad():
        next(changed.parameters()).add_(0.01)
    before = read_card(weights)
    assert before is not None
    export_weights(changed, weights, before, read_codebook(weights))
    adapting.adapt_matcher(
        weights, former, 0.02, open_wall, Processes(), SilentReporter(), lambda: False
    )
    assert read_matcher(path)[1].extractor not in (about.extractor, card.extractor)


def test_any_path_of_weights_is_kept(tmp_path: Path) -> None:
    """The value is read as YAML, where # begins a comment."""
    weights = tmp_path / "a: b #1" / "w.safetensors"
    config = adapting.adapted_matcher_config(weights, None, 3.0)
    assert config.views.weights == str(weights)
    assert config.schedule.minutes == 3.0
