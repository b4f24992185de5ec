"""An extractor with the interface of glue-factory's models.

glue-factory finds it by the name of this module: `extractor: {name: spslam.adapters.glue_factory}`.
`spslam plugin write glue-factory DIR` writes a file for glue-factory's own folder.
Interface: cvg/glue-factory at 2d17e3b, `gluefactory/models/base_model.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spslam.adapters.front_end import MOST_KEYPOINTS, feature_config, host_class
from spslam.adapters.torch_module import FrontEnd, HostModel
from spslam.errors import ConfigError, FrameError
from spslam.frame import Features

_BaseModel: Any = host_class("gluefactory", "models.base_model", "BaseModel", HostModel)

# Keys of glue-factory's own.
_HOST_KEYS = ("name", "trainable", "freeze_batch_normalization", "timeit", "force_num_keypoints")


class SuperPointMethods:
    """The methods of the model, for classes that inherit from glue-factory's `BaseModel`.

    Attributes:
        settings: settings of a subclass by their names in `FeatureConfig`; `conf` wins over them.
    """

    settings: ClassVar[dict[str, Any]] = {}
    default_conf: ClassVar[dict[str, Any]] = {
        "extractor": "superpoint",
        "trainable": False,
        "force_num_keypoints": False,
    }
    required_data_keys: ClassVar[list[str]] = ["image"]

    def _init(self, conf: Mapping[str, Any]) -> None:
        given = {key: value for key, value in conf.items() if key not in _HOST_KEYS}
        self.front_end = FrontEnd(given, feature_config(self.settings))
        self._padded_count = self.front_end.max_keypoints if conf["force_num_keypoints"] else 0
        if self._padded_count >= MOST_KEYPOINTS:
            raise ConfigError(
                f"force_num_keypoints: expected max_num_keypoints under {MOST_KEYPOINTS}, "
                f"found {self._padded_count}"
            )

    def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Extract the features of a batch.

        Args:
            data: `image` (B, C, H, W) with 1 or 3 channels, red first, from 0 to 1.

        Returns:
            `keypoints` (B, N, 2) x y in pixels, (0.5, 0.5) at the centre of the first pixel;
            `keypoint_scores` (B, N); `descriptors` (B, N, D). With `force_num_keypoints`, N is
            `max_num_keypoints`: images with fewer keypoints end with rows of score 0.

        Raises:
            FrameError: the images of the batch have different numbers of keypoints.
        """
        images = data["image"]
        found = [self._features(image) for image in images]
        counts = {len(features) for features in found}
        if len(counts) != 1:
            raise FrameError(
                f"images: {min(counts, default=0)} to {max(counts, default=0)} keypoints in one "
                "batch, expected equal numbers: set max_num_keypoints and force_num_keypoints, "
                "or use batches of one image"
            )
        arrays = {
            "keypoints": np.stack([features.keypoints for features in found]) + np.float32(0.5),
            "keypoint_scores": np.stack([features.scores for features in found]),
            "descriptors": np.stack([features.descriptors for features in found]),
        }
        return {name: torch.from_numpy(array).to(images.device) for name, array in arrays.items()}

    def _features(self, image: Tensor) -> Features:
        """Extract the features of an image (C, H, W), padded with `force_num_keypoints`."""
        found = self.front_end.features(image)
        missing = self._padded_count - len(found)
        if missing <= 0:
            return found
        # The same image gives the same rows. Two images give different ones: rows that are equal
        # in both would match each other.
        pixels = image.detach().cpu().contiguous().float().numpy()
        return _padded(found, missing, image.shape[-2:], seed=zlib.crc32(pixels.tobytes()))

    def loss(self, pred: object, data: object) -> Any:
        """Refuse: spslam's networks are trained by `spslam train`."""
        raise NotImplementedError("spslam's networks are trained by `spslam train`")


class SuperPoint(SuperPointMethods, _BaseModel):  # type: ignore[misc]
    """An extractor of spslam as a model of glue-factory; it cannot be trained there.

    Args:
        conf: settings by their names in `FeatureConfig` or glue-factory's names
            (`max_num_keypoints`, `detection_threshold`, `remove_borders`); with
            `force_num_keypoints`, images with fewer keypoints than `max_num_keypoints` are padded.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """


def _padded(found: Features, missing: int, shape: tuple[int, ...], seed: int) -> Features:
    """Append rows of score 0 with random positions in the image and random descriptors.

    Args:
        found: features of an image, with descriptors (N, D) of unit length.
        missing: number of rows.
        shape: (H, W) of the image.
        seed: seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    corner = np.array(shape[::-1], np.float32) - 1
    keypoints = rng.random((missing, 2), np.float32) * corner
    # Random directions are nearly orthogonal to all descriptors and to each other.
    directions = rng.standard_normal((missing, found.descriptors.shape[1]), np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Features(
        np.concatenate([found.keypoints, keypoints]),
        np.concatenate([found.scores, np.zeros(missing, np.float32)]),
        np.concatenate([found.descriptors, directions]),
    )
