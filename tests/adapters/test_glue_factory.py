"""glue-factory's interface, without glue-factory."""

import numpy as np
import pytest
import torch
from pictures import scene

from spslam.adapters.glue_factory import SuperPoint
from spslam.config import FeatureConfig
from spslam.errors import FrameError
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
    with pytest.raises(FrameError, match="0 to 60 keypoints in one batch"):
        SuperPoint({"max_num_keypoints": 60})({"image": images})


def test_it_cannot_be_trained() -> None:
    with pytest.raises(NotImplementedError, match="spslam train"):
        SuperPoint({"max_num_keypoints": 60}).loss({}, {})
