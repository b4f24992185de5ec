"""Masks that a user gives: as an image, as a folder, in a calibration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from spslam.datasets import BaseSequence, open_sequence
from spslam.errors import DatasetError
from spslam.notices import shown_notices

WIDTH, HEIGHT = 40, 30
# Like the calibration of `conftest`, with a rotated right camera, so that pairs are rectified.
TURN = [
    [0.99995, 0, 0.01, 0.1],
    [0, 1.0, 0, 0],
    [-0.01, 0, 0.99995, 0],
    [0, 0, 0, 1.0],
]


def bottom(rows: int) -> np.ndarray:
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[HEIGHT - rows :] = 0
    return mask


def opened(path: Path | str, **options: Any) -> BaseSequence:
    sequence = open_sequence(path, **options)
    assert isinstance(sequence, BaseSequence)
    return sequence


@pytest.fixture
def walk(
    tmp_path: Path, write: Callable, picture: Callable, write_calibration: Callable
) -> Callable[..., Path]:
    """Write an image folder with images 0007.jpg and so on, and a calibration."""

    def make(count: int = 3, *, stereo: bool = False, **changes: object) -> Path:
        folder = tmp_path / "walk"
        for number in range(count):
            for side in ("left", "right")[: 1 + stereo]:
                write(folder / side / f"{number + 7:04d}.png", picture(number))
        write_calibration(folder / "calibration.yaml", stereo=stereo, **changes)
        return folder

    return make


def test_a_static_mask_is_on_every_frame(walk: Callable, write: Callable, tmp_path: Path) -> None:
    mask = write(tmp_path / "m.png", bottom(6))
    frames = opened(walk(), mask=mask, stride=2)
    assert [frame.index for frame in frames] == [0, 2]
    for frame in (*frames, frames[1]):
        assert frame.mask is not None and frame.mask_right is None
        np.testing.assert_array_equal(frame.mask, bottom(6) > 127)
    assert frames.mask_metrics() == {
        "mask_source": "file",
        "masked_fraction": pytest.approx(0.2),
        "frames_without_mask": 0,
    }


def test_without_a_mask_frames_have_none(walk: Callable) -> None:
    frames = opened(walk())
    assert frames[0].mask is None and frames.mask_metrics()["mask_source"] is None


@pytest.mark.parametrize(
    "names",
    [
        ("0007.png", "0009.png"),
        ("0007.png.png", "0009.png.png"),
        ("mask_7.jpg", "mask_9.jpg"),
    ],
)
def test_masks_of_images_are_matched_and_missing_ones_counted(
    walk: Callable, write: Callable, tmp_path: Path, names: tuple[str, str]
) -> None:
    for name, rows in zip(names, (3, 9), strict=True):
        write(tmp_path / "masks" / name, bottom(rows))
    with shown_notices(lambda _: None) as notices:
        frames = opened(walk(), mask=tmp_path / "masks")
    fractions = [None if f.mask is None else round(float(np.mean(~f.mask)), 1) for f in frames]
    assert fractions == [0.1, None, 0.3]
    found = {one.topic: one for one in notices.notices}
    assert found["masks_missing"].count == 1
    assert "1 image has no mask and is used as a whole" in found["masks_missing"].text
    assert frames.mask_metrics()["frames_without_mask"] == 1


def test_masks_are_matched_by_time(
    walk: Callable, write: Callable, picture: Callable, tmp_path: Path, write_calibration: Callable
) -> None:
    folder = tmp_path / "timed"
    for step in range(3):
        write(folder / f"{1403715273.0 + 0.1 * step:.6f}.png", picture(step))
        # 4 ms late, and in nanoseconds.
        stamp = 1403715273_004000000 + 100_000_000 * step
        write(tmp_path / "masks" / f"{stamp}.png", bottom(3 * step + 3))
    write_calibration(folder / "calibration.yaml")
    frames = opened(folder, mask=tmp_path / "masks")
    masks = [frame.mask for frame in frames]
    assert [round(float(np.mean(~mask)), 1) for mask in masks if mask is not None] == [
        0.1,
        0.2,
        0.3,
    ]


def test_masks_of_a_world_are_matched_by_the_number_of_the_frame(
    write: Callable, tmp_path: Path
) -> None:
    black = np.full((240, 320), 255, np.uint8)
    black[200:] = 0
    write(tmp_path / "m" / "000002.png", black)
    frames = opened("demo-small", sensor="mono", mask=tmp_path / "m", max_frames=4)
    assert frames[0].mask is None
    assert frames[2].mask is not None and not frames[2].mask[200:].any()


@pytest.mark.parametrize("layout", ["folders", "files", "beside"])
def test_pairs_may_have_a_mask_each(
    walk: Callable, write: Callable, tmp_path: Path, layout: str
) -> None:
    place = tmp_path / "masks"
    names = {
        "folders": ("left/0007.png", "right/0007.png"),
        "files": ("left.png", "right.png"),
        "beside": ("bonnet.png", "bonnet_right.png"),
    }[layout]
    for name, rows in zip(names, (3, 9), strict=True):
        write(place / name, bottom(rows))
    given = place / "bonnet.png" if layout == "beside" else place
    frame = opened(walk(stereo=True), mask=given)[0]
    assert frame.mask is not None and frame.mask_right is not None
    assert np.mean(~frame.mask) == pytest.approx(0.1)
    assert np.mean(~frame.mask_right) == pytest.approx(0.3)


def test_a_pair_with_a_left_mask_only_gets_a_notice(
    walk: Callable, write: Callable, tmp_path: Path
) -> None:
    with shown_notices(lambda _: None) as notices:
        frames = opened(walk(stereo=True), mask=write(tmp_path / "m.png", bottom(3)))
    assert frames[0].mask_right is None
    assert "right images have none (m_right.png beside it would be)" in notices.notices[-1].text


def test_masks_of_rectified_pairs_are_warped(
    walk: Callable, write: Callable, tmp_path: Path
) -> None:
    folder = walk(stereo=True, T_left_right=TURN)
    plain = opened(folder)
    frame = opened(folder, mask=write(tmp_path / "m.png", bottom(8)))[0]
    view = plain.raw_views()[0]
    assert frame.mask is not None and view.maps is not None
    # The row of the raw image that each pixel shows decides.
    inside = (view.maps[0] > 0) & (view.maps[0] < WIDTH - 1) & (view.maps[1] > 0)
    clear = inside & (np.abs(view.maps[1] - (HEIGHT - 8.5)) > 0.6)
    np.testing.assert_array_equal(frame.mask[clear], (view.maps[1] < HEIGHT - 8.5)[clear])


def test_a_calibration_names_masks_relative_to_itself(walk: Callable, write: Callable) -> None:
    folder = walk(stereo=True)
    path = folder / "calibration.yaml"
    values = yaml.safe_load(path.read_text())
    values["mask"] = "masks/left.png"
    values["right"]["mask"] = "masks/right.png"
    path.write_text(yaml.safe_dump(values))
    write(folder / "masks" / "left.png", bottom(3))
    write(folder / "masks" / "right.png", bottom(6))
    frames = opened(folder)
    frame = frames[1]
    assert frame.mask is not None and frame.mask_right is not None
    assert frames.mask_metrics()["mask_source"] == "calibration"
    assert np.mean(~frame.mask_right) == pytest.approx(0.2)
    # A given mask takes precedence, and a single camera needs no right mask.
    assert opened(folder, mask=folder / "masks" / "right.png", sensor="mono")[0].mask is not None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "found nothing at"),
        ({"m.txt": None}, "expected masks"),
        ({"sky.png": 3}, "none of the masks in .* belongs to an image"),
        ({"0007.png": HEIGHT}, "is black: white is used"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(
    walk: Callable, write: Callable, tmp_path: Path, files: dict[str, int | None], message: str
) -> None:
    for name, rows in files.items():
        (tmp_path / "masks").mkdir(exist_ok=True)
        if rows is None:
            (tmp_path / "masks" / name).write_text("")
        else:
            write(tmp_path / "masks" / name, bottom(rows))
    with pytest.raises(DatasetError, match=message):
        opened(walk(), mask=tmp_path / "masks")
