"""kornia's interface, with kornia's matchers."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pictures import corner_error, scene, warped_pair

from spslam.adapters.kornia import LocalFeature
from spslam.config import FeatureConfig
from spslam.errors import FrameError
from spslam.frontend.extractors.registry import create_extractor

feature = pytest.importorskip("kornia.feature")


@pytest.fixture(scope="module")
def local_feature() -> LocalFeature:
    return LocalFeature(300)


def batch_of(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)[:, None] / np.float32(255))


def test_features_are_those_of_the_extractor(local_feature: LocalFeature) -> None:
    lafs, responses, descriptors = local_feature(batch_of(scene()))
    features = create_extractor(FeatureConfig(max_keypoints=300)).extract(scene())
    np.testing.assert_array_equal(feature.get_laf_center(lafs)[0], features.keypoints)
    np.testing.assert_array_equal(responses[0], features.scores)
    np.testing.assert_array_equal(descriptors[0], features.descriptors)
    np.testing.assert_allclose(feature.get_laf_scale(lafs), 4)
    np.testing.assert_allclose(feature.get_laf_orientation(lafs), 0)


def test_shapes_are_those_of_a_feature_of_kornia(local_feature: LocalFeature) -> None:
    image = batch_of(scene(64, 80))
    theirs = feature.SIFTFeature(20, device=torch.device("cpu"))(image)
    ours = local_feature(image)
    assert [(part.ndim, part.dtype) for part in ours] == [
        (part.ndim, part.dtype) for part in theirs
    ]


@pytest.mark.parametrize("mode", ["mnn", "smnn"])
def test_local_feature_matcher(local_feature: LocalFeature, mode: str) -> None:
    first, second, H_10 = warped_pair()
    matcher = feature.LocalFeatureMatcher(local_feature, feature.DescriptorMatcher(mode, 0.95))
    # The second pair is the first, the other way round.
    found = matcher({"image0": batch_of(first, second), "image1": batch_of(second, first)})
    for index, truth in enumerate([H_10, np.linalg.inv(H_10)]):
        own = (found["batch_indexes"] == index).numpy()
        start, end = (found[key].numpy()[own] for key in ("keypoints0", "keypoints1"))
        estimated, inliers = cv2.findHomography(start, end, cv2.RANSAC, 3.0)
        assert inliers.sum() > 80
        assert corner_error(estimated, truth) < 2.0


def test_shorter_rows_of_a_batch_are_recognised(local_feature: LocalFeature) -> None:
    flat = np.full((200, 280), 128, np.uint8)
    half = scene()
    half[:, 140:] = 128
    images = batch_of(scene(), half, flat)
    lafs, responses, descriptors = local_feature(images)
    filled = feature.laf_is_filled(lafs).sum(dim=1).tolist()
    alone = [local_feature(image[None])[0].shape[1] for image in images]
    assert filled == alone
    assert filled[0] > filled[1] > filled[2] == 0
    assert not descriptors[2].any() and not responses[2].any()
    matcher = feature.LocalFeatureMatcher(local_feature, feature.DescriptorMatcher("mnn"))
    found = matcher({"image0": images, "image1": images})
    assert torch.bincount(found["batch_indexes"], minlength=3).tolist() == filled


def test_masks_suppress_features(local_feature: LocalFeature) -> None:
    images, mask = batch_of(scene(), scene(seed=1)), torch.zeros(2, 200, 280)
    mask[0, :, :90] = 1
    matcher = feature.LocalFeatureMatcher(local_feature, feature.DescriptorMatcher("mnn"))
    found = matcher({"image0": images, "image1": images, "mask0": mask})
    assert len(found["keypoints0"]) > 30
    assert found["keypoints0"][:, 0].max() < 89.5
    assert not found["batch_indexes"].any()
    with pytest.raises(FrameError, match="mask"):
        local_feature(images, mask[:, None, :50])


@pytest.mark.slow
def test_light_glue_matcher(local_feature: LocalFeature, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kornia's LightGlue, without weights and with its filter off, accepts the features."""

    def untrained(name: str, **conf: Any) -> Any:
        return feature.LightGlue(None, input_dim=128, n_layers=2, filter_threshold=-1).eval()

    monkeypatch.setattr("kornia.feature.integrated.LightGlue", untrained)
    matcher = feature.LightGlueMatcher("disk")
    (lafs0, lafs1), _, descriptors = local_feature(batch_of(*warped_pair()[:2]))
    with torch.no_grad():
        scores, index = matcher(
            *descriptors, lafs0[None], lafs1[None], hw1=(200, 280), hw2=(200, 280)
        )
    assert len(scores) == len(index) > 0


@pytest.mark.parametrize("shape", [(64, 64), (0, 1, 64, 64), (1, 2, 64, 64)])
def test_wrong_images_give_one_clear_line(
    local_feature: LocalFeature, shape: tuple[int, ...]
) -> None:
    with pytest.raises(FrameError, match="image"):
        local_feature(torch.zeros(shape))
