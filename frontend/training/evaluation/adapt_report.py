"""Report of an adaptation: metrics before and after, sample detections, training curves.

The report is one HTML file with its images embedded, so that it can be sent by e-mail.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.config import FeatureConfig
from spslam.frame import Features
from spslam.io.files import write_atomic
from spslam.io.html import render_page
from spslam.typing import UInt8Array

from ...extractors.superpoint_extractor import SuperPointExtractor
from ...superpoint.checkpoints import load_superpoint
from ..data.homography_sets import ImagePair, photo_pairs
from .homography_metrics import (
    CORRECT_PX,
    best_features,
    in_shared_area,
    nearest_distance,
    warp_points,
)

# By metric: name, meaning, whether higher is better.
_METRICS_SHOWN = {
    "repeatability": (
        "repeatability",
        "fraction of the 300 best points that are found again within 3 px",
        True,
    ),
    "mle_px": ("localisation error, px", "mean distance of the points found again", False),
    "matching_score": ("matching score", "fraction of all points that are matched correctly", True),
    "mma_3": ("matching accuracy", "fraction of the matches that are correct within 3 px", True),
    "nn_map": (
        "descriptors, mAP",
        "how well descriptor distances separate correct matches from wrong ones",
        True,
    ),
    "homography_accuracy_3": (
        "homography within 3 px",
        "fraction of the views whose homography is found",
        True,
    ),
    "homography_accuracy_1": ("homography within 1 px", "the same within 1 px", True),
}
# Pairs of views shown as samples.
_SAMPLES = 4
# Keypoints drawn in each sample.
_SAMPLE_POINTS = 150
# Magnification of sample images.
_ZOOM = 2
# Colours of keypoints that are found again or not, BGR.
_FOUND_BGR, _LOST_BGR = (80, 200, 60), (60, 90, 240)
# Smallest change of a metric marked as better or worse: the last of the three printed digits.
_LARGEST_CHANGE_SHOWN = 5e-4


@dataclass(frozen=True)
class AdaptationReport:
    """Content of the report.

    Attributes:
        title: name of the new weights.
        improved: whether to use the new weights.
        summary: one line.
        before: metrics (`METRICS`) of the old weights; None if undefined.
        after: metrics of the new weights.
        images: number of held-out images.
        pairs: number of evaluated pairs of views.
        protocol: how the metrics are measured.
        facts: settings in words, by name.
        settings: all settings, YAML.
        commands: commands that made the weights.
        created: date.
    """

    title: str
    improved: bool
    summary: str
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    images: int
    pairs: int
    protocol: str
    facts: Mapping[str, str]
    settings: str
    commands: Sequence[str]
    created: date | None = None


def write_report(
    path: Path,
    report: AdaptationReport,
    before: Path,
    after: Path,
    photos: Sequence[Path],
    log: Path,
) -> None:
    """Write the report.

    Args:
        path: path of the file (.html).
        report: content.
        before: old weights file, for the sample detections.
        after: new weights file, for the sample detections.
        photos: held-out images, for the sample detections.
        log: log of the training (`frontend.training.loop.progress.LOG`), for the curves.

    Raises:
        OutputError: the file cannot be written.
        DatasetError: an image cannot be read.
    """
    pairs = list(photo_pairs(photos, _SAMPLES))
    page = render_page(
        "adaptation.html",
        title=report.title,
        subtitle=report.created.isoformat() if report.created else "",
        improved=report.improved,
        summary=report.summary[0].upper() + report.summary[1:],
        rows=[_row(key, report.before.get(key), report.after.get(key)) for key in _METRICS_SHOWN],
        images=report.images,
        pairs=report.pairs,
        protocol=report.protocol,
        course=_course(*read_log(log)),
        sample_points=_SAMPLE_POINTS,
        correct_px=f"{CORRECT_PX:g}",
        samples=_samples(pairs, before, after),
        facts=report.facts.items(),
        commands=report.commands,
        settings=report.settings,
    )
    write_atomic(path, page)


def read_log(path: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Read the curves of losses and of validation metrics, each with its `step` values."""
    losses: dict[str, list[float]] = {}
    validations: dict[str, list[float]] = {}
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    for line in lines:
        values: dict[str, Any] = json.loads(line)
        metrics = values.pop("validation", None)
        curves = losses if metrics is None else validations
        for name, value in {**values, **(metrics or {})}.items():
            curves.setdefault(name, []).append(float(value))
    return losses, validations


def sample_detections(
    extractor: SuperPointExtractor, pair: ImagePair, count: int
) -> tuple[Features, NDArray[np.bool_]]:
    """Return the best `count` points of image 0 that image 1 shows, and which are repeated."""
    backward = np.asarray(np.linalg.inv(pair.homography), np.float64)
    shape = pair.image0.shape
    features0, features1 = extractor.extract(pair.image0), extractor.extract(pair.image1)
    points0 = best_features(in_shared_area(features0, pair.homography, shape), count)
    points1 = best_features(in_shared_area(features1, backward, shape), count)
    distance = nearest_distance(warp_points(points0.keypoints, pair.homography), points1.keypoints)
    return points0, distance <= CORRECT_PX


def _row(key: str, before: float | None, after: float | None) -> dict[str, str]:
    name, meaning, more_is_better = _METRICS_SHOWN[key]
    change, kind = "–", ""
    if before is not None and after is not None:
        difference = after - before
        change = f"{difference:+.3f}"
        if abs(difference) >= _LARGEST_CHANGE_SHOWN:
            kind = " better" if (difference > 0) == more_is_better else " worse"
    meaning = meaning if more_is_better else f"{meaning} (lower is better)"
    row = {"name": name, "before": _number(before), "after": _number(after), "change": change}
    return row | {"kind": kind, "meaning": meaning}


def _course(losses: Mapping[str, list[float]], validations: Mapping[str, list[float]]) -> str:
    """Draw the training curves; return a base64 image, empty if there are no curves."""
    return _base64(_draw_course(losses, validations)) if losses or validations else ""


def _draw_course(
    losses: Mapping[str, list[float]], validations: Mapping[str, list[float]]
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, curves, names in (
        (left, losses, ("total", "detector", "descriptor")),
        (right, validations, ("repeatability", "matching_score")),
    ):
        for name in names:
            if name in curves:
                marker = "o" if len(curves[name]) < 30 else None
                axes.plot(
                    curves["step"],
                    curves[name],
                    label=name.replace("_", " "),
                    marker=marker,
                    markersize=3,
                )
        axes.set_xlabel("step")
        axes.grid(linewidth=0.4)
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    left.set_title("loss", fontsize=10, loc="left")
    right.set_title("validation", fontsize=10, loc="left")
    buffer = io.BytesIO()
    # Leave out the version, so that the same metrics give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _samples(pairs: Sequence[ImagePair], before: Path, after: Path) -> list[list[dict[str, str]]]:
    config = FeatureConfig(max_keypoints=1000, threshold=1e-4, spread_cell=0)
    extractors = {
        name: SuperPointExtractor(config, load_superpoint(path))
        for name, path in (("before", before), ("after", after))
    }
    return [
        [_sample(extractor, pair, name) for name, extractor in extractors.items()] for pair in pairs
    ]


def _sample(extractor: SuperPointExtractor, pair: ImagePair, name: str) -> dict[str, str]:
    features, found = sample_detections(extractor, pair, _SAMPLE_POINTS)
    _, data = cv2.imencode(
        ".jpg", _draw(pair.image0, features.keypoints, found), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )
    caption = f"{name}: {int(found.sum())} of {len(found)} found again"
    return {"jpeg": _base64(data.tobytes()), "caption": caption}


def _draw(
    image: UInt8Array, keypoints: NDArray[np.float32], found: NDArray[np.bool_]
) -> UInt8Array:
    large = cv2.resize(image, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_CUBIC)
    canvas = cv2.cvtColor(large, cv2.COLOR_GRAY2BGR)
    # Pixel 0 is the centre of the first pixel.
    centres = np.rint((keypoints + 0.5) * _ZOOM - 0.5).astype(int)
    for (x, y), good in zip(centres.tolist(), found, strict=True):
        cv2.circle(canvas, (x, y), 4, _FOUND_BGR if good else _LOST_BGR, 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
