"""Settings and images of all adapters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spslam.adapters.front_end import (
    MOST_KEYPOINTS,
    boolean_mask,
    feature_config,
    grey_image,
    host_class,
)
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FrameError

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
        ({"nfeatures": "many"}, "unable to parse string"),
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


def test_what_an_adapter_sets_by_its_arguments_is_no_setting() -> None:
    base = FeatureConfig(max_keypoints=60)
    found = feature_config({"nfeatures": 70}, base, {"weights": "superpoint"})
    assert (found.max_keypoints, found.weights) == (70, "superpoint")
    with pytest.raises(ConfigError, match="weights is no setting here"):
        feature_config({"weights": "a.pth"}, base, {"weights": "superpoint"})


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


def test_a_program_that_lacks_its_own_packages_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "brokenhost.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        host_class("brokenhost", "models", "BaseModel", int)
    assert host_class("a_program_that_nobody_has", "models", "BaseModel", int) is int
