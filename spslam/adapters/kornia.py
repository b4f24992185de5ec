"""An extractor with the interface of kornia's `LocalFeature`.

It fits `kornia.feature.LocalFeatureMatcher`. Interface: kornia 0.9.0, `feature/integrated.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from spslam.adapters.front_end import KEYPOINT_RADIUS
from spslam.adapters.torch_module import FrontEnd
from spslam.config import FeatureConfig
from spslam.errors import FrameError
from spslam.frame import Features


class LocalFeature(FrontEnd):
    """An extractor of spslam in place of kornia's `LocalFeature`.

    Args:
        num_features: largest number of keypoints; 0 or less: 20000; None: that of `config`.
        config: settings of the extractor; None: the defaults.
        **settings: further settings by their names in `FeatureConfig`.

    Raises:
        ConfigError: a setting is unknown or impossible.
        WeightsError: the weights cannot be used.
        MissingDependencyError: the requested engine or plug-in cannot be loaded.
    """

    def __init__(
        self,
        num_features: int | None = None,
        *,
        config: FeatureConfig | None = None,
        **settings: Any,
    ) -> None:
        given = {} if num_features is None else {"num_features": num_features}
        super().__init__({**given, **settings}, config)

    @torch.no_grad()
    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Extract the features of a batch.

        Args:
            img: (B, C, H, W) with 1 or 3 channels, red first, from 0 to 1.
            mask: (B, 1, H, W), 0 where no keypoints may be.

        Returns:
            Local affine frames (B, N, 2, 3), upright circles in pixels; responses (B, N); unit
            descriptors (B, N, D); in the type of the image. N is the largest number of keypoints of
            the batch. Shorter rows end with zeros; `kornia.feature.laf_is_filled` finds them.

        Raises:
            FrameError: an image or mask has an impossible type, size or value.
        """
        if img.ndim != 4 or not len(img):
            raise FrameError(f"images: expected (B, C, H, W), found {tuple(img.shape)}")
        if mask is not None and len(mask) != len(img):
            raise FrameError(f"masks: expected {len(img)}, found {len(mask)}")
        masks = [None] * len(img) if mask is None else mask
        found = [self.features(image, part) for image, part in zip(img, masks, strict=True)]
        count = max(len(features) for features in found)
        kind = img.dtype if img.is_floating_point() else torch.float32
        rows = [_padded(features, count) for features in found]
        lafs, responses, descriptors = (
            torch.from_numpy(np.stack(arrays)).to(img.device, kind)
            for arrays in zip(*rows, strict=True)
        )
        return lafs, responses, descriptors


def _padded(features: Features, count: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Return frames (N, 2, 3), scores (N,) and descriptors (N, D), with zeros up to N = `count`."""
    frames = np.zeros((len(features), 2, 3), np.float32)
    frames[:, [0, 1], [0, 1]] = KEYPOINT_RADIUS
    frames[:, :, 2] = features.keypoints
    missing = count - len(features)
    return tuple(
        np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
        for array in (frames, features.scores, features.descriptors)
    )
