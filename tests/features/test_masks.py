"""`spslam features --mask`: which masks belong to which images, and what lies outside of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import call, refused
from feature_files import ALONE, ORB, texture, write_images

from spslam.datasets.world.disturbed import disturb
from spslam.errors import DatasetError, FeatureFileError
from spslam.features.files import extract_features
from spslam.features.h5 import open_features, read_features
from spslam.features.image_list import find_images
from spslam.features.masks import ImageMasks, auto_mask_file
from spslam.frontend.extractors.registry import create_extractor

pytest.importorskip("h5py")
# Side of the margin that runs keep at masked parts, pixels.
MARGIN = 4


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 4)
    return tmp_path / "photos"


def write_mask(path: Path, columns: slice, size: tuple[int, int] = (160, 120)) -> Path:
    """A mask that is black in some columns."""
    white = np.full(size[::-1], 255, np.uint8)
    white[:, columns] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), white)
    return path


def extract(photos: Path, out: Path, mask: Path | str | None, **changes: Any) -> Any:
    given = None if mask is None else str(mask)
    return extract_features(find_images(photos), out, replace(ALONE, mask=given, **changes))


def columns_of(out: Path, name: str) -> np.ndarray:
    return read_features(out, name).keypoints[:, 0]


def test_keypoints_lie_outside_of_the_mask(photos: Path, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "mask.png", slice(0, 80))
    summary = extract(photos, tmp_path / "f.h5", mask)
    assert summary.masked == [0.5] * 4
    extract(photos, tmp_path / "whole.h5", None)
    for name in find_images(photos).names:
        assert columns_of(tmp_path / "whole.h5", name).min() < 60
        assert columns_of(tmp_path / "f.h5", name).min() > 80 + MARGIN - 1
        assert len(columns_of(tmp_path / "f.h5", name)) > 20
    # The budget counts keypoints that are kept: as the extractor chooses inside a mask.
    image = cv2.imread(str(photos / "back" / "0.png"), cv2.IMREAD_GRAYSCALE)
    allowed = np.zeros((120, 160), bool)
    allowed[:, 80 + MARGIN :] = True
    expected = create_extractor(ORB).extract_inside(np.asarray(image, np.uint8), allowed)
    found = read_features(tmp_path / "f.h5", "back/0.png")
    assert np.array_equal(found.keypoints, expected.keypoints)


def test_masks_are_reduced_with_the_images(photos: Path, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "mask.png", slice(80, 160))
    extract(photos, tmp_path / "f.h5", mask, max_size=80)
    for name in find_images(photos).names:
        columns = columns_of(tmp_path / "f.h5", name)
        # The margin is that of the reduced image.
        assert len(columns) and columns.max() < 80 - 2 * MARGIN + 2


def test_each_image_has_the_mask_of_its_name_and_folder(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    write_mask(masks / "back" / "0.png", slice(0, 80))
    write_mask(masks / "front" / "1.png.png", slice(80, 160))
    summary = extract(photos, tmp_path / "f.h5", masks)
    assert len(summary.masked) == 2 and summary.done == 4
    assert columns_of(tmp_path / "f.h5", "back/0.png").min() > 80
    assert columns_of(tmp_path / "f.h5", "front/1.png").max() < 80
    whole = columns_of(tmp_path / "f.h5", "back/2.png")
    assert whole.min() < 60 and whole.max() > 100


def test_left_and_right_are_names_like_others(photos: Path, tmp_path: Path) -> None:
    """They are not those of a stereo pair."""
    images = tmp_path / "pair"
    images.mkdir()
    for name, source in (("left.png", "back/0.png"), ("right.png", "front/1.png")):
        (images / name).write_bytes((photos / source).read_bytes())
    masks = tmp_path / "masks"
    write_mask(masks / "left.png", slice(0, 80))
    write_mask(masks / "right.png", slice(80, 160))
    extract(images, tmp_path / "f.h5", masks)
    assert columns_of(tmp_path / "f.h5", "left.png").min() > 80
    assert columns_of(tmp_path / "f.h5", "right.png").max() < 80


def test_images_of_one_number_do_not_share_a_mask(photos: Path, tmp_path: Path) -> None:
    images = tmp_path / "numbers"
    for name in ("x/frame1.png", "y/shot1.png"):
        (images / name).parent.mkdir(parents=True)
        (images / name).write_bytes((photos / "back/0.png").read_bytes())
    write_mask(tmp_path / "masks" / "000001.png", slice(0, 80))
    with pytest.raises(DatasetError, match=r"would share the mask .*000001\.png"):
        extract(images, tmp_path / "f.h5", tmp_path / "masks")


def test_masks_of_all_folders_may_lie_in_one(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for number in range(4):
        write_mask(masks / f"{number}.png", slice(0, 80))
    assert len(extract(photos, tmp_path / "f.h5", masks).masked) == 4
    (photos / "front" / "0.png").write_bytes((photos / "front" / "1.png").read_bytes())
    with pytest.raises(DatasetError, match=r"back/0\.png and front/0\.png would share the mask"):
        extract(photos, tmp_path / "other.h5", masks)


def test_workers_and_interruptions_do_not_change_the_bytes(photos: Path, tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "mask.png", slice(0, 80))
    extract(photos, tmp_path / "one.h5", mask)
    extract(photos, tmp_path / "two.h5", mask, workers=2)
    settings = replace(ALONE, mask=str(mask))
    cut = tmp_path / "cut.h5"
    extract_features(find_images(photos), cut, settings, stopped=lambda: True)
    assert extract_features(find_images(photos), cut, settings).present == 1
    expected = (tmp_path / "one.h5").read_bytes()
    assert (tmp_path / "two.h5").read_bytes() == expected == cut.read_bytes()


def test_a_file_of_another_mask_is_refused(photos: Path, tmp_path: Path) -> None:
    mask, out = write_mask(tmp_path / "mask.png", slice(0, 80)), tmp_path / "f.h5"
    extract(photos, out, mask)
    with open_features(out) as file:
        assert len(file.attributes["settings"]["mask"]) == 12
    for other in (None, write_mask(tmp_path / "other.png", slice(0, 70))):
        with pytest.raises(FeatureFileError, match=r"mask [0-9a-f]{12}, now"):
            extract(photos, out, other)
    assert extract(photos, out, mask).present == 4


def test_an_image_whose_mask_does_not_fit_is_named(photos: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    write_mask(masks / "0.png", slice(0, 8), (100, 120))
    write_mask(masks / "1.png", slice(0, 80))
    summary = extract(photos, tmp_path / "f.h5", masks)
    assert list(summary.unreadable) == ["back/0.png"] and summary.done == 3
    assert "is 100x120, but the images are 160x120" in summary.unreadable["back/0.png"]


def test_the_command_counts_masks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    write_mask(masks / "0.png", slice(0, 80))
    write_mask(masks / "1.png", slice(0, 40))
    orb = ("--extractor", "orb", "--workers", "1")
    out = str(tmp_path / "f.h5")
    assert call("features", str(photos), "--out", out, "--mask", str(masks), *orb) == 0
    printed = capsys.readouterr().out
    assert ", 38 % masked (2 images without a mask used as a whole), 0 were there" in printed
    none = str(tmp_path / "none")
    line = refused(capsys, "features", str(photos), "--out", out, "--mask", none, *orb)
    assert "found nothing at" in line
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"expected masks .* found none"):
        ImageMasks(tmp_path / "empty")


def strip_folder(folder: Path) -> Path:
    """Frames of demo-small with a strip that is fixed to the camera."""
    from world_folder import world

    frames = disturb(world(), ["body:fraction=0.25"])
    folder.mkdir()
    for index in range(0, len(frames)):
        cv2.imwrite(str(folder / f"{index:04}.png"), frames[index].image)
    return folder


@pytest.mark.slow
def test_auto_finds_what_is_fixed_to_the_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = strip_folder(tmp_path / "images"), tmp_path / "f.h5"
    orb = ("--extractor", "orb", "--workers", "1", "--set", "features.max_keypoints=100")
    assert call("features", str(images), "--out", str(out), "--mask", "auto", *orb) == 0
    printed = capsys.readouterr()
    assert "% masked, 0 were there" in printed.out and "--mask auto masks" in printed.err
    mask = cv2.imread(str(auto_mask_file(out)), cv2.IMREAD_GRAYSCALE)
    assert mask is not None and 0.15 < np.mean(mask == 0) < 0.35
    with open_features(out) as file:
        rows, columns = np.concatenate(
            [np.rint(file.read(name).keypoints[:, ::-1]) for name in file.names]
        ).T.astype(int)
    assert (mask[rows, columns] == 255).all()
    # The same mask for more images: it is not looked for again.
    (images / "9999.png").write_bytes((images / "0000.png").read_bytes())
    assert call("features", str(images), "--out", str(out), "--mask", "auto", *orb) == 0
    assert "1 image done" in capsys.readouterr().out


def test_auto_finds_nothing_in_a_few_pictures(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A mask of an earlier file of this name.
    write_mask(auto_mask_file(tmp_path / "f.h5"), slice(0, 80))
    summary = extract(photos, tmp_path / "f.h5", "auto")
    assert summary.masked == [] and summary.done == 4
    assert "--mask auto masks nothing" in caplog.text
    assert not auto_mask_file(tmp_path / "f.h5").exists()
    assert extract(photos, tmp_path / "f.h5", "auto").done == 0


def test_auto_needs_images_of_one_size(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(40):
        width = 200 if index == 20 else 160
        cv2.imwrite(str(folder / f"{index:02}.png"), texture(index, width))
    with pytest.raises(DatasetError, match=r"images of one size, found 200x120 in 20\.png"):
        extract(folder, tmp_path / "f.h5", "auto")
