import json
from collections.abc import Callable

import numpy as np
import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import rotation_to_quaternion, se3_exp

RigOf = Callable[..., Rig]
FOCALS = {"fx": 380.0, "fy": 381.0, "cx": 510.0, "cy": 514.0}


def pose(T: np.ndarray) -> dict[str, float]:
    numbers = [*T[:3, 3].tolist(), *rotation_to_quaternion(T[:3, :3]).tolist()]
    return dict(zip(("px", "py", "pz", "qx", "qy", "qz", "qw"), numbers, strict=True))


def file(kind: str, poses: list[np.ndarray], **values: float) -> str:
    entry = {"camera_type": kind, "intrinsics": FOCALS | values}
    count = len(poses)
    value = {
        "T_imu_cam": [pose(T) for T in poses],
        "intrinsics": [entry] * count,
        "resolution": [[1024, 1024]] * count,
        "calib_accel_bias": [0.0] * 9,
    }
    return json.dumps({"value0": value})


@pytest.mark.parametrize(
    ("kind", "values", "model", "coefficients"),
    [
        ("pinhole", {}, None, ()),
        ("kb4", {"k1": 0.1, "k2": 0.2, "k3": 0.3, "k4": 0.4}, "equidistant", (0.1, 0.2, 0.3, 0.4)),
        # The coefficients follow fx fy cx cy by name: xi before alpha, as in Kalibr.
        ("ds", {"alpha": 0.6, "xi": -0.2}, "double_sphere", (-0.2, 0.6)),
        ("eucm", {"alpha": 0.6, "beta": 1.1}, "eucm", (0.6, 1.1)),
        ("ucm", {"alpha": 0.6}, "ucm", (0.6,)),
        (
            "pinhole-radtan8",
            {f"k{i}": i / 10 for i in range(1, 7)} | {"p1": 0.01, "p2": 0.02, "rpmax": 2.7},
            "radtan",
            (0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.5, 0.6),
        ),
    ],
)
def test_camera_types(
    rig_of: RigOf, kind: str, values: dict[str, float], model: str, coefficients: tuple[float, ...]
) -> None:
    (camera,) = rig_of(file(kind, [np.eye(4)], **values), "calib.json").cameras
    assert camera.model == model and camera.coefficients == pytest.approx(coefficients)
    assert camera.intrinsics == (380.0, 381.0, 510.0, 514.0) and camera.size == (1024, 1024)


def test_poses_map_cameras_to_the_imu(rig_of: RigOf) -> None:
    T_imu_left = se3_exp(np.array([0.2, -0.1, 0.3, 0.5, 1.0, -0.4]))
    T_left_right = se3_exp(np.array([0.1, 0.002, 0.001, 0.01, 0.02, 0.03]))
    rig = rig_of(file("pinhole", [T_imu_left, T_imu_left @ T_left_right, np.eye(4)]), "calib.json")
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, T_left_right, atol=1e-9)
    assert "1 more cameras are not used" in rig.describe("x")


def test_other_types_and_poses_are_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match="expected pinhole, pinhole-radtan8"):
        rig_of(file("bal", [np.eye(4)]))
    broken = file("pinhole", [np.eye(4), np.eye(4)]).replace('"qw": 1.0', '"qw": 0.0')
    with pytest.raises(CalibrationError, match="no unit quaternion"):
        rig_of(broken)
