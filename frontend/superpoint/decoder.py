"""Key points and descriptors from the maps of an exported SuperPoint. Needs NumPy and nothing else.

A file to be copied into other projects (MIT licence, spslam contributors): `spslam export WEIGHTS --to onnx` writes the
network, a runtime such as ONNX Runtime runs it, `padded` and `decode` do what spslam's own extractor does before and
after. They give its key points (positions within 0.01 px, but for ties in the last bits) and its descriptors.
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
# A point's probability lies in the 5×5 patch around it. On warped photographs the localisation loss took positions by
# its centre of mass from 1.48 to 1.18 px; moving them on to corners of the image, which weights from before that loss
# need, costs repeated points and is worse in tracking.
HEAT_RADIUS = 2
GATHER_SIGMA_PX = 1.0
# The bicubic kernel's free parameter, as in PyTorch, OpenCV and ONNX.
BICUBIC_A = -0.75
# Names of the settings of `decode`, and of the extractor's configuration.
SETTINGS = ("max_keypoints", "threshold", "nms_radius", "border", "subpixel", "spread_cell")


@dataclass(frozen=True)
class Sampling:
    """How descriptors are read from the coarse map; it belongs to the weights that were trained with it.

    Attributes:
        interpolation: `bicubic` (the paper) or `bilinear` (both public releases).
        align_corners: False: cell i is centred on pixel 8i + 3.5. True: the rule of Magic Leap's releases,
            which stretches the map a little (cell centres agree at the left and upper border only).
    """

    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    align_corners: bool = False

    @classmethod
    def parse(cls, text: str) -> Sampling:
        """The rule that weights and models name in their metadata, such as `bicubic grid_sample, align_corners=False`.

        Raises:
            ValueError: it names none.
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
        """Coordinates (N, 2) in a descriptor map of `size` (width, height) cells of pixels (N, 2)."""
        shifted = (pixels - (CELL / 2 - 0.5)) / CELL
        if not self.align_corners:
            return shifted
        cells = np.asarray(size, dtype=np.float64)
        return shifted * CELL * (cells - 1) / (cells * CELL - CELL / 2 - 0.5)

    def neighbours(
        self, pixels: NDArray[np.float64], size: tuple[int, int]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The T (4 or 16) cells around each pixel and their weights, both (N, T).

        Args:
            pixels: (N, 2) x y.
            size: (width, height) of the map, cells; cells are counted row by row, those outside have the weight 0.
        """
        # Pixels last: NumPy is slow where the last axis has four elements.
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
    """A grey image (H, W) whose last row and column repeat up to multiples of 8, as the network wants it."""
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
    """Key points (N, 2) x y in pixels, their scores (N,) and unit descriptors (N, D), best score first, of one image.

    Pixel (0, 0) is the centre of the first one.

    Args:
        scores: the model's, of this image (H', W'), H' and W' multiples of 8.
        descriptors: the model's, of this image (H'/8, W'/8, D).
        size: height and width of the image before it was padded, pixels.
        sampling: `descriptor_sampling` of the model's metadata.
        max_keypoints: most key points.
        threshold: least score.
        nms_radius: half the side of the square that a point keeps free of others, pixels.
        border: margin without key points, pixels.
        subpixel: refine positions.
        spread_cell: side of the grid cells that points are spread over, pixels; 0: the best, wherever they are.
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
    """The steps of `select` that take time, which other libraries do faster than NumPy.

    Attributes:
        gather_probability, find_maxima, sample_descriptors: as the functions here.
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
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """As `decode`, of scores `heat` (H, W) of the image before it was padded."""
    gathered = backend.gather_probability(heat)
    rows, columns = backend.find_maxima(gathered, threshold, nms_radius, border)
    keypoints = np.stack([columns, rows], axis=1).astype(np.float32)
    scores = gathered[rows, columns]
    kept = spread_top_k(keypoints, scores, max_keypoints, spread_cell)
    # By `take`: indexing of rows of two takes five times as long.
    keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
    if subpixel:
        keypoints = refine_on_heat(heat, rows[kept], columns[kept])
        far_corner = np.array(heat.shape[::-1], np.float32) - 1 - border
        keypoints = np.clip(keypoints, np.float32(border), far_corner)
        # Two points may have moved to one place.
        kept = first_at_each_pixel(keypoints, scores)
        keypoints, scores = np.take(keypoints, kept, axis=0), scores[kept]
    return keypoints, scores, backend.sample_descriptors(descriptors, keypoints, sampling)


def gather_probability(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """How probable a point is around each pixel of scores (H, W): their sum, weighted by a Gaussian that is 1 at the
    centre; a point between pixels shares its probability among them.
    """
    weights = gathering_weights()
    gathered = heat
    for _ in range(2):
        # Along the first axis, then along the other.
        above = np.pad(gathered, ((HEAT_RADIUS, HEAT_RADIUS), (0, 0)))
        shares = [
            weight * above[step : step + len(gathered)] for step, weight in enumerate(weights)
        ]
        gathered = np.ascontiguousarray(np.sum(shares, axis=0).T)
    capped: NDArray[np.float32] = np.minimum(gathered, np.float32(1))
    return capped


def gathering_weights() -> NDArray[np.float32]:
    """Weights along a row or a column of the Gaussian of `gather_probability`, 1 at the centre."""
    steps = np.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    return np.exp(-0.5 * (steps / GATHER_SIGMA_PX) ** 2).astype(np.float32)


def find_maxima(
    heat: NDArray[np.float32], threshold: float, nms_radius: int, border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the maxima above a threshold that greedy non-maximum suppression keeps, best first.

    A maximum is not less than any of the eight pixels around it. Greedy: the best is kept and silences the square of
    `nms_radius` pixels around it, and so on; ties go to the upper, then the left one. The border is cut off in the end.
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
    """The highest value of each pixel and the eight around it, of (H, W) ones that are not negative."""
    wide = np.pad(heat, 1)
    high = np.maximum(np.maximum(wide[:-2], wide[1:-1]), wide[2:])
    highest: NDArray[np.float32] = np.maximum(np.maximum(high[:, :-2], high[:, 1:-1]), high[:, 2:])
    return highest


def refine_on_heat(
    heat: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Sub-pixel positions (N, 2) x y of maxima: the centre of mass of the 5×5 patch around each (soft-argmax)."""
    steps = np.arange(-HEAT_RADIUS, HEAT_RADIUS + 1)
    height, width = heat.shape
    # Points last: sums over the first axes are many times as fast.
    y = np.clip(rows + steps[:, None], 0, height - 1)
    x = np.clip(columns + steps[:, None], 0, width - 1)
    # By one index: by two NumPy takes three times as long.
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
    """Ascending indices of the best point (the first of equals) of those (N, 2) that round to one pixel."""
    pixels = np.rint(keypoints)
    # Nearly always each has one of its own, and one sort says so.
    in_order = np.sort(pixels.astype(np.int64) @ np.array([1, 1 << 32]))
    if np.all(in_order[1:] != in_order[:-1]):
        return np.arange(len(pixels))
    order = np.lexsort((-scores, pixels[:, 0], pixels[:, 1]))
    ordered = pixels[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    return np.sort(order[new])


def spread_top_k(
    keypoints: NDArray[np.float32], scores: NDArray[np.float32], count: int, cell: int
) -> NDArray[np.int64]:
    """Indices of at most `count` points that are spread over the image, best score first.

    Half of them are taken in rounds: the best point of every square cell of `cell` pixels, then the second
    best, and so on, so that places of little texture keep points. The best of the rest fill up: all in rounds
    would cost an eighth of the matches (measured on KITTI), half in rounds costs a fiftieth. Ties go to the
    upper, then the left point.

    Args:
        keypoints: (N, 2) x y, pixels.
        scores: (N,).
        count: how many to keep.
        cell: pixels; 0 takes the best scores wherever they are.
    """
    order = _best_first(keypoints, scores)
    if len(order) <= count or cell <= 0:
        return order[:count]
    column, row = np.floor(keypoints.T[:, order] / cell).astype(np.int64)
    round_of = _rank_in_group(
        (row - row.min()) * (column.max() - column.min() + 1) + column - column.min()
    )
    chosen = np.zeros(len(order), np.bool_)
    chosen[stable_order(round_of)[: count // 2]] = True
    chosen[np.flatnonzero(~chosen)[: count - count // 2]] = True
    return order[chosen]


def _best_first(keypoints: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The order of points (N, 2) by score, of equals by row, then by column."""
    x, y = keypoints.T
    tie = scores[1:] == scores[:-1]
    later = (y[1:] > y[:-1]) | ((y[1:] == y[:-1]) & (x[1:] >= x[:-1]))
    # To see that they are in order already, as maxima are, is much faster than sorting by three keys.
    if np.all((scores[1:] < scores[:-1]) | (tie & later)):
        return np.arange(len(scores))
    return np.lexsort((x, y, -scores))


def stable_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of small numbers (N,) that are not negative, equals as they come; NumPy sorts short types by radix."""
    return np.argsort(values.astype(np.min_scalar_type(int(values.max()))), kind="stable")


def _rank_in_group(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many earlier ones are in the group of each of (N,) groups, small numbers that are not negative."""
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
    """Unit descriptors (N, D) at pixels (N, 2), interpolated in a map (rows, columns, D) of any length, whose cells are
    normalised first; around the map are zeros.
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


NUMPY = Backend(gather_probability, find_maxima, sample_descriptors)


def _kernel(fraction: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """Weights (taps, 2, N) of the neighbours of positions with these fractions (2, N)."""
    if interpolation == "bilinear":
        return np.stack([1 - fraction, fraction])
    # Keys, Cubic convolution interpolation for digital image processing, 1981.
    near = np.stack([fraction, 1 - fraction])
    far = near + 1
    a = BICUBIC_A
    inner = ((a + 2) * near - (a + 3)) * near**2 + 1
    outer = ((far - 5) * far + 8) * far * a - 4 * a
    return np.concatenate([outer[:1], inner, outer[1:]])
