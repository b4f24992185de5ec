"""What an extractor returns is checked before it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spslam.config import Config
from spslam.errors import ExtractorError
from spslam.frame import Features, Frame, check_features
from spslam.interfaces import Extractor
from spslam.slam.preprocessing import Preprocessor

SHAPE = (240, 320)


def features(kind: type = np.float32, **changes: Any) -> Features:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(40, 32))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    values = {
        "keypoints": rng.uniform(0, 239, (40, 2)).astype(np.float32),
        "scores": np.ones(40, np.float32),
        "descriptors": descriptors.astype(kind),
    }
    return Features(**(values | changes))


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values[3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((1, 2), "tuple: expected spslam.frame.Features"),
        (
            features(descriptors=with_nan(features().descriptors)),
            "descriptors that are not finite: 1 of 40 keypoints",
        ),
        (
            features(keypoints=with_nan(features().keypoints)),
            "positions that are not finite: 1 of 40 keypoints",
        ),
        (
            features(keypoints=features().keypoints + np.array([90, 0], np.float32)),
            r"positions outside the image of 320x240 pixels, such as x 32\d.*: \d of 40 keypoints",
        ),
        (
            features(descriptors=512 * features().descriptors),
            r"descriptors of length 512 \(median\): expected 1 \(divide each by its length\)",
        ),
        (
            features(descriptors=np.ones((40, 8), np.int32)),
            r"descriptors \(40, 8\) int32: expected \(N, D\)",
        ),
        (
            features(descriptors=np.ones(40, np.float32)),
            r"descriptors \(40,\) float32: expected \(N, D\)",
        ),
    ],
)
def test_features_that_cannot_be_right_are_refused_in_one_line(given: Any, text: str) -> None:
    with pytest.raises(ExtractorError, match=f"^the extractor mine returned {text}"):
        check_features(given, SHAPE, "mine")


@pytest.mark.parametrize(
    "given",
    [
        features(),
        features(np.float64),
        features(np.float16),
        features(descriptors=np.full((40, 32), 255, np.uint8)),
        features().select(np.zeros(0, np.int64)),
        # Refinement moves a point at the border; a flat patch has no direction.
        features(keypoints=features().keypoints + np.array([-0.4, 0.9], np.float32)),
        features(descriptors=features().descriptors * (np.arange(40) > 5)[:, None]),
    ],
)
def test_features_that_can_be_right_are_returned(given: Features) -> None:
    assert check_features(given, SHAPE, "mine") is given


class Longer(Extractor):
    name = "longer"
    max_descriptor_distance = 0.7
    pixel_sigma = 1.0

    def extract(self, image: np.ndarray) -> Features:
        return features(descriptors=2 * features().descriptors)


def test_a_frame_with_such_features_is_refused(landmarks) -> None:
    mono = landmarks.mono
    image = np.zeros((mono.height, mono.width), np.uint8)
    observer = Preprocessor(Config(), Longer(), None)  # type: ignore[arg-type]
    with pytest.raises(ExtractorError, match="longer returned descriptors of length 2"):
        observer.observe(Frame(0, 0.0, mono, image))
