from collections.abc import Callable

import cv2
import numpy as np
import pytest

from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import inverse, se3_exp

RigOf = Callable[..., Rig]
T_LEFT_RIGHT = se3_exp(np.array([0.1, 0.002, -0.001, 0.01, -0.02, 0.005]))


def matrix(name: str, values: np.ndarray) -> str:
    rows, columns = values.shape
    data = ", ".join(repr(float(value)) for value in values.ravel())
    return (
        f"{name}: !!opencv-matrix\n  rows: {rows}\n  cols: {columns}\n  dt: f\n  data: [{data}]\n"
    )


def camera(name: str, *bent: str) -> str:
    values = ["fx: 400.0", "fy: 401.0", "cx: 320.0", "cy: 240.0", *bent]
    return "".join(f"{name}.{value}\n" for value in values)


SIZE = "Camera.width: 640\nCamera.height: 480\nCamera.fps: 20\nCamera.RGB: 1\n"
KB = ("k1: 0.01", "k2: 0.02", "k3: 0.03", "k4: 0.04")
OTHER_KB = ("k1: 0.05", "k2: 0.02", "k3: 0.03", "k4: 0.04")


def test_t_c1_c2_maps_the_right_camera_to_the_left(rig_of: RigOf) -> None:
    text = (
        '%YAML:1.0\nFile.version: "1.0"\nCamera.type: "PinHole"\n'
        + camera("Camera1", "k1: 0.1", "k2: 0.2", "p1: 0.3", "p2: 0.4")
        + camera("Camera2", "k1: 0.5", "k2: 0.2", "p1: 0.3", "p2: 0.4")
        + SIZE
        + matrix("Stereo.T_c1_c2", T_LEFT_RIGHT)
    )
    rig = rig_of(text)
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, T_LEFT_RIGHT, atol=1e-12)
    assert [found.coefficients[0] for found in rig.cameras] == [0.1, 0.5]
    assert rig.cameras[0].fps == 20 and rig.cameras[0].size == (640, 480)


def test_the_right_fisheye_has_its_own_coefficients_and_that_is_told(rig_of: RigOf) -> None:
    start = '%YAML:1.0\nCamera.type: "KannalaBrandt8"\n' + camera("Camera1", *KB)
    end = SIZE + matrix("Stereo.T_c1_c2", T_LEFT_RIGHT)
    rig = rig_of(start + camera("Camera2", *OTHER_KB) + end)
    assert [found.coefficients[0] for found in rig.cameras] == [0.01, 0.05]
    assert "ORB-SLAM3 takes Camera1's for both" in rig.describe("x")
    without = rig_of(start + camera("Camera2") + end)
    assert [found.coefficients[0] for found in without.cameras] == [0.01, 0.01]
    assert "those of Camera1 are used" in without.describe("x")


def test_the_older_tlr_of_three_rows(rig_of: RigOf) -> None:
    text = (
        '%YAML:1.0\nCamera.type: "KannalaBrandt8"\n'
        + camera("Camera", *KB)
        + camera("Camera2", *OTHER_KB)
        + SIZE
        + matrix("Tlr", T_LEFT_RIGHT[:3])
    )
    found = rig_of(text).T_left_right
    assert found is not None
    np.testing.assert_allclose(found, T_LEFT_RIGHT, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "baseline"),
    [
        ("%YAML:1.0\n" + camera("Camera", "bf: 40.0") + SIZE, 0.1),
        (
            '%YAML:1.0\nCamera.type: "Rectified"\n' + camera("Camera1") + SIZE + "Stereo.b: 0.11\n",
            0.11,
        ),
    ],
)
def test_rectified_pairs(rig_of: RigOf, text: str, baseline: float) -> None:
    rig = rig_of(text)
    assert rig.T_left_right is not None and len(rig.cameras) == 2
    assert rig.T_left_right[0, 3] == pytest.approx(baseline)
    assert rig.cameras[0].model is None and "rectified already" in rig.describe("x")


def test_the_raw_cameras_of_a_file_for_rectification_are_read(rig_of: RigOf) -> None:
    """EuRoC.yaml of ORB-SLAM2: Camera.fx … is rectified, LEFT.K … is of the images."""
    K = np.array([[458.0, 0, 367.0], [0, 457.0, 248.0], [0, 0, 1]])
    D = np.array([[-0.28, 0.07, 0.0002, 0.00002, 0.0]])
    T_right_left = inverse(T_LEFT_RIGHT)
    R_left, R_right, P_left, P_right, *_ = cv2.stereoRectify(
        K, D, K, D, (752, 480), T_right_left[:3, :3], T_right_left[:3, 3:]
    )
    sides = (("LEFT", R_left, P_left), ("RIGHT", R_right, P_right))
    text = (
        "%YAML:1.0\n"
        + camera("Camera", "k1: 0.0", "bf: 47.9")
        + "".join(
            f"{side}.width: 752\n{side}.height: 480\n"
            + matrix(f"{side}.K", K)
            + matrix(f"{side}.D", D)
            + matrix(f"{side}.R", R)
            + matrix(f"{side}.P", P)
            for side, R, P in sides
        )
    )
    rig = rig_of(text)
    assert rig.T_left_right is not None
    np.testing.assert_allclose(rig.T_left_right, T_LEFT_RIGHT, atol=1e-9)
    assert rig.cameras[0].intrinsics == (458.0, 457.0, 367.0, 248.0)
    assert rig.cameras[0].size == (752, 480) and rig.cameras[0].coefficients == tuple(D[0, :4])


def test_a_depth_camera_has_units_and_no_right_camera(rig_of: RigOf) -> None:
    text = (
        "%YAML:1.0\n" + camera("Camera", "k1: 0.1", "bf: 40.0") + SIZE + "DepthMapFactor: 5000.0\n"
    )
    rig = rig_of(text)
    assert rig.depth_scale == 5000 and len(rig.cameras) == 1


def test_what_is_not_used_is_told(rig_of: RigOf) -> None:
    text = "%YAML:1.0\n" + camera("Camera", "k1: 0.1", "bf: 40.0", "newWidth: 320") + SIZE
    rig = rig_of(text)
    assert len(rig.cameras) == 1
    assert "baseline of 0.1 m is for rectified images" in rig.describe("x")
    assert "Camera.newWidth says how ORB-SLAM scales its images" in rig.describe("x")


def test_another_camera_type_is_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match="expected PinHole, Rectified or KannalaBrandt8"):
        rig_of('%YAML:1.0\nCamera.type: "equirectangular"\n' + camera("Camera") + SIZE)


def test_stella_vslam_has_nested_keys(rig_of: RigOf) -> None:
    start = (
        "Camera:\n  fx: 400.0\n  fy: 401.0\n  cx: 320.0\n  cy: 240.0\n  cols: 640\n  rows: 480\n"
    )
    pair = rig_of(start + "  setup: stereo\n  model: perspective\n  focal_x_baseline: 40.0\n")
    assert pair.T_left_right is not None and pair.T_left_right[0, 3] == pytest.approx(0.1)
    depth = rig_of(start + "  setup: RGBD\nPreprocessing:\n  depthmap_factor: 5000.0\n")
    assert depth.depth_scale == 5000
    wide = rig_of(start + "  model: fisheye\n  k1: 0.1\n  k2: 0.0\n  k3: 0.0\n  k4: 0.0\n")
    assert wide.cameras[0].model == "equidistant"
    turn = np.eye(3)
    rectifier = "".join(
        f"  {key}_{side}: {np.ravel(values).tolist()}\n"
        for side in ("left", "right")
        for key, values in (
            ("K", np.array([[410.0, 0, 321], [0, 411, 241], [0, 0, 1]])),
            ("R", turn),
        )
    )
    raw = rig_of(
        start
        + "  setup: stereo\n  focal_x_baseline: 40.0\nStereoRectifier:\n"
        + rectifier
        + "  D_left: [0.1, 0.2, 0.0, 0.0, 0.0]\n  D_right: [0.1, 0.2, 0.0, 0.0, 0.0]\n"
    )
    assert raw.T_left_right is not None and raw.T_left_right[0, 3] == pytest.approx(0.1)
    assert raw.cameras[0].intrinsics[0] == 410.0 and raw.cameras[0].size == (640, 480)


def test_openvslams_flat_keys_of_a_fisheye_pair(rig_of: RigOf) -> None:
    """TUM_VI_stereo.yaml: the rectified camera is perspective, the images are fisheye."""
    K = [190.9, 0.0, 254.9, 0.0, 191.0, 256.8, 0.0, 0.0, 1.0]
    text = (
        'Camera.setup: "stereo"\nCamera.model: "perspective"\n'
        + camera("Camera", "k1: 0.0", "focal_x_baseline: 40.0", "cols: 512", "rows: 512", "fps: 20")
        + 'StereoRectifier.model: "fisheye"\n'
        + "".join(
            f"StereoRectifier.K_{side}: {K}\nStereoRectifier.D_{side}: [0.1, 0.2, 0.3, 0.4]\n"
            f"StereoRectifier.R_{side}: [1.0, 0, 0, 0, 1, 0, 0, 0, 1]\n"
            for side in ("left", "right")
        )
    )
    rig = rig_of(text)
    assert [found.model for found in rig.cameras] == ["equidistant"] * 2
    assert rig.cameras[0].intrinsics == (190.9, 191.0, 254.9, 256.8)
    assert rig.cameras[0].size == (512, 512) and rig.cameras[0].fps == 20
    assert rig.T_left_right is not None and rig.T_left_right[0, 3] == pytest.approx(0.1)
