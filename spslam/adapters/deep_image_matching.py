"""An extractor with the interface of deep-image-matching's `ExtractorBase`.

Interface: wheel deep-image-matching 1.2.4 and 3DOM-FBK/deep-image-matching at 74d7bd5,
`extractors/extractor_base.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from spslam.adapters.front_end import create_extractor, feature_config, grey_image, host_class
from spslam.frame import unit_descriptors

# Keys of deep-image-matching's own.
_HOST_KEYS = ("name", "name:")


class _StandIn:
    """A stand-in for `ExtractorBase` where deep-image-matching is not installed.

    Args:
        config: an object or a dict with the dict `extractor`.
    """

    _default_conf: ClassVar[dict[str, Any]] = {}
    _device = "cpu"

    def __init__(self, config: Any) -> None:
        given = config["extractor"] if isinstance(config, Mapping) else config.extractor
        self.config = {"extractor": {**self._default_conf, **given}}


_ExtractorBase: Any = host_class(
    "deep_image_matching", "extractors.extractor_base", "ExtractorBase", _StandIn
)


class SuperPointMethods:
    """The methods of the extractor, for classes that inherit from `ExtractorBase`.

    Attributes:
        settings: settings of a subclass by their names in `FeatureConfig`; the host's
            configuration wins over them.
        descriptor_size: length of a descriptor; the host joins the features of tiles with it.
        detection_noise: standard deviation of a keypoint's position, pixels.
    """

    settings: ClassVar[dict[str, Any]] = {}
    _default_conf: ClassVar[dict[str, Any]] = {"extractor": "superpoint"}
    required_inputs: ClassVar[list[str]] = []
    grayscale = True
    as_float = False
    # Half precision would round positions to 0.5 px from x = 512 on.
    features_as_half = False
    # Attributes of the host's base class.
    config: dict[str, Any]
    _device: str

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        given = self.config["extractor"]
        settings = {key: value for key, value in given.items() if key not in _HOST_KEYS}
        settings.setdefault("device", "cuda" if self._device == "cuda" else "cpu")
        chosen = feature_config(settings, feature_config(self.settings))
        self._extractor = create_extractor(chosen)
        self.detection_noise = chosen.pixel_sigma or self._extractor.pixel_sigma
        self.descriptor_size = self._extract(np.zeros((64, 64), np.uint8))["descriptors"].shape[0]

    def _extract(self, image: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Extract features.

        Args:
            image: (H, W) or (H, W, 3), blue first, uint8 or floats from 0 to 255.

        Returns:
            `keypoints` (N, 2) x y in pixels, (0, 0) at the centre of the first pixel; `scores`
            (N,); `descriptors` (D, N) of unit length.
        """
        if image.dtype.kind == "f":
            image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        found = self._extractor.extract(grey_image(image))
        return {
            "keypoints": found.keypoints,
            "scores": found.scores,
            "descriptors": np.ascontiguousarray(unit_descriptors(found.descriptors).T),
        }

    def _preprocess_tensor(self, image: NDArray[Any], device: str = "cpu") -> NDArray[Any]:
        """Return the image as it is: `_extract` takes arrays."""
        return image

    # The name in version 1.2.
    _frame2tensor = _preprocess_tensor


class SuperPoint(SuperPointMethods, _ExtractorBase):  # type: ignore[misc]
    """An extractor of spslam for deep-image-matching.

    Args:
        config: deep-image-matching's configuration; its `extractor` holds settings by their names
            in `FeatureConfig` or other programs' names (`keypoint_threshold`); `name` is ignored.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """


def register(name: str = "spslam") -> None:
    """Add the extractor to deep-image-matching for this process.

    Args:
        name: name of the extractor in deep-image-matching's configurations.
    """
    path = f"deep_image_matching.extractors.{name}"
    # deep-image-matching takes only classes whose module has this very name.
    module = ModuleType(path, SuperPoint.__doc__)
    vars(module)["SuperPoint"] = type("SuperPoint", (SuperPoint,), {"__module__": path})
    sys.modules[path] = module
