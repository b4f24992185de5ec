"""The Python detector of RTAB-Map (feature type 15, `PyDetector`).

RTAB-Map imports a file of the user, calls `init(cuda)` once and `detect(image)` for each image. It
reads the memory of the arrays as rows of float32, without a look at strides. `spslam plugin write
rtabmap DIR` writes such a file.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.adapters.front_end import feature_config

if TYPE_CHECKING:
    from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor

_LOG = logging.getLogger(__name__)


class Detector:
    """The two functions of a file for RTAB-Map, as methods.

    Args:
        weights: a built-in name or a file; None: the default.
        **settings: settings of the front end by their names in `features.*`.
    """

    def __init__(self, weights: str | None = None, **settings: Any) -> None:
        self._weights, self._settings = weights, settings
        self._extractor: SuperPointExtractor | None = None

    def init(self, cuda: bool | int) -> None:
        """Load the network; RTAB-Map calls this before the first image.

        Args:
            cuda: whether to use CUDA (parameter `PyDetector/Cuda`). Without a CUDA device the CPU
                runs the network, and a warning says so.

        Raises:
            WeightsError: the weights cannot be used.
            ConfigError: a setting is unknown or has an impossible value.
        """
        # Imported here: RTAB-Map imports the file in one thread and calls it in others.
        from spslam.frontend.engines.choice import cuda_is_available
        from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor

        found = bool(cuda) and cuda_is_available()
        if cuda and not found:
            _LOG.warning(
                "RTAB-Map requests CUDA (PyDetector/Cuda), but PyTorch finds no device: "
                "the CPU runs the network"
            )
        fixed = {
            "extractor": "superpoint",
            "weights": self._weights,
            "device": "cuda" if found else "cpu",
        }
        self._extractor = SuperPointExtractor(feature_config(self._settings, fixed=fixed))

    def detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find and describe the points of an image.

        Args:
            image: grey (H, W) uint8. Its memory belongs to RTAB-Map and is not kept.

        Returns:
            x y score (N, 3), pixels, and unit descriptors (N, D): float32 in rows, N may be 0.

        Raises:
            ValueError: the image is not grey uint8.
        """
        if self._extractor is None:
            self.init(False)
        assert self._extractor is not None
        features = self._extractor.extract(np.array(image, order="C"))
        points = np.concatenate([features.keypoints, features.scores[:, None]], axis=1)
        return (
            np.ascontiguousarray(points, dtype=np.float32),
            np.ascontiguousarray(features.descriptors, dtype=np.float32),
        )


_detector = Detector()
init = _detector.init
detect = _detector.detect
