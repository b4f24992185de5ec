"""What decides during training which weights are the best: small measurements on what is never trained with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.frame import Features, unit_descriptors

from ..keypoints import find_maxima
from ..learned import SuperPointExtractor
from ..matching import DescriptorMatcher
from ..superpoint import SuperPoint, detector_probabilities
from .homography_metrics import (
    CORRECT_PX,
    average_precision,
    localisation_scores,
    matching_scores,
    pairwise_distance,
    warp_points,
)
from .homography_sets import ImagePair, photo_pairs
from .shapes import ShapeDataset

Corners = NDArray[np.float32]

CORNER_PX = 4.0
_BATCH = 32


class ShapeValidation:
    """Mean average precision of corners of synthetic shapes (a `Validation`).

    Args:
        shapes: others than those trained with.
    """

    def __init__(self, shapes: ShapeDataset) -> None:
        self._shapes = shapes

    def __call__(self, network: SuperPoint) -> dict[str, float]:
        """`metric`: mAP at 4 px."""
        device = next(network.parameters()).device
        detections: list[tuple[Corners, Corners]] = []
        for start in range(0, len(self._shapes), _BATCH):
            images = torch.from_numpy(np.array(self._shapes.images[start : start + _BATCH])).to(device)
            with torch.inference_mode():
                heat = detector_probabilities(network.detector_logits(images[:, None].float() / 255)).cpu().numpy()
            detections += [_detect(probabilities) for probabilities in heat]
        truth = [self._shapes.corners(index) for index in range(len(self._shapes))]
        return {"metric": mean_average_precision(detections, truth)}


class PairValidation:
    """Repeatability and matching of held-out photographs warped by known homographies (a `Validation`).

    Args:
        photos: held out.
        limit: most pairs.
        descriptors: judge them, too.
        seed: of the warps.
    """

    def __init__(self, photos: list[Path], limit: int, descriptors: bool, seed: int = 0) -> None:
        self._pairs = list(photo_pairs(photos, limit, seed))
        self._descriptors = descriptors

    def __call__(self, network: SuperPoint) -> dict[str, float]:
        """`metric`: repeatability, plus matching score where descriptors count."""
        rows = []
        for pair, features0, features1 in self._extracted(network):
            scores = localisation_scores(features0, features1, pair.homography, pair.image0.shape)
            if self._descriptors:
                scores |= matching_scores(features0, features1, pair.homography, pair.image0.shape)
            rows.append(scores)
        means = {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
        metric = means["repeatability"] + means.get("matching_score", 0.0)
        return {"metric": metric, **means}

    def matching_distance(self, network: SuperPoint) -> float:
        """The distance that separates true from false matches best.

        Youden, Index for rating diagnostic tests, 1950: the largest difference between the share of true matches
        (mutual nearest neighbours within 3 px) below it and the share of false ones.
        """
        distances, true = [], []
        for pair, features0, features1 in self._extracted(network):
            descriptors0, descriptors1 = (unit_descriptors(found.descriptors) for found in (features0, features1))
            matches = DescriptorMatcher().match(descriptors0, descriptors1, np.inf)
            rows = np.flatnonzero(matches >= 0)
            moved = warp_points(features0.keypoints[rows], pair.homography)
            errors = np.linalg.norm(moved - features1.keypoints[matches[rows]], axis=1)
            distances.append(np.linalg.norm(descriptors0[rows] - descriptors1[matches[rows]], axis=1))
            true.append(errors <= CORRECT_PX)
        return best_threshold(np.concatenate(distances), np.concatenate(true))

    def _extracted(self, network: SuperPoint) -> Iterator[tuple[ImagePair, Features, Features]]:
        device = next(network.parameters()).device.type
        # As many points of every network, however it is calibrated.
        config = FeatureConfig(max_keypoints=1000, threshold=1e-4, spread_cell=0, device=device)
        extractor = SuperPointExtractor(config, copy.deepcopy(network))
        for pair in self._pairs:
            yield pair, extractor.extract(pair.image0), extractor.extract(pair.image1)


def best_threshold(distances: NDArray[np.floating], true: NDArray[np.bool_]) -> float:
    """The distance (N,) that most of the true ones lie below and few of the others, rounded to 0.01."""
    order = np.argsort(distances)
    below = np.cumsum(true[order]) / max(true.sum(), 1) - np.cumsum(~true[order]) / max((~true).sum(), 1)
    return max(round(float(distances[order][below.argmax()]), 2), 0.01)


def mean_average_precision(
    detections: list[tuple[Corners, Corners]], truth: list[Corners], correct_px: float = CORNER_PX
) -> float:
    """Average precision of each image with corners, averaged.

    Args:
        detections: key points (N, 2) and scores (N,) of each image, best first.
        truth: corners (M, 2) of each image.
        correct_px: a detection this near to a corner that no better one has taken is correct.
    """
    precisions = [
        average_precision(correct_detections(keypoints, corners, correct_px), len(corners))
        for (keypoints, _), corners in zip(detections, truth, strict=True)
        if len(corners)
    ]
    return float(np.mean(precisions)) if precisions else 0.0


def correct_detections(keypoints: Corners, corners: Corners, correct_px: float) -> NDArray[np.bool_]:
    """Which detections (N, 2), best first, hit a corner (M, 2) that none before has taken, (N,)."""
    correct = np.zeros(len(keypoints), np.bool_)
    if not len(corners) or not len(keypoints):
        return correct
    distance = pairwise_distance(keypoints, corners)
    for row in range(len(keypoints)):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= correct_px:
            correct[row] = True
            distance[:, nearest] = np.inf
    return correct


def _detect(heat: NDArray[np.float32]) -> tuple[Corners, Corners]:
    rows, columns = find_maxima(heat, 1e-3, nms_radius=4, border=0)
    return np.stack([columns, rows], axis=1).astype(np.float32), heat[rows, columns]
