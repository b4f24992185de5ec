"""Keypoints and descriptors from the maps of an exported SuperPoint; needs only NumPy.

Copy this file into other projects (MIT licence, spslam contributors). `spslam export WEIGHTS --to
onnx` writes the network, and a runtime such as ONNX Runtime runs it. `padded` prepares the image
and `decode` decodes the maps. The result has the keypoints and descriptors of spslam's extractor:
positions agree within 0.01 px, except for ties in the last bits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Side of a cell of the descriptor map, pixels.
CELL = 8
# Half the side of the patch that holds a point's probability, pixels: 5×5. The point is the
# patch's centre of mass.
HEAT_RADIUS = 2
# Standard deviation of the Gaussian that sums the probability of a patch, pixels.
GATHER_SIGMA_PX = 1.0
# The bicubic kernel's free parameter, as in PyTorch, OpenCV and ONNX.
BICUBIC_A = -0.75
# Names of the settings of `decode`, and of the extractor's configuration.
SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "subpixel", "spread_cell")


@dataclass(frozen=True)
class Sampling:
    """The interpolation of the coarse descriptor map; it belongs to the weights.

    Attributes:
        interpolation: `bicubic` (the paper) or `bilinear` (both public releases).
        align_corners: False: cell i is centred on pixel 8i + 3.5. True: the rule of Magic Leap's
            releases, which stretches the map a little (the cell centres agree at the left and
            upper border only).
    """

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    align_corners: bool = False

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """Parse the text in the metadata of weights and models.

        Args:
            text: such as `bicubic grid_sample, align_corners=False`.

        Raises:
            ValueError: the interpolation or `align_corners` is missing.
        """
        interpolation = re.search(r"\b(bicubic|bilinear)\b", text)
        corners = re.search(r"align_corners=(True|False)", text)
        if interpolation is None or corners is None:
            raise ValueError(
                f"expected bicubic or bilinear and align_corners=True or False, found {text!r}"
            )
        return cls("bicubic" if interpolation[1] == "bicubic" else "bilinear", corners[1] == "True")

    def __str__(self) -> str:
        return f"{self.interpolation} grid_sample, align_corners={self.align_corners}"

    def cell_coordinates(
        self, pixels: NDArray[np.float64], size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """Convert pixels (N, 2) to cells (N, 2) of a map of `size` (width, height), cells."""
        shifted = (pixels - (CELL / 2 - 0.5)) / CELL
        if not self.align_corners:
            return shifted
        cells = np.asarray(size, dtype=np.float64)
        return shifted * CELL * (cells - 1) / (cells * CELL - CELL / 2 - 0.5)

    def neighbours(
        self, pixels: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the T cells (4 or 16) around each pixel, and their weights.

        Args:
            pixels: (N, 2) x y.
            size: (width, height) of the map, cells.

        Returns:
            Indices of cells (N, T), counted row by row, and weights (N, T). A neighbour outside the
            map has the weight 0.
        """
        # Pixels on the last axis: NumPy is slow if that axis has only four elements.
        position = np.ascontiguousarray(self.cell_coordinates(pixels, size).T)
        first = np.floor(position).astype(np.int32)
        weights = _kernel(position - first, self.interpolation).astype(np.float32)
        taps = np.arange(len(weights), dtype=np.int32)[:, None, None] - (len(weights) // 2 - 1)
        cells = first + taps
        inside = np.clip(cells, 0, np.array(size, np.int32)[:, None] - 1)
        weights *= cells == inside
        index = (inside[:, 1] * np.int32(size[0]))[:, None] + inside[:, 0]
        weight = weights[:, 1, None] * weights[:, 0]
        shape = (len(taps) ** 2, len(pixels))
        return np.ascontiguousarray(index.reshape(shape).T), np.ascontiguousarray(
            weight.reshape(shape).T
        )


def padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pad a grey image (H, W) to multiples of 8 by repeating its last row and column."""
    height, width = image.shape
    if height % CELL == 0 and width % CELL == 0:
        return image
    return np.pad(image, ((0, -height % CELL), (0, -width % CELL)), mode="edge")


def decode(
    scores: NDArray[np.float32],
    descriptors: NDArray[np.float32],
    size: tuple[int, int],
    sampling: str,
    *,
    max_keypoints: int = 1000,
    threshold: float = 0.0001,
    nms_radius: int = 4,
    border: int = 4,
    subpixel: bool = True,
    spread_cell: int = 64,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Decode the maps of one image into keypoints and descriptors.

    Args:
        scores: the model's scores of this image (H', W'); H' and W' are multiples of 8.
        descriptors: the model's descriptors of this image (H'/8, W'/8, D).
        size: height and width of the image before padding, pixels.
        sampling: `descriptor_sampling` of the model's metadata.
        max_keypoints: largest number of keypoints.
        threshold: least score.
        nms_radius: half the side of the square that a point keeps free of others, pixels.
        border: margin without keypoints, pixels.
        subpixel: whether to refine the positions.
        spread_cell: side of the grid cells that points are spread over, pixels; 0: keep the best
            points, wherever they are.

    Returns:
        Keypoints (N, 2) x y in pixels, their scores (N,) and unit descriptors (N, D), best score
        first. Pixel (0, 0) is the centre of the first pixel.

    Raises:
        ValueError: `sampling` names no rule.
    """
    return select(
        scores[: size[0], : size[1]],
        descriptors,
        Sampling.parse(sampling),
        NUMPY,
        max_keypoints=max_keypoints,
        threshold=threshold,
        nms_radius=nms_radius,
        border=border,
        subpixel=subpixel,
        spread_cell=spread_cell,
    )


@dataclass(frozen=True)
class Backend:
    """The slow steps of `select`, which other libraries do faster than NumPy.

    Attributes:
        gather_probability, find_maxima, sample_descriptors: as the functions of this module.
    """

    gather_probability: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    find_maxima: Callable[
        [NDArray[np.float32], float, int, int], tuple[NDArray[np.int64], NDArray[np.int64]]
    ]
    sample_descriptors: Callable[
        [NDArray[np.float32], NDArray[np.float32], Sampling], NDArray[np.float32]
    ]


def select(
    heat: NDArray[np.float32],
    descriptors: NDArray[np.float32],
    sampling: Sampling,
    backend: Backend,
    *,
    max_keypoints: int,
    threshold: float,
    nms_radius: int,
    border: int,
    subpixel: bool,
    spread_cell: int,
    mask: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Decode as `decode` does, from scores `heat` (H, W) without padding, with a `backend`.

    Keypoints are chosen only where `mask` (H, W) is True; None: everywhere.
    """
    gathered = backend.gather_probability(heat)
    rows, columns = backend.find_maxima(gathered, threshold, nms_radius, border)
    if mask is not None:
        # The mask decides by the position that the result will have.
        places = np.stack([columns, rows])
        if subpixel:
            places = np.rint(_refined(heat, rows, columns, border)).astype(np.int64).T
        inside = mask[places[1], places[0]]
        rows, columns = rows[inside], columns[inside]
    keypoints = np.stack([columns, rows], axis=1).astype(np.float32)
    scores = gathered[rows, columns]
    kept = spread_top_k(keypoints, scores, max_keypoints, spread_cell)
    # `take` is faster than indexing for rows of two elements.
    keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
    if subpixel:
        keypoints = _refined(heat, rows[kept], columns[kept], border)
        # The refinement may move two points to the same pixel.
        kept = first_at_each_pixel(keypoints, scores)
        keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
    return keypoints, scores, backend.sample_descriptors(descriptors, keypoints, sampling)


def _refined(
    heat: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64], border: int
) -> NDArray[np.float32]:
    """Refine maxima as `refine_on_heat` does, to positions (N, 2) x y outside the border."""
    far_corner = np.array(heat.shape[::-1], np.float32) - 1 - border
    return np.clip(refine_on_heat(heat, rows, columns), np.float32(border), far_corner)


def gather_probability(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum the scores (H, W) around each pixel, weighted by a Gaussian that is 1 at the centre.

    The network spreads the probability of a point between pixels over these pixels. The sums are
    limited to 1.
    """
    weights = gathering_weights()
    gathered = heat
    for _ in range(2):
        # Filter the first axis and transpose; the second round filters the other axis.
        above = np.pad(gathered, ((HEAT_RADIUS, HEAT_RADIUS), (0, 0)))
        fractions = [
            weight * above[step : step + len(gathered)] for step, weight in enumerate(weights)
        ]
        gathered = np.ascontiguousarray(np.sum(fractions, axis=0).T)
    capped: NDArray[np.float32] = np.minimum(gathered, np.float32(1))
    return capped


def gathering_weights() -> NDArray[np.float32]:
    """Return the Gaussian of `gather_probability` along one axis, 1 at the centre."""
    steps = np.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    return np.exp(-0.5 * (steps / GATHER_SIGMA_PX) ** 2).astype(np.float32)


def find_maxima(
    heat: NDArray[np.float32], threshold: float, nms_radius: int, border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the maxima that greedy non-maximum suppression keeps, best first.

    A maximum is not less than any of its eight neighbours. Greedy suppression keeps the best
    maximum, drops all others in the square around it, and goes on with the best one left. Of equal
    maxima, the upper comes first, then the left one.

    Args:
        heat: scores (H, W).
        threshold: points must be above it.
        nms_radius: half the side of the square, pixels.
        border: margin without points, pixels; removed after the suppression.

    Returns:
        Rows and columns (N,).
    """
    rows, columns = np.nonzero((heat > threshold) & (heat == _highest_of_nine(heat)))
    order = np.argsort(-heat[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    free = np.ones(heat.shape, np.bool_)
    kept = np.zeros(len(rows), np.bool_)
    for index, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        if free[row, column]:
            kept[index] = True
            top, left = max(row - nms_radius, 0), max(column - nms_radius, 0)
            free[top : row + nms_radius + 1, left : column + nms_radius + 1] = False
    height, width = heat.shape
    kept &= (
        (rows >= border)
        & (columns >= border)
        & (rows < height - border)
        & (columns < width - border)
    )
    return rows[kept], columns[kept]


def _highest_of_nine(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest of each pixel and its eight neighbours, for heat (H, W) not below 0."""
    wide = np.pad(heat, 1)
    high = np.maximum(np.maximum(wide[:-2], wide[1:-1]), wide[2:])
    highest: NDArray[np.float32] = np.maximum(np.maximum(high[:, :-2], high[:, 1:-1]), high[:, 2:])
    return highest


def refine_on_heat(
    heat: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Refine maxima to the centres of mass of the 5×5 patches around them (soft-argmax).

    Args:
        heat: scores (H, W).
        rows: of the maxima (N,).
        columns: of the maxima (N,).

    Returns:
        Sub-pixel positions (N, 2) x y.
    """
    steps = np.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    height, width = heat.shape
    # Points on the last axis: sums over the first axes are many times as fast.
    y = np.clip(rows + steps[:, None], 0, height - 1)
    x = np.clip(columns + steps[:, None], 0, width - 1)
    # One flat index is faster than two.
    patch = np.take(np.ascontiguousarray(heat), y[:, None] * width + x).astype(np.float64)
    along_x, along_y = patch.sum(axis=0), patch.sum(axis=1)
    total = along_x.sum(axis=0)
    total = np.where(total > 0, total, 1.0)
    shift = np.stack([steps @ along_x / total, steps @ along_y / total], axis=1)
    refined: NDArray[np.float32] = (np.stack([columns, rows], axis=1) + shift).astype(np.float32)
    return refined


def first_at_each_pixel(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Keep one point per pixel: of the points that round to it, the first with the best score.

    Args:
        keypoints: (N, 2) x y, pixels.
        scores: (N,).

    Returns:
        Indices of the kept points, ascending.
    """
    pixels = np.rint(keypoints)
    # Nearly always, each point has its own pixel; one sort checks that.
    in_order = np.sort(pixels.astype(np.int64) @ np.array([1, 1 << 32]))
    if np.all(in_order[1:] != in_order[:-1]):
        return np.arange(len(pixels))
    order = np.lexsort((-scores, pixels[:, 0], pixels[:, 1]))
    ordered = pixels[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    return np.sort(order[new])


def spread_top_k(
    keypoints: NDArray[np.float32],
    scores: NDArray[np.float32],
    count: int,
    cell: int,
    fraction: float = 0.5,
) -> NDArray[np.int64]:
    """Choose at most `count` points that are spread over the image.

    Rounds over a grid choose a fraction of them: the best point of every cell, then the second
    best, and so on. Regions of little texture thus keep points. The best scores of the remaining
    points are the rest, because rounds alone would cost SuperPoint many matches. Of equal points,
    the upper comes first, then the left one.

    Args:
        keypoints: (N, 2) x y, pixels.
        scores: (N,).
        count: how many points to keep.
        cell: side of a cell, pixels; 0: keep the best scores, wherever they are.
        fraction: fraction of `count` that the rounds choose.

    Returns:
        Indices of the chosen points, best score first.
    """
    order = _best_first(keypoints, scores)
    if len(order) <= count or cell <= 0:
        return order[:count]
    column, row = np.floor(keypoints.T[:, order] / cell).astype(np.int64)
    round_of = _rank_in_group(
        (row - row.min()) * (column.max() - column.min() + 1) + column - column.min()
    )
    chosen = np.zeros(len(order), np.bool_)
    by_rounds = int(fraction * count)
    chosen[stable_order(round_of)[:by_rounds]] = True
    chosen[np.flatnonzero(~chosen)[: count - by_rounds]] = True
    return order[chosen]


def _best_first(keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the order of points (N, 2): best score first, of equal scores by row, then column."""
    x, y = keypoints.T
    tie = scores[1:] == scores[:-1]
    later = (y[1:] > y[:-1]) | ((y[1:] == y[:-1]) & (x[1:] >= x[:-1]))
    # Maxima are in order already; checking that is much faster than sorting by three keys.
    if np.all((scores[1:] < scores[:-1]) | (tie & later)):
        return np.arange(len(scores))
    return np.lexsort((x, y, -scores))


def stable_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the stable ascending order of small numbers (N,) that are not negative.

    The numbers are sorted as the shortest type that holds them: NumPy then uses radix sort.
    """
    return np.argsort(values.astype(np.min_scalar_type(int(values.max()))), kind="stable")


def _rank_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each element, the earlier elements of its group; groups (N,) as small numbers."""
    by_group = stable_order(group)
    population = np.bincount(group)
    rank = np.empty(len(group), np.int64)
    rank[by_group] = np.arange(len(group)) - np.repeat(
        np.cumsum(population) - population, population
    )
    return rank


def sample_descriptors(
    dense: NDArray[np.float32], keypoints: NDArray[np.float32], sampling: Sampling
) -> NDArray[np.float32]:
    """Interpolate unit descriptors at keypoints.

    The descriptors of the cells are normalised first. Cells outside the map count as zeros.

    Args:
        dense: descriptor map (rows, columns, D), not normalised.
        keypoints: (N, 2) x y, pixels.
        sampling: the interpolation.

    Returns:
        Unit descriptors (N, D).
    """
    rows, columns, length = dense.shape
    index, weight = sampling.neighbours(keypoints.astype(np.float64), (columns, rows))
    flat = dense.reshape(rows * columns, length)
    norms = np.maximum(np.sqrt(np.einsum("nd,nd->n", flat, flat)), 1e-12)
    weight = weight / norms[index]
    sampled = np.zeros((len(keypoints), length), np.float32)
    for tap in range(weight.shape[1]):
        sampled += weight[:, tap, None] * flat[index[:, tap]]
    lengths = np.sqrt(np.einsum("nd,nd->n", sampled, sampled))
    sampled /= np.maximum(lengths, np.float32(1e-12))[:, None]
    return sampled


# The backend of `select` that needs only NumPy.
NUMPY = Backend(gather_probability, find_maxima, sample_descriptors)


def _kernel(fraction: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """Compute weights (taps, 2, N) of the neighbours of positions with fractions (2, N)."""
    if interpolation == "bilinear":
        return np.stack([1 - fraction, fraction])
    # Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP, 1981.
    near = np.stack([fraction, 1 - fraction])
    far = near + 1
    a = BICUBIC_A
    inner = ((a + 2) * near - (a + 3)) * near**2 + 1
    outer = ((far - 5) * far + 8) * far * a - 4 * a
    return np.concatenate([outer[:1], inner, outer[1:]])
