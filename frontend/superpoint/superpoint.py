"""The SuperPoint network.

DeTone, Malisiewicz, Rabinovich: SuperPoint: Self-Supervised Interest Point Detection and
Description, CVPR workshops 2018, section 3: a shared VGG-like encoder, a detector head of
65 channels and a descriptor head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# Defined in the decoder, which other projects copy.
from .decoder import CELL as CELL
from .decoder import Sampling as Sampling
from .keypoints import DEFAULT_MAX_DESCRIPTOR_DISTANCE

# Channels of the four encoder stages and of the heads: the paper's network.
FULL_WIDTHS = (64, 64, 128, 128, 256)
# The lite network. High resolutions take most of the time, so the first stages are narrow.
LITE_WIDTHS = (16, 32, 64, 96, 128)
# Convolutions of the four encoder stages in the paper.
PAPER_DEPTHS = (2, 2, 2, 2)
BatchNorm = Literal["none", "before", "after"]
# Added to the variance in batch norm: TensorFlow's default, as in the published weights.
_BATCH_NORM_EPS = 1e-3


_DEFAULT_SAMPLING = Sampling()


class ConvBlock(nn.Module):
    """A convolution with ReLU and batch norm, both optional.

    Args:
        inputs, outputs: channels.
        kernel: side of the kernel. An even kernel halves the resolution. Its outputs are centred
            between pixels, as after pooling, so the cells have the same positions.
        relu: with a ReLU.
        batch_norm: `before` the ReLU (can be folded into the convolution), `after` it, as in the
            open retraining, or `none`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, relu: bool, batch_norm: BatchNorm
    ) -> None:
        super().__init__()
        halving = kernel % 2 == 0
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=2 if halving else 1, padding=(kernel - 1) // 2
        )
        self.relu = relu
        self.norm_first = batch_norm == "before"
        self.bn = nn.BatchNorm2d(outputs, eps=_BATCH_NORM_EPS) if batch_norm != "none" else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to features (B, inputs, H, W)."""
        x = self.conv(x)
        if self.bn is not None and self.norm_first:
            x = self.bn(x)
        if self.relu:
            x = functional.relu(x, inplace=self.norm_first or not self.training)
        if self.bn is not None and not self.norm_first:
            x = self.bn(x)
        return x


class SuperPoint(nn.Module):
    """The SuperPoint network, without keypoint selection.

    Args:
        widths: channels of the four encoder stages, and of the two heads.
        descriptor_dim: length of a descriptor.
        batch_norm: `before` the ReLU, in all convolutions but the last one of each head; `after`
            the ReLU, in all convolutions; or `none`.
        sampling: how descriptors are read from the coarse map.
        depths: convolutions of the four stages.
        strided: how many of the first three stages halve the resolution in their first
            convolution; the others end with a pooling. With 0, the first stage works at full
            resolution, which costs most of the time.
        skips: whether the first three stages add a logit for each pixel to the detector's logits.
            Their filters are the same for all 64 pixels of a cell. The head instead learns a
            filter for each of the 64 pixels, at an eighth of the resolution.
        detector_width: channels of the detector head; None: as the descriptor head.

    Attributes:
        max_descriptor_distance: largest L2 distance of matching unit descriptors; belongs to the
            weights, as the sampling does.
        strip_rows: rows of the image that a first stage at full resolution works on at a time;
            0: all. The result is the same, but strips stay in the processor's cache.
    """

    def __init__(
        self,
        widths: Sequence[int] = FULL_WIDTHS,
        descriptor_dim: int = 256,
        batch_norm: BatchNorm = "none",
        sampling: Sampling = _DEFAULT_SAMPLING,
        depths: Sequence[int] = PAPER_DEPTHS,
        strided: int = 0,
        skips: bool = False,
        detector_width: int | None = None,
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, head = widths
        self.widths = (c1, c2, c3, c4, head)
        d1, d2, d3, d4 = depths
        self.depths = (d1, d2, d3, d4)
        self.descriptor_dim = descriptor_dim
        self.batch_norm = batch_norm
        self.sampling = sampling
        self.strided = strided
        self.skips = skips
        self.detector_width = detector_width or head
        self.max_descriptor_distance = DEFAULT_MAX_DESCRIPTOR_DISTANCE
        self.strip_rows = 0

        inputs = 1
        for stage, (outputs, depth) in enumerate(
            zip(self.widths[:4], self.depths, strict=True), start=1
        ):
            for layer in "abcdefgh"[:depth]:
                kernel = 4 if stage <= strided and layer == "a" else 3
                self.add_module(
                    f"conv{stage}{layer}", ConvBlock(inputs, outputs, kernel, True, batch_norm)
                )
                inputs = outputs
        last_norm: BatchNorm = "after" if batch_norm == "after" else "none"
        self.convPa = ConvBlock(c4, self.detector_width, 3, True, batch_norm)
        self.convPb = ConvBlock(self.detector_width, CELL * CELL + 1, 1, False, last_norm)
        self.convDa = ConvBlock(c4, head, 3, True, batch_norm)
        self.convDb = ConvBlock(head, descriptor_dim, 1, False, last_norm)
        for stage, channels in enumerate(self.widths[:3], start=1) if skips else ():
            block = ConvBlock(channels, self._stride(stage) ** 2, 3, False, "none")
            # New skips leave the network's output unchanged.
            nn.init.zeros_(block.conv.weight)
            nn.init.zeros_(block.conv.bias)  # type: ignore[arg-type]
            self.add_module(f"convS{stage}", block)

    def variant(self, **changes: Any) -> SuperPoint:
        """Make a network of new weights with this one's attributes, and arguments but `changes`."""
        arguments: dict[str, Any] = {
            "widths": self.widths,
            "descriptor_dim": self.descriptor_dim,
            "batch_norm": self.batch_norm,
            "sampling": self.sampling,
            "depths": self.depths,
            "strided": self.strided,
            "skips": self.skips,
            "detector_width": self.detector_width,
        }
        network = SuperPoint(**(arguments | changes))
        network.max_descriptor_distance = self.max_descriptor_distance
        network.strip_rows = self.strip_rows
        return network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the raw outputs of both heads.

        Args:
            image: (B, 1, H, W) in [0, 1]; H and W are multiples of 8.

        Returns:
            Detector logits (B, 65, H/8, W/8), whose last channel is the dustbin, and descriptors
            (B, D, H/8, W/8), not normalised.
        """
        x, fine = self._encode(image)
        return self._logits(x, fine), self.convDb(self.convDa(x))

    def detector_logits(self, image: Tensor) -> Tensor:
        """Compute the detector head alone: logits (B, 65, H/8, W/8) of an image (B, 1, H, W)."""
        return self._logits(*self._encode(image))

    def _logits(self, x: Tensor, fine: Tensor | None) -> Tensor:
        logits: Tensor = self.convPb(self.convPa(x))
        if fine is None:
            return logits
        # The last channel, the dustbin, belongs to no pixel and gets 0.
        return logits + functional.pad(functional.pixel_unshuffle(fine, CELL), (0, 0, 0, 0, 0, 1))

    def _encode(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the encoder's output (B, C, H/8, W/8) and the skips' logits (B, 1, H, W)."""
        x, fine = (image, None) if self.strided else self._first_stage(image)
        added: dict[int, Tensor] = {}
        for stage in range(1 if self.strided else 2, 5):
            x = self.stage(x, stage)
            if stage == 4:
                break
            if self.skips:
                channels, stride = self.skip(x, stage), self._stride(stage)
                added[stride] = added[stride] + channels if stride in added else channels
            if stage > self.strided:
                x = functional.max_pool2d(x, 2)
        for stride, channels in added.items():
            pixels = functional.pixel_shuffle(channels, stride)
            fine = pixels if fine is None else fine + pixels
        return x, fine

    def stage(self, x: Tensor, stage: int) -> Tensor:
        """Apply the convolutions of a stage, without the pooling after it."""
        for layer in "abcdefgh"[: self.depths[stage - 1]]:
            x = self.get_submodule(f"conv{stage}{layer}")(x)
        return x

    def _stride(self, stage: int) -> int:
        """Return the stride of a stage's output in the image, pixels."""
        return 1 << (stage if stage <= self.strided else stage - 1)

    def skip(self, x: Tensor, stage: int) -> Tensor:
        """Compute a stage's skip: for each of its pixels, the logits of the image pixels below.

        Args:
            x: output of the stage (B, C, H/stride, W/stride).
            stage: its number, 1 to 3.

        Returns:
            Logits (B, stride², H/stride, W/stride).
        """
        added: Tensor = self.get_submodule(f"convS{stage}")(x)
        return added

    def _first_stage(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute stage one at full resolution, pooled, and its skip."""
        if self.strip_rows <= 0:
            # Without slices, a traced network also works with other sizes.
            x = self.stage(image, 1)
            return functional.max_pool2d(x, 2), self.skip(x, 1) if self.skips else None
        height, margin, step = image.shape[2], self.depths[0] + self.skips, self.strip_rows
        pooled, skipped = [], []
        for top in range(0, height, step):
            bottom = min(top + step, height)
            # Each convolution needs one more row: its padding is right at the image's border only.
            wide_top, wide_bottom = max(top - margin, 0), min(bottom + margin, height)
            strip = slice(top - wide_top, bottom - wide_top)
            x = self.stage(image[:, :, wide_top:wide_bottom], 1)
            pooled.append(functional.max_pool2d(x[:, :, strip], 2))
            if self.skips:
                skipped.append(self.skip(x, 1)[:, :, strip])
        return _joined(pooled), _joined(skipped) if skipped else None


def _joined(strips: list[Tensor]) -> Tensor:
    return torch.cat(strips, dim=2) if len(strips) > 1 else strips[0]


def detector_probabilities(logits: Tensor) -> Tensor:
    """Turn detector logits (B, 65, H/8, W/8) into keypoint probabilities (B, H, W) by softmax."""
    probabilities = functional.softmax(logits, dim=1)[:, :-1]
    batch, _, rows, columns = probabilities.shape
    cells = probabilities.permute(0, 2, 3, 1).reshape(batch, rows, columns, CELL, CELL)
    return cells.transpose(2, 3).reshape(batch, rows * CELL, columns * CELL)
