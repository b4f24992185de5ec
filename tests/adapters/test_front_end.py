"""Settings and images of all adapters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from warped_pair import scene

from spslam.adapters.front_end import (
    MOST_KEYPOINTS,
    boolean_mask,
    create_extractor,
    feature_config,
    grey_image,
    host_class,
)
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError
from spslam.frame import Features
from spslam.interfaces import Extractor

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_import_loads_no_more_than_needed() -> None:
    code = (
        "import sys, spslam.adapters\n"
        "loaded = {'numpy', 'torch', 'cv2', 'spslam.adapters.front_end'} & set(sys.modules)\n"
        "import spslam.adapters.opencv\n"
        "loaded |= {'torch', 'spslam.frontend', 'spslam.datasets'} & set(sys.modules)\n"
        "sys.exit(' '.join(loaded) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_settings_have_the_names_of_the_other_programs() -> None:
    base = FeatureConfig(nms_radius=3, threshold=0.01)
    found = feature_config({"max_num_keypoints": 77, "remove_borders": 8}, base)
    assert found == FeatureConfig(nms_radius=3, threshold=0.01, max_keypoints=77, border=8)


@pytest.mark.parametrize("count", [0, -1, None])
def test_all_keypoints(count: int | None) -> None:
    assert feature_config({"max_keypoints": count}).max_keypoints == MOST_KEYPOINTS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_keypoint": 5}, "unknown key max_num_keypoint"),
        ({"max_keypoints": 3}, "max_keypoints"),
        ({"max_keypoints": 60, "nfeatures": 70}, "given twice"),
        ({"device": "cuda", "engine": "openvino"}, "runs on the CPU only"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        feature_config(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pixels",
    [None, "photo.png", np.zeros((0, 5), np.uint8), np.zeros((5, 5), np.float32), np.zeros(5)],
)
def test_what_is_no_image_is_refused(pixels: object) -> None:
    with pytest.raises(FrameError, match="image"):
        grey_image(pixels)


@pytest.mark.parametrize(
    "mask", [np.ones((4, 5), np.uint8), np.ones((5, 4), np.float32), [[1]], np.ones((5, 4, 2))]
)
def test_a_mask_of_another_size_or_type_is_refused(mask: object) -> None:
    with pytest.raises(FrameError, match="mask: expected uint8 of the image's size"):
        boolean_mask(mask, (5, 4))


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
def test_extractors_that_need_orientations_refuse_bare_positions(name: str) -> None:
    extractor = create_extractor(FeatureConfig(extractor=name))
    with pytest.raises(ConfigError, match=f"{name} cannot describe given keypoints"):
        extractor.describe(scene(), np.array([[50, 50]], np.float32))


def test_a_program_that_lacks_its_own_packages_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brokenhost.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        host_class("brokenhost", "models", "BaseModel", int)
    assert host_class("a_program_that_nobody_has", "models", "BaseModel", int) is int
