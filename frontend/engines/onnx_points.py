"""SuperPoint as an ONNX model of the whole extractor: from an image to keypoints and descriptors.

For programs without NumPy. The model takes a grey `image` (H, W) uint8 of any size. It returns
`keypoints` (N, 2) x y in pixels, `scores` (N,) and unit `descriptors` (N, D), all float32, best
score first. It uses only operators of the ONNX standard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spslam.config import FeatureConfig

from ..superpoint.checkpoints import Checkpoint
from ..superpoint.decoder import CELL, SETTINGS
from ..superpoint.dense_heads import DenseHeads
from ..superpoint.superpoint import SuperPoint
from .onnx_model import AxisNames, export_onnx, origin
from .point_selection import PointSelection, limited

# Names of the model's input and outputs.
INPUT = "image"
OUTPUTS: AxisNames = {
    "keypoints": ("points", None),
    "scores": ("points",),
    "descriptors": ("points", None),
}
# Description in the file.
_DESCRIPTION = """SuperPoint with the selection of keypoints inside.
image: (height, width) uint8, grey, of any size.
keypoints: (N, 2) float32, x y in pixels, (0, 0) is the centre of the first one; \
N is max_keypoints at most.
scores: (N,) float32, best first.
descriptors: (N, D) float32 of length 1.
"""
# Height and width of the example for the export, pixels.
_TRACED_SIZE = (100, 156)


def convert_points(
    network: SuperPoint, config: FeatureConfig, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Convert a network and the selection of keypoints to an ONNX file.

    Args:
        network: the network.
        config: the settings of the selection.
        metadata: additional entries of the file's metadata.

    Raises:
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    axes = {0: torch.export.Dim("height", min=2 * CELL), 1: torch.export.Dim("width", min=2 * CELL)}
    example = torch.randint(
        0, 256, _TRACED_SIZE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    about = {**(metadata or {}), **selection_metadata(network, config)}
    return export_onnx(
        _Points(network, config), {INPUT: example}, [axes], OUTPUTS, _DESCRIPTION, about
    )


def selection_metadata(network: SuperPoint, config: FeatureConfig) -> dict[str, str]:
    """Return the metadata of a model that selects keypoints: settings, and weights."""
    settings = json.dumps(config.model_dump(include=set(SETTINGS)))
    return {"selection": settings, **origin(Checkpoint.of(network))}


class _Points(nn.Module):
    """From an image of any size to keypoints."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._dense = DenseHeads(network)
        self._select = PointSelection(config, network.sampling)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute keypoints (N, 2), scores (N,) and descriptors (N, D) of an image (H, W) uint8."""
        height, width = image.shape
        # Repeat the last row and column up to multiples of 8.
        rows, columns = (
            limited(torch.arange((side + CELL - 1) // CELL * CELL), side - 1)
            for side in image.shape
        )
        padded = torch.index_select(torch.index_select(image, 0, rows), 1, columns)
        heat, cells = self._dense(padded[None])
        points: tuple[Tensor, Tensor, Tensor] = self._select(heat[0, :height, :width], cells[0])
        return points
