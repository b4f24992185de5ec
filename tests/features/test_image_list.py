"""The names of the images of a folder or a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from feature_files import write_images

from spslam.errors import DatasetError
from spslam.features.image_list import find_images


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    write_images(tmp_path, 12)
    (tmp_path / "notes.txt").write_text("no image")
    found = find_images(tmp_path)
    assert found.names[:6] == (*(f"back/{number}.png" for number in (0, 2, 4, 6, 8, 10)),)
    assert len(found.names) == 12
    assert found.path("back/0.png") == tmp_path / "back" / "0.png"


def test_a_list_names_images_below_a_root(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = tmp_path / "list.txt"
    names.write_text(f"# query images\nb.png\n\na/c d.png\n{tmp_path}/e.png\nb.png\n")
    found = find_images(names)
    assert found.names == ("b.png", "a/c d.png", "e.png")
    assert found.root == tmp_path
    assert "1 names are repeated" in caplog.text
    names.write_text("b.png\n")
    assert find_images(names, tmp_path / "other").path("b.png") == tmp_path / "other" / "b.png"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "found none"),
        (b"a.png\n../b.png\n", "line 2: expected a name below"),
        (b"/elsewhere/b.png\n", "--root"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_wrong_lists_are_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=expected):
        find_images(tmp_path / "list.txt")


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found none"):
        find_images(tmp_path / "gone")
    with pytest.raises(DatasetError, match="found none"):
        find_images(tmp_path)
    with pytest.raises(DatasetError, match="--root"):
        find_images(tmp_path, tmp_path)
