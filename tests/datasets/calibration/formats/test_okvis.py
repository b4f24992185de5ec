from collections.abc import Callable

import numpy as np
import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.geometry import inverse, se3_exp

RigOf = Callable[..., Rig]
T_BODY_LEFT = se3_exp(np.array([0.2, -0.1, 0.3, 0.5, 1.0, -0.4]))
T_LEFT_RIGHT = se3_exp(np.array([0.11, 0.002, 0.001, 0.01, 0.02, 0.03]))
POSES = (T_BODY_LEFT, T_BODY_LEFT @ T_LEFT_RIGHT)


def test_okvis_poses_map_cameras_to_the_imu(rig_of: RigOf) -> None:
    cameras = "".join(
        f"     - {{T_SC: {T.ravel().tolist()},\n        image_dimension: [752, 480],\n"
        "        distortion_coefficients: [-0.28, 0.07, 0.0002, 0.00002],\n"
        "        distortion_type: radialtangential,\n"
        "        focal_length: [458.6, 457.2],\n        principal_point: [367.2, 248.3]}\n"
        for T in POSES
    )
    rig = rig_of(f"%YAML:1.0\ncameras:\n{cameras}camera_params:\n    camera_rate: 20\n")
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, T_LEFT_RIGHT, atol=1e-9)
    assert rig.cameras[1].intrinsics == (458.6, 457.2, 367.2, 248.3)
    assert rig.cameras[0].fps == 20 and rig.cameras[0].size == (752, 480)


@pytest.mark.parametrize("key", ["T_B_C", "T_C_B"])
def test_svo_names_the_direction_of_its_poses(rig_of: RigOf, key: str) -> None:
    def entry(T: np.ndarray) -> str:
        data = (T if key == "T_B_C" else inverse(T)).ravel().tolist()
        return (
            "- camera:\n    distortion:\n      parameters:\n        cols: 1\n        rows: 4\n"
            "        data: [-0.28, 0.07, 0.0002, 0.00002]\n      type: radial-tangential\n"
            "    image_height: 480\n    image_width: 752\n    intrinsics:\n      cols: 1\n"
            "      rows: 4\n      data: [458.6, 457.2, 367.2, 248.3]\n    label: cam\n"
            f"    type: pinhole\n  {key}:\n    cols: 4\n    rows: 4\n    data: {data}\n"
        )

    rig = rig_of("cameras:\n" + "".join(entry(T) for T in POSES) + "label: rig\n")
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, T_LEFT_RIGHT, atol=1e-9)
    assert rig.cameras[0].model == "radtan" and rig.cameras[0].intrinsics[3] == 248.3
