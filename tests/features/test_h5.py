"""Files of features and matches: hloc's layout, the readers, and damaged files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_files import random_features, write_random

from spslam.errors import FeatureFileError, MissingDependencyError
from spslam.features.h5 import (
    PairMatches,
    image_names,
    pair_name,
    read_features,
    read_matches,
    write_features_file,
    write_matches_file,
)

h5py: Any = pytest.importorskip("h5py")


def test_features_have_the_layout_of_hloc(tmp_path: Path) -> None:
    path, features = tmp_path / "f.h5", random_features(0)
    attributes = {"format": "x", "settings": {"b": 1, "a": [2]}}
    write_features_file(path, attributes, [("a/1.jpg", features)], np.float16)
    with h5py.File(path) as file:
        group = file["a/1.jpg"]
        # The statements of hloc's own readers.
        assert group["keypoints"].__array__().shape == (40, 2)
        assert group["keypoints"].attrs.get("uncertainty") == 0.7
        assert {key: (value.shape, value.dtype) for key, value in group.items()} == {
            "keypoints": ((40, 2), np.float32),
            "scores": ((40,), np.float16),
            "descriptors": ((16, 40), np.float16),
            "image_size": ((2,), np.int64),
        }
        assert group["image_size"][()].tolist() == [640, 480]
    found = read_features(path, "a/1.jpg")
    # Positions are not rounded to half a pixel.
    assert np.array_equal(found.keypoints, features.keypoints)
    assert np.allclose(found.descriptors, features.descriptors, atol=1e-3)
    assert (found.image_size, found.pixel_sigma) == ((640, 480), 0.7)
    assert image_names(path) == ["a/1.jpg"]


def test_equal_features_give_equal_bytes(tmp_path: Path) -> None:
    one, other = (
        write_random(tmp_path / f"{name}.h5", a=random_features(0), b__c=random_features(1))
        for name in ("one", "other")
    )
    assert one.read_bytes() == other.read_bytes()


def test_matches_are_read_in_both_orders(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    matches = np.array([[1, 5], [3, 0]], np.int32)
    pair = PairMatches("a/1.jpg", "b.jpg", 4, matches, np.array([0.5, 1], np.float16), False)
    write_matches_file(path, {}, [pair], None)
    with h5py.File(path) as file:
        group = file["a-1.jpg/b.jpg"]
        assert group["matches0"][()].tolist() == [-1, 5, -1, 0]
        assert group["matches0"].dtype == np.int16
        assert group["matching_scores0"][()].tolist() == [0, 0.5, 0, 1]
        assert group["matching_scores0"].dtype == np.float16
    found, scores = read_matches(path, "a/1.jpg", "b.jpg")
    assert found.tolist() == matches.tolist() and scores.tolist() == [0.5, 1]
    assert read_matches(path, "b.jpg", "a/1.jpg")[0].tolist() == [[5, 1], [0, 3]]
    with pytest.raises(FeatureFileError, match=r"no matches of b.jpg and c.jpg"):
        read_matches(path, "b.jpg", "c.jpg")
    assert pair_name("x/y/z", "w") == "x-y-z/w"


def test_earlier_matches_are_kept_and_large_indices_are_wide(tmp_path: Path) -> None:
    first, both = tmp_path / "1.h5", tmp_path / "2.h5"
    scores = np.ones(1, np.float16)
    narrow = PairMatches("a", "b", 2, np.array([[1, 5]], np.int32), scores, False)
    wide = PairMatches("a", "c", 2, np.array([[0, 40000]], np.int32), scores, True)
    write_matches_file(first, {}, [narrow], None)
    write_matches_file(both, {}, [wide], first)
    assert read_matches(both, "a", "b")[0].tolist() == [[1, 5]]
    assert read_matches(both, "a", "c")[0].tolist() == [[0, 40000]]
    with h5py.File(both) as file:
        assert file["a/c/matches0"].dtype == np.int32


@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_damaged_files_are_refused_in_one_line(kept: int, tmp_path: Path) -> None:
    path = write_random(tmp_path / "f.h5", a=random_features(0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FeatureFileError, match=r"f\.h5 is no HDF5 file, or is damaged") as caught:
        read_features(path, "a")
    assert "\n" not in str(caught.value)


def test_foreign_contents_are_refused(tmp_path: Path) -> None:
    path = write_random(tmp_path / "f.h5", a=random_features(0))
    with pytest.raises(FeatureFileError, match="has no image b"):
        read_features(path, "b")
    with pytest.raises(FeatureFileError, match="found none"):
        read_features(tmp_path / "gone.h5", "a")
    with h5py.File(path, "a") as file:
        transposed = file["a/descriptors"][()].T
        del file["a/descriptors"]
        file["a/descriptors"] = transposed
    with pytest.raises(FeatureFileError, match=r"expected .* found .*\(40, 16\)"):
        read_features(path, "a")
    with h5py.File(path, "a") as file:
        del file["a/descriptors"]
    with pytest.raises(FeatureFileError, match="cannot be read"):
        read_features(path, "a")


def test_a_missing_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spslam\[h5\]'"):
        read_features(tmp_path / "f.h5", "a")
