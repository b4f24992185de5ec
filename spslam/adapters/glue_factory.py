"""An extractor with the interface of glue-factory's models.

glue-factory finds it by the name of this module: `extractor: {name: spslam.adapters.glue_factory}`.
Interface: cvg/glue-factory at 2d17e3b, `gluefactory/models/base_model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spslam.adapters.front_end import host_class
from spslam.adapters.torch_module import FrontEnd, HostModel
from spslam.errors import FrameError

_BaseModel: Any = host_class("gluefactory", "models.base_model", "BaseModel", HostModel)

# Keys of glue-factory's own.
_HOST_KEYS = ("name", "trainable", "freeze_batch_normalization", "timeit")


class SuperPoint(_BaseModel):  # type: ignore[misc]
    """An extractor of spslam as a model of glue-factory; it cannot be trained there.

    Args:
        conf: settings by their names in `FeatureConfig` or glue-factory's names
            (`max_num_keypoints`, `detection_threshold`, `remove_borders`).

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """

    default_conf: ClassVar[dict[str, Any]] = {"extractor": "superpoint", "trainable": False}
    required_data_keys: ClassVar[list[str]] = ["image"]

    def _init(self, conf: Mapping[str, Any]) -> None:
        settings = {key: value for key, value in conf.items() if key not in _HOST_KEYS}
        self.front_end = FrontEnd(settings)

    def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Extract the features of a batch.

        Args:
            data: `image` (B, C, H, W) with 1 or 3 channels, red first, from 0 to 1.

        Returns:
            `keypoints` (B, N, 2) x y in pixels, (0.5, 0.5) at the centre of the first pixel;
            `keypoint_scores` (B, N); `descriptors` (B, N, D).

        Raises:
            FrameError: the images of the batch have different numbers of keypoints.
        """
        images = data["image"]
        found = [self.front_end.features(image) for image in images]
        counts = {len(features) for features in found}
        if len(counts) != 1:
            raise FrameError(
                f"images: {min(counts, default=0)} to {max(counts, default=0)} keypoints in one "
                "batch, expected equal numbers: use batches of one image"
            )
        arrays = {
            "keypoints": np.stack([features.keypoints for features in found]) + np.float32(0.5),
            "keypoint_scores": np.stack([features.scores for features in found]),
            "descriptors": np.stack([features.descriptors for features in found]),
        }
        return {name: torch.from_numpy(array).to(images.device) for name, array in arrays.items()}

    def loss(self, pred: object, data: object) -> Any:
        """Refuse: spslam's networks are trained by `spslam train`."""
        raise NotImplementedError("spslam's networks are trained by `spslam train`")
