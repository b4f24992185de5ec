"""Corner detection on synthetic shapes, where every corner is known (DeTone et al., SuperPoint, 2018, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.interfaces import Extractor

from ...superpoint.keypoints import find_maxima
from ..data.shapes import PRIMITIVES
from ..data.shapes.cache import ShapeDataset, open_shapes
from .homography_metrics import NMS_RADIUS, average_precision, pairwise_distance, suppress_near

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]
# Key points (N, 2) and scores (N,) of an image (H, W) uint8, best first.
Detector = Callable[[Image], tuple[NDArray[np.float32], NDArray[np.float32]]]

CORNER_PX = 4.0
SHAPES_SIZE = (120, 160)
# Far from what anybody trains with.
SHAPES_SEED = 987_654_321
_MOST_DETECTIONS = 300
_FAST_THRESHOLD = 5
_BRIGHTNESS = 50.0
_CONTRAST = (0.4, 1.4)
_NOISE_SIGMA = (2.0, 15.0)
_SPECKLE_SHARE = 0.0035
_SHADE = 0.5
_BLUR_SIGMA_PX = (0.1, 1.2)


class LabelledImages(Protocol):
    """Images with their corners, for example a `ShapeDataset`. Attributes:
    images: (N, H, W) uint8.
    primitives: (N,), index into the names of primitives.
    """

    images: NDArray[np.uint8]
    primitives: NDArray[np.uint8]

    def corners(self, index: int) -> NDArray[np.float32]:
        """Corners (n, 2) x y of one image, pixels."""
        ...


def evaluation_shapes(folder: Path, count: int = 540) -> ShapeDataset:
    """Shapes that no training saw, 160 by 120 pixels, as many of each primitive; cached in `folder`."""
    return open_shapes(folder, count, SHAPES_SIZE, SHAPES_SEED)


def detector_of(extractor: Extractor) -> Detector:
    """The key points of an extractor, thinned out by non-maximum suppression."""

    def detect(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = suppress_near(extractor.extract(image))
        return features.keypoints[:_MOST_DETECTIONS], features.scores[:_MOST_DETECTIONS]

    return detect


def detect_fast(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """FAST (Rosten & Drummond, ECCV 2006), by its score."""
    response = np.zeros(image.shape, np.float32)
    for keypoint in cv2.FastFeatureDetector.create(_FAST_THRESHOLD).detect(image, None):
        response[round(keypoint.pt[1]), round(keypoint.pt[0])] = keypoint.response
    return _maxima(response)


def detect_harris(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Harris & Stephens, Alvey Vision Conference 1988."""
    return _maxima(np.asarray(cv2.cornerHarris(image, 3, 3, 0.04), np.float32))


def detect_shi_tomasi(image: Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Shi & Tomasi, Good features to track, CVPR 1994."""
    return _maxima(np.asarray(cv2.cornerMinEigenVal(image, 3, ksize=3), np.float32))


CLASSICAL_DETECTORS: dict[str, Detector] = {
    "FAST": detect_fast,
    "Harris": detect_harris,
    "Shi-Tomasi": detect_shi_tomasi,
}


def evaluate_shapes(
    detect: Detector, shapes: LabelledImages, names: Sequence[str] = PRIMITIVES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Average precision and localisation error of corners, `clean` and `noisy`.

    Each holds `map`, the mean over the primitives that have corners; `ap`, over all images at once, where what is
    found on ellipses and noise is wrong; `mle_px`, the mean distance of the correct ones, pixels; and for each
    primitive with corners, `primitives`, its `ap` and `mle_px`.

    Args:
        detect: the detector; its best 300 points count.
        shapes: images with known corners.
        names: of the primitives.
        seed: of the noise.
    """
    return {
        "clean": _evaluate(detect, shapes, names, None),
        "noisy": _evaluate(detect, shapes, names, seed),
    }


def shape_noise(rng: np.random.Generator, image: Image) -> Image:
    """(H, W) uint8 with another contrast and brightness, a shade, a blur, Gaussian noise and speckles."""
    height, width = image.shape
    pixels = cv2.GaussianBlur(image, (0, 0), rng.uniform(*_BLUR_SIGMA_PX)).astype(np.float64)
    mean = pixels.mean()
    pixels = (
        (pixels - mean) * rng.uniform(*_CONTRAST) + mean + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
    )
    y, x = np.mgrid[:height, :width]
    centre, radii = (
        rng.uniform(size=2) * [width, height],
        rng.uniform(0.1, 0.4, 2) * [width, height],
    )
    distance = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
    pixels *= 1.0 + rng.uniform(-_SHADE, _SHADE) * np.exp(-0.5 * distance)
    pixels += rng.normal(0.0, rng.uniform(*_NOISE_SIGMA), image.shape)
    speckles = rng.uniform(size=image.shape) < rng.uniform(0.0, _SPECKLE_SHARE)
    pixels[speckles] = rng.choice([0.0, 255.0], int(speckles.sum()))
    return np.asarray(np.clip(np.rint(pixels), 0, 255), np.uint8)


def detection_errors(keypoints: NDArray[np.float32], corners: NDArray[np.float32]) -> Floats:
    """Distance (N,), pixels, of each detection (N, 2), best first, to the corner (M, 2) that it is credited with:
    the nearest within 4 pixels that no better detection has taken; infinite where there is none.
    """
    errors = np.full(len(keypoints), np.inf)
    if not len(corners):
        return errors
    distance = pairwise_distance(keypoints, corners)
    for row in np.flatnonzero(distance.min(axis=1) <= CORNER_PX):
        nearest = int(distance[row].argmin())
        if distance[row, nearest] <= CORNER_PX:
            errors[row] = distance[row, nearest]
            distance[:, nearest] = np.inf
    return errors


def _evaluate(
    detect: Detector, shapes: LabelledImages, names: Sequence[str], seed: int | None
) -> dict[str, Any]:
    errors: list[Floats] = []
    scores: list[NDArray[np.float32]] = []
    totals = np.zeros(len(shapes.images), np.int64)
    for index in range(len(shapes.images)):
        image = np.array(shapes.images[index])
        if seed is not None:
            image = shape_noise(np.random.default_rng([seed, index]), image)
        keypoints, found = detect(image)
        corners = shapes.corners(index)
        errors.append(detection_errors(keypoints, corners))
        scores.append(found)
        totals[index] = len(corners)

    def summary(chosen: NDArray[np.int64]) -> dict[str, float]:
        error = np.concatenate([errors[index] for index in chosen])
        order = np.argsort(-np.concatenate([scores[index] for index in chosen]), kind="stable")
        correct = np.isfinite(error)
        return {
            "ap": average_precision(correct[order], int(totals[chosen].sum())),
            "mle_px": float(error[correct].mean()) if correct.any() else float("nan"),
        }

    by_primitive: dict[str, dict[str, float]] = {}
    for primitive, name in enumerate(names):
        chosen = np.flatnonzero(shapes.primitives == primitive)
        if totals[chosen].sum():
            by_primitive[name] = summary(chosen)
    mean = (
        float(np.mean([row["ap"] for row in by_primitive.values()]))
        if by_primitive
        else float("nan")
    )
    return {"map": mean, **summary(np.arange(len(totals))), "primitives": by_primitive}


def _maxima(response: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows, columns = find_maxima(response, 0.0, NMS_RADIUS, 0)
    rows, columns = rows[:_MOST_DETECTIONS], columns[:_MOST_DETECTIONS]
    return np.stack([columns, rows], axis=1).astype(np.float32), response[rows, columns]
