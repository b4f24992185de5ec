"""Camchains of Kalibr."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from recordings import published_forms as forms

from spslam.datasets.calibration.camchain import is_camchain, read_camchain
from spslam.errors import CalibrationError

T_LEFT_RIGHT = forms.rigid([0.1, -0.2, 0.3], [0.1, 0.02, -0.03])


def test_a_pair_with_an_imu_is_read(tmp_path: Path) -> None:
    path = forms.camchain(tmp_path / "camchain.yaml", forms.FISHEYE, T_LEFT_RIGHT, 0.004)
    chain = read_camchain(path, 20.0)
    assert is_camchain(path) and chain.has_imu
    left, right = chain.cameras
    assert left.camera.distortion_model == "equidistant" and left.camera.fps == 20.0
    assert left.T_cam_imu == pytest.approx(forms.T_CAM_IMU)
    assert left.T_cam_imu @ np.linalg.inv(right.T_cam_imu) == pytest.approx(T_LEFT_RIGHT)
    assert left.imu_ahead_s == 0.004


def test_without_an_imu_the_chain_gives_the_pose(tmp_path: Path) -> None:
    path = forms.camchain(tmp_path / "c.yaml", forms.FISHEYE, T_LEFT_RIGHT, imu=False)
    left, right = read_camchain(path, 20.0).cameras
    # T_cn_cnm1 is the inverse of T_left_right.
    assert left.T_cam_imu @ np.linalg.inv(right.T_cam_imu) == pytest.approx(T_LEFT_RIGHT)
    assert not read_camchain(path, 20.0).has_imu


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"T_cam_imu": [[1, 2]]}, r"cam0\.T_cam_imu is no rotation"),
        ({"intrinsics": [1, 2, 3]}, r"cam0\.intrinsics: expected 4 numbers"),
        ({"resolution": ["a", 1]}, r"cam0\.resolution: "),
        ({"camera_model": "omni"}, r"cam0\.intrinsics: expected 5 numbers"),
        ({"distortion_model": "wavy"}, "distortion model must be one of"),
    ],
)
def test_faults_are_named(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    path = forms.camchain(tmp_path / "c.yaml", forms.FISHEYE, T_LEFT_RIGHT)
    values = yaml.safe_load(path.read_text())
    values["cam0"] |= changes
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(CalibrationError, match=fault):
        read_camchain(path, 20.0)


def test_other_files_are_no_camchain(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("fx: 3\n")
    assert not is_camchain(tmp_path / "c.yaml")
    with pytest.raises(CalibrationError, match="expected Kalibr's cam0 with intrinsics"):
        read_camchain(tmp_path / "c.yaml", 20.0)
