import re
from pathlib import Path

import numpy as np
import pytest
from foreign_files import FILES

from spslam.camera import Camera
from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.foreign import recognise
from spslam.errors import CalibrationError

FR1 = (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)
EUROC = (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)
TUM_VI = (
    0.0034823894022493434,
    0.0007150348452162257,
    -0.0020532361418706202,
    0.00020293673591811182,
)
CAM0 = (752, 480, 458.654, 457.296, 367.215, 248.375)
KINECT = (640, 480, 525.0, 525.0, 319.5, 239.5)

READ = {
    "ORB-SLAM2 RGB-D": (
        "an ORB-SLAM settings file",
        Camera(640, 480, 517.306408, 516.469215, 318.64304, 255.313989, "radtan", FR1),
    ),
    "ORB-SLAM3 stereo": (
        "an ORB-SLAM settings file",
        Camera(*CAM0, "radtan", (*EUROC, 0.0), fps=20.0),
    ),
    "ORB-SLAM2 stereo": (
        "an ORB-SLAM settings file",
        Camera(1241, 376, 718.856, 718.856, 607.1928, 185.2157, fps=10.0),
    ),
    "Kalibr": (
        "a Kalibr camchain",
        Camera(
            512, 512, 190.97847715, 190.97330705, 254.93170606, 256.897442900, "equidistant", TUM_VI
        ),
    ),
    "OpenCV": (
        "an OpenCV FileStorage calibration",
        Camera(
            640,
            480,
            535.91573396,
            535.91573396,
            342.28315473,
            235.5708291,
            "radtan",
            (-0.26637260909, -0.038588898922, 0.001783194704, -0.00028122100441, 0.2383915308),
        ),
    ),
    "OpenCV XML": (
        "an OpenCV FileStorage calibration",
        Camera(640, 480, 657.0, 657.0, 319.5, 239.5),
    ),
    "ROS file": ("a ROS camera_info file", Camera(*KINECT, "radtan", (0.1, -0.2, 0.001, 0.0, 0.0))),
    "ROS message": ("a ROS camera_info message", Camera(*KINECT)),
    "ROS ini": (
        "a ROS camera calibration",
        Camera(
            640, 480, 685.641304, 676.658033, 318.0, 242.0, "radtan", (0.1, -0.3, 0.001, 0.002, 0.0)
        ),
    ),
    "COLMAP": (
        "a cameras.txt of COLMAP",
        Camera(3072, 2304, 2559.81, 2559.81, 1535.5, 1151.5, "radtan", (-0.0204997, 0, 0, 0)),
    ),
    "EuRoC": ("a sensor.yaml of EuRoC", Camera(*CAM0, "radtan", EUROC, fps=20.0)),
    "DSO": ("a camera.txt of TUM mono, DSO", Camera(*CAM0, "radtan", EUROC)),
    "Basalt": (
        "a Basalt calibration",
        Camera(
            1024, 1024, 380.81, 380.8, 510.3, 514.3, "equidistant", (0.01, 0.002, -0.003, 0.0004)
        ),
    ),
    "VINS": (
        "a VINS (camodocal) camera file",
        Camera(
            752,
            480,
            461.15862106,
            459.7528659807,
            362.6592918194,
            248.5210566845,
            "radtan",
            (-0.2954564510699, 0.08662321564, 2.0132892276e-06, 1.39245313713e-05),
        ),
    ),
    "VINS fisheye": (
        "a VINS (camodocal) camera file",
        Camera(
            512, 512, 190.97847715, 190.97330705, 254.93170606, 256.8974429, "equidistant", TUM_VI
        ),
    ),
    "OKVIS": ("an OKVIS configuration", Camera(*CAM0, "radtan", EUROC)),
    "stella": ("a settings file of stella_vslam", Camera(640, 480, 535.4, 539.2, 320.1, 247.6)),
    "Open3D": ("an Open3D camera", Camera(*KINECT)),
    "nerfstudio": ("a nerfstudio transforms.json", Camera(640, 480, 500.0, 501.0, 319.5, 239.5)),
    "K": ("a calibration with a camera matrix", Camera(*KINECT)),
}


def message(path: Path) -> str:
    with pytest.raises(CalibrationError) as error:
        load_calibration(path)
    text = str(error.value)
    assert text.startswith(f"calibration {path}: this is ") and "\n" not in text
    return text


@pytest.mark.parametrize("name", READ)
def test_calibrations_of_other_programs_are_named_with_converted_values(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "theirs.yaml").write_text(FILES[name])
    text = message(tmp_path / "theirs.yaml")
    kind, expected = READ[name]
    assert f"this is {kind}" in text
    ours = re.search(r"write a file with (\{.*\})", text)
    assert ours is not None
    (tmp_path / "ours.yaml").write_text(ours[1])
    camera = load_calibration(tmp_path / "ours.yaml").camera
    for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion", "fps"):
        np.testing.assert_allclose(getattr(camera, key), getattr(expected, key), rtol=1e-8)
    assert camera.distortion_model == expected.distortion_model


def test_stereo_calibrations_include_the_transform(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(FILES["Kalibr"])
    (tmp_path / "ours.yaml").write_text(
        message(tmp_path / "theirs.yaml").split("write a file with ")[1]
    )
    calibration = load_calibration(tmp_path / "ours.yaml")
    assert calibration.T_left_right is not None and calibration.right is not None
    assert calibration.T_left_right[:3, 3] == pytest.approx([0.1010, 0.0018, 0.0006], abs=1e-4)
    assert calibration.right.cx == 252.59
    (tmp_path / "theirs.yaml").write_text(FILES["ORB-SLAM2 stereo"])
    text = message(tmp_path / "theirs.yaml")
    assert "T_left_right: [[1, 0, 0, 0.53716572], " in text and text.endswith(
        "(for pairs that are rectified already)"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "Kalibr omni",
            (
                "a Kalibr camchain, which is not read: write a file with {width: 640, height: 480, "
                "fx: 800, fy: 800, cx: 320, cy: 240, "
                "distortion: {model: omni, coefficients: [1.2, 0.1, 0, 0, 0]}}"
            ),
        ),
        (
            "Basalt double sphere",
            "cx: 510.3, cy: 514.3, distortion: {model: double_sphere, coefficients: [-0.2, 0.5]}",
        ),
        ("VINS Mei", "a VINS (camodocal) camera file, which is not read: write a file with"),
        (
            "TUM mono",
            (
                "cx: 630.858138, cy: 511.9184723, "
                "distortion: {model: fov, coefficients: [0.8979663269]}"
            ),
        ),
        (
            "VINS configuration",
            (
                "a VINS configuration, which is not read: write "
                "a file with {width: 752, height: 480, fx: ?"
            ),
        ),
        ("VINS configuration", "(its cameras are in cam0_mei.yaml and cam1_mei.yaml)"),
        (
            "KITTI",
            (
                "a calibration of KITTI, which is not read: write "
                "a file with {width: ?, height: ?, fx: 718.856"
            ),
        ),
        (
            "DROID",
            (
                "a line of fx fy cx cy, as DROID-SLAM's, which "
                "is not read: write a file with {width: ?"
            ),
        ),
        (
            "matrix",
            (
                "a camera matrix alone, which is not read: write "
                "a file with {width: ?, height: ?, fx: 585,"
            ),
        ),
        (
            "ORB-SLAM broken",
            "an ORB-SLAM settings file, which is not read: write a file with {width: ?",
        ),
        ("Kalibr broken", "a Kalibr camchain, which is not read: write a file with {width: ?"),
    ],
)
def test_missing_values_and_unsupported_models_are_reported(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "theirs.yaml").write_text(FILES[name])
    assert f"{text}" in message(tmp_path / "theirs.yaml")


def test_calibrations_of_spslam_are_not_foreign() -> None:
    assert recognise("width: 640\nheight: 480\nfx: 1\nK: 3\n") is None
    assert recognise("hello: 1\n") is None
    assert recognise("") is None


def test_long_rows_of_digits_are_parsed_fast() -> None:
    assert recognise("P0: " + "7" * 5000 + " x\n") is None
    assert recognise("1" * 20_000 + " x\n") is None
