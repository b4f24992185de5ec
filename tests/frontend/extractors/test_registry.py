"""Extractors of other packages, found through their installed metadata."""

import sys
from pathlib import Path

import numpy as np
import pytest

from spslam.config import FeatureConfig
from spslam.errors import MissingDependencyError, SpslamError
from spslam.frontend.extractors.cache_key import code_files
from spslam.frontend.extractors.registry import create_extractor, extractor_names
from spslam.interfaces import Extractor

MODULE = """
import numpy as np
from spslam.errors import ConfigError
from spslam.frame import Features
from spslam.interfaces import Extractor


class Corners:
    name = "corners"
    max_descriptor_distance = 0.5
    pixel_sigma = 1.0

    def __init__(self, config):
        self.count = config.max_keypoints

    def extract(self, image):
        points = np.zeros((self.count, 2), np.float32)
        return Features(points, points[:, 0], np.ones((self.count, 1), np.float32))


class FullCorners(Corners):
    identity = "corners 2"
    engine = "corners fast"
    fingerprint = "corners 2 fast"
    max_concurrency = 3


class OldCorners:
    name = "corners"
    max_distance = 0.7
    pixel_sigma = 1.0
    at_once = 4

    __init__ = Corners.__init__
    extract = Corners.extract


class OldInheriting(Extractor):
    name = "corners"
    max_distance = 0.7
    pixel_sigma = 1.0
    at_once = 4

    __init__ = Corners.__init__
    extract = Corners.extract


class Inheriting(Extractor):
    name = "inheriting"
    max_descriptor_distance = 0.5
    pixel_sigma = 1.0
    extract = Corners.extract

    def __init__(self, config):
        self.identity = f"inheriting {config.max_keypoints}"


def picky(config):
    raise ConfigError("corners want max_keypoints=7")


def broken(config):
    raise RuntimeError("no licence\\nserver")


def not_one(config):
    return 3
"""
ENTRY_POINTS = """
[spslam.extractors]
corners = toy_corners:Corners
full = toy_corners:FullCorners
old = toy_corners:OldCorners
old_inheriting = toy_corners:OldInheriting
inheriting = toy_corners:Inheriting
picky = toy_corners:picky
broken = toy_corners:broken
not-one = toy_corners:not_one
absent = toy_absent:Nothing
orb = toy_corners:Corners
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_corners.py").write_text(MODULE)
    info = tmp_path / "toy_corners-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-corners\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_corners", raising=False)


@pytest.mark.usefixtures("toy")
def test_plugin_is_found_and_configured() -> None:
    assert {"superpoint", "orb", "sift", "corners"} <= set(extractor_names())
    extractor = create_extractor(FeatureConfig(extractor="corners", max_keypoints=77))
    assert len(extractor.extract(np.zeros((8, 8), np.uint8))) == 77


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("corners", ("corners", "corners", "corners", 1)),
        ("full", ("corners 2", "corners fast", "corners 2 fast", 3)),
        ("inheriting", ("inheriting 70", "inheriting", "inheriting 70", 1)),
    ],
)
def test_attributes_missing_in_a_plugin_have_defaults(
    name: str, expected: tuple[str, str, str, int]
) -> None:
    extractor = create_extractor(FeatureConfig(extractor=name, max_keypoints=70))
    assert isinstance(extractor, Extractor)
    assert (
        extractor.identity,
        extractor.engine,
        extractor.fingerprint,
        extractor.max_concurrency,
    ) == expected


@pytest.mark.usefixtures("toy")
def test_old_names_of_plugin_attributes_are_read_with_a_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extractor = create_extractor(FeatureConfig(extractor="old"))
    assert (extractor.max_concurrency, extractor.max_descriptor_distance) == (4, 0.7)
    for old, new in (("at_once", "max_concurrency"), ("max_distance", "max_descriptor_distance")):
        assert (
            f"extractor corners: its attribute {old} is called {new} now; "
            "the old name ends with the next release" in caplog.messages
        )


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", ["corners", "inheriting"])
def test_the_code_of_a_plugin_is_in_the_key_of_its_features(name: str, tmp_path: Path) -> None:
    extractor = create_extractor(FeatureConfig(extractor=name))
    assert code_files(extractor)["toy_corners"] == tmp_path / "toy_corners.py"


@pytest.mark.usefixtures("toy")
def test_plugin_cannot_take_a_built_in_name() -> None:
    assert extractor_names().count("orb") == 1
    assert type(create_extractor(FeatureConfig(extractor="orb"))).__name__ == "OrbExtractor"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("name", "text"),
    [("broken", "no licence server"), ("absent", "toy_absent"), ("not-one", "found int")],
)
def test_a_failing_plugin_is_named_in_one_line(name: str, text: str) -> None:
    with pytest.raises(MissingDependencyError, match=text) as caught:
        create_extractor(FeatureConfig(extractor=name))
    assert repr(name) in str(caught.value)
    assert "superpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("toy")
def test_errors_raised_by_a_plugin_are_passed_on() -> None:
    with pytest.raises(SpslamError, match="max_keypoints=7"):
        create_extractor(FeatureConfig(extractor="picky"))


def test_without_the_package_the_name_is_unknown() -> None:
    assert "corners" not in extractor_names()
    with pytest.raises(SpslamError, match="superpoint, orb, sift"):
        create_extractor(FeatureConfig(extractor="corners"))
