"""hloc's interface: with a small package that loads and calls models as hloc does."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hosts import forget, write_package
from pictures import scene

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError
from spslam.frontend.extractors.registry import create_extractor

# The contract of hloc/utils/base_model.py: the constructor, the call, and how models are found.
HLOC = {
    "hloc/extractors/empty.py": "",
    "hloc/utils/base_model.py": """
import importlib, inspect
from abc import ABCMeta, abstractmethod
from torch import nn


class BaseModel(nn.Module, metaclass=ABCMeta):
    default_conf, required_inputs = {}, []

    def __init__(self, conf):
        super().__init__()
        self.conf = dict(self.default_conf) | dict(conf)
        self._init(self.conf)

    def forward(self, data):
        assert set(self.required_inputs) <= set(data)
        return self._forward(data)

    @abstractmethod
    def _init(self, conf): ...

    @abstractmethod
    def _forward(self, data): ...


def dynamic_load(root, model):
    name = f"{root.__name__}.{model}"
    module = importlib.import_module(name)
    (found,) = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__ == name and issubclass(value, BaseModel)
    ]
    return found
""",
}


@pytest.fixture
def hloc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The base model of the package, and the adapter that has found it."""
    write_package(tmp_path, HLOC)
    monkeypatch.syspath_prepend(tmp_path)
    forget(monkeypatch, "hloc", "spslam.adapters.hloc")
    adapter = importlib.import_module("spslam.adapters.hloc")
    yield importlib.import_module("hloc.utils.base_model"), adapter
    for name in [name for name in sys.modules if name.startswith("hloc")]:
        del sys.modules[name]
    sys.modules.pop("spslam.adapters.hloc")


def test_hloc_finds_and_calls_the_model(hloc: Any) -> None:
    base_model, adapter = hloc
    adapter.register()
    model_class = base_model.dynamic_load(importlib.import_module("hloc.extractors"), "spslam")
    model = model_class({"name": "spslam", "max_keypoints": 200}).eval()
    image = torch.from_numpy(scene() / np.float32(255))[None, None]
    # As hloc's extract_features.main takes the result apart.
    found = {key: value[0].cpu().numpy() for key, value in model({"image": image}).items()}
    features = create_extractor(FeatureConfig(max_keypoints=200)).extract(scene())
    np.testing.assert_array_equal(found["keypoints"], features.keypoints)
    np.testing.assert_array_equal(found["scores"], features.scores)
    np.testing.assert_array_equal(found["descriptors"], features.descriptors.T)
    assert set(found) == {"keypoints", "scores", "descriptors"}
    assert model.detection_noise == 0.7


def test_the_model_works_without_hloc() -> None:
    from spslam.adapters.hloc import SuperPoint

    model = SuperPoint({"extractor": "sift", "max_keypoints": 60, "pixel_sigma": 0.9}).eval()
    found = model({"image": torch.from_numpy(scene())[None, None]})
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    assert shapes == {"keypoints": (1, 60, 2), "scores": (1, 60), "descriptors": (1, 128, 60)}
    assert model.detection_noise == 0.9
    with pytest.raises(FrameError, match="expected the key image"):
        model({"images": 1})


def test_settings_have_hlocs_names() -> None:
    from spslam.adapters.hloc import SuperPoint

    model = SuperPoint({"keypoint_threshold": 0.02, "remove_borders": 9, "max_keypoints": -1})
    found = model({"image": torch.from_numpy(scene())[None, None]})
    expected = create_extractor(FeatureConfig(threshold=0.02, border=9, max_keypoints=20000))
    np.testing.assert_array_equal(found["keypoints"][0], expected.extract(scene()).keypoints)
    with pytest.raises(ConfigError, match="unknown key fix_sampling"):
        SuperPoint({"fix_sampling": True})
