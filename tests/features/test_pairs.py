"""Pairs of images: which are chosen, and wrong files of pairs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from feature_files import random_features

from spslam.errors import FeatureFileError
from spslam.features.h5 import StoredFeatures
from spslam.features.pairs import (
    check_pair_names,
    exhaustive_pairs,
    read_pairs,
    retrieval_pairs,
    sequential_pairs,
)

NAMES = [f"{number}.png" for number in (10, 2, 1, 9)]


def test_sequences_follow_the_natural_order() -> None:
    assert exhaustive_pairs(NAMES[:3]) == [
        ("1.png", "2.png"),
        ("1.png", "10.png"),
        ("2.png", "10.png"),
    ]
    assert sequential_pairs(NAMES, 1) == [
        ("1.png", "2.png"),
        ("2.png", "9.png"),
        ("9.png", "10.png"),
    ]
    assert sequential_pairs(NAMES, 1, [3]) == [
        ("1.png", "2.png"),
        ("1.png", "10.png"),
        ("2.png", "9.png"),
        ("9.png", "10.png"),
    ]


def test_files_of_pairs_are_read_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# all\n1.png 2.png\n\n2.png 1.png\na b.png\t9.png\n")
    assert read_pairs(path, [*NAMES, "a b.png"]) == [("1.png", "2.png"), ("a b.png", "9.png")]
    assert "1 pairs are repeated" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("1.png 7.png\n8.png 2.png\n", "no features of 7.png and of 1 other:"),
        ("1.png\n", "line 1: expected two names"),
        ("1.png 2.png\n1.png 2.png 9.png\n", "line 2: expected two names"),
        ("1.png 1.png\n", "matched with itself: 1.png"),
    ],
)
def test_wrong_files_of_pairs_are_refused(content: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(content)
    with pytest.raises(FeatureFileError, match=re.escape(expected)):
        read_pairs(tmp_path / "pairs.txt", NAMES)


def test_retrieval_finds_images_of_one_place_and_never_the_image_itself() -> None:
    """Images 3k to 3k + 2 see the same points."""

    def read(name: str) -> StoredFeatures:
        number = int(name)
        place = random_features(number // 3, 80)
        noise = np.random.default_rng(number).normal(size=place.descriptors.shape)
        descriptors = (place.descriptors + 0.02 * noise).astype(np.float32)
        return StoredFeatures(
            place.keypoints, place.scores, descriptors, place.image_size, place.pixel_sigma
        )

    names = [str(number) for number in range(24)]
    pairs = retrieval_pairs(names, read, 2, None)
    expected = {
        (str(first), str(second))
        for place in range(0, 24, 3)
        for first, second in ((place, place + 1), (place, place + 2), (place + 1, place + 2))
    }
    assert set(pairs) == expected and len(pairs) == len(expected)
    with pytest.raises(FeatureFileError, match="too few keypoints"):
        retrieval_pairs(["a", "b"], lambda name: random_features(0, 3), 2, None)


def test_pairs_with_one_name_in_the_layout_of_hloc_are_refused() -> None:
    check_pair_names([("a/b", "c"), ("a/b", "d")])
    with pytest.raises(FeatureFileError, match="same name in hloc's layout"):
        check_pair_names([("a/b", "c"), ("a-b", "c")])
