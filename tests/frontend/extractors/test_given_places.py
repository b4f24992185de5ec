"""Masks and given keypoints, for every extractor."""

import numpy as np
import pytest
from pictures import scene

from spslam.config import FeatureConfig
from spslam.errors import ConfigError
from spslam.frame import Features
from spslam.frontend.extractors.registry import adapt, create_extractor
from spslam.interfaces import Extractor


@pytest.mark.parametrize("name", ["superpoint", "orb", "sift"])
def test_the_limit_counts_keypoints_inside_a_mask(name: str) -> None:
    image, mask = scene(), np.zeros((200, 280), np.bool_)
    mask[:, :110] = True
    few = create_extractor(FeatureConfig(extractor=name, max_keypoints=60, spread_cell=0))
    many = create_extractor(FeatureConfig(extractor=name, max_keypoints=5000, spread_cell=0))
    assert len(few.extract(image).inside(mask)) < 45
    everywhere = many.extract(image).inside(mask)
    assert len(everywhere) > 65, "the scene has too few features for this test"
    found = few.extract_inside(image, mask)
    assert len(found) == 60
    assert len(found.inside(mask)) == 60
    if name == "superpoint":
        np.testing.assert_array_equal(found.keypoints, everywhere.keypoints[:60])
        np.testing.assert_array_equal(found.descriptors, everywhere.descriptors[:60])


def test_spread_keypoints_stay_inside_a_mask_with_holes() -> None:
    image, mask = scene(), np.random.default_rng(1).random((200, 280)) < 0.5
    found = create_extractor(FeatureConfig(max_keypoints=80)).extract_inside(image, mask)
    assert len(found) == len(found.inside(mask)) == 80
    assert not len(create_extractor(FeatureConfig()).extract_inside(image, mask & False))


class Corners(Extractor):
    """A plug-in with nothing but the required attributes."""

    name = "corners"
    max_descriptor_distance = 0.7
    pixel_sigma = 1.0

    def extract(self, image: np.ndarray) -> Features:
        places = np.array([[3.4, 5.0], [8.0, 2.6]], np.float32)
        return Features(places, np.ones(2, np.float32), np.eye(2, dtype=np.float32))


def test_a_plug_in_without_masks_drops_features_outside() -> None:
    mask = np.zeros((10, 12), np.bool_)
    mask[3, 8] = True
    found = Corners().extract_inside(np.zeros((10, 12), np.uint8), mask)
    np.testing.assert_array_equal(found.keypoints, np.array([[8.0, 2.6]], np.float32))


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_own_keypoints_have_the_same_descriptors_again(name: str) -> None:
    """In any order, also those that are found only inside a mask, and several times."""
    extractor = create_extractor(FeatureConfig(extractor=name, max_keypoints=60))
    mask = np.zeros(scene().shape, np.bool_)
    mask[:, :90] = True
    for found in (extractor.extract(scene()), extractor.extract_inside(scene(), mask)):
        rows = np.random.default_rng(0).integers(0, len(found), 90)
        described = extractor.describe(scene(), found.keypoints[rows])
        assert len(found) > 20 and described.dtype == found.descriptors.dtype
        np.testing.assert_array_equal(described, found.descriptors[rows])
    length = found.descriptors.shape[1]
    for empty in (scene(), np.zeros((20, 20), np.uint8)):
        assert extractor.describe(empty, np.zeros((0, 2), np.float32)).shape == (0, length)


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_extractors_that_need_orientations_refuse_other_positions(name: str) -> None:
    extractor = create_extractor(FeatureConfig(extractor=name, max_keypoints=60))
    own = extractor.extract(scene()).keypoints
    places = np.concatenate([own, own[:2] + np.float32(0.25)])
    with pytest.raises(ConfigError, match=rf"{name} describes only .*, found 2 \(of 62\) others"):
        extractor.describe(scene(), places)
    with pytest.raises(ConfigError, match=r"found 1 \(of 1\) others"):
        extractor.describe(np.zeros((64, 64), np.uint8), own[:1])


class Duck:
    """A plug-in that does not inherit Extractor, with a method for masks."""

    name = "duck"
    max_descriptor_distance = 0.7
    pixel_sigma = 1.0

    def extract(self, image: np.ndarray) -> Features:
        return Corners().extract(image)

    def extract_inside(self, image: np.ndarray, mask: np.ndarray) -> Features:
        return Features(
            np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.float32)
        )


def test_a_wrapped_plug_in_keeps_its_methods() -> None:
    image = np.zeros((10, 12), np.uint8)
    extractor = adapt(Duck())
    assert len(extractor.extract(image)) == 2
    assert len(extractor.extract_inside(image, np.ones((10, 12), np.bool_))) == 0
    with pytest.raises(ConfigError, match="duck cannot describe given keypoints"):
        extractor.describe(image, np.ones((1, 2), np.float32))
