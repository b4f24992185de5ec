"""Comparison of matchers on the same features: nearest neighbours and learned matchers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time

import numpy as np

from spslam.interfaces import Extractor, Matcher
from spslam.io.markdown import format_table
from spslam.typing import FloatArray, IntArray, UInt8Array

from ...matching.matching import DescriptorMatcher
from ...training.evaluation.homography_metrics import Estimator
from ..data.view_config import ViewConfig
from ..data.views import PosedImage
from .evaluation_pairs import (
    frame_match_pairs,
    photo_match_pairs,
    scene_match_pairs,
    world_match_pairs,
)
from .metrics import HOMOGRAPHY_AUC_PX, POSE_AUC_DEG, MatchPair, pair_metrics, summary

# Height and width of the images of scenes, pixels.
SCENE_SIZE = (480, 640)
PROTOCOL = (
    "Same features and estimator for every matcher. Photos: warped as in the training of matchers, "
    "by up to {rotation:g} degrees, with photometric changes. Scenes: image 1 with each other "
    "image at 480x640. Worlds: pairs of views 30 to 60 degrees apart, exact depth. Frames: of a "
    "recording, axes 15 to 45 degrees and positions 0.2 m apart or more; what their points show is "
    "unknown. Precision: "
    "matches whose points reproject within 3 px in both images, of those that can be judged. "
    "Recall: of the pairs of points that are each other's nearest within 3 px. Homography: "
    "{estimator}, mean corner error. Pose: essential matrix by MAGSAC, larger of the angles of "
    "rotation and direction. nn: mutual nearest neighbours; nn + distance: those nearer than the "
    "extractor's largest distance."
)
Results = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, eq=False)
class ComparisonData:
    """Data to compare on; sets that are not given are left out.

    Attributes:
        photos: photographs that were not trained with.
        limit: most photographs used, evenly spread.
        scenes: folder in the Oxford or HPatches layout.
        spots: views of spots of worlds that were not trained with.
        frames: recording with true poses, see `frame_match_pairs`.
        views: size, warps and photometric changes of photographs and worlds.
    """

    photos: Sequence[Path] = ()
    limit: int = 70
    scenes: Path | None = None
    spots: Iterable[Sequence[PosedImage]] = ()
    frames: Iterable[tuple[UInt8Array, FloatArray, FloatArray]] = ()
    views: ViewConfig = field(default_factory=ViewConfig)

    def pairs(self, extractor: Extractor) -> Iterable[MatchPair]:
        """Yield the pairs of all sets."""
        if self.photos:
            yield from photo_match_pairs(self.photos, self.limit, extractor, self.views)
        if self.scenes is not None:
            yield from scene_match_pairs(self.scenes, extractor, SCENE_SIZE)
        yield from world_match_pairs(self.spots, extractor, self.views)
        yield from frame_match_pairs(self.frames, extractor, self.limit)


def nearest_neighbours(extractor: Extractor) -> dict[str, Matcher]:
    """Return the matchers to compare with, by name."""
    distance = extractor.max_descriptor_distance
    return {"nn": DescriptorMatcher(), "nn + distance": DescriptorMatcher(distance)}


def compare_matchers(
    matchers: Mapping[str, Matcher],
    extractor: Extractor,
    data: ComparisonData,
    estimator: Estimator = "magsac",
) -> Results:
    """Compute the metrics of matchers on the same features.

    Returns:
        For each matcher and group the metrics of `evaluate_matcher`, and `ms`, the processor time
        of matching a pair, milliseconds.
    """
    rows: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in matchers}
    for pair in data.pairs(extractor):
        for name, matcher in matchers.items():
            begun = process_time()
            matches = match_pair(matcher, pair)
            seconds = process_time() - begun
            metrics = pair_metrics(matches, pair, estimator) | {"seconds": seconds}
            rows[name].setdefault(pair.group, []).append(metrics)
    return {
        name: {
            group: summary(found)
            | {"ms": 1e3 * float(np.median([row["seconds"] for row in found]))}
            for group, found in groups.items()
        }
        for name, groups in rows.items()
    }


def match_pair(matcher: Matcher, pair: MatchPair) -> IntArray:
    """Match the views of a pair: `matches0` (N0,)."""
    size = (pair.shape[1], pair.shape[0])
    return matcher.match_images(pair.view0.features, pair.view1.features, size, size)


def comparison_table(results: Results) -> str:
    """Return the results as two Markdown tables: homographies and poses."""
    tables = []
    for limits, unit in ((HOMOGRAPHY_AUC_PX, "px"), (POSE_AUC_DEG, "°")):
        keys = [f"auc_{limit:g}" for limit in limits]
        good = "corner error ≤ 3 px" if unit == "px" else "pose error ≤ 10°"
        heads = ["set", "matcher", "precision", "recall", "matches", good]
        heads += [f"AUC@{limit:g}{unit}" for limit in limits] + ["pairs", "CPU ms"]
        groups = {group for found in results.values() for group in found}
        rows = [
            [group, name, *_cells(found[group], keys)]
            for group in sorted(groups)
            for name, found in results.items()
            if group in found and all(key in found[group] for key in keys)
        ]
        if rows:
            tables.append(format_table(heads, rows, align="ll" + "r" * (len(heads) - 2)))
    return "\n\n".join(tables) + "\n"


def _cells(found: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    rates = [
        "–" if np.isnan(found[key]) else f"{found[key]:.3f}" for key in ("precision", "recall")
    ]
    areas = [f"{found[key]:.3f}" for key in ("good", *keys)]
    return [
        *rates,
        f"{found['matches']:.0f}",
        *areas,
        f"{found['pairs']:.0f}",
        f"{found['ms']:.0f}",
    ]
