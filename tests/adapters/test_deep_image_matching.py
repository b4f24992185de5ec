"""deep-image-matching's interface: with a small package that loads and calls extractors as it."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hosts import forget, write_package
from pictures import scene

from spslam.config import FeatureConfig
from spslam.frontend.extractors.registry import create_extractor

# The contract of deep_image_matching/extractors/extractor_base.py.
HOST = {
    "deep_image_matching/extractors/extractor_base.py": """
from abc import ABCMeta, abstractmethod
import numpy as np


class ExtractorBase(metaclass=ABCMeta):
    _default_conf, grayscale, as_float, descriptor_size = {}, True, True, 128

    def __init__(self, config):
        self.config = {"extractor": {**self._default_conf, **config.extractor}}
        self._device = "cpu"

    def extract(self, image):
        if self.as_float:
            image = image.astype(np.float32)
        descriptors = np.zeros((self.descriptor_size, 0), np.float32)
        keypoints = np.zeros((0, 2), np.float32)
        for left in (0, 140):
            tile = self._extract(image[:, left : left + 140])
            tile["keypoints"] += np.array([left, 0], np.float32)
            keypoints = np.vstack([keypoints, tile["keypoints"]])
            descriptors = np.hstack([descriptors, tile["descriptors"]])
        return {"keypoints": keypoints, "descriptors": descriptors}

    @abstractmethod
    def _extract(self, image): ...

    @abstractmethod
    def _preprocess_tensor(self, image, device="cpu"): ...
""",
}


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    write_package(tmp_path, HOST)
    monkeypatch.syspath_prepend(tmp_path)
    forget(monkeypatch, "deep_image_matching", "spslam.adapters.deep_image_matching")
    yield importlib.import_module("spslam.adapters.deep_image_matching")
    for name in [name for name in sys.modules if name.startswith("deep_image_matching")]:
        del sys.modules[name]
    sys.modules.pop("spslam.adapters.deep_image_matching")


def test_the_host_joins_the_features_of_tiles(adapter: Any) -> None:
    adapter.register()
    module = importlib.import_module("deep_image_matching.extractors.spslam")
    assert module.SuperPoint.__module__ == "deep_image_matching.extractors.spslam"
    config = SimpleNamespace(extractor={"name": "spslam", "max_keypoints": 100})
    found = module.SuperPoint(config).extract(scene())
    extractor = create_extractor(FeatureConfig(max_keypoints=100))
    left, right = (extractor.extract(scene()[:, side : side + 140]) for side in (0, 140))
    right_keypoints = right.keypoints + np.array([140, 0], np.float32)
    np.testing.assert_array_equal(found["keypoints"], np.vstack([left.keypoints, right_keypoints]))
    np.testing.assert_array_equal(
        found["descriptors"], np.vstack([left.descriptors, right.descriptors]).T
    )


def test_it_works_without_the_host_and_with_binary_descriptors() -> None:
    from spslam.adapters.deep_image_matching import SuperPoint

    extractor = SuperPoint({"extractor": {"extractor": "orb", "max_keypoints": 60}})
    found = extractor._extract(scene().astype(np.float32))
    assert extractor.descriptor_size == 256
    assert extractor.detection_noise == 1.0
    assert not extractor.features_as_half
    assert found["descriptors"].shape == (256, 60)
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"], axis=0), 1, atol=1e-5)
