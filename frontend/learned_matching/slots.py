"""Learned matchers as ONNX files for other programs: names, coordinates and shapes of each.

LightGlue-ONNX, release 1, and kornia's `OnnxLightGlue` read the same file. OpenCV 5 divides
positions by the image's width and height, so its model must know the ratio of both.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spslam.errors import ConfigError

from ..engines.onnx_model import AxisNames
from .exported import DESCRIPTION, BestMatches, export_matcher
from .network import MatcherNetwork, Update

SlotName = Literal["lightglue-onnx", "opencv", "kornia"]
# Width and height of an image, pixels.
ImageSize = tuple[int, int]


@dataclass(frozen=True)
class Slot:
    """A program that loads matchers of others.

    Attributes:
        usage: how the program loads the file, with {file}.
        coordinates: the rule of `kpts0` and `kpts1`, for the metadata.
        description: inputs and outputs, for the file.
        outputs: names of the outputs and of their axes.
        sized: whether the model holds the sizes of the images.
    """

    usage: str
    coordinates: str
    description: str
    outputs: AxisNames
    sized: bool = False


_PAIRS: AxisNames = {"matches0": ("matches", "two"), "mscores0": ("matches",)}
SLOTS: dict[SlotName, Slot] = {
    "lightglue-onnx": Slot(
        usage="LightGlue-ONNX, release 1: load {file} as its matcher",
        coordinates="(pixel - (size - 1) / 2) / (longer side / 2)",
        description=DESCRIPTION,
        outputs=_PAIRS,
    ),
    "opencv": Slot(
        usage='cv2.LightGlueMatcher_create("{file}"); give keypoints and sizes by setPairInfo',
        coordinates="2 * pixel / size - 1, each axis by its own side",
        description="Matches keypoints of two images in OpenCV 5. kpts: 2 * pixel / size - 1; "
        "desc: unit descriptors; matches0: (N, 2), the second is -1 without a match.",
        outputs={"matches0": ("points0", "two"), "mscores0": ("points0",)},
        sized=True,
    ),
    "kornia": Slot(
        usage='kornia.feature.OnnxLightGlue("{file}"); give keypoints in pixels and image_size',
        # Half a pixel beside those of LightGlue-ONNX: the network reads differences only.
        coordinates="(pixel - size / 2) / (longer side / 2)",
        description=DESCRIPTION,
        outputs=_PAIRS,
    ),
}


def convert_slot(
    name: SlotName,
    network: MatcherNetwork,
    metadata: Mapping[str, str],
    threshold: float,
    sizes: tuple[ImageSize, ImageSize] | None = None,
) -> bytes:
    """Convert a matcher to the ONNX file of a program.

    Args:
        name: the program.
        network: in evaluation mode.
        metadata: additional entries of the file's metadata.
        threshold: least probability of a match.
        sizes: sizes of both images, for a slot that holds them. Only the ratio of width and height
            changes the matches.

    Raises:
        ConfigError: sizes are missing, not needed or impossible.
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    slot = SLOTS[name]
    about = {
        **metadata,
        "slot": name,
        "coordinates": slot.coordinates,
        "threshold": f"{threshold:g}",
    }
    if not slot.sized:
        if sizes is not None:
            raise ConfigError(f"--size needs --slot opencv: {name} takes images of any size")
        module: nn.Module = _MatchedPairs(network, threshold)
        return export_matcher(module, network.shape, slot.outputs, slot.description, about)
    if sizes is None:
        raise ConfigError(
            "--slot opencv needs --size WxH: OpenCV divides positions by width and height, so "
            "the model must know their ratio"
        )
    for size in sizes:
        if min(size) < 1:
            raise ConfigError(f"--size needs at least one pixel, found {_text(size)}")
    about |= {f"image_size{side}": _text(size) for side, size in enumerate(sizes)}
    module = _RowsOfOpenCv(network, threshold, sizes)
    return export_matcher(module, network.shape, slot.outputs, slot.description, about)


def _text(size: ImageSize) -> str:
    return f"{size[0]}x{size[1]}"


class _MatchedPairs(nn.Module):
    """Matches as LightGlue-ONNX and the programs that load its models expect them."""

    def __init__(self, network: MatcherNetwork, threshold: float) -> None:
        super().__init__()
        self.best, self._threshold = BestMatches(network), threshold

    def forward(
        self, kpts0: Tensor, kpts1: Tensor, desc0: Tensor, desc1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `matches0` (K, 2) int64 and `mscores0` (K,)."""
        index0, score0, index1 = (found[0] for found in self.best(kpts0, kpts1, desc0, desc1))
        points = torch.arange(kpts0.shape[1], device=kpts0.device)
        good = (index1[index0] == points) & (score0.exp() > self._threshold)
        rows = torch.nonzero(good)[:, 0]
        return torch.stack([rows, index0[rows]], dim=1), score0[rows].exp()


class _RowsOfOpenCv(nn.Module):
    """Matches for `cv2.LightGlueMatcher`: a row for each point, because OpenCV skips those of -1.

    OpenCV's DNN goes by the sizes of an earlier call where inner sizes depend on the content, as
    the number of matches does.
    """

    def __init__(
        self, network: MatcherNetwork, threshold: float, sizes: tuple[ImageSize, ImageSize]
    ) -> None:
        super().__init__()
        plain = copy.deepcopy(network)
        for module in plain.modules():
            if isinstance(module, Update):
                module.activation = _Gelu()
        self.best, self._threshold = BestMatches(plain), threshold
        # From 2 * pixel / size - 1 to (pixel - (size - 1) / 2) / (longer side / 2).
        scales = torch.tensor([[side / max(size) for side in size] for size in sizes])
        shifts = torch.tensor([1 / max(size) for size in sizes])
        self._scale0, self._scale1 = scales
        self._shift0, self._shift1 = shifts

    def forward(
        self, kpts0: Tensor, kpts1: Tensor, desc0: Tensor, desc1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return `matches0` (N, 2) int64 and `mscores0` (N,), 0 without a match."""
        positions0 = kpts0 * self._scale0 + self._shift0
        positions1 = kpts1 * self._scale1 + self._shift1
        found = self.best(positions0, positions1, desc0, desc1)
        index0, score0, index1 = (each[0] for each in found)
        points = torch.arange(kpts0.shape[1], device=kpts0.device)
        probability = score0.exp()
        mutual = torch.index_select(index1, 0, index0) == points
        good = mutual & (probability > self._threshold)
        columns = torch.where(good, index0, -1)
        return torch.stack([points, columns], dim=1), torch.where(good, probability, 0.0)


class _Gelu(nn.Module):
    """GELU with a product: OpenCV 5.0.0 does not read the quotient that PyTorch exports."""

    def forward(self, values: Tensor) -> Tensor:
        """Return values times the normal distribution's cumulative probability of each."""
        return values * (0.5 * (1 + torch.erf(values * math.sqrt(0.5))))
