"""SuperPoint as an extractor."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.frame import Features
from spslam.interfaces import Extractor

from ..engines.choice import check_maps, choose_engine, fingerprint
from ..engines.engine import Engine
from ..images import check_image
from ..superpoint.checkpoints import Checkpoint, read_checkpoint
from ..superpoint.decoder import first_at_each_pixel, refine_on_heat, spread_top_k
from ..superpoint.descriptors import sample_descriptors
from ..superpoint.keypoints import Scratch, find_maxima, gather_probability

if TYPE_CHECKING:
    from ..superpoint.superpoint import SuperPoint


class SuperPointExtractor(Extractor):
    """Key points and descriptors of SuperPoint (an `Extractor`).

    Args:
        config: `weights` names a file (see `read_checkpoint`), None takes the built-in ones.
        network: in evaluation mode, instead of the weights of a file; PyTorch runs it.
        tuned: how PyTorch runs `network` (see `TorchEngine`).

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the device, or the precision that is asked for, is not there.
        MissingDependencyError: OpenVINO is asked for and not there.
    """

    name = "superpoint"

    def __init__(self, config: FeatureConfig, network: SuperPoint | None = None, tuned: bool = True) -> None:
        self._config = config
        self._proven = False
        self._gathered = Scratch()
        self.pixel_sigma = 0.7 if config.subpixel else 1.1
        self._engine: Engine
        if network is None:
            weights = read_checkpoint(config.weights)
            self._engine = choose_engine(weights, config)
        else:
            from ..engines.torch_engine import TorchEngine

            weights = Checkpoint.of(network)
            self._engine = TorchEngine(network, config.device, config.threads, tuned)
        self.identity = f"superpoint {weights.digest}"
        self.engine = self._engine.name
        self.max_concurrency = self._engine.at_once
        self.max_distance = weights.max_distance
        self._sampling = weights.sampling
        self.fingerprint = f"{fingerprint(weights, self._engine, config)} {weights.sampling}"

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Features of a (H, W) uint8 image of any size."""
        check_image(image)
        maps = self._engine.run(image)
        if not self._proven:
            # Once: it costs as much as a part of the selection.
            check_maps(self._config.weights or "the network", *maps)
            self._proven = True
        return self._select(image, *maps)

    def seconds_of_parts(self, image: NDArray[np.uint8]) -> tuple[float, float]:
        """Seconds that the network takes for a (H, W) uint8 image, and that finding key points in its maps takes."""
        check_image(image)
        start = perf_counter()
        maps = self._engine.run(image)
        begun = perf_counter()
        self._select(image, *maps)
        return begun - start, perf_counter() - begun

    def _select(
        self, image: NDArray[np.uint8], heat: NDArray[np.float32], descriptors: NDArray[np.float32]
    ) -> Features:
        config = self._config
        heat = heat[: image.shape[0], : image.shape[1]]
        gathered = gather_probability(heat, self._gathered.of(heat.shape))
        rows, columns = find_maxima(gathered, config.threshold, config.nms_radius, config.border)
        keypoints = np.stack([columns, rows], axis=1).astype(np.float32)
        scores = gathered[rows, columns]
        kept = spread_top_k(keypoints, scores, config.max_keypoints, config.spread_cell)
        # By `take`: indexing of rows of two takes five times as long.
        keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
        if config.subpixel:
            keypoints = refine_on_heat(heat, rows[kept], columns[kept])
            far_corner = np.array(heat.shape[::-1], np.float32) - 1 - config.border
            keypoints = np.clip(keypoints, np.float32(config.border), far_corner)
            # Two points may have moved to one place.
            kept = first_at_each_pixel(keypoints, scores)
            keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
        return Features(keypoints, scores, sample_descriptors(descriptors, keypoints, self._sampling))
