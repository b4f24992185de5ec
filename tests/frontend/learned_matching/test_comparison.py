"""Comparison of matchers on the same features: warped photographs, scenes, posed images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.frame import Features
from spslam.frontend.extractors.registry import create_extractor
from spslam.frontend.learned_matching.data.view_config import ViewConfig
from spslam.frontend.learned_matching.data.views import PosedImage
from spslam.frontend.learned_matching.evaluation.comparison import (
    ComparisonData,
    compare_matchers,
    comparison_table,
)
from spslam.frontend.learned_matching.evaluation.evaluation_pairs import (
    photo_match_pairs,
    world_match_pairs,
)
from spslam.frontend.learned_matching.evaluation.metrics import judge
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.frontend.training.config import HomographyConfig
from spslam.typing import IntArray

K = np.array([[120.0, 0, 79.5], [0, 120.0, 59.5], [0, 0, 1]])
MILD = ViewConfig(
    size=(120, 160), homography=HomographyConfig(rotation_deg=10, allow_artifacts=True)
)


class NoMatches(DescriptorMatcher):
    """Matches nothing."""

    def match_images(
        self, features0: Features, features1: Features, size0: object, size1: object
    ) -> IntArray:
        return np.full(len(features0), -1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(2):
        image = np.kron(rng.integers(0, 256, (12, 16)), np.ones((10, 10))).astype(np.uint8)
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


def facing(angle_deg: float) -> PosedImage:
    """A textured wall at z = 2 m, seen from 2 m away at an angle, by exact ray casting."""
    angle = np.radians(angle_deg)
    pose = np.eye(4)
    pose[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    pose[:3, 3] = np.array([0, 0, 2.0]) - 2 * pose[:3, 2]
    rows, columns = np.mgrid[:120, :160]
    rays = np.stack([(columns - 79.5) / 120, (rows - 59.5) / 120, np.ones((120, 160))], axis=-1)
    turned = rays @ pose[:3, :3].T
    depth = (2.0 - pose[2, 3]) / turned[..., 2]
    places = turned * depth[..., None] + pose[:3, 3]
    texture = np.random.default_rng(1).integers(0, 256, (80, 80))
    cells = (np.floor(places[..., :2] * 8).astype(int) + 40).clip(0, 79)
    image = cv2.GaussianBlur(texture[cells[..., 1], cells[..., 0]].astype(np.uint8), (0, 0), 0.8)
    return PosedImage(np.asarray(image, np.uint8), depth.astype(np.float32), pose, K)


def test_the_same_matcher_beats_none_on_every_set(photos: list[Path]) -> None:
    extractor = create_extractor(FeatureConfig(extractor="sift", max_keypoints=200))
    data = ComparisonData(photos=photos, spots=[[facing(0), facing(8), facing(35)]], views=MILD)
    results = compare_matchers({"nn": DescriptorMatcher(), "none": NoMatches()}, extractor, data)
    assert set(results["nn"]) == {"photos", "worlds"}
    assert results["nn"]["photos"]["recall"] > 0.3 > results["none"]["photos"]["recall"]
    assert results["none"]["worlds"]["auc_20"] == 0
    assert results["nn"]["photos"]["pairs"] == 2
    table = comparison_table(results)
    assert table.count("| photos |") == table.count("| worlds |") == 2
    assert "AUC@3px" in table
    assert "AUC@10°" in table


def test_pairs_of_a_world_are_wide_and_have_true_matches() -> None:
    extractor = create_extractor(FeatureConfig(extractor="sift", max_keypoints=200))
    spots = [[facing(0), facing(8), facing(35)], [facing(0), facing(5)]]
    plain = MILD.model_copy(
        update={"photometric": MILD.photometric.model_copy(update={"chance": 0.0})}
    )
    pairs = list(world_match_pairs(spots, extractor, plain))
    assert len(pairs) == 1
    assert pairs[0].pose is not None
    cosine = pairs[0].pose.T_10[2, 2]
    assert np.degrees(np.arccos(cosine)) == pytest.approx(35)
    assert (judge(pairs[0])[0] >= 0).sum() > 10


def test_warps_depend_on_the_photograph_only(photos: list[Path]) -> None:
    extractor = create_extractor(FeatureConfig(extractor="sift", max_keypoints=100))
    both = list(photo_match_pairs(photos, 2, extractor, MILD))
    alone = next(iter(photo_match_pairs(photos[1:], 2, extractor, MILD)))
    assert np.array_equal(both[1].view1.projection, alone.view1.projection)
    assert not np.array_equal(both[0].view1.projection, alone.view1.projection)
    assert (judge(alone)[0] >= 0).sum() > 5


def test_frames_of_a_recording_judge_poses_only() -> None:
    extractor = create_extractor(FeatureConfig(extractor="sift", max_keypoints=300))
    frames = [
        (view.image, view.T_world_cam, K) for view in map(facing, (-20.0, -4.0, 0.0, 4.0, 80.0))
    ]
    # 20 degrees and 16 and 24 degrees apart; 4 and 8 degrees are too near, the last frame too far.
    data = ComparisonData(frames=frames)
    names = [pair.name for pair in data.pairs(extractor)]
    assert names == ["frames 0 1", "frames 0 2", "frames 0 3"]
    matchers = {"nn": DescriptorMatcher(), "none": NoMatches()}
    results = compare_matchers(matchers, extractor, data)
    assert results["nn"]["frames"]["good"] > results["none"]["frames"]["good"] == 0
    assert np.isnan(results["nn"]["frames"]["precision"])
    assert "| frames | nn | – | – |" in comparison_table(results)
    few = ComparisonData(frames=frames, limit=2)
    assert [pair.name for pair in few.pairs(extractor)] == ["frames 0 1", "frames 0 3"]
