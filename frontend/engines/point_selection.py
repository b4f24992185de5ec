"""The selection of keypoints as tensors, for models that contain it; see `decoder.select`.

Pixels and cells are addressed by one flat index: OpenCV 5.0.0 crashes in GatherND, the operator
of two indices. GridSample is not used either: OpenCV clips the overshoots of its bicubic mode.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spslam.config import FeatureConfig

from ..superpoint.decoder import BICUBIC_A, CELL, GATHER_SIGMA_PX, HEAT_RADIUS, Sampling

# Float32 holds all integers below this number.
_EXACT_IN_FLOAT = 1 << 24
# Rounds of the non-maximum suppression; points that only a ninth round would find are left out.
_SUPPRESSION_ROUNDS = 8


class PointSelection(nn.Module):
    """Selects keypoints in the maps of one image.

    Args:
        config: the settings of the selection.
        sampling: how descriptors are read from the map of cells.
    """

    def __init__(self, config: FeatureConfig, sampling: Sampling) -> None:
        super().__init__()
        self._config = config
        self._sampling = sampling

    def forward(
        self,
        heat: Tensor,
        cells: Tensor,
        wanted: Tensor | int | None = None,
        threshold: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Select as many keypoints as the image has, up to a limit.

        Args:
            heat: probabilities (H, W).
            cells: descriptors of cells (rows, columns, D).
            wanted: largest number of keypoints; None: the setting's.
            threshold: keypoints must be above it; None: the setting's.

        Returns:
            Keypoints (N, 2), scores (N,) and unit descriptors (N, D), best score first.
        """
        limit = self._config.max_keypoints if wanted is None else wanted
        gathered = _gathered(heat)
        kept = self._maxima(gathered, self._config.threshold if threshold is None else threshold)
        values = torch.where(kept, gathered, 0.0).reshape(-1)
        count = self.most_maxima(*heat.shape)
        if isinstance(limit, int):
            # No image is too small for the number of rows.
            values = torch.cat([values, torch.zeros(limit)])
            count = count + limit
        # As many candidates as any image of this size: OpenCV 5.0.0 keeps shapes that depend
        # on the content from one image to the next. Of equal scores, TopK gives the lower index.
        scores, index = torch.topk(values, count)
        valid = (scores > 0).long()
        index = index * valid
        chosen = self._spread(index, heat.shape, valid, limit)
        if isinstance(limit, int):
            place = torch.arange(count)
            best = torch.topk((chosen * (count - place)).float(), limit)[1]
        else:
            best = torch.nonzero(chosen * valid)[:, 0]
        points = self._refined(heat, taken(index, best))
        scores, descriptors = taken(scores, best), self._sampled(cells, points)
        # Only here the number of rows becomes that of the keypoints.
        rows = torch.nonzero(scores > 0)[:, 0]
        return (
            torch.index_select(points, 0, rows),
            torch.index_select(scores, 0, rows),
            torch.index_select(descriptors, 0, rows),
        )

    def fixed(self, heat: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select keypoints as `forward` does, but always the same number for one size of image.

        Where the image has fewer keypoints, the last rows have the score 0; their other values
        mean nothing. No shape depends on the image's content: strict runtimes need that.
        """
        height, width = heat.shape
        most = max(self.most_maxima(height, width), self._config.max_keypoints)
        count = min(most, height * width)
        wanted = min(self._config.max_keypoints, count)
        gathered = _gathered(heat)
        kept = self._maxima(gathered, self._config.threshold)
        values = torch.where(kept, gathered, 0.0).reshape(-1)
        scores, index = torch.topk(values, count)
        chosen = self._spread(index, heat.shape, (scores > 0).long(), wanted)
        # The chosen ones in their order: keys descend, and floats hold these integers exactly.
        keys = chosen.float() * (count - torch.arange(count)).float()
        best = torch.topk(keys, wanted)[1]
        points = self._refined(heat, taken(index, best))
        return points, taken(scores, best), self._sampled(cells, points)

    def most_maxima(self, height: int, width: int) -> int:
        """Return the largest number of maxima in an image: each keeps a square free."""
        side = max(self._config.nms_radius, 1) + 1
        return -(-height // side) * -(-width // side)

    def _maxima(self, gathered: Tensor, threshold: Tensor | float) -> Tensor:
        """Return the pixels (H, W) bool that greedy suppression keeps.

        Each round keeps the maxima that no other maximum in their square exceeds.
        """
        radius, border = self._config.nms_radius, self._config.border
        values = gathered[None, None]
        peaks = (values > threshold) & (
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

    def _spread(
        self, index: Tensor, size: torch.Size, valid: Tensor, wanted: Tensor | int
    ) -> Tensor:
        """Compute `spread_top_k` of points, best first.

        Args:
            index: pixels (M,), rows × width + columns.
            size: height and width of the image.
            valid: (M,) int64, 1 for points, then 0.
            wanted: how many to choose.

        Returns:
            (M,) int64, 1 for the chosen points; `wanted` of them, valid ones first.
        """
        count = index.shape[0]
        place = torch.arange(count)
        cell = self._config.spread_cell
        if cell <= 0:
            return (place < wanted).long()
        half = wanted // 2 if isinstance(wanted, int) else _divided(wanted, 2)
        height, width = size
        across = (width + cell - 1) // cell
        row = _divided(index, width)
        cells = _divided(row, cell) * across + _divided(index - row * width, cell)
        # Sort the points by cell, the best first in each. The number of points in earlier cells
        # gives the start of each cell.
        down = (height + cell - 1) // cell
        by_cell = _ascending(cells * count + place, down * across * count)
        population = torch.zeros(down * across + count, dtype=torch.int64).scatter_add(
            0, cells, torch.ones_like(cells)
        )
        begins = torch.cumsum(population, 0) - population
        in_round = torch.zeros_like(cells).scatter(
            0, by_cell, place - taken(begins, taken(cells, by_cell))
        )
        # What is no point comes after the last round.
        rounds = self.most_maxima(cell, cell) + 1
        in_round = torch.where(valid > 0, in_round, rounds)
        by_round = _ascending(in_round * count + place, (rounds + 1) * count)
        chosen = torch.zeros_like(cells).scatter(0, by_round, (place < half).long())
        left = 1 - chosen
        return chosen + left * (torch.cumsum(left, 0) <= wanted - half)

    def _refined(self, heat: Tensor, index: Tensor) -> Tensor:
        """Return the positions (N, 2) x y of the pixels `index` (N,), refined if so set."""
        height, width = heat.shape
        rows = _divided(index, width)
        columns = index - rows * width
        points = torch.stack([columns, rows], dim=1).float()
        if not self._config.subpixel:
            return points
        points = points + _shift(heat, rows, columns)
        border = self._config.border
        x = points[:, 0].clamp(border, width - 1 - border)
        y = points[:, 1].clamp(border, height - 1 - border)
        return torch.stack([x, y], dim=1)

    def _sampled(self, cells: Tensor, points: Tensor) -> Tensor:
        """Interpolate descriptors (N, D) as `sample_descriptors` does, by gathers."""
        rows, columns, length = cells.shape
        unit = functional.normalize(cells.reshape(-1, length), dim=1)
        x, x_weight = self._taps(points[:, 0], columns)
        y, y_weight = self._taps(points[:, 1], rows)
        index = y[:, :, None] * columns + x[:, None, :]
        weight = y_weight[:, :, None] * x_weight[:, None, :]
        neighbours = torch.index_select(unit, 0, index.reshape(-1)).reshape(*index.shape, length)
        sampled = (neighbours * weight[..., None]).sum(dim=(1, 2))
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
        # A sum of floats: ONNX's shape inference refuses the sum of integers of two ranks.
        index = (first[:, None] + offsets.float()).long()
        inside = limited(index, cells - 1)
        return inside, torch.where(index == inside, weight, 0.0)


def taken(values: Tensor, index: Tensor) -> Tensor:
    """Return the elements of flattened `values` at `index`, in the shape of `index`.

    `values[index]` and `take` would become GatherND.
    """
    return torch.index_select(values.reshape(-1), 0, index.reshape(-1)).reshape(index.shape)


def _ascending(keys: Tensor, bound: Any) -> Tensor:
    """Return the order of integers from 0 to `bound` (exclusive).

    Floats hold them if the bound is known and small enough: tract sorts no integers.
    """
    exact = isinstance(bound, int) and bound < _EXACT_IN_FLOAT
    return torch.argsort(keys.float() if exact else keys)


def limited(index: Tensor, last: int) -> Tensor:
    """Clip integers to 0 … `last`, by Max and Min: OpenCV's DNN has Clip for floats only."""
    return torch.minimum(
        torch.maximum(index, torch.tensor(0)), torch.scalar_tensor(last, dtype=torch.int64)
    )


def _gathered(heat: Tensor) -> Tensor:
    """Compute `gather_probability` of (H, W)."""
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    kernel = torch.exp(-0.5 * (steps / GATHER_SIGMA_PX) ** 2)
    rows = functional.conv2d(
        heat[None, None], kernel.reshape(1, 1, 1, -1), padding=(0, HEAT_RADIUS)
    )
    return functional.conv2d(rows, kernel.reshape(1, 1, -1, 1), padding=(HEAT_RADIUS, 0))[
        0, 0
    ].clamp(max=1.0)


def _shift(heat: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute the shifts (N, 2) x y by which `refine_on_heat` moves points, pixels."""
    height, width = heat.shape
    steps = torch.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    y = limited((rows[:, None] + steps), height - 1)
    x = limited((columns[:, None] + steps), width - 1)
    patch = taken(heat, y[:, :, None] * width + x[:, None, :])
    total = patch.sum(dim=(1, 2)).clamp(min=1e-30)
    steps = steps.float()[:, None]
    return torch.cat([patch.sum(dim=1) @ steps, patch.sum(dim=2) @ steps], dim=1) / total[:, None]


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
