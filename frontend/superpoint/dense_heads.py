"""The network for other runtimes: from bytes to probabilities of pixels and cell descriptors."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from .superpoint import SuperPoint, detector_probabilities


class DenseHeads(nn.Module):
    """A copy of a network, on the CPU and in evaluation mode, that turns bytes into maps.

    It includes scaling to [0, 1], softmax and pixel shuffle, but no padding to multiples of 8.
    """

    def __init__(self, network: SuperPoint) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        # A traced loop over strips would work for one image height only.
        self.network.strip_rows = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the maps of a batch of images.

        Args:
            images: grey, (B, H, W) uint8; H and W are multiples of 8.

        Returns:
            Keypoint probabilities (B, H, W), and descriptors (B, H/8, W/8, D), not normalised.
        """
        logits, descriptors = self.network(images[:, None].float() / 255.0)
        return detector_probabilities(logits), descriptors.permute(0, 2, 3, 1)
