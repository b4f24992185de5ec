"""Folders of photographs."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.errors import DatasetError
from spslam.frontend.photos import evenly_spread, find_photos, held_out, read_photo

NAMES = [Path(f"set{i % 3}/{i:04d}.jpg") for i in range(3000)]


def test_photos_are_found_in_all_subfolders_sorted(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/c/1.png", "a.jpeg", "notes.txt", ".hidden/1.png", "b/.2.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    assert find_photos(tmp_path) == [tmp_path / name for name in ("a.jpeg", "b/2.JPG", "b/c/1.png")]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        find_photos(tmp_path)
    with pytest.raises(DatasetError, match="found none at"):
        find_photos(tmp_path / "nowhere")


def test_photos_are_read_as_grey_and_other_files_are_refused(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), image)
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.png").touch()
    for name in ("b.png", "c.png", "d.png"):
        with pytest.raises(DatasetError, match=name):
            read_photo(tmp_path / name)


def test_held_out_fraction_and_order() -> None:
    train, kept_out = held_out(NAMES, 0.1, 0)
    assert 240 < len(kept_out) < 360
    assert sorted(train + kept_out) == sorted(NAMES)
    assert kept_out == [path for path in NAMES if path in set(kept_out)]
    assert held_out(NAMES, 0.0, 0) == (NAMES, [])


def test_held_out_does_not_move_when_photos_are_added() -> None:
    all_out = set(held_out(NAMES, 0.1, 3)[1])
    few = NAMES[100:700:7]
    assert set(held_out(few, 0.1, 3)[1]) == all_out & set(few)
    assert set(held_out([Path("/elsewhere") / path for path in few], 0.1, 3)[1]) == {
        Path("/elsewhere") / path for path in all_out & set(few)
    }


def test_held_out_depends_on_seed_and_folder() -> None:
    assert held_out(NAMES, 0.1, 0)[1] != held_out(NAMES, 0.1, 1)[1]
    first = [Path(f"a/{i}.jpg") for i in range(300)]
    second = [Path(f"b/{i}.jpg") for i in range(300)]
    names = [{path.name for path in held_out(paths, 0.3, 0)[1]} for paths in (first, second)]
    assert names[0] != names[1]


def test_evenly_spread() -> None:
    chosen = evenly_spread(NAMES, 30, 0)
    assert chosen == evenly_spread(NAMES, 30, 0) != evenly_spread(NAMES, 30, 1)
    assert [NAMES.index(path) // 100 for path in chosen] == list(range(30))
    assert evenly_spread(NAMES[:5], 30, 0) == NAMES[:5]
