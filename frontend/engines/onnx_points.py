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
from torch.nn import functional

from spslam.config import FeatureConfig

from ..superpoint.checkpoints import Checkpoint
from ..superpoint.decoder import BICUBIC_A, CELL, GATHER_SIGMA_PX, HEAT_RADIUS, SETTINGS
from ..superpoint.dense_heads import DenseHeads
from ..superpoint.superpoint import SuperPoint
from .onnx_model import AxisNames, export_onnx, origin

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
# Rounds of the non-maximum suppression; points that only a ninth round would find are left out.
_SUPPRESSION_ROUNDS = 8
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
    settings = json.dumps(config.model_dump(include=set(SETTINGS)))
    about = {**(metadata or {}), "selection": settings, **origin(Checkpoint.of(network))}
    return export_onnx(_Points(network, config), example, axes, INPUT, OUTPUTS, _DESCRIPTION, about)


class _Points(nn.Module):
    """The steps of `decoder.select` with tensors; see its functions."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._dense = DenseHeads(network)
        self._sampling = network.sampling
        self._config = config

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute keypoints (N, 2), scores (N,) and descriptors (N, D) of an image (H, W) uint8."""
        height, width = image.shape
        # Repeat the last row and column up to multiples of 8.
        rows, columns = (
            _limited(torch.arange((side + CELL - 1) // CELL * CELL), side - 1)
            for side in image.shape
        )
        heat, cells = self._dense(image[rows][:, columns][None])
        heat = heat[:, :height, :width]
        gathered = _gathered(heat)
        rows, columns = torch.nonzero(self._maxima(gathered), as_tuple=True)
        best = _spread(gathered[rows, columns], rows, columns, (height, width), self._config)
        rows, columns = rows[best], columns[best]
        points = torch.stack([columns, rows], dim=1).float()
        if self._config.subpixel:
            points = points + _shift(heat[0], rows, columns)
            border = self._config.border
            x = points[:, 0].clamp(border, width - 1 - border)
            y = points[:, 1].clamp(border, height - 1 - border)
            points = torch.stack([x, y], dim=1)
        return points, gathered[rows, columns], self._sampled(cells, points)

    def _maxima(self, gathered: Tensor) -> Tensor:
        """Return the pixels (H, W) bool that greedy suppression keeps.

        Each round keeps the maxima that no other maximum in their square exceeds.
        """
        radius, border = self._config.nms_radius, self._config.border
        values = gathered[None, None]
        peaks = (values > self._config.threshold) & (
            values == functional.max_pool2d(values, 3, stride=1, padding=1)
        )
        left = torch.where(peaks, values, -1.0)
        kept = left > 0
        if radius > 0:
            side = 2 * radius + 1
            # Of equal maxima (rare except for scores of 1), keep the upper, then the left one.
            above = functional.max_pool2d(
                functional.pad(left, (radius, radius, radius, 0)), (radius, side), stride=1
            )
            before = functional.max_pool2d(
                functional.pad(left, (radius, 0, 0, 0)), (1, radius), stride=1
            )
            equal = (left == above[:, :, :-1]) | (left == before[:, :, :, :-1])
            left = torch.where(equal, -1.0, left)
            kept = torch.zeros_like(kept)
            for _ in range(_SUPPRESSION_ROUNDS):
                best = (left > 0) & (
                    left == functional.max_pool2d(left, side, stride=1, padding=radius)
                )
                kept = kept | best
                silenced = functional.max_pool2d(best.float(), side, stride=1, padding=radius) > 0
                left = torch.where(silenced, -1.0, left)
        height, width = gathered.shape
        rows = torch.arange(height)[:, None]
        columns = torch.arange(width)[None]
        inside = (
            (rows >= border)
            & (rows < height - border)
            & (columns >= border)
            & (columns < width - border)
        )
        return kept[0, 0] & inside

    def _sampled(self, cells: Tensor, points: Tensor) -> Tensor:
        """Interpolate descriptors as `sample_descriptors` does, by gathers.

        GridSample is not used: OpenCV 5.0.0 clips the overshoots of its bicubic interpolation.
        """
        rows, columns, length = cells.shape[1:]
        unit = functional.normalize(cells.reshape(-1, length), dim=1)
        x, x_weight = self._taps(points[:, 0], columns)
        y, y_weight = self._taps(points[:, 1], rows)
        index = y[:, :, None] * columns + x[:, None, :]
        weight = y_weight[:, :, None] * x_weight[:, None, :]
        sampled = (unit[index] * weight[..., None]).sum(dim=(1, 2))
        return functional.normalize(sampled, dim=1)

    def _taps(self, pixels: Tensor, cells: int) -> tuple[Tensor, Tensor]:
        """Return the neighbours of pixels (N,) along an axis of `cells` cells, and their weights.

        Returns:
            Indices of cells and weights, both (N, 2) if bilinear, (N, 4) if bicubic.
        """
        position = (pixels - (CELL / 2 - 0.5)) / CELL
        if self._sampling.align_corners:
            position = (pixels - (CELL / 2 - 0.5)) * ((cells - 1) / (cells * CELL - CELL / 2 - 0.5))
        first = torch.floor(position)
        fraction = (position - first)[:, None]
        if self._sampling.interpolation == "bicubic":
            offsets = torch.arange(-1, 3)
            weight = _bicubic((fraction - offsets).abs())
        else:
            offsets = torch.arange(2)
            weight = 1 - (fraction - offsets).abs()
        index = first.long()[:, None] + offsets
        inside = _limited(index, cells - 1)
        return inside, torch.where(index == inside, weight, 0.0)


def _gathered(heat: Tensor) -> Tensor:
    """Compute `gather_probability` of (1, H, W) as (H, W)."""
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    kernel = torch.exp(-0.5 * (steps / GATHER_SIGMA_PX) ** 2)
    rows = functional.conv2d(heat[None], kernel.reshape(1, 1, 1, -1), padding=(0, HEAT_RADIUS))
    return functional.conv2d(rows, kernel.reshape(1, 1, -1, 1), padding=(HEAT_RADIUS, 0))[
        0, 0
    ].clamp(max=1.0)


def _spread(
    scores: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], config: FeatureConfig
) -> Tensor:
    """Compute `spread_top_k` of points in order of rows, then columns.

    Of equal scores, TopK returns the lower index first.
    """
    order = torch.argsort(scores, descending=True)
    if config.spread_cell <= 0:
        return order[: config.max_keypoints]
    cell, wanted = config.spread_cell, config.max_keypoints
    down, across = ((side + cell - 1) // cell for side in size)
    cells = (_divided(rows, cell) * across + _divided(columns, cell))[order]
    count = cells.shape[0]
    place = torch.arange(count)
    # Sort the points by cell, the best first in each. The number of points in earlier cells gives
    # the start of each cell.
    by_cell = torch.argsort(cells * count + place)
    population = torch.zeros(down * across + count, dtype=torch.int64).scatter_add(
        0, cells, torch.ones_like(cells)
    )
    begins = torch.cumsum(population, 0) - population
    in_round = torch.zeros_like(cells).scatter(0, by_cell, place - begins[cells[by_cell]])
    by_round = torch.argsort(in_round * count + place)
    chosen = torch.zeros_like(cells).scatter(0, by_round, (place < wanted // 2).long())
    left = 1 - chosen
    chosen = chosen + left * (torch.cumsum(left, 0) <= wanted - wanted // 2)
    return order[torch.nonzero(chosen > 0)[:, 0]]


def _shift(heat: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the shifts (N, 2) x y by which `refine_on_heat` moves points, pixels."""
    height, width = heat.shape
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    y = _limited((rows[:, None] + steps), height - 1)
    x = _limited((columns[:, None] + steps), width - 1)
    patch = heat.reshape(-1)[y[:, :, None] * width + x[:, None, :]]
    total = patch.sum(dim=(1, 2)).clamp(min=1e-30)
    steps = steps.float()[:, None]
    return torch.cat([patch.sum(dim=1) @ steps, patch.sum(dim=2) @ steps], dim=1) / total[:, None]


def _limited(index: Tensor, last: int) -> Tensor:
    """Clip integers to 0 … `last`, by Max and Min: OpenCV's DNN has Clip for floats only."""
    return torch.minimum(
        torch.maximum(index, torch.tensor(0)), torch.scalar_tensor(last, dtype=torch.int64)
    )


def _divided(index: Tensor, divisor: int) -> Tensor:
    """Divide integers that are not negative, rounding down.

    `//` would compare booleans, which OpenCV's DNN does not support.
    """
    return torch.div(index, divisor, rounding_mode="trunc")


def _bicubic(distance: Tensor) -> Tensor:
    """Compute weights of cells at distances 0 to 2 along one axis.

    Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP, 1981.
    """
    a = BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, far)
