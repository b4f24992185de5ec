"""The network as other runtimes get it: grey bytes in, probabilities of pixels and descriptors of cells out."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from .superpoint import SuperPoint, detector_probabilities


class DenseHeads(nn.Module):
    """A copy of a network, on the CPU and in evaluation mode, from bytes to maps.

    Normalisation, softmax and pixel shuffle are inside; padding to multiples of 8 is outside.
    """

    def __init__(self, network: SuperPoint) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        # Strips would be unrolled for one height.
        self.network.strip_rows = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, H, W) and raw descriptors (B, H/8, W/8, D) of images (B, H, W) uint8."""
        logits, descriptors = self.network(images[:, None].float() / 255.0)
        return detector_probabilities(logits), descriptors.permute(0, 2, 3, 1)
