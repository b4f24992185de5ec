"""The ONNX files of matchers for other programs, in these programs where they are installed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from spslam.errors import ConfigError
from spslam.frame import Features
from spslam.frontend.learned_matching.matcher import LearnedMatcher
from spslam.frontend.learned_matching.network import MatcherNetwork, Update
from spslam.frontend.learned_matching.slots import SLOTS, SlotName, convert_slot
from spslam.frontend.learned_matching.weights import MatcherShape, MatcherWeights

Files = Callable[..., Path]

# The images differ in size and ratio: a model that mixes them up gives other matches.
SIZE0, SIZE1 = (320, 240), (200, 260)
SIZES = (SIZE0, SIZE1)


@pytest.fixture(scope="module")
def network() -> MatcherNetwork:
    """A network whose layers do something, unlike those of a new one: positions count."""
    torch.manual_seed(0)
    made = MatcherNetwork(MatcherShape(16, 32, 2))
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, Update):
                torch.nn.init.normal_(module.second.weight, std=0.4)
    return made.eval().requires_grad_(False)


def features(count: int, seed: int, size: tuple[int, int]) -> Features:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, np.array(size) - 1, (count, 2)).astype(np.float32)
    # The same descriptors in both images, but for noise.
    descriptors = np.random.default_rng(7).normal(size=(90, 16))[:count]
    descriptors = descriptors + rng.normal(0, 0.3, descriptors.shape)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(keypoints, np.ones(count, np.float32), descriptors.astype(np.float32))


PAIRS = [
    (features(80, 1, SIZE0), features(90, 2, SIZE1)),
    (features(25, 3, SIZE0), features(30, 4, SIZE1)),
]


def expected(network: MatcherNetwork, first: Features, second: Features) -> set[tuple[int, int]]:
    matcher = LearnedMatcher(MatcherWeights.of(network), "torch", adaptive=False)
    matches0 = matcher.match_images(first, second, SIZE0, SIZE1)
    return {(row, int(column)) for row, column in enumerate(matches0) if column >= 0}


@pytest.fixture(scope="module")
def files(network: MatcherNetwork, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Makes the file of a slot, once for each set of arguments: an export takes seconds."""
    folder = tmp_path_factory.mktemp("slots")

    @functools.cache
    def make(name: SlotName, sizes: Any = SIZES, threshold: float = 0.1) -> Path:
        pytest.importorskip("onnxscript")
        model = convert_slot(name, network, {}, threshold, sizes if SLOTS[name].sized else None)
        path = folder / f"{len(list(folder.iterdir()))}.onnx"
        path.write_bytes(model)
        return path

    return make


def positions(name: SlotName, found: Features, size: tuple[int, int]) -> np.ndarray:
    """Positions as the program gives them, written after its source."""
    extent = np.array(size, np.float32)
    if name == "opencv":
        return found.keypoints / extent * 2 - 1
    return (found.keypoints - extent / 2) / (extent.max() / 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightglue-onnx", "opencv", "kornia"])
def test_matches_are_those_of_match_images(
    network: MatcherNetwork, files: Files, name: SlotName
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(files(name), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert about["slot"] == name and about["threshold"] == "0.1"
    assert about.get("image_size1") == ("200x260" if name == "opencv" else None)
    for first, second in PAIRS:
        inputs = {
            "kpts0": positions(name, first, SIZE0)[None],
            "kpts1": positions(name, second, SIZE1)[None],
            "desc0": first.descriptors[None],
            "desc1": second.descriptors[None],
        }
        pairs, scores = session.run(["matches0", "mscores0"], inputs)
        assert pairs.dtype == np.int64 and scores.shape == (len(pairs),)
        if name == "opencv":
            assert np.array_equal(pairs[:, 0], np.arange(len(first)))
            assert np.array_equal(scores > 0, pairs[:, 1] >= 0)
            pairs = pairs[pairs[:, 1] >= 0]
        wanted = expected(network, first, second)
        assert len(wanted) > 8
        assert {(int(row), int(column)) for row, column in pairs} == wanted


@pytest.mark.slow
def test_the_same_matcher_gives_the_same_bytes(network: MatcherNetwork, files: Files) -> None:
    assert convert_slot("opencv", network, {}, 0.1, SIZES) == files("opencv").read_bytes()


def opencv_matcher(file: Path) -> Any:
    if not hasattr(cv2, "LightGlueMatcher_create"):
        pytest.skip("this OpenCV has no LightGlueMatcher")
    return cv2.LightGlueMatcher_create(str(file))


def in_opencv(matcher: Any, first: Features, second: Features) -> set[tuple[int, int]]:
    matcher.setPairInfo(first.keypoints, second.keypoints, SIZE0, SIZE1)
    found = matcher.match(first.descriptors, second.descriptors)
    return {(match.queryIdx, match.trainIdx) for match in found}


@pytest.mark.slow
def test_opencv_matches_as_match_images(network: MatcherNetwork, files: Files) -> None:
    """One matcher, pairs of other sizes and with other numbers of matches, in turns."""
    matcher = opencv_matcher(files("opencv"))
    for first, second in [*PAIRS, *PAIRS]:
        assert in_opencv(matcher, first, second) == expected(network, first, second)


@pytest.mark.slow
@pytest.mark.parametrize(("factors", "same"), [((2, 2), True), ((2, 1), False)])
def test_the_ratio_of_the_images_counts_in_opencv(
    files: Files, factors: tuple[int, int], same: bool
) -> None:
    sizes = tuple((size[0] * factors[0], size[1] * factors[1]) for size in SIZES)
    found = in_opencv(opencv_matcher(files("opencv", sizes)), *PAIRS[0])
    assert (found == in_opencv(opencv_matcher(files("opencv")), *PAIRS[0])) is same


@pytest.mark.slow
def test_opencv_finds_nothing_where_nothing_is_probable(files: Files) -> None:
    matcher = opencv_matcher(files("opencv", threshold=1.0))
    assert in_opencv(matcher, *PAIRS[0]) == set()


@pytest.mark.slow
def test_opencv_stitching_takes_the_matcher(network: MatcherNetwork, files: Files) -> None:
    first, second = PAIRS[0]
    given = []
    for side, (found, size) in enumerate(((first, SIZE0), (second, SIZE1))):
        image: Any = cv2.detail.ImageFeatures()
        image.img_idx, image.img_size = side, size
        image.keypoints = tuple(cv2.KeyPoint(float(x), float(y), 8) for x, y in found.keypoints)
        image.descriptors = found.descriptors
        given.append(image)
    matcher = opencv_matcher(files("opencv"))
    stitching: Any = cv2
    matched = stitching.detail_LightGlueFeaturesMatcher(matcher).apply(*given)
    pairs = {(match.queryIdx, match.trainIdx) for match in matched.getMatches()}
    assert pairs == expected(network, first, second)


@pytest.mark.slow
def test_kornia_matches_as_match_images(network: MatcherNetwork, files: Files) -> None:
    pytest.importorskip("onnxruntime")
    kornia = pytest.importorskip("kornia.feature")
    matcher = kornia.OnnxLightGlue(str(files("kornia")))
    for pair in PAIRS:
        data = {
            f"image{side}": {
                "keypoints": torch.from_numpy(found.keypoints)[None],
                "descriptors": torch.from_numpy(found.descriptors)[None],
                "image_size": torch.tensor([size], dtype=torch.float32),
            }
            for side, (found, size) in enumerate(zip(pair, SIZES, strict=True))
        }
        found = matcher(data)["matches"].tolist()
        assert {(row, column) for row, column in found} == expected(network, *pair)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("opencv", None, "needs --size WxH"),
        ("kornia", SIZES, "kornia takes images of any size"),
        ("opencv", ((0, 4), (4, 4)), "at least one pixel, found 0x4"),
        ("opencv", ((4, 4), (4, 0)), "at least one pixel, found 4x0"),
    ],
)
def test_sizes_must_fit_the_slot(
    network: MatcherNetwork, name: SlotName, sizes: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_slot(name, network, {}, 0.1, sizes)
