"""glue-factory's interface, without glue-factory."""

import numpy as np
import pytest
import torch
from pictures import scene

from spslam.adapters.glue_factory import SuperPoint
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError
from spslam.frontend.extractors.registry import create_extractor


def test_keypoints_are_shifted_by_half_a_pixel() -> None:
    model = SuperPoint({"name": "spslam.adapters.glue_factory", "max_num_keypoints": 60}).eval()
    images = torch.from_numpy(np.stack([scene(), scene(seed=1)])[:, None])
    found = model({"image": images})
    extractor = create_extractor(FeatureConfig(max_keypoints=60))
    for index, seed in enumerate([0, 1]):
        features = extractor.extract(scene(seed=seed))
        np.testing.assert_array_equal(found["keypoints"][index], features.keypoints + 0.5)
        np.testing.assert_array_equal(found["keypoint_scores"][index], features.scores)
        np.testing.assert_array_equal(found["descriptors"][index], features.descriptors)


def test_batches_of_different_numbers_of_keypoints_are_refused() -> None:
    images = torch.from_numpy(np.stack([scene(), np.full((200, 280), 99, np.uint8)])[:, None])
    with pytest.raises(FrameError, match=r"0 to 60 keypoints in one batch.*force_num_keypoints"):
        SuperPoint({"max_num_keypoints": 60})({"image": images})


def test_padded_keypoints_have_score_0_and_are_far_from_all_others() -> None:
    images = torch.from_numpy(
        np.stack([scene(), scene(seed=1), np.full((200, 280), 99, np.uint8)])[:, None]
    )
    settings = {"max_num_keypoints": 600, "detection_threshold": 0.02}
    model = SuperPoint({**settings, "force_num_keypoints": True})
    found = model({"image": images})
    assert {name: tuple(values.shape) for name, values in found.items()} == {
        "keypoints": (3, 600, 2),
        "keypoint_scores": (3, 600),
        "descriptors": (3, 600, 128),
    }
    alone = SuperPoint(settings)({"image": images[:1]})
    count = alone["keypoints"].shape[1]
    assert 0 < count < 500
    for name, values in alone.items():
        assert torch.equal(found[name][:1, :count], values)
    padded = found["keypoint_scores"] == 0
    assert padded.sum(dim=1).tolist()[2] == 600 and not padded[0, :count].any()
    assert (found["keypoints"] >= 0.5).all()
    assert (found["keypoints"] <= torch.tensor([279.5, 199.5])).all()
    # Neither the image's own descriptors nor any of another image are near.
    descriptors = found["descriptors"]
    own = descriptors[0] @ descriptors[0].T - 2 * torch.eye(600)
    assert own[padded[0]].max() < 0.6
    for other in (1, 2):
        assert (descriptors[0] @ descriptors[other].T)[padded[0]].max() < 0.6
    assert torch.equal(model({"image": images})["descriptors"], descriptors)


def test_padding_needs_a_number_of_keypoints() -> None:
    with pytest.raises(ConfigError, match="max_num_keypoints"):
        SuperPoint({"max_num_keypoints": None, "force_num_keypoints": True})


def test_it_cannot_be_trained() -> None:
    with pytest.raises(NotImplementedError, match="spslam train"):
        SuperPoint({"max_num_keypoints": 60}).loss({}, {})
