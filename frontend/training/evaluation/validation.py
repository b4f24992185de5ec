"""Validation during training, on held-out data: it decides which weights are the best."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spslam.config import FeatureConfig
from spslam.frame import Features, unit_descriptors

from ...extractors.superpoint_extractor import SuperPointExtractor
from ...matching.matching import DescriptorMatcher
from ...superpoint.keypoints import DEFAULT_MAX_DESCRIPTOR_DISTANCE
from ...superpoint.superpoint import SuperPoint
from ..data.homography_sets import ImagePair, photo_pairs
from .homography_metrics import (
    CORRECT_PX,
    localisation_scores,
    matching_scores,
    warp_points,
)
from .shapes_evaluation import LabelledImages, detector_of, evaluate_shapes

# Fraction of the true matches that the largest descriptor distance of a network accepts.
_TRUE_FRACTION = 0.95


class ShapeValidation:
    """Mean average precision of corners on synthetic shapes, clean and noisy (a `Validation`).

    Args:
        shapes: shapes that are not trained with.
    """

    def __init__(self, shapes: LabelledImages) -> None:
        self._shapes = shapes

    def __call__(self, network: SuperPoint) -> dict[str, float]:
        """Return both mAP; `metric` is their mean."""
        extractor = _extractor(network, subpixel=False, border=0)
        found = evaluate_shapes(detector_of(extractor), self._shapes)
        clean, noisy = found["clean"]["map"], found["noisy"]["map"]
        return {"metric": (clean + noisy) / 2, "map_clean": clean, "map_noisy": noisy}


class PairValidation:
    """Repeatability and matching on held-out photographs with known warps (a `Validation`).

    Args:
        photos: held-out photographs.
        limit: most pairs.
        descriptors: whether descriptors are evaluated too.
        seed: seed of the warps.
    """

    def __init__(self, photos: list[Path], limit: int, descriptors: bool, seed: int = 0) -> None:
        self._pairs = list(photo_pairs(photos, limit, seed))
        self._descriptors = descriptors

    def __call__(self, network: SuperPoint) -> dict[str, float]:
        """Return the metrics; `metric` is repeatability, or its sum with M.score and mma_1."""
        rows = []
        for pair, features0, features1 in self._extracted(network):
            scores = localisation_scores(features0, features1, pair.homography, pair.image0.shape)
            if self._descriptors:
                scores |= matching_scores(features0, features1, pair.homography, pair.image0.shape)
            rows.append(scores)
        means = {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]}
        # Only mma_1 rewards precise points; the other two accept errors of up to 3 px.
        metric = means["repeatability"] + means.get("matching_score", 0.0) + means.get("mma_1", 0.0)
        return {"metric": metric, **means}

    def matching_distance(self, network: SuperPoint) -> float:
        """Return the distance below which 95 % of the true matches lie.

        Matches are mutual nearest neighbours, true within 3 px. A high quantile is chosen because
        tracking rejects false matches later, but cannot recover true matches that are dropped here.
        """
        distances, true = [], []
        for pair, features0, features1 in self._extracted(network):
            descriptors0, descriptors1 = (
                unit_descriptors(found.descriptors) for found in (features0, features1)
            )
            matches = DescriptorMatcher().match(descriptors0, descriptors1, np.inf)
            rows = np.flatnonzero(matches >= 0)
            moved = warp_points(features0.keypoints[rows], pair.homography)
            errors = np.linalg.norm(moved - features1.keypoints[matches[rows]], axis=1)
            distances.append(
                np.linalg.norm(descriptors0[rows] - descriptors1[matches[rows]], axis=1)
            )
            true.append(errors <= CORRECT_PX)
        found = np.concatenate(distances)[np.concatenate(true)]
        return (
            max(round(float(np.quantile(found, _TRUE_FRACTION)), 2), 0.01)
            if len(found)
            else DEFAULT_MAX_DESCRIPTOR_DISTANCE
        )

    def _extracted(self, network: SuperPoint) -> Iterator[tuple[ImagePair, Features, Features]]:
        extractor = _extractor(network)
        for pair in self._pairs:
            yield pair, extractor.extract(pair.image0), extractor.extract(pair.image1)


def _extractor(network: SuperPoint, subpixel: bool = True, border: int = 4) -> SuperPointExtractor:
    device = next(network.parameters()).device.type
    config = FeatureConfig(
        max_keypoints=1000,
        # Low, so that every network gives the same number of points.
        threshold=1e-4,
        spread_cell=0,
        subpixel=subpixel,
        border=border,
        device=device,
    )
    return SuperPointExtractor(config, copy.deepcopy(network))
