"""Evaluation of an adaptation: metrics of the old and the new weights on held-out images."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from spslam.errors import TrainingError
from spslam.io.files import write_atomic

from ...photos import find_photos
from ..evaluation.evaluate import EvaluationData, evaluate_extractor
from ..evaluation.homography_metrics import METRICS
from ..processes import Processes
from .session import Session

# Pairs of views that the evaluation aims at, and most held-out images that it uses.
_PAIRS = 60
# Most random views of each image that reach this number of pairs.
_MOST_VIEWS = 6


def verdict(before: dict[str, float | None], after: dict[str, float | None]) -> tuple[bool, str]:
    """Return whether repeatability or matching score improved, and a summary for the user."""
    changes = []
    better = []
    for key, name in (("repeatability", "repeatability"), ("matching_score", "matching score")):
        old, new = before.get(key) or 0.0, after.get(key) or 0.0
        changes.append(f"{name} {old:.3f} -> {new:.3f}")
        better.append(new > old)
    if all(better):
        words = "the new weights are better"
    elif any(better):
        words = "only one of them is better with the new weights"
    else:
        words = "the new weights are NOT better: keep the old ones, or give more images or minutes"
    return any(better), f"held-out images: {', '.join(changes)}; {words}"


def evaluate_weights(run: Session, when: str, weights: Path, folder: Path) -> dict[str, Any]:
    """Return all metrics on the held-out images; measure those of `when` if the weights changed."""
    path = run.files.evaluation
    found: dict[str, Any] = read_evaluation(path) if path.is_file() else {}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found.get(when, {}).get("weights_sha256") != digest:
        run.say(f"evaluation {when}")
        found[when] = {
            "weights_sha256": digest,
            **_metrics(weights, find_photos(folder), run.processes, when),
        }
        write_atomic(path, json.dumps(found, indent=2) + "\n")
    return found


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read the metrics that `evaluate_weights` wrote.

    Raises:
        TrainingError: the file cannot be read or holds something else.
    """
    try:
        # Undefined metrics are NaN, which strict JSON does not allow: read them leniently.
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not (
            isinstance(found, dict) and all(isinstance(value, dict) for value in found.values())
        ):
            raise ValueError("values other than metrics")
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"cannot read metrics from {path} ({error}): remove it") from None
    return found


def _metrics(weights: Path, photos: list[Path], processes: Processes, label: str) -> dict[str, Any]:
    """Return mean metrics over one random view of each image, or several views of few images."""
    overrides = {} if processes.device.type == "cpu" else {"device": processes.device.type}
    views = min(math.ceil(_PAIRS / len(photos)), _MOST_VIEWS)
    results = [
        evaluate_extractor(
            "superpoint", EvaluationData(photos, _PAIRS, seed), weights, overrides, label
        )
        for seed in range(views)
    ]
    scores = {key: _mean([result["photos"][key] for result in results]) for key in METRICS}
    pairs = sum(result["pairs"]["photos"] for result in results)
    return {
        "images": len(photos),
        "pairs": pairs,
        "protocol": results[0]["protocol"],
        "photos": scores,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
