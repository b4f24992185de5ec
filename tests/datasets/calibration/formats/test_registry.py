from pathlib import Path

import numpy as np
import pytest
from foreign_files import FILES

from spslam.camera import Camera
from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.registry import kind_of, read_rig
from spslam.datasets.calibration.formats.source import Source
from spslam.errors import CalibrationError
from spslam.notices import shown_notices

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
        Camera(*CAM0, "radtan", EUROC, fps=20.0),
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
    "ROS file": ("a ROS camera_info file", Camera(*KINECT, "radtan", (0.1, -0.2, 0.001, 0.0))),
    "ROS message": ("a ROS camera_info message", Camera(*KINECT)),
    "ROS ini": (
        "a ROS camera calibration",
        Camera(640, 480, 685.641304, 676.658033, 318.0, 242.0, "radtan", (0.1, -0.3, 0.001, 0.002)),
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
    "OKVIS": ("an OKVIS configuration", Camera(*CAM0, "radtan", EUROC, fps=20.0)),
    "stella": ("a settings file of stella_vslam", Camera(640, 480, 535.4, 539.2, 320.1, 247.6)),
    "Open3D": ("an Open3D camera", Camera(*KINECT)),
    "nerfstudio": ("a nerfstudio transforms.json", Camera(640, 480, 500.0, 501.0, 319.5, 239.5)),
    "KITTI raw": (
        "a calibration of KITTI",
        Camera(1242, 375, 721.5377, 721.5377, 609.5593, 172.854),
    ),
    "Agisoft": (
        "an Agisoft Metashape calibration",
        Camera(640, 480, 500.0, 500.0, 322.5, 235.5, "radtan", (0.1, 0.0, 0.0, 0.01)),
    ),
    "OpenCV stereo": (
        "an OpenCV FileStorage calibration",
        Camera(640, 480, 400.0, 400.0, 320.0, 240.0, "radtan", (0.1, 0, 0, 0)),
    ),
    "OpenCV JSON": (
        "an OpenCV FileStorage calibration",
        Camera(640, 480, 400.0, 400.0, 320.0, 240.0, "radtan", (0.1, 0, 0, 0)),
    ),
    "ORB-SLAM raw pair": (
        "an ORB-SLAM settings file",
        Camera(752, 480, 458.6, 457.2, 367.2, 248.3),
    ),
    "K": ("a calibration with a camera matrix", Camera(*KINECT)),
}


def source(text: str) -> Source:
    return Source(Path("theirs.yaml"), text.encode())


@pytest.mark.parametrize("name", READ)
def test_calibrations_of_other_programs_are_read_and_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(FILES[name])
    kind, expected = READ[name]
    with shown_notices(lambda _: None) as handler:
        camera = load_calibration(path).camera
    for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion", "fps"):
        np.testing.assert_allclose(getattr(camera, key), getattr(expected, key), rtol=1e-8)
    assert camera.distortion_model == expected.distortion_model
    notices = [notice for notice in handler.notices if notice.topic == "calibration_format"]
    assert len(notices) == 1 and notices[0].text.startswith(f"calibration {path}: {kind}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KITTI", "a calibration of KITTI, which does not give the size of the images: add it by"),
        ("DROID", "as DROID-SLAM's, which does not give the size of the images"),
        ("matrix", "a camera matrix alone, which does not give the size of the images"),
        ("VINS Mei", "a VINS (camodocal) camera file: projection_parameters: expected keys"),
        ("VINS configuration", "a VINS configuration: its cameras are in cam0_mei.yaml and cam1"),
        ("ORB-SLAM broken", "an ORB-SLAM settings file: Camera.fx: expected a number, found 'abc'"),
        ("Kalibr broken", "a Kalibr camchain: cam0.intrinsics: expected 4 numbers, found 'hello'"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "theirs.yaml").write_text(FILES[name])
    with pytest.raises(CalibrationError) as error:
        load_calibration(tmp_path / "theirs.yaml")
    line = str(error.value)
    assert line.startswith(f"calibration {tmp_path}/theirs.yaml: this is {text.split(' ')[0]}"[:60])
    assert text in line and "\n" not in line


@pytest.mark.parametrize(
    ("name", "model", "coefficients"),
    [
        ("Kalibr omni", "omni", (1.2, 0.1, 0, 0, 0)),
        ("Basalt double sphere", "double_sphere", (-0.2, 0.5)),
        ("TUM mono", "fov", (0.897966326944875,)),
    ],
)
def test_lens_models_are_read_with_their_own_coefficients(
    name: str, model: str, coefficients: tuple[float, ...]
) -> None:
    rig = read_rig(source(FILES[name]))
    assert rig is not None
    assert rig.cameras[0].model == model
    assert rig.cameras[0].coefficients == pytest.approx(coefficients)


def test_images_give_the_size_that_a_file_lacks(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(FILES["KITTI"])
    with shown_notices(lambda _: None) as handler:
        camera = load_calibration(tmp_path / "theirs.yaml", lambda: (1241, 376)).camera
    assert (camera.width, camera.height) == (1241, 376)
    assert "its size is taken as that of the images, 1241x376" in handler.notices[0].text


def test_calibrations_of_spslam_are_not_of_another_program() -> None:
    assert kind_of(source("width: 640\nheight: 480\nfx: 1\nK: 3\n")) is None
    assert kind_of(source("hello: 1\n")) is None
    assert kind_of(source("")) is None


def test_long_rows_of_digits_are_parsed_fast() -> None:
    assert kind_of(source("P0: " + "7" * 5000 + " x\n")) is None
    assert kind_of(source("1" * 20_000 + " x\n")) is None
