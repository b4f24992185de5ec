"""How mask images are read, resized and warped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets.masks.mask_images import RawView, check_used, fitted, read_mask
from spslam.errors import DatasetError
from spslam.notices import shown_notices


def written(path: Path, pixels: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), pixels)
    return path


LEVELS = np.array([[0, 127, 128, 255]], np.uint8)


def test_white_is_above_half_of_eight_or_sixteen_bits(tmp_path: Path) -> None:
    used = [[False, False, True, True]]
    assert read_mask(written(tmp_path / "m.png", LEVELS)).tolist() == used
    deep = np.array([[0, 32767, 32768, 65535]], np.uint16)
    assert read_mask(written(tmp_path / "deep.png", deep)).tolist() == used
    color = np.repeat(LEVELS[:, :, None], 3, axis=2)
    assert read_mask(written(tmp_path / "color.png", color)).tolist() == used


def test_one_bit_files_and_masks_of_zeros_and_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bit.png"
    white = np.array([[0, 255, 255, 0]], np.uint8)
    assert cv2.imwrite(str(path), white, [cv2.IMWRITE_PNG_BILEVEL, 1])
    assert read_mask(path).tolist() == [[False, True, True, False]]
    with shown_notices(lambda _: None) as notices:
        ones = read_mask(written(tmp_path / "ones.png", white // 255))
    assert ones.tolist() == [[False, True, True, False]]
    assert [found.topic for found in notices.notices] == ["mask_of_ones"]


def test_transparent_pixels_are_masked(tmp_path: Path) -> None:
    pixels = np.full((1, 3, 4), 255, np.uint8)
    pixels[0, :, 3] = [0, 255, 100]
    assert read_mask(written(tmp_path / "m.png", pixels)).tolist() == [[False, True, False]]


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"mask .*m\.png"):
        read_mask(tmp_path / "m.png")


def test_a_mask_of_the_same_aspect_ratio_is_resized_with_a_notice() -> None:
    small = np.zeros((3, 4), bool)
    small[:, 2:] = True
    with shown_notices(lambda _: None) as notices:
        mask = fitted(small, RawView(40, 30), Path("m.png"))
    assert mask.shape == (30, 40) and not mask[:, :20].any() and mask[:, 20:].all()
    assert "was resized to the images' 40x30" in notices.notices[0].text
    # 1241 x 376 reduced by 4 is 310.25 x 94.
    assert fitted(np.ones((94, 310), bool), RawView(1241, 376), Path("m.png")).shape == (376, 1241)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"m\.png is 30x30, but the images are 40x30"):
        fitted(np.ones((30, 30), bool), RawView(40, 30), Path("m.png"))


def test_black_masks_are_refused_and_nearly_black_ones_doubted() -> None:
    mask = np.zeros((10, 10), bool)
    with pytest.raises(DatasetError, match="is black: white is used"):
        check_used(mask, Path("m.png"), mask)
    mask[0, :4] = True
    with shown_notices(lambda _: None) as notices:
        check_used(mask, Path("m.png"), mask)
    assert "96 % black, and only white is used: is it inverted?" in notices.notices[0].text


def test_masks_are_warped_to_views_and_back() -> None:
    y, x = np.indices((40, 60), dtype=np.float32)
    # The view shows the raw image twice as large from its column 10 on, and beyond its right edge.
    view = RawView(60, 40, (10 + x, y * 0.5 + 5))
    raw = np.ones((40, 60), bool)
    raw[15:, :] = False
    mask = view.from_raw(raw)
    assert mask[:18, :49].all() and not mask[22:].any() and not mask[:, 51:].any()
    again = view.from_raw(view.to_raw(mask))
    np.testing.assert_array_equal(again, mask)
    assert view.to_raw(mask)[:14].all() and not view.to_raw(mask)[16:24, 10:].any()
    assert RawView(60, 40).from_raw(raw) is raw
