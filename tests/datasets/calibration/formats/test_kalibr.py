from collections.abc import Callable

import numpy as np
import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform, se3_exp

RigOf = Callable[..., Rig]
T_RIGHT_LEFT = se3_exp(np.array([-0.1, 0.02, 0.01, 0.03, -0.2, 0.1]))


def camera(model: str, intrinsics: list[float], bent: str, coefficients: list[float]) -> str:
    return (
        f"  camera_model: {model}\n  intrinsics: {intrinsics}\n  distortion_model: {bent}\n"
        f"  distortion_coeffs: {coefficients}\n  resolution: [640, 480]\n"
        "  rostopic: /cam/image_raw\n  timeshift_cam_imu: 0.001\n"
    )


PINHOLE = camera("pinhole", [400.0, 401.0, 320.0, 240.0], "radtan", [0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("text", "model", "coefficients"),
    [
        (PINHOLE, "radtan", (0.1, 0.2, 0.3, 0.4)),
        (
            camera("pinhole", [400.0, 401.0, 320.0, 240.0], "equidistant", [0.1, 0, 0, 0]),
            "equidistant",
            (0.1, 0, 0, 0),
        ),
        (camera("pinhole", [400.0, 401.0, 320.0, 240.0], "fov", [0.9]), "fov", (0.9,)),
        # Their own parameters come before fu fv pu pv.
        (camera("ds", [-0.2, 0.6, 400.0, 401.0, 320.0, 240.0], "none", []), "double_sphere", None),
        (camera("eucm", [0.6, 1.1, 400.0, 401.0, 320.0, 240.0], "none", []), "eucm", (0.6, 1.1)),
        (camera("omni", [1.2, 400.0, 401.0, 320.0, 240.0], "none", []), "omni", (1.2,)),
        (
            camera("omni", [1.2, 400.0, 401.0, 320.0, 240.0], "radtan", [0.1, 0.2, 0.3, 0.4]),
            "omni",
            (1.2, 0.1, 0.2, 0.3, 0.4),
        ),
    ],
)
def test_each_camera_model_of_kalibr(
    rig_of: RigOf, text: str, model: str, coefficients: tuple[float, ...] | None
) -> None:
    rig = rig_of("cam0:\n" + text)
    (found,) = rig.cameras
    assert found.intrinsics == (400.0, 401.0, 320.0, 240.0) and found.size == (640, 480)
    assert found.model == model and found.coefficients == (coefficients or (-0.2, 0.6))


def test_the_transform_of_a_chain_maps_the_camera_before_to_its_own(rig_of: RigOf) -> None:
    chain = f"cam0:\n{PINHOLE}cam1:\n{PINHOLE}  T_cn_cnm1: {T_RIGHT_LEFT.tolist()}\n"
    rig = rig_of(chain)
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, inverse(T_RIGHT_LEFT), atol=1e-12)
    assert rig.T_left_right[0, 3] > 0
    assert rig.describe("f") == "a Kalibr camchain, cam0 and cam1"
    third = rig_of(f"{chain}cam2:\n{PINHOLE}  T_cn_cnm1: {np.eye(4).tolist()}\n")
    assert third.describe("f") == "a Kalibr camchain, cam0 and cam1; cam2 not used"


def test_cameras_are_related_by_the_imu_where_the_chain_is_not_given(rig_of: RigOf) -> None:
    T_left_imu = se3_exp(np.array([0.3, 0.1, 0.2, 1.0, 0.5, -0.3]))
    T_right_imu = T_RIGHT_LEFT @ T_left_imu
    text = (
        f"cam0:\n{PINHOLE}  T_cam_imu: {T_left_imu.tolist()}\n"
        f"cam1:\n{PINHOLE}  T_cam_imu: {T_right_imu.tolist()}\n"
    )
    found = rig_of(text).T_left_right
    assert found is not None
    np.testing.assert_allclose(found, inverse(T_RIGHT_LEFT), atol=1e-9)


def test_cameras_without_a_relation_are_one_camera_and_told(rig_of: RigOf) -> None:
    rig = rig_of(f"cam0:\n{PINHOLE}cam1:\n{PINHOLE}")
    assert len(rig.cameras) == 1 and "no T_cn_cnm1 relates cam1" in rig.describe("f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (camera("ds", [400.0, 401.0, 320.0, 240.0], "none", []), "expected 6 numbers"),
        (camera("mine", [400.0, 401.0, 320.0, 240.0], "none", []), "expected pinhole, omni, ds"),
        (
            camera("ds", [0.1, 0.6, 400.0, 401.0, 320.0, 240.0], "equidistant", [0.1, 0, 0, 0]),
            "ds camera with equidistant distortion",
        ),
    ],
)
def test_other_cameras_are_refused(rig_of: RigOf, text: str, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        rig_of("cam0:\n" + text)


def test_a_transform_that_is_not_rigid_is_refused(rig_of: RigOf) -> None:
    twice = (2 * make_transform(np.eye(3), np.array([0.1, 0, 0]))).tolist()
    with pytest.raises(CalibrationError, match=r"cam1\.T_cn_cnm1 is no rotation"):
        rig_of(f"cam0:\n{PINHOLE}cam1:\n{PINHOLE}  T_cn_cnm1: {twice}\n")
