"""A set of shapes: the cache does not change it, and damaged files are not used."""

import logging
from pathlib import Path

import numpy as np
import pytest

from spslam.errors import OutputError
from spslam.frontend.training.data.shapes import PRIMITIVES, draw_shape
from spslam.frontend.training.data.shapes import cache as shape_cache
from spslam.frontend.training.data.shapes.cache import open_shapes


def same(first: shape_cache.ShapeDataset, second: shape_cache.ShapeDataset) -> bool:
    return (
        np.array_equal(first.images, second.images)
        and np.array_equal(first.primitives, second.primitives)
        and all(np.array_equal(first.corners(i), second.corners(i)) for i in range(len(first)))
    )


def test_the_dataset_holds_the_drawn_shapes(tmp_path: Path) -> None:
    dataset = open_shapes(tmp_path / "new" / "cache", 20, (64, 80), 5)
    assert len(dataset) == 20
    assert isinstance(dataset.images, np.memmap)
    assert dataset.primitives.dtype == np.uint8
    assert dataset.primitives.tolist() == [i % len(PRIMITIVES) for i in range(20)]
    for i in range(20):
        image, corners = draw_shape(
            PRIMITIVES[i % len(PRIMITIVES)], (64, 80), np.random.default_rng([5, i])
        )
        assert np.array_equal(dataset.images[i], image)
        assert np.array_equal(dataset.corners(i), corners)
    assert np.array_equal(dataset.corners(-1), dataset.corners(19))
    with pytest.raises(IndexError):
        dataset.corners(20)


def test_cache_is_read_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_shapes(tmp_path, 10, (64, 80), 5)
    monkeypatch.setattr(shape_cache, "draw_shape", None)
    assert same(first, open_shapes(tmp_path, 10, (64, 80), 5))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_settings_use_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_shapes(tmp_path, 10, (64, 80), 5)
    for count, size, seed in ((9, (64, 80), 5), (10, (64, 88), 5), (10, (64, 80), 6)):
        other = open_shapes(tmp_path, count, size, seed)
        assert other.images.shape == (count, *size)
        assert not np.array_equal(other.images, first.images)
    monkeypatch.setattr(shape_cache, "_VERSION", -1)
    open_shapes(tmp_path, 10, (64, 80), 5)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize(
    "name", ["images.npy", "primitives.npy", "corners.npy", "offsets.npy", "checksums.json"]
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_damaged_cache_is_drawn_again(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept = open_shapes(tmp_path / "kept", 6, (32, 40), 5)
    open_shapes(tmp_path / "cache", 6, (32, 40), 5)
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with caplog.at_level(logging.WARNING):
        assert same(kept, open_shapes(tmp_path / "cache", 6, (32, 40), 5))
    assert "drawing them again" in caplog.text
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_number_of_processes_does_not_matter(tmp_path: Path) -> None:
    # A process draws 256 images at a time.
    assert same(
        open_shapes(tmp_path / "a", 300, (32, 40), 5),
        open_shapes(tmp_path / "b", 300, (32, 40), 5, processes=2),
    )


def test_a_folder_that_cannot_be_written_only_costs_the_cache(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="choose another folder"):
        open_shapes(blocked / "cache", 3, (32, 40), 5)
