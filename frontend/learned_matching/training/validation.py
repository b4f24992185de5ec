"""Validation of a matcher during training, on held-out photographs and worlds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spslam.frame import unit_descriptors
from spslam.typing import IntArray

from ..evaluation.metrics import MatchPair, evaluate_matcher
from ..network import MatcherNetwork
from ..torch_matching import THRESHOLD, match_points

# Metrics of a group whose mean is its part of `metric`: the area for homographies, for poses.
_CHOSEN = {"photos": ("auc_3", "precision", "recall"), "worlds": ("auc_10", "precision", "recall")}


class MatcherValidation:
    """Precision, recall and areas under curves of errors (a `MatcherValidation` of the trainer).

    Args:
        pairs: held-out pairs.
        threshold: least probability of a match.
    """

    def __init__(self, pairs: Sequence[MatchPair], threshold: float = THRESHOLD) -> None:
        self._pairs, self._threshold = pairs, threshold

    def __call__(self, network: MatcherNetwork) -> dict[str, float]:
        """Return the metrics of each group; `metric` is the mean of those that count."""
        found = evaluate_matcher(
            lambda pair: match_pair(network, pair, self._threshold), self._pairs
        )
        values = {
            f"{group}_{key}": value
            for group, metrics in found.items()
            for key, value in metrics.items()
            if key != "pairs"
        }
        counted = [
            values[f"{group}_{key}"]
            for group, keys in _CHOSEN.items()
            for key in keys
            if f"{group}_{key}" in values
        ]
        return {"metric": float(np.mean(np.nan_to_num(counted))) if counted else 0.0, **values}


def match_pair(network: MatcherNetwork, pair: MatchPair, threshold: float = THRESHOLD) -> IntArray:
    """Match the views of a pair with all layers: `matches0` (N0,) int64."""
    size = (pair.shape[1], pair.shape[0])
    sides = [
        (
            view.features.keypoints.astype(np.float32),
            unit_descriptors(view.features.descriptors),
            size,
        )
        for view in (pair.view0, pair.view1)
    ]
    return match_points(network, sides[0], sides[1], threshold)
