from collections.abc import Callable
from pathlib import Path

import pytest

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError

RigOf = Callable[..., Rig]


def row(name: str, shift: float) -> str:
    return f"{name}: 7.0e+02 0 6.0e+02 {shift:e} 0 7.0e+02 1.8e+02 0 0 0 1 0\n"


def test_the_fourth_column_is_minus_focal_length_times_position(rig_of: RigOf) -> None:
    rig = rig_of(row("P0", 0.0) + row("P1", -378.0) + row("P2", 42.0) + row("P3", -350.0))
    assert rig.T_left_right is not None and rig.T_left_right[0, 3] == pytest.approx(0.54)
    assert rig.cameras[0].size is None and "P0 and P1" in rig.describe("x")
    color = rig_of(row("P2", 42.0) + row("P3", -336.0))
    assert color.T_left_right is not None and color.T_left_right[0, 3] == pytest.approx(0.54)


def test_the_raw_data_give_a_size(rig_of: RigOf) -> None:
    text = "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\n"
    text += "S_rect_00: 1.242000e+03 3.750000e+02\n" + row("P_rect_00", 0.0)
    rig = rig_of(text + row("P_rect_01", -378.0))
    assert rig.cameras[1].size == (1242, 375)


def test_a_right_camera_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text(row("P0", 0.0) + row("P1", -1e300))
    with pytest.raises(CalibrationError, match="no rotation and translation in metres"):
        load_calibration(tmp_path / "calib.txt", lambda: (1242, 375))
