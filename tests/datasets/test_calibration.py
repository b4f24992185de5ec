from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets.calibration import find_calibration, load_calibration
from spslam.errors import CalibrationError

WriteCalibration = Callable[..., Path]


def test_the_shipped_example_loads() -> None:
    with resources.as_file(resources.files("spslam.datasets") / "calibration_example.yaml") as path:
        calibration = load_calibration(path)
    assert calibration.camera.distortion_model == "radtan"
    assert calibration.right is not None and calibration.T_left_right is not None
    assert calibration.T_left_right[0, 3] == pytest.approx(0.11)
    assert calibration.fps == 30.0 and calibration.depth_scale == 1000.0


def test_defaults(tmp_path: Path, write_calibration: WriteCalibration) -> None:
    calibration = load_calibration(write_calibration(tmp_path / "c.yaml", fps=None))
    assert (calibration.fps, calibration.right, calibration.T_left_right, calibration.depth_scale) == (None,) * 4
    assert calibration.camera.distortion_model == "none" and calibration.camera.baseline_m is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal": 3}, "unknown key focal"),
        ({"distortion": {"model": "radtan", "coefs": []}}, r"unknown key distortion\.coefs"),
        ({"right": {"width": 40, "baseline": 1}, "T_left_right": np.eye(4).tolist()}, r"unknown key right\.baseline"),
        ({"fx": None}, "missing key fx"),
        ({"fx": -1.0}, "fx: Input should be greater than 0, found -1.0"),
        ({"cy": "abc"}, "cy: .* found 'abc'"),
        ({"cx": float("nan")}, "cx: .*finite"),
        ({"cx": 400.0}, "principal point .* lies outside the 40x30 image"),
        ({"distortion": {"model": "fisheye"}}, r"distortion\.model: .*'equidistant'"),
        ({"distortion": {"model": "radtan", "coefficients": [0.1]}}, "takes 4 or 5 or 8 coefficients, found 1"),
        ({"T_left_right": np.eye(4).tolist()}, "right and T_left_right belong together"),
        ({"stereo": True, "T_left_right": (2 * np.eye(4)).tolist()}, "must be a rotation and a translation"),
        ({"stereo": True, "T_left_right": np.eye(3).tolist()}, "T_left_right"),
        ({"depth_scale": 0}, "depth_scale"),
    ],
)
def test_bad_values_are_refused_in_one_line_with_the_key(
    tmp_path: Path, write_calibration: WriteCalibration, changes: dict[str, object], message: str
) -> None:
    path = write_calibration(tmp_path / "c.yaml", **changes)
    with pytest.raises(CalibrationError, match=message) as error:
        load_calibration(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "a: [1", "\0"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=r"c\.yaml"):
        load_calibration(tmp_path / "c.yaml")


def test_find(tmp_path: Path, write_calibration: WriteCalibration) -> None:
    with pytest.raises(CalibrationError, match="the thing needs a calibration: give --calibration FILE or put"):
        find_calibration(None, [tmp_path], "the thing")
    with pytest.raises(CalibrationError, match="cannot be read"):
        find_calibration(tmp_path / "none.yaml", [tmp_path], "the thing")
    inside = write_calibration(tmp_path / "b" / "calibration.yaml", fps=3.0)
    other = write_calibration(tmp_path / "other.yaml", fps=4.0)
    assert find_calibration(None, [tmp_path, tmp_path / "b"], "the thing").path == inside
    assert find_calibration(other, [tmp_path / "b"], "the thing").fps == 4.0
