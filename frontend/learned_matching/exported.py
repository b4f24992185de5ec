"""The network as an ONNX model, for any numbers of points."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..engines.onnx_model import AxisNames, export_onnx
from .network import MatcherNetwork
from .weights import MatcherShape

# Inputs of the models; the names of LightGlue-ONNX.
INPUTS = ("kpts0", "kpts1", "desc0", "desc1")
# Text in the file.
DESCRIPTION = (
    "Matches keypoints of two images. kpts: (pixel - middle of the image) divided by half of its "
    "longer side; desc: unit descriptors."
)
# Numbers of points of the examples with which PyTorch traces the network.
_TRACED = (70, 90)


class BestMatches(nn.Module):
    """The best partner of each point: what an engine needs besides mutuality and threshold."""

    def __init__(self, network: MatcherNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, kpts0: Tensor, kpts1: Tensor, desc0: Tensor, desc1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `index0` (1, N), its log-probability `score0` (1, N), and `index1` (1, M)."""
        scores = self.network(kpts0, desc0, kpts1, desc1)
        score0, index0 = scores.max(dim=2)
        return index0, score0, scores.argmax(dim=1)


def convert_matcher_onnx(network: MatcherNetwork) -> bytes:
    """Return the network as an ONNX file with the outputs of `BestMatches`.

    The same network, in evaluation mode, gives the same bytes.

    Raises:
        MissingDependencyError: ONNX is not installed.
    """
    outputs = {
        "index0": ("batch", "points0"),
        "score0": ("batch", "points0"),
        "index1": ("batch", "points1"),
    }
    return export_matcher(BestMatches(network), network.shape, outputs, DESCRIPTION, {})


def export_matcher(
    module: nn.Module,
    shape: MatcherShape,
    outputs: AxisNames,
    description: str,
    metadata: Mapping[str, str],
) -> bytes:
    """Export a module with the inputs `INPUTS` of a matcher, for any numbers of points.

    Args:
        module: in evaluation mode.
        shape: size of the network in it.
        outputs: names of the outputs and of their axes.
        description: text in the file for users.
        metadata: entries in the file for programs.

    Raises:
        MissingDependencyError: ONNX is not installed.
    """
    count0, count1 = torch.export.Dim("points0", min=2), torch.export.Dim("points1", min=2)
    axes = [{1: count0}, {1: count1}, {1: count0}, {1: count1}]
    examples = dict(zip(INPUTS, _examples(shape), strict=True))
    return export_onnx(module, examples, axes, outputs, description, metadata)


def _examples(shape: MatcherShape) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dim = shape.descriptor_dim
    positions = [torch.rand(1, count, 2, generator=generator) * 2 - 1 for count in _TRACED]
    descriptors = [
        nn.functional.normalize(torch.randn(1, count, dim, generator=generator), dim=-1)
        for count in _TRACED
    ]
    return positions[0], positions[1], descriptors[0], descriptors[1]
