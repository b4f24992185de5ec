from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from foreign_files import FILES

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import se3_exp

Put = Callable[[str, str], Path]


def test_meis_model_has_xi_and_the_distortion_on_the_mirror(rig_of: Callable[..., Rig]) -> None:
    text = """\
%YAML:1.0
---
model_type: MEI
camera_name: image_02
image_width: 1400
image_height: 1400
mirror_parameters:
   xi: 2.2134
distortion_parameters:
   k1: 0.016
   k2: 1.6548
   p1: 0.0004
   p2: 0.0005
projection_parameters:
   gamma1: 1336.3
   gamma2: 1335.8
   u0: 716.94
   v0: 705.76
"""
    (camera,) = rig_of(text).cameras
    assert camera.model == "omni"
    assert camera.coefficients == (2.2134, 0.016, 1.6548, 0.0004, 0.0005)
    assert camera.intrinsics == (1336.3, 1335.8, 716.94, 705.76)


def configuration(poses: list[np.ndarray]) -> str:
    lines = [
        "%YAML:1.0",
        "num_of_cam: 2",
        'cam0_calib: "left_pinhole.yaml"',
        'cam1_calib: "b.yaml"',
    ]
    for number, T in enumerate(poses):
        data = ", ".join(repr(float(value)) for value in T.ravel())
        lines += [f"body_T_cam{number}: !!opencv-matrix", "   rows: 4", "   cols: 4", "   dt: d"]
        lines += [f"   data: [{data}]"]
    return "\n".join(lines) + "\n"


def test_a_configuration_names_the_files_of_its_cameras(put: Put) -> None:
    put("left_pinhole.yaml", FILES["VINS"])
    put("b.yaml", FILES["VINS"].replace("752", "750"))
    T_body_left = se3_exp(np.array([0.2, -0.1, 0.3, 0.5, 1.0, -0.4]))
    T_left_right = se3_exp(np.array([0.1, 0.002, 0.001, 0.01, 0.02, 0.03]))
    path = put("vins.yaml", configuration([T_body_left, T_body_left @ T_left_right]))
    calibration = load_calibration(path)
    assert calibration.T_left_right is not None and calibration.right is not None
    np.testing.assert_allclose(calibration.T_left_right, T_left_right, atol=1e-9)
    assert calibration.right.width == 750


def test_files_elsewhere_are_not_read(put: Put) -> None:
    put("b.yaml", FILES["VINS"])
    other = put("else/left_pinhole.yaml", FILES["VINS"])
    text = configuration([np.eye(4)]).replace("left_pinhole.yaml", str(other))
    with pytest.raises(CalibrationError, match="is not beside it"):
        load_calibration(put("vins.yaml", text))
    with pytest.raises(CalibrationError, match="is not beside it"):
        load_calibration(put("vins.yaml", text.replace("b.yaml", "b" * 400)))
