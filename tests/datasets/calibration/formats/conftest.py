"""Calibration files of other programs, written by the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spslam.datasets.calibration.formats.registry import read_rig
from spslam.datasets.calibration.formats.rig import Rig
from spslam.datasets.calibration.formats.source import Source


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a text file in the folder of the test."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def rig_of(put: Callable[[str, str], Path]) -> Callable[..., Rig]:
    """Write a file and read its cameras: the numbers before any lens model is applied."""

    def read(text: str, name: str = "theirs.yaml") -> Rig:
        rig = read_rig(Source.open(put(name, text)))
        assert rig is not None
        return rig

    return read
