"""Evaluation of extractors: photographs, homography sets, synthetic shapes, camera motion."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from spslam.config import FeatureConfig, describe_errors
from spslam.errors import ConfigError
from spslam.interfaces import Extractor

from ...extractors.registry import create_extractor
from ..data.homography_sets import PHOTO_SIZE, ImagePair, photo_pairs, scene_pairs
from .evaluation_report import Result, markdown_table, plot, write_json
from .homography_metrics import METRICS, Estimator, localisation_scores, matching_scores
from .pose_evaluation import evaluate_pose
from .shapes_evaluation import OPENCV_DETECTORS, LabelledImages, detector_of, evaluate_shapes

__all__ = [
    "EvaluationData",
    "evaluate_extractor",
    "evaluate_pairs",
    "markdown_table",
    "plot",
    "write_json",
]

_log = logging.getLogger(__name__)

Frames = Iterable[tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]]

# Height and width of the images for matching metrics of homography sets, pixels.
MATCHING_SIZE = (480, 640)
# Description of the protocol, part of every result.
PROTOCOL = (
    "Photos: 240x320, each with a view of a patch of it (side 0.75 to 0.95, corners moved by up to "
    "0.08 of it, turned by up to 20 degrees), blurred (sigma 0.1 to 1.2 px), gamma 0.6 to 1.6, "
    "contrast 0.4 to 1.5, brightness +-50 of 255, noise sigma 2 to 15 of 255. Scenes: image 1 with "
    "each other image; repeatability at 240x320, the rest at 480x640. Keypoints: the best 1000 per "
    "image, not spread, NMS 4 (networks; threshold 1e-4), only in the area that both images share. "
    "Repeatability and MLE: best 300 after NMS 4 for every extractor, 3 px, both directions. "
    "Matches: mutual nearest neighbours without threshold. Matching score: fraction of points "
    "matched within 3 px, both directions. NN mAP: nearest neighbours within 3 px, ranked by "
    "distance, both directions. Homography: {estimator} 3 px, mean corner error. AUC: cumulative "
    "corner error up to 5 px. Means over pairs."
)
# Features for all metrics but shapes. A low threshold gives every network the same number of
# points.
_FEATURES: dict[str, Any] = {
    "max_keypoints": 1000,
    "nms_radius": 4,
    "threshold": 1e-4,
    "spread_cell": 0,
}
# Changes for shapes: whole pixels as the detector finds them, up to the border.
_CORNERS: dict[str, Any] = {"subpixel": False, "border": 0, "threshold": 5e-4}


@dataclass(frozen=True, eq=False)
class EvaluationData:
    """Data to evaluate on; sets that are not given are left out.

    Attributes:
        photos: photographs that were not trained with.
        limit: most photographs used, evenly spread.
        seed: seed for the choice of photographs and for their views.
        homography: folder in the Oxford or HPatches layout.
        shapes: synthetic shapes (`evaluation_shapes`).
        estimator: estimator of homographies.
        frames: undistorted image, `T_world_cam` and camera matrix of each frame of a sequence
            (`evaluate_pose`); iterated once per extractor.
    """

    photos: Sequence[Path] = ()
    limit: int = 70
    seed: int = 0
    homography: Path | None = None
    shapes: LabelledImages | None = None
    estimator: Estimator = "ransac"
    frames: Frames | None = None


def evaluate_extractor(
    name: str,
    data: EvaluationData,
    weights: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    label: str | None = None,
) -> Result:
    """Compute all metrics of one extractor.

    Args:
        name: name in the registry.
        data: data to evaluate on.
        weights: weights of a network; None: the built-in ones.
        overrides: values of `FeatureConfig` that replace the protocol's.
        label: name in tables and plots; None: the names of extractor and weights.

    Returns:
        `extractor`, `weights`, `label`, `protocol`, `engine` (for example `openvino int8`), `pairs`
        (number by set), and, as far as data are given: `photos` (`METRICS`), `homography` (the same
        by scene), `shapes` (`evaluate_shapes`, with the OpenCV detectors under `beside`) and `pose`
        (`evaluate_pose`). Ready for JSON: None where a metric is undefined.

    Raises:
        ConfigError: unknown extractor or override.
        WeightsError: the weights cannot be used.
        DatasetError: images cannot be read.
    """
    overrides = dict(overrides or {})
    settings = {
        "extractor": name,
        "weights": None if weights is None else str(weights),
        **_FEATURES,
        **overrides,
    }
    extractor = create_extractor(_feature_config(settings))
    label = label or (name if weights is None else f"{name} {Path(weights).stem}")
    protocol = PROTOCOL.format(estimator=data.estimator.upper()) + "".join(
        f" {key}: {value}." for key, value in overrides.items()
    )
    result: Result = {
        "extractor": name,
        "weights": settings["weights"],
        "label": label,
        "protocol": protocol,
    }
    result |= {"engine": extractor.engine, "pairs": {}}
    if data.photos:
        _log.info("%s: photos", label)
        pairs = photo_pairs(data.photos, data.limit, data.seed, PHOTO_SIZE)
        scores, counts = evaluate_pairs(extractor, ((pair, pair) for pair in pairs), data.estimator)
        result["photos"] = scores["photos"]
        result["pairs"] |= counts
    if data.homography is not None:
        _log.info("%s: %s", label, data.homography)
        small, large = (scene_pairs(data.homography, size) for size in (PHOTO_SIZE, MATCHING_SIZE))
        result["homography"], counts = evaluate_pairs(
            extractor, zip(small, large, strict=True), data.estimator
        )
        result["pairs"] |= counts
    if data.shapes is not None:
        _log.info("%s: shapes", label)
        raw = create_extractor(_feature_config({**settings, **_CORNERS}))
        result["shapes"] = evaluate_shapes(detector_of(raw), data.shapes)
        result["shapes"]["beside"] = {
            name: evaluate_shapes(detect, data.shapes) for name, detect in OPENCV_DETECTORS.items()
        }
    if data.frames is not None:
        _log.info("%s: pose", label)
        result["pose"] = evaluate_pose(extractor, data.frames)
    plain: Result = _plain(result)
    return plain


def evaluate_pairs(
    extractor: Extractor,
    pairs: Iterable[tuple[ImagePair, ImagePair]],
    estimator: Estimator = "ransac",
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """Compute the mean `METRICS` of pairs by group, and the number of pairs by group.

    Args:
        extractor: extractor to evaluate; it should give many points, not spread.
        pairs: each pair at the size for repeatability and at the size for matching; the same object
            if the sizes are equal.
        estimator: estimator of homographies.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for small, large in pairs:
        features = [extractor.extract(image) for image in (large.image0, large.image1)]
        matching = matching_scores(
            features[0], features[1], large.homography, large.image0.shape, estimator
        )
        if small is not large:
            features = [extractor.extract(image) for image in (small.image0, small.image1)]
        localisation = localisation_scores(
            features[0], features[1], small.homography, small.image0.shape
        )
        rows.setdefault(small.group, []).append(localisation | matching)
    means = {
        group: {key: _mean([row[key] for row in found]) for key in METRICS}
        for group, found in rows.items()
    }
    return means, {group: len(found) for group, found in rows.items()}


def _feature_config(settings: Mapping[str, Any]) -> FeatureConfig:
    try:
        return FeatureConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"features: {describe_errors(error)}") from None


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
