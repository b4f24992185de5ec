"""The precision of each keypoint: from the extractor over the cache into the map."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.datasets.factory import open_sequence
from spslam.frame import Features
from spslam.frontend.extractors.feature_cache import CachedExtractor
from spslam.frontend.extractors.registry import create_extractor
from spslam.typing import Float32Array, UInt8Array


@pytest.fixture(scope="module")
def image() -> UInt8Array:
    return open_sequence("demo-small", sensor="mono")[0].image


def sigma_of(features: Features) -> Float32Array:
    assert features.relative_sigma is not None
    assert features.relative_sigma.dtype == np.float32
    return features.relative_sigma


def test_coarse_corners_are_less_precise(image: UInt8Array) -> None:
    sigma = sigma_of(create_extractor(FeatureConfig(extractor="orb")).extract(image))
    levels = 0.7 * 1.2 ** (0.7 * np.arange(8))
    assert np.abs(sigma[:, None] - levels).min(axis=1).max() < 1e-5
    assert np.count_nonzero(sigma < 0.71) > 100 and sigma.max() > 1.2


def test_large_blobs_are_less_precise() -> None:
    image = np.full((240, 320), 60, np.uint8)
    for x, radius in ((60, 4), (200, 30)):
        cv2.circle(image, (x, 120), radius, 220, cv2.FILLED, cv2.LINE_AA)
    found = create_extractor(FeatureConfig(extractor="sift")).extract(image)
    sigma = sigma_of(found)
    # The blobs themselves, not their edges.
    small, large = (
        sigma[np.linalg.norm(found.keypoints - (x, 120), axis=1) < 2].max() for x in (60, 200)
    )
    assert large > 1.5 * small


def test_sure_maxima_of_superpoint_are_more_precise(image: UInt8Array) -> None:
    found = create_extractor(FeatureConfig()).extract(image)
    sigma = sigma_of(found)
    order = np.argsort(found.scores)
    assert np.all(np.diff(sigma[order]) <= 0)
    assert sigma.max() == pytest.approx(1.14) and 0.63 <= sigma.min() < 0.8
    whole = create_extractor(FeatureConfig(subpixel=False)).extract(image)
    assert whole.relative_sigma is None, "the grid of pixels limits all positions equally"


@pytest.mark.parametrize("extractor", ["orb", "superpoint"])
@pytest.mark.parametrize("subpixel", [True, False])
def test_the_cache_keeps_it(
    extractor: str, subpixel: bool, image: UInt8Array, tmp_path: Path
) -> None:
    config = FeatureConfig(extractor=extractor, subpixel=subpixel)
    wrapped = create_extractor(config)
    first, second = (CachedExtractor(wrapped, config, tmp_path).extract(image) for _ in range(2))
    assert list(tmp_path.rglob("*.features"))
    if first.relative_sigma is None:
        assert second.relative_sigma is None
    else:
        np.testing.assert_array_equal(sigma_of(first), sigma_of(second))


def test_it_has_one_value_for_each_keypoint() -> None:
    keypoints, scores, descriptors = (np.zeros(shape, np.float32) for shape in ((3, 2), 3, (3, 8)))
    with pytest.raises(ValueError, match=r"relative_sigma \(2,\)"):
        Features(keypoints, scores, descriptors, np.ones(2, np.float32))
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"within 0\.01 to 100"):
            Features(keypoints, scores, descriptors, np.array([1, wrong, 1], np.float32))
    some = Features(keypoints, scores, descriptors, np.arange(1, 4, dtype=np.float32))
    np.testing.assert_array_equal(sigma_of(some.select(np.array([2, 0]))), [3, 1])
