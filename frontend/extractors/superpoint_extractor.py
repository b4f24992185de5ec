"""The SuperPoint extractor: an engine for the maps, and the selection of keypoints."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.frame import Features
from spslam.interfaces import Extractor

from ..engines.choice import check_maps, choose_engine, fingerprint, torch_engine
from ..engines.engine import Engine
from ..images import check_image
from ..superpoint.checkpoints import Checkpoint, read_checkpoint
from ..superpoint.decoder import SETTINGS, select
from ..superpoint.keypoints import FAST

if TYPE_CHECKING:
    from ..superpoint.superpoint import SuperPoint

# Probabilities of the detector between which positions become more precise, and the standard
# deviations there, in units of `pixel_sigma`.
_WEAK_SCORE, _SURE_SCORE = 2.0**-8, 2.0**-0.5
_WEAK_SIGMA, _SURE_SIGMA = 1.14, 0.63


class SuperPointExtractor(Extractor):
    """Extracts keypoints and descriptors with SuperPoint (an `Extractor`).

    Args:
        config: the settings; `weights` as in `read_checkpoint`.
        network: a network in evaluation mode, instead of `config.weights`; PyTorch runs it.
        tuned: how PyTorch runs `network` (see `TorchEngine`).

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the requested device or precision is not available.
        MissingDependencyError: the requested engine is not installed.
    """

    name = "superpoint"

    def __init__(
        self, config: FeatureConfig, network: SuperPoint | None = None, tuned: bool = True
    ) -> None:
        self._config = config
        self._proven = False
        self._selection = config.model_dump(include=set(SETTINGS))
        self.pixel_sigma = 0.7 if config.subpixel else 1.1
        self._engine: Engine
        if network is None:
            weights = read_checkpoint(config.weights)
            self._engine = choose_engine(weights, config)
        else:
            weights = Checkpoint.of(network)
            self._engine = torch_engine(network, config.device, config.threads, tuned)
        self.identity = f"superpoint {weights.digest}"
        self.engine = self._engine.name
        self.max_concurrency = self._engine.max_concurrency
        self.max_descriptor_distance = weights.max_descriptor_distance
        self._sampling = weights.sampling
        self.fingerprint = f"{fingerprint(weights, self._engine, config)} {weights.sampling}"

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Extract the features of a grey (H, W) uint8 image of any size."""
        return self._select(image, *self._maps(image))

    def extract_inside(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Features:
        """Extract up to `max_keypoints` features where a mask (H, W) is True.

        Non-maximum suppression sees the whole image: the mask adds no maxima at its border.
        """
        return self._select(image, *self._maps(image), mask)

    def describe(
        self, image: NDArray[np.uint8], keypoints: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Compute descriptors (N, D) at positions (N, 2) x y of a grey (H, W) uint8 image."""
        _, descriptors = self._maps(image)
        return FAST.sample_descriptors(descriptors, keypoints, self._sampling)

    def extract_with_heat(
        self, image: NDArray[np.uint8], **selection: Any
    ) -> tuple[Features, NDArray[np.float32]]:
        """Extract the features of a grey (H, W) uint8 image, and keep the detector's heat map.

        Args:
            image: the image.
            **selection: settings of this call in place of the extractor's, of those in `SETTINGS`.

        Returns:
            The features, and the probability (H, W) of a keypoint at each pixel before suppression.
        """
        heat, descriptors = self._maps(image)
        height, width = image.shape
        # A copy: an engine may use the memory of its maps again.
        return self._select(image, heat, descriptors, **selection), heat[:height, :width].copy()

    def seconds_of_parts(self, image: NDArray[np.uint8]) -> tuple[float, float]:
        """Time the network and the selection of keypoints on a (H, W) uint8 image, in seconds."""
        check_image(image)
        start = perf_counter()
        maps = self._engine.run(image)
        begun = perf_counter()
        self._select(image, *maps)
        return begun - start, perf_counter() - begun

    def _maps(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the network: probabilities and descriptors of the padded image."""
        check_image(image)
        maps = self._engine.run(image)
        if not self._proven:
            # Check only the first maps: the check costs time.
            check_maps(self._config.weights or "the network", *maps)
            self._proven = True
        return maps

    def _select(
        self,
        image: NDArray[np.uint8],
        heat: NDArray[np.float32],
        descriptors: NDArray[np.float32],
        mask: NDArray[np.bool_] | None = None,
        **selection: Any,
    ) -> Features:
        heat = heat[: image.shape[0], : image.shape[1]]
        chosen = {**self._selection, **selection}
        keypoints, scores, sampled = select(
            heat, descriptors, self._sampling, FAST, mask=mask, **chosen
        )
        sigma = _relative_sigma(scores) if chosen["subpixel"] else None
        return Features(keypoints, scores, sampled, sigma)


def _relative_sigma(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return standard deviations (N,) of refined positions, in units of `pixel_sigma`.

    Reprojection errors after bundle adjustment fall with the logarithm of the probability of the
    detector (KITTI, EuRoC, rendered worlds).
    """
    scores = scores.astype(np.float64)
    doublings = np.log2(np.maximum(scores, _WEAK_SCORE) / _WEAK_SCORE)
    fraction = np.minimum(doublings / np.log2(_SURE_SCORE / _WEAK_SCORE), 1.0)
    sigma: NDArray[np.float64] = _WEAK_SIGMA * (_SURE_SIGMA / _WEAK_SIGMA) ** fraction
    return sigma.astype(np.float32)
