from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.rig import Rig
from spslam.errors import CalibrationError
from spslam.geometry import inverse, se3_exp

RigOf = Callable[..., Rig]
Put = Callable[[str, str], Path]
K = np.array([[400.0, 0, 321.0], [0, 402.0, 243.0], [0, 0, 1]])
D = [-0.2, 0.05, 0.001, -0.002, 0.0]
T_LEFT_RIGHT = se3_exp(np.array([0.12, 0.002, -0.001, 0.01, -0.02, 0.005]))


def file(K: np.ndarray, R: np.ndarray, P: np.ndarray) -> str:
    """As `cameracalibrator` writes it."""

    def array(name: str, values: object, rows: int, columns: int) -> str:
        data = np.ravel(np.asarray(values)).tolist()
        return f"{name}:\n  rows: {rows}\n  cols: {columns}\n  data: {data}\n"

    return (
        "image_width: 640\nimage_height: 480\ncamera_name: side\n"
        + array("camera_matrix", K, 3, 3)
        + "distortion_model: plumb_bob\n"
        + array("distortion_coefficients", D, 1, 5)
        + array("rectification_matrix", R, 3, 3)
        + array("projection_matrix", P, 3, 4)
    )


def pair() -> tuple[str, str]:
    """Two files of a pair, rectified by OpenCV, whose P[0, 3] is -fx * baseline."""
    T_right_left = inverse(T_LEFT_RIGHT)
    R_left, R_right, P_left, P_right, *_ = cv2.stereoRectify(
        K, np.array(D), K, np.array(D), (640, 480), T_right_left[:3, :3], T_right_left[:3, 3:]
    )
    assert P_right[0, 3] < 0
    return file(K, R_left, P_left), file(K, R_right, P_right)


def test_a_pair_of_files_gives_the_pose_of_the_right_camera(put: Put) -> None:
    left, right = pair()
    put("right.yaml", right)
    calibration = load_calibration(put("left.yaml", left))
    assert calibration.T_left_right is not None and calibration.right is not None
    np.testing.assert_allclose(calibration.T_left_right, T_LEFT_RIGHT, atol=1e-9)
    assert calibration.camera.fx == 400.0 and calibration.camera.distortion == tuple(D[:4])


def test_the_right_file_alone_is_one_camera_and_told(rig_of: RigOf) -> None:
    rig = rig_of(pair()[1], "side.yaml")
    assert len(
        rig.cameras
    ) == 1 and "right camera of a pair with a baseline of 0.12" in rig.describe("x")


def test_a_pair_without_a_baseline_is_refused(put: Put) -> None:
    put("cam1.yaml", pair()[0])
    with pytest.raises(CalibrationError, match=r"cam1\.yaml beside it: .* give no baseline"):
        load_calibration(put("cam0.yaml", pair()[0]))


def message(**changes: object) -> str:
    """As `rostopic echo -n1` prints it, with the line that ends a message."""
    values: dict[str, object] = {
        "height": 480,
        "width": 640,
        "distortion_model": '"plumb_bob"',
        "D": D,
        "K": K.ravel().tolist(),
        "R": np.eye(3).ravel().tolist(),
        "P": np.hstack([K, np.zeros((3, 1))]).ravel().tolist(),
        "binning_x": 0,
        "binning_y": 0,
        "roi": "{x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: False}",
    } | changes
    lines = "\n".join(f"{key}: {value}" for key, value in values.items())
    return f"header: \n  seq: 0\n  frame_id: cam\n{lines}\n---\n"


def test_a_printed_message_is_read_with_binning_and_region(rig_of: RigOf) -> None:
    plain = rig_of(message()).cameras[0]
    assert plain.intrinsics == (400.0, 402.0, 321.0, 243.0) and plain.size == (640, 480)
    binned = rig_of(message(binning_x=2, binning_y=2)).cameras[0]
    # The centre of a pixel of two by two is half a pixel beyond that of its first.
    assert binned.intrinsics == (200.0, 201.0, 160.25, 121.25) and binned.size == (320, 240)
    roi = "{x_offset: 20, y_offset: 40, height: 400, width: 600, do_rectify: False}"
    rig = rig_of(message(roi=roi))
    assert rig.cameras[0].intrinsics == (400.0, 402.0, 301.0, 203.0)
    assert rig.cameras[0].size == (600, 400) and "region of interest at (20, 40)" in rig.describe(
        "x"
    )


def test_models_of_ros(rig_of: RigOf) -> None:
    rational = rig_of(
        message(distortion_model="rational_polynomial", D=[0.1, 0.2, 0, 0, 0, 0.3, 0, 0])
    )
    assert rational.cameras[0].coefficients == (0.1, 0.2, 0, 0, 0, 0.3, 0, 0)
    zeros = rig_of(message(distortion_model="rational_polynomial", D=[0.1, 0.2] + [0.0] * 12))
    assert zeros.cameras[0].coefficients == (0.1, 0.2, 0, 0)
    wide = rig_of(message(distortion_model="equidistant", D=[0.1, 0, 0, 0]))
    assert wide.cameras[0].model == "equidistant"
    assert rig_of(message(D=[])).cameras[0].model in (None, "plumb_bob")


def test_a_camera_that_was_not_calibrated_is_refused(rig_of: RigOf) -> None:
    with pytest.raises(CalibrationError, match="K has no focal length: was the camera calibrated"):
        rig_of(message(K=[0.0] * 9))
