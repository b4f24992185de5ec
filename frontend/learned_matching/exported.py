"""The network as an ONNX model, for any numbers of points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engines.onnx_model import export_onnx
from .network import MatcherNetwork

# Inputs of the models; the names of LightGlue-ONNX.
INPUTS = ("kpts0", "kpts1", "desc0", "desc1")
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


class MatchPairs(nn.Module):
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


def convert_matcher_onnx(
    network: MatcherNetwork, metadata: dict[str, str], threshold: float | None = None
) -> bytes:
    """Return the network as an ONNX file; the same network gives the same bytes.

    Args:
        network: in evaluation mode.
        metadata: entries in the file for programs.
        threshold: least probability of a match, for the outputs of `MatchPairs`; None: those of
            `BestMatches`.

    Raises:
        MissingDependencyError: ONNX is not installed.
    """
    count0, count1 = torch.export.Dim("points0", min=2), torch.export.Dim("points1", min=2)
    axes = [{1: count0}, {1: count1}, {1: count0}, {1: count1}]
    examples = dict(zip(INPUTS, _examples(network), strict=True))
    description = (
        "Matches keypoints of two images. kpts: (pixel - middle of the image) divided by half of "
        "its longer side; desc: unit descriptors."
    )
    if threshold is None:
        outputs = {
            "index0": ("batch", "points0"),
            "score0": ("batch", "points0"),
            "index1": ("batch", "points1"),
        }
        return export_onnx(BestMatches(network), examples, axes, outputs, description, metadata)
    pairs = {"matches0": ("matches", "two"), "mscores0": ("matches",)}
    module = MatchPairs(network, threshold)
    return export_onnx(module, examples, axes, pairs, description, metadata)


def _examples(network: MatcherNetwork) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dim = network.shape.descriptor_dim
    positions = [torch.rand(1, count, 2, generator=generator) * 2 - 1 for count in _TRACED]
    descriptors = [
        nn.functional.normalize(torch.randn(1, count, dim, generator=generator), dim=-1)
        for count in _TRACED
    ]
    return positions[0], positions[1], descriptors[0], descriptors[1]
