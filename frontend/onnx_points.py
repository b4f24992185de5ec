"""SuperPoint as an ONNX model with all of the extractor inside: a grey image in, key points and descriptors out.

For programs without NumPy. It takes `image` (H, W) uint8 of any size, both dynamic, and gives `keypoints` (N, 2) x y in
pixels, `scores` (N,) and unit `descriptors` (N, D), float32, best score first, by operators of the ONNX standard alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from spslam.config import FeatureConfig

from .checkpoints import Checkpoint
from .decoder import CELL, GATHER_SIGMA_PX, HEAT_RADIUS
from .dense_heads import DenseHeads
from .onnx_model import export_onnx, origin
from .superpoint import SuperPoint

INPUT = "image"
_SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "subpixel", "spread_cell")
OUTPUTS = ("keypoints", "scores", "descriptors")
_DESCRIPTION = """SuperPoint with the selection of key points inside.
image: (height, width) uint8, grey, of any size.
keypoints: (N, 2) float32, x y in pixels, (0, 0) is the centre of the first one; N is max_keypoints at most.
scores: (N,) float32, best first.
descriptors: (N, D) float32 of length 1.
"""
# Points that only a ninth would find are left out: none of 20 photographs and frames had one.
_SUPPRESSION_ROUNDS = 8
_TRACED_SIZE = (100, 156)


def convert_points(network: SuperPoint, config: FeatureConfig, metadata: Mapping[str, str] | None = None) -> bytes:
    """An ONNX file of a network with the selection of key points that a configuration describes.

    Raises:
        MissingDependencyError: ONNX or onnxscript is not installed.
    """
    axes = {0: torch.export.Dim("height", min=2 * CELL), 1: torch.export.Dim("width", min=2 * CELL)}
    example = torch.randint(0, 256, _TRACED_SIZE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = json.dumps(config.model_dump(include=set(_SETTINGS)))
    about = {**(metadata or {}), "selection": settings, **origin(Checkpoint.of(network))}
    return export_onnx(_Points(network, config), example, axes, INPUT, OUTPUTS, _DESCRIPTION, about)


class _Points(nn.Module):
    """The steps of `SuperPointExtractor`, by tensors; `spslam.frontend.keypoints` says what each is for."""

    def __init__(self, network: SuperPoint, config: FeatureConfig) -> None:
        super().__init__()
        self._dense = DenseHeads(network)
        self._sampling = network.sampling
        self._config = config

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = image.shape
        # The last row and column repeat up to multiples of 8.
        rows, columns = (torch.arange((side + CELL - 1) // CELL * CELL).clamp(max=side - 1) for side in image.shape)
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
        """The pixels (H, W) bool that greedy suppression keeps: in each round those that nothing around them beats."""
        radius, border = self._config.nms_radius, self._config.border
        values = gathered[None, None]
        peaks = (values > self._config.threshold) & (values == functional.max_pool2d(values, 3, stride=1, padding=1))
        left = torch.where(peaks, values, -1.0)
        kept = left > 0
        if radius > 0:
            side = 2 * radius + 1
            # Of equals (hardly any but those that are sure) the upper, then the left one.
            above = functional.max_pool2d(functional.pad(left, (radius, radius, radius, 0)), (radius, side), stride=1)
            before = functional.max_pool2d(functional.pad(left, (radius, 0, 0, 0)), (1, radius), stride=1)
            equal = (left == above[:, :, :-1]) | (left == before[:, :, :, :-1])
            left = torch.where(equal, -1.0, left)
            kept = torch.zeros_like(kept)
            for _ in range(_SUPPRESSION_ROUNDS):
                best = (left > 0) & (left == functional.max_pool2d(left, side, stride=1, padding=radius))
                kept = kept | best
                silenced = functional.max_pool2d(best.float(), side, stride=1, padding=radius) > 0
                left = torch.where(silenced, -1.0, left)
        height, width = gathered.shape
        rows = torch.arange(height)[:, None]
        columns = torch.arange(width)[None]
        inside = (rows >= border) & (rows < height - border) & (columns >= border) & (columns < width - border)
        return kept[0, 0] & inside

    def _sampled(self, cells: Tensor, points: Tensor) -> Tensor:
        unit = functional.normalize(cells[0].permute(2, 0, 1)[None], dim=1)
        size = torch.tensor([cells.shape[2], cells.shape[1]]) * CELL
        if self._sampling.align_corners:
            grid = 2 * (points - (CELL / 2 - 0.5)) / (size - CELL / 2 - 0.5) - 1
        else:
            grid = 2 * (points + 0.5) / size - 1
        sampled = functional.grid_sample(
            unit, grid[None, None], mode=self._sampling.interpolation, align_corners=self._sampling.align_corners
        )
        return functional.normalize(sampled[0, :, 0].T, dim=1)


def _gathered(heat: Tensor) -> Tensor:
    """`gather_probability` of (1, H, W), as (H, W)."""
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    kernel = torch.exp(-0.5 * (steps / GATHER_SIGMA_PX) ** 2)
    rows = functional.conv2d(heat[None], kernel.reshape(1, 1, 1, -1), padding=(0, HEAT_RADIUS))
    return functional.conv2d(rows, kernel.reshape(1, 1, -1, 1), padding=(HEAT_RADIUS, 0))[0, 0].clamp(max=1.0)


def _spread(scores: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int], config: FeatureConfig) -> Tensor:
    """`spread_top_k` of points in the order of rows, then columns; TopK's ties go to the lower index."""
    order = torch.argsort(scores, descending=True)
    if config.spread_cell <= 0:
        return order[: config.max_keypoints]
    cell, wanted = config.spread_cell, config.max_keypoints
    down, across = ((side + cell - 1) // cell for side in size)
    cells = ((rows // cell) * across + columns // cell)[order]
    count = cells.shape[0]
    place = torch.arange(count)
    # Cells one after the other, in each the best first. How many points earlier cells have says where each begins.
    by_cell = torch.argsort(cells * count + place)
    population = torch.zeros(down * across, dtype=torch.int64).scatter_add(0, cells, torch.ones_like(cells))
    begins = torch.cumsum(population, 0) - population
    in_round = torch.zeros_like(cells).scatter(0, by_cell, place - begins[cells[by_cell]])
    by_round = torch.argsort(in_round * count + place)
    chosen = torch.zeros_like(cells).scatter(0, by_round, (place < wanted // 2).long())
    left = 1 - chosen
    chosen = chosen + left * (torch.cumsum(left, 0) <= wanted - wanted // 2)
    return order[torch.nonzero(chosen)[:, 0]]


def _shift(heat: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What `refine_on_heat` moves points by, (N, 2) x y."""
    height, width = heat.shape
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    y = (rows[:, None] + steps).clamp(0, height - 1)
    x = (columns[:, None] + steps).clamp(0, width - 1)
    patch = heat.reshape(-1)[y[:, :, None] * width + x[:, None, :]]
    total = patch.sum(dim=(1, 2)).clamp(min=1e-30)
    steps = steps.float()
    return torch.stack([patch.sum(dim=1) @ steps, patch.sum(dim=2) @ steps], dim=1) / total[:, None]
