from collections.abc import Callable
from pathlib import Path

import numpy as np
from foreign_files import FILES

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.source import partner
from spslam.geometry import inverse, se3_exp

Put = Callable[[str, str], Path]


def test_the_sensor_of_the_other_camera_makes_a_pair(put: Put) -> None:
    T_left_right = se3_exp(np.array([0.11, 0.002, 0.001, 0.01, 0.02, 0.03]))
    left = put("cam0/sensor.yaml", FILES["EuRoC"])
    assert load_calibration(left).right is None
    begin, _, tail = FILES["EuRoC"].partition("  data: [")
    numbers, _, end = tail.partition("]")
    T_body_left = np.array([float(number) for number in numbers.split(",")]).reshape(4, 4)
    data = ", ".join(repr(float(value)) for value in (T_body_left @ T_left_right).ravel())
    put("cam1/sensor.yaml", f"{begin}  data: [{data}]{end}")
    calibration = load_calibration(left)
    assert calibration.T_left_right is not None
    np.testing.assert_allclose(calibration.T_left_right, T_left_right, atol=1e-6)
    assert calibration.fps == 20
    np.testing.assert_allclose(
        calibration.T_left_right @ inverse(calibration.T_left_right), np.eye(4), atol=1e-12
    )


def test_partners_by_name() -> None:
    assert partner(Path("a/left.yaml")) == Path("a/right.yaml")
    assert partner(Path("a/left_half.yaml")) == Path("a/right_half.yaml")
    assert partner(Path("a/cam0.yaml")) == Path("a/cam1.yaml")
    assert partner(Path("mav0/cam0/sensor.yaml")) == Path("mav0/cam1/sensor.yaml")
    assert partner(Path("a/leftover.yaml")) is None and partner(Path("camera.yaml")) is None
