"""Lists of queries: names, with or without intrinsics of COLMAP's models."""

from pathlib import Path

import numpy as np
import pytest
from recordings import published_forms as forms
from recordings.opened import opened

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError

INDICES = (0, 2, 4)


@pytest.fixture
def shots() -> tuple[forms.Shot, ...]:
    return forms.take(INDICES)


def test_a_list_is_recognised_and_opened(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    path = forms.query_list(tmp_path, shots, True)
    sequence, printed = opened(path)
    assert (sequence.dataset, sequence.sensor, len(sequence)) == ("imagelist", "mono", 3)
    assert np.array_equal(sequence[2].image, shots[2].left)
    camera = sequence.camera
    assert (camera.fx, camera.cx, camera.cy) == pytest.approx(
        (forms.OWN.fx, forms.OWN.cx, forms.OWN.cy)
    )
    assert sequence.ground_truth is None and "counted in the order of their names" in printed


def test_names_are_also_relative_to_the_folder_above(
    tmp_path: Path, shots: tuple[forms.Shot, ...]
) -> None:
    path = forms.query_list(tmp_path, shots, True)
    (tmp_path / "queries").mkdir()
    assert len(open_sequence(path.rename(tmp_path / "queries" / path.name))) == 3


def test_names_alone_need_a_calibration(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    path = forms.query_list(tmp_path, shots, False)
    with pytest.raises(CalibrationError, match=r"the list .* needs a calibration"):
        open_sequence(path)
    keys = ("width", "height", "fx", "fy", "cx", "cy")
    calibration = tmp_path / "camera.yaml"
    calibration.write_text("".join(f"{key}: {getattr(forms.OWN, key)}\n" for key in keys))
    assert open_sequence(path, calibration=calibration).camera.fx == forms.OWN.fx
    forms.query_list(tmp_path, shots, True)
    assert "replaces the intrinsics of 3 images" in opened(path, calibration=calibration)[1]


def test_what_is_wrong_is_named(tmp_path: Path, shots: tuple[forms.Shot, ...]) -> None:
    path = forms.query_list(tmp_path, shots, True)
    text = path.read_text()
    for old, new, fault in (
        ("SIMPLE_RADIAL 320 240", "SIMPLE_RADIAL 320 wide", "expected 'name MODEL width height"),
        ("SIMPLE_RADIAL 320", "PINHOLE_2 320", "but no video .* and no list of images"),
        ("query/day", "query/night", "none of the 3 images .* is there"),
        ("SIMPLE_RADIAL 320", "RADIAL 320", "takes 5 parameters, found 4"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises((DatasetError, CalibrationError), match=fault):
            open_sequence(path)
