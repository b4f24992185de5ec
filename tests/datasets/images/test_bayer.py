import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.datasets.images.bayer import (
    BAYER_PATTERNS,
    BayerPattern,
    demosaic,
    demosaic_grey,
    likely_patterns,
)
from spslam.datasets.images.grey_levels import GreyReader
from spslam.errors import CalibrationError

Write = Callable[[Path, np.ndarray], Path]
# OpenCV's order: blue, green, red.
CHANNELS = {"B": 0, "G": 1, "R": 2}


def coloured(width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture whose colours differ much, (H, W, 3) uint8, blue green red."""
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    return np.clip((smooth - 127) * 4 + (60, 130, 190), 0, 255).astype(np.uint8)


def mosaic(picture: np.ndarray, pattern: BayerPattern) -> np.ndarray:
    """What a sensor with the pattern sees of a picture."""
    seen = np.zeros(picture.shape[:2], dtype=picture.dtype)
    for colour, (row, column) in zip(pattern, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        seen[row::2, column::2] = picture[row::2, column::2, CHANNELS[colour]]
    return seen


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("scale", [1, 257])
def test_colours_and_grey_come_back(pattern: BayerPattern, scale: int) -> None:
    """OpenCV names the patterns by the second row: a swap of red and blue would show here."""
    picture: Any = coloured().astype(np.uint8 if scale == 1 else np.uint16) * scale
    raw = mosaic(picture, pattern)
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(demosaic(raw, pattern)[inner].astype(int) - picture[inner]).max() <= 12 * scale
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    assert np.abs(demosaic_grey(raw, pattern)[inner].astype(int) - grey[inner]).max() <= 12 * scale


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_a_mosaic_is_noticed(pattern: BayerPattern) -> None:
    assert pattern in likely_patterns(mosaic(coloured(), pattern))


def test_pictures_and_noise_are_no_mosaic() -> None:
    picture = coloured()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    stripes = np.tile(np.array([0, 255], np.uint8), (48, 32))
    for image in (picture[:, :, 1], noise, stripes, np.zeros((48, 64), np.uint8), picture):
        assert likely_patterns(image) == ()


def test_an_unannounced_mosaic_is_told_once(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [write(tmp_path / f"{i}.png", mosaic(coloured(), "GRBG")) for i in range(2)]
    reader = GreyReader("walk", paths)
    with caplog.at_level(logging.INFO):
        for path in paths:
            reader.read(path)
    assert [record.message for record in caplog.records] == [
        "walk: 0.png seems to be the mosaic of a colour sensor, read as grey: put bayer: GBRG "
        "(or GRBG) into the calibration"
    ]


def test_the_calibration_names_the_pattern(
    tmp_path: Path, write: Write, write_calibration: Callable[..., Path]
) -> None:
    picture = coloured(40, 30)
    for index in range(3):
        write(tmp_path / f"{index}.png", mosaic(picture, "RGGB"))
    write_calibration(tmp_path / "calibration.yaml", bayer="rggb")
    frame = open_sequence(tmp_path)[0]
    assert np.array_equal(frame.image, demosaic_grey(mosaic(picture, "RGGB"), "RGGB"))
    assert frame.color is not None
    assert (
        np.abs(frame.color.image()[5:-5, 5:-5, ::-1].astype(int) - picture[5:-5, 5:-5]).max() < 20
    )


def test_an_unknown_pattern_is_refused(
    tmp_path: Path, write: Write, write_calibration: Callable[..., Path]
) -> None:
    write(tmp_path / "0.png", coloured(40, 30)[:, :, 0])
    write_calibration(tmp_path / "calibration.yaml", bayer="RGB")
    with pytest.raises(CalibrationError, match=r"bayer: .*'RGGB', 'BGGR', 'GBRG' or 'GRBG'"):
        open_sequence(tmp_path)
