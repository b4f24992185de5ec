"""An extractor with the interface of hloc's models.

hloc finds a model by the name of a module in `hloc.extractors`. `register` adds one under a name,
without a file in hloc's folder. Interface: cvg/Hierarchical-Localization at c13273b,
`hloc/utils/base_model.py` and `hloc/extract_features.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor

from spslam.adapters.front_end import feature_config, host_class
from spslam.adapters.torch_module import FrontEnd, HostModel, batch_of_one, single

_BaseModel: Any = host_class("hloc", "utils.base_model", "BaseModel", HostModel)


class SuperPointMethods:
    """The methods of the model, for classes that inherit from hloc's `BaseModel`.

    Attributes:
        settings: settings of a subclass by their names in `FeatureConfig`; `conf` wins over them.
    """

    settings: ClassVar[dict[str, Any]] = {}
    default_conf: ClassVar[dict[str, Any]] = {"extractor": "superpoint"}
    required_inputs: ClassVar[list[str]] = ["image"]

    def _init(self, conf: Mapping[str, Any]) -> None:
        given = {key: value for key, value in conf.items() if key != "name"}
        self.front_end = FrontEnd(given, feature_config(self.settings))
        # Standard deviation of a keypoint's position, pixels.
        self.detection_noise = self.front_end.pixel_sigma

    def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Extract features.

        Args:
            data: `image` (1, C, H, W) with 1 or 3 channels, red first, from 0 to 1.

        Returns:
            `keypoints` (1, N, 2) x y in pixels, (0, 0) at the centre of the first pixel; `scores`
            (1, N), best first; `descriptors` (1, D, N) of unit length.
        """
        image = data["image"]
        found = self.front_end.features(single(image))
        return {
            "keypoints": batch_of_one(found.keypoints, image),
            "scores": batch_of_one(found.scores, image),
            "descriptors": batch_of_one(found.descriptors.T, image),
        }


class SuperPoint(SuperPointMethods, _BaseModel):  # type: ignore[misc]
    """An extractor of spslam as a model of hloc.

    Args:
        conf: settings by their names in `FeatureConfig` or hloc's names (`keypoint_threshold`,
            `remove_borders`); `name` is ignored.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """


def register(name: str = "spslam") -> None:
    """Add the model to hloc for this process: `{"model": {"name": "spslam"}}` then finds it.

    Args:
        name: name of the model in hloc's configurations.
    """
    path = f"hloc.extractors.{name}"
    # hloc takes only classes whose module has this very name.
    module = ModuleType(path, SuperPoint.__doc__)
    vars(module)["SuperPoint"] = type("SuperPoint", (SuperPoint,), {"__module__": path})
    sys.modules[path] = module
