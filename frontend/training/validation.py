"""What decides during training which weights are the best: small measurements on what is never trained with."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spslam.config import FeatureConfig

from ..keypoints import find_maxima
from ..learned import SuperPointExtractor
from ..superpoint import SuperPoint, detector_probabilities
from .homography_metrics import average_precision, localisation_scores, matching_scores, pairwise_distance
from .homography_sets import photo_pairs
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
        device = next(network.parameters()).device.type
        # The points of the network alone: steps after it would hide what it learns.
        config = FeatureConfig(max_keypoints=1000, threshold=1e-4, spread_cell=0, device=device)
        extractor = SuperPointExtractor(config, copy.deepcopy(network))
        rows = []
        for pair in self._pairs:
            features0, features1 = extractor.extract(pair.image0), extractor.extract(pair.image1)
            scores = localisation_scores(features0, features1, pair.homography, pair.image0.shape)
            if self._descriptors:
                scores |= matching_scores(features0, features1, pair.homography, pair.image0.shape)
            rows.append(scores)
        means = {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
        metric = means["repeatability"] + means.get("matching_score", 0.0)
        return {"metric": metric, **means}


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
