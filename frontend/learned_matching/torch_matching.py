"""Runs the network with PyTorch on one pair of images, with early exit and pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spslam.typing import IntArray

from .network import Assignment, AssignmentHead, ImageState, MatcherNetwork, normalised_positions

# A point without a match in the other image.
UNMATCHED = -1
# Least probability of a match.
THRESHOLD = 0.1
# Fraction of confident points at which the remaining layers are left out (paper, section 3.3).
_EXIT_FRACTION = 0.95
# A confident point with a lower probability of having a match is left out of later layers.
_PRUNED_MATCHABILITY = 0.01
# Fewer points than this are not pruned: selecting them costs more than it saves.
_LEAST_TO_PRUNE = 256


@dataclass(frozen=True)
class Adaptive:
    """When the network ends early and leaves out points.

    Attributes:
        early_exit: leave out layers once nearly all points are confident.
        pruning: leave out points that surely have no match.
    """

    early_exit: bool = True
    pruning: bool = True


def match_points(
    network: MatcherNetwork,
    points0: tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]],
    points1: tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]],
    threshold: float = THRESHOLD,
    adaptive: Adaptive | None = None,
) -> IntArray:
    """Match the points of two images, see `match_points_scored`; return `matches0` only."""
    return match_points_scored(network, points0, points1, threshold, adaptive)[0]


@torch.no_grad()
def match_points_scored(
    network: MatcherNetwork,
    points0: tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]],
    points1: tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]],
    threshold: float = THRESHOLD,
    adaptive: Adaptive | None = None,
) -> tuple[IntArray, NDArray[np.float32]]:
    """Match the points of two images.

    Args:
        network: in evaluation mode.
        points0: keypoints (N0, 2), unit descriptors (N0, D), and width and height of the image.
        points1: the same of image 1.
        threshold: least probability of a match.
        adaptive: early exit and pruning; None: neither.

    Returns:
        `matches0` (N0,) int64: indices in image 1, -1 for no match; and the probability (N0,)
        float32 of each match, 0 without one.
    """
    count0, count1 = len(points0[0]), len(points1[0])
    matches, probability = np.full(count0, -1, np.int64), np.zeros(count0, np.float32)
    if not count0 or not count1:
        return matches, probability
    device = next(network.parameters()).device
    images = [_embed(network, points, device) for points in (points0, points1)]
    kept = [torch.arange(count, device=device) for count in (count0, count1)]
    last = network.shape.layers - 1
    for index in range(last + 1):
        images = list(network.layer(index, images[0], images[1]))
        if index == last or adaptive is None:
            continue
        least = confidence_threshold(index, network.shape.layers)
        confidence = [_confidence(network, index, i) for i in images]
        if adaptive.early_exit and _confident(confidence, least) > _EXIT_FRACTION:
            last = index
            break
        if adaptive.pruning:
            for side in (0, 1):
                images[side], kept[side] = _prune(
                    network, index, images[side], kept[side], confidence[side], least
                )
    if not all(len(rows) for rows in kept):
        return matches, probability
    assignment = network.heads[last](images[0], images[1])
    found, _ = predicted_matches(assignment, threshold)
    rows = torch.nonzero(found[0] >= 0)[:, 0]
    matches[kept[0][rows].cpu().numpy()] = kept[1][found[0][rows]].cpu().numpy()
    scores = assignment.log_probability()[0, rows, found[0][rows]].exp()
    probability[kept[0][rows].cpu().numpy()] = scores.float().cpu().numpy()
    return matches, probability


def confidence_threshold(layer: int, layers: int) -> float:
    """Return the least confidence after a layer; lower for later layers (paper, section 3.3)."""
    return 0.8 + 0.1 * math.exp(-4 * layer / layers)


def _embed(
    network: MatcherNetwork,
    points: tuple[NDArray[np.float32], NDArray[np.float32], tuple[int, int]],
    device: torch.device,
) -> ImageState:
    keypoints, descriptors, size = points
    positions = normalised_positions(
        torch.from_numpy(np.ascontiguousarray(keypoints, np.float32))[None],
        torch.tensor([size], dtype=torch.float32),
    )
    given = torch.from_numpy(np.ascontiguousarray(descriptors, np.float32))[None]
    return network.embed(positions.to(device), given.to(device), None)


def _confidence(network: MatcherNetwork, index: int, image: ImageState) -> Tensor:
    """Return the probability (N,) that the match of a point is final after a layer."""
    logit: Tensor = network.confidence[index](image.states)
    return logit[0, :, 0].sigmoid()


def _confident(confidence: list[Tensor], least: float) -> float:
    return float(torch.cat(confidence).ge(least).float().mean())


def _prune(
    network: MatcherNetwork,
    index: int,
    image: ImageState,
    kept: Tensor,
    confidence: Tensor,
    least: float,
) -> tuple[ImageState, Tensor]:
    if len(kept) < _LEAST_TO_PRUNE:
        return image, kept
    head = network.heads[index]
    assert isinstance(head, AssignmentHead)
    matchable = head.matchability(image.states)[0].sigmoid()
    rows = torch.nonzero((confidence < least) | (matchable > _PRUNED_MATCHABILITY))[:, 0]
    return image.select(rows), kept[rows]


def predicted_matches(found: Assignment, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the mutual best matches with at least this probability, (B, N) and (B, M) int64.

    `UNMATCHED` stands for no match.
    """
    scores = found.log_probability()
    best, index0 = scores.max(dim=2)
    index1 = scores.argmax(dim=1)
    mutual0 = index1.gather(1, index0) == _arange(index0)
    good0 = mutual0 & (best.exp() > threshold)
    good1 = (index0.gather(1, index1) == _arange(index1)) & good0.gather(1, index1)
    none = index0.new_full((), UNMATCHED)
    return torch.where(good0, index0, none), torch.where(good1, index1, none)


def _arange(index: Tensor) -> Tensor:
    return torch.arange(index.shape[1], device=index.device).expand_as(index)
