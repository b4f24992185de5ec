"""SuperPoint with the selection of keypoints as TorchScript, for RTAB-Map (strategy 16)."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from spslam.config import FeatureConfig

from ..superpoint.decoder import CELL
from ..superpoint.dense_heads import DenseHeads
from ..superpoint.superpoint import SuperPoint
from .onnx_points import selection_metadata
from .point_selection import PointSelection, limited

# Length of the descriptors that RTAB-Map expects.
LENGTH = 256
# Height and width of the example for the export, pixels.
_TRACED_SIZE = (100, 156)
# Name of the metadata in the file, JSON.
METADATA_FILE = "spslam.json"


def convert_torchscript(
    network: SuperPoint, config: FeatureConfig, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Convert a network and the selection of keypoints to TorchScript.

    The module takes an image (1, 1, H, W) float32 in [0, 1] of any size. It returns keypoints
    (N, 2) x y in pixels, scores (N,) and unit descriptors (N, 256), best score first. Shorter
    descriptors get zeros at their ends, which change no distance.

    Args:
        network: the network, with descriptors of at most 256 numbers.
        config: the settings of the selection.
        metadata: additional entries of the metadata, the extra file `spslam.json`.
    """
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(1, 1, *_TRACED_SIZE, generator=generator)
    about = {**(metadata or {}), **selection_metadata(network, config), "host": "torchscript"}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _Points(network, config), example, check_trace=False
        )
    stream = io.BytesIO()
    torch.jit.save(traced, stream, _extra_files={METADATA_FILE: json.dumps(about)})
    return stream.getvalue()


class _Points(nn.Module):
    """From an image of any size to keypoints."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._dense = DenseHeads(network)
        self._select = PointSelection(config, network.sampling)
        self._missing = LENGTH - network.descriptor_dim

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute keypoints (N, 2), scores (N,) and descriptors (N, 256); see the module."""
        height, width = image.shape[2:]
        rows, columns = (
            limited(torch.arange((side + CELL - 1) // CELL * CELL), side - 1)
            for side in (height, width)
        )
        grey = torch.round(image[0] * 255)
        padded = torch.index_select(torch.index_select(grey, 1, rows), 2, columns)
        heat, cells = self._dense(padded)
        points, scores, descriptors = self._select(heat[0, :height, :width], cells[0])
        return points, scores, functional.pad(descriptors, (0, self._missing))
