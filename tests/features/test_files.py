"""`extract_features`: the same bytes in every way, and what is kept, refused and reported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from feature_files import ALONE, ORB, texture, write_images

from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FeatureFileError, MissingDependencyError, SchedulerError
from spslam.features.extraction import extract_scaled
from spslam.features.files import ExtractionSettings, extract_features
from spslam.features.h5 import image_names, open_features, read_features
from spslam.features.image_list import find_images
from spslam.frame import Features
from spslam.frontend.extractors.registry import create_extractor
from spslam.interfaces import Extractor

h5py: Any = pytest.importorskip("h5py")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_images(folder, 6)
    return folder


def extract(photos: Path, out: Path, **changes: Any) -> Any:
    return extract_features(find_images(photos), out, replace(ALONE, **changes))


def stop_after(count: int) -> Any:
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= count


def test_the_file_holds_the_features_of_the_extractor(photos: Path, tmp_path: Path) -> None:
    summary = extract(photos, tmp_path / "f.h5", full_precision=True)
    assert (summary.done, summary.present, summary.unreadable) == (6, 0, {})
    image = cv2.imread(str(photos / "front" / "1.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    expected = create_extractor(ORB).extract(image.astype(np.uint8))
    found = read_features(tmp_path / "f.h5", "front/1.png")
    assert np.array_equal(found.keypoints, expected.keypoints)
    # Bits of ORB become vectors of unit length.
    assert np.allclose(np.linalg.norm(found.descriptors, axis=1), 1)
    assert found.descriptors.shape == (len(expected), 256)
    with open_features(tmp_path / "f.h5") as file:
        assert file.attributes["extractor_identity"] == "orb"
        assert file.attributes["engine"] == "orb"
        assert file.attributes["settings"]["features"]["max_keypoints"] == 200
        assert "centre of the first pixel" in file.attributes["coordinate_origin"]
        assert file.max_descriptor_distance == create_extractor(ORB).max_descriptor_distance
        assert file.attributes["spslam_version"]
    assert not (tmp_path / "f.h5.partial").exists()


def test_workers_interruptions_and_later_images_do_not_change_the_bytes(
    photos: Path, tmp_path: Path
) -> None:
    extract(photos, tmp_path / "alone.h5")
    expected = (tmp_path / "alone.h5").read_bytes()
    extract(photos, tmp_path / "two.h5", workers=2)
    assert (tmp_path / "two.h5").read_bytes() == expected

    cut = tmp_path / "cut.h5"
    first = extract_features(find_images(photos), cut, ALONE, stopped=stop_after(2))
    assert first.stopped and first.done == 2 and first.journal is not None
    assert not cut.exists()
    # A kill may leave half a record.
    with first.journal.open("ab") as file:
        file.write(b"\x05\0\0\0half")
    second = extract(photos, cut)
    assert (second.done, second.present) == (4, 2)
    assert cut.read_bytes() == expected
    assert extract(photos, cut).done == 0
    assert cut.read_bytes() == expected


def test_new_images_are_added_to_a_file(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    extract(photos, out)
    before = read_features(out, "back/0.png")
    cv2.imwrite(str(photos / "new.png"), texture(9))
    (photos / "back" / "2.png").unlink()
    summary = extract(photos, out)
    assert (summary.done, summary.present) == (1, 5)
    # Images that are not there any more are kept.
    assert len(image_names(out)) == 7
    assert np.array_equal(read_features(out, "back/0.png").descriptors, before.descriptors)


def test_unreadable_images_are_left_out_and_tried_again(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (photos / "back" / "2.png").read_bytes()
    (photos / "back" / "2.png").write_bytes(whole[:-20])
    (photos / "front" / "3.png").write_bytes(b"no image")
    out = tmp_path / "f.h5"
    summary = extract(photos, out)
    assert summary.done == 4
    assert list(summary.unreadable) == ["back/2.png", "front/3.png"]
    assert "cut short" in summary.unreadable["back/2.png"]
    assert "back/2.png is left out" in caplog.text
    (photos / "back" / "2.png").write_bytes(whole)
    assert extract(photos, out).done == 1
    assert len(image_names(out)) == 5


def test_another_extractor_or_other_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    extract(photos, out)
    before = out.read_bytes()
    sift = FeatureConfig(extractor="sift", max_keypoints=200)
    for changes, expected in (
        ({"config": sift}, "extractor_identity orb, now sift"),
        ({"config": replace_config(max_keypoints=300)}, "max_keypoints 200, now 300"),
        ({"max_size": 100}, "max_size none, now 100"),
        ({"full_precision": True}, "precision float16, now float32"),
    ):
        with pytest.raises(FeatureFileError, match=expected):
            extract(photos, out, **changes)
    # The number of threads changes nothing.
    assert extract(photos, out, config=replace_config(threads=2)).done == 0
    assert out.read_bytes() == before
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file.create_group("a.png")
    with pytest.raises(FeatureFileError, match="not written by this command"):
        extract(photos, tmp_path / "foreign.h5")
    out.write_bytes(before[:1000])
    with pytest.raises(FeatureFileError, match="damaged"):
        extract(photos, out)
    assert out.read_bytes() == before[:1000]


def replace_config(**changes: Any) -> FeatureConfig:
    return ORB.model_copy(update=changes)


class _Corners(Extractor):
    """Finds the brightest pixel; its descriptors have as many numbers as it was called."""

    name = "corners"
    max_descriptor_distance = 0.7
    pixel_sigma = 1.0
    dimension = 8

    def extract(self, image: np.ndarray) -> Features:
        self.dimension += 1
        row, column = np.unravel_index(int(image.argmax()), image.shape)
        descriptors = np.ones((1, self.dimension), np.float32) / np.float32(np.sqrt(self.dimension))
        return Features(np.array([[column, row]], np.float32), np.ones(1, np.float32), descriptors)


def test_positions_of_reduced_images_are_those_of_the_original() -> None:
    image = np.zeros((90, 120), np.uint8)
    # A block of 3×3 pixels around (61, 31) is one pixel of the reduced image.
    image[30:33, 60:63] = 200
    found = extract_scaled(_Corners(), image, 40)
    assert found.keypoints.tolist() == [[61, 31]]
    assert (found.image_size, found.pixel_sigma) == ((120, 90), 3.0)
    # Smaller images are not enlarged.
    assert extract_scaled(_Corners(), image, 120).pixel_sigma == 1.0


def test_descriptors_of_changing_size_end_the_command(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _Corners()
    monkeypatch.setattr("spslam.frontend.extractors.registry.create_extractor", lambda config: made)
    with pytest.raises(FeatureFileError, match=r"expected descriptors of 9 numbers .* found 10"):
        extract(photos, tmp_path / "f.h5")
    assert (tmp_path / "f.h5.partial").exists()


def test_sixteen_bits_keep_their_range_when_images_are_added(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "f.h5"
    folder.mkdir()
    # Values of 12 bits.
    cv2.imwrite(str(folder / "0.png"), texture(0).astype(np.uint16) * 16)
    extract(folder, out)
    expected = create_extractor(ORB).extract(
        (texture(0) * (16 * 255 / 4095)).round().astype(np.uint8)
    )
    assert len(read_features(out, "0.png")) == len(expected) > 20
    cv2.imwrite(str(folder / "1.png"), texture(1).astype(np.uint16) * 250)
    assert extract(folder, out).done == 1


def test_orientation_tags_are_ignored_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cv2.imwrite(str(tmp_path / "0.jpg"), texture(0))
    plain = (tmp_path / "0.jpg").read_bytes()
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "1.jpg").write_bytes(plain[:2] + segment + plain[2:])
    extract(tmp_path, tmp_path / "f.h5")
    assert "1 images have an orientation tag (1.jpg: 6), which is ignored" in caplog.text
    one, other = (read_features(tmp_path / "f.h5", name) for name in ("0.jpg", "1.jpg"))
    assert np.array_equal(one.keypoints, other.keypoints) and len(one) > 20


def test_wrong_outputs_and_missing_packages_are_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"\.h5, \.hdf5, \.db"):
        extract(photos, tmp_path / "f.npz")
    with pytest.raises(ConfigError, match="drop one of the two"):
        extract(photos, tmp_path / "f.h5", scheduler="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"spslam\[h5\]"):
        extract(photos, tmp_path / "f.h5")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match=r"spslam\[colmap\]"):
        extract(photos, tmp_path / "f.db")


@pytest.fixture
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None
    ) as made:
        yield made


def test_a_cluster_gives_the_same_bytes(cluster: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "front" / "3.png").write_bytes(b"no image")
    extract(photos, tmp_path / "here.h5")
    settings = ExtractionSettings(ORB, scheduler=cluster.scheduler_address)
    summary = extract_features(find_images(photos), tmp_path / "there.h5", settings)
    assert summary.done == 5 and list(summary.unreadable) == ["front/3.png"]
    assert (tmp_path / "there.h5").read_bytes() == (tmp_path / "here.h5").read_bytes()


def test_a_missing_scheduler_keeps_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("spslam.process.cluster.CONNECT_S", 0.2)
    settings = ExtractionSettings(ORB, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(SchedulerError, match="no Dask scheduler answers"):
        extract_features(find_images(photos), tmp_path / "f.h5", settings)
    assert not list(tmp_path.glob("f.h5*"))
