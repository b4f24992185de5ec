"""Tiny recordings written by the tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

WIDTH, HEIGHT = 40, 30
CALIBRATION = {
    "width": WIDTH,
    "height": HEIGHT,
    "fx": 30.0,
    "fy": 30.0,
    "cx": 19.5,
    "cy": 14.5,
    "fps": 10.0,
}
T_RIGHT = [[1.0, 0, 0, 0.1], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """Random images, different for each `seed`."""

    def make(
        seed: int = 0, width: int = WIDTH, height: int = HEIGHT, channels: int = 1
    ) -> np.ndarray:
        shape = (height, width) if channels == 1 else (height, width, channels)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture(scope="session")
def write() -> Callable[[Path, np.ndarray], Path]:
    """Write an image and create missing folders."""

    def write_image(path: Path, image: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        return path

    return write_image


@pytest.fixture(scope="session")
def write_calibration() -> Callable[..., Path]:
    """Write a calibration changed by keywords: None removes a key, `stereo` adds a right camera."""

    def write_yaml(path: Path, stereo: bool = False, **changes: Any) -> Path:
        values: dict[str, Any] = dict(CALIBRATION)
        if stereo:
            values |= {"right": dict(CALIBRATION), "T_left_right": T_RIGHT}
        values = {key: value for key, value in (values | changes).items() if value is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values))
        return path

    return write_yaml


@pytest.fixture
def cut_short() -> Callable[[Path], None]:
    """Cut the last fifth off a file."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 4 // 5])

    return cut
