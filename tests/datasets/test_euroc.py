import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.datasets import left_camera_ground_truth, open_sequence
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse, rotation_angle, rotation_to_quaternion, se3_exp
from spslam.notices import shown_notices
from spslam.trajectory import read_euroc

STAMPS = (1403715273262142976, 1403715273312143104, 1403715273362142976)
T_BODY_LEFT = se3_exp(np.array([0.02, -0.06, 0.01, 0.1, 0.2, 1.5]))
T_BODY_RIGHT = T_BODY_LEFT @ se3_exp(np.array([0.11, 0.001, -0.002, 0.005, -0.01, 0.008]))
T_WORLD_BODY = se3_exp(np.array([1.0, 2.0, 3.0, 0.3, -0.2, 0.1]))
RADTAN = ("radial-tangential", [-0.1, 0.01, 0.0, 0.0])
FISHEYE = ("equidistant", [0.01, -0.005, 0.001, 0.0])


def sensor_yaml(T: np.ndarray, distortion: tuple[str, list[float]]) -> str:
    numbers = ", ".join(f"{x:.12f}" for x in T.ravel())
    return (
        f"%YAML:1.0\n# general\nsensor_type: camera\nT_BS:\n"
        f"  cols: 4\n  rows: 4\n  data: [{numbers}]\n"
        "rate_hz: 20\nresolution: [80, 60]\ncamera_model: pinhole\n"
        "intrinsics: [60.0, 60.0, 40.5, 29.0] # fu\n"
        f"distortion_model: {distortion[0]}\ndistortion_coefficients: {distortion[1]}\n"
    )


@pytest.fixture
def folder(tmp_path: Path, write: Callable, picture: Callable) -> Callable[..., Path]:
    """Write a EuRoC sequence of three 80 × 60 pairs; the tables name .png for any file type."""

    def make(
        suffix: str = ".png", distortion: tuple[str, list[float]] = RADTAN, name: str = "V9_99_toy"
    ) -> Path:
        path = tmp_path / "euroc" / name
        for camera, T in ((0, T_BODY_LEFT), (1, T_BODY_RIGHT)):
            place = path / "mav0" / f"cam{camera}"
            for i, stamp in enumerate(STAMPS):
                write(place / "data" / f"{stamp}{suffix}", picture(10 * camera + i, 80, 60))
            table = "".join(f"{stamp},{stamp}.png\r\n" for stamp in STAMPS)
            (place / "data.csv").write_text("#timestamp [ns],filename\r\n" + table)
            (place / "sensor.yaml").write_text(sensor_yaml(T, distortion))
        truth = path / "mav0" / "state_groundtruth_estimate0"
        truth.mkdir()
        x, y, z, w = rotation_to_quaternion(T_WORLD_BODY[:3, :3])
        p = ",".join(f"{v:.12f}" for v in (*T_WORLD_BODY[:3, 3], w, x, y, z, 0, 0, 0))
        (truth / "data.csv").write_text(
            "#timestamp,p_x,…\n" + "".join(f"{s + 1000},{p}\n" for s in STAMPS)
        )
        return path

    return make


def test_all_ways_to_name_a_sequence_open_it(folder: Callable) -> None:
    path = folder()
    for place, wanted in (
        (path, None),
        (path / "mav0", None),
        (path.parent, None),
        (path.parent, "V9_99"),
    ):
        sequence = open_sequence(place, sequence=wanted)
        assert (sequence.name, sequence.sensor, len(sequence)) == ("euroc V9_99_toy", "stereo", 3)
    assert [frame.timestamp for frame in sequence] == pytest.approx(
        [s / 1e9 for s in STAMPS], abs=1e-6
    )
    with pytest.raises(DatasetError, match="no single sequence 'MH_01'"):
        open_sequence(path.parent, sequence="MH_01")
    with pytest.raises(DatasetError, match="sequence 'MH_01' was requested"):
        open_sequence(path / "mav0", sequence="MH_01")


@pytest.mark.parametrize("distortion", [RADTAN, FISHEYE], ids=["radtan", "equidistant"])
def test_stereo_is_rectified_and_the_ground_truth_carried(
    folder: Callable, distortion: tuple[str, list[float]]
) -> None:
    sequence = open_sequence(folder(distortion=distortion))
    camera, truth = sequence.camera, sequence.ground_truth
    assert camera.distortion_model == "none"
    assert camera.baseline_m == pytest.approx(
        np.linalg.norm((inverse(T_BODY_LEFT) @ T_BODY_RIGHT)[:3, 3])
    )
    assert (
        truth is not None
        and truth.frame == "left camera as rectified (carried from the body by T_BS)"
    )
    # The position is the left camera's; its x axis points to the right camera.
    T_world_left, T_world_right = T_WORLD_BODY @ T_BODY_LEFT, T_WORLD_BODY @ T_BODY_RIGHT
    assert truth.positions[0] == pytest.approx(T_world_left[:3, 3], abs=1e-9)
    towards_right = T_world_right[:3, 3] - T_world_left[:3, 3]
    assert truth.T_world_cam[0, :3, 0] == pytest.approx(
        towards_right / np.linalg.norm(towards_right), abs=1e-6
    )
    assert np.degrees(rotation_angle(T_world_left[:3, :3].T @ truth.T_world_cam[0, :3, :3])) < 3.0
    assert np.linalg.det(truth.T_world_cam[0, :3, :3]) == pytest.approx(1.0)
    frame = sequence[1]
    assert frame.image_right is not None and frame.image.shape == frame.image_right.shape == (
        60,
        80,
    )


def test_mono_is_raw_with_its_distortion(folder: Callable, picture: Callable) -> None:
    sequence = open_sequence(folder(), sensor="mono")
    assert (
        sequence.camera.distortion == tuple(RADTAN[1])
        and sequence.camera.distortion_model == "radtan"
    )
    assert sequence.camera.baseline_m is None and sequence.camera.fps == pytest.approx(
        20.0, rel=1e-4
    )
    assert np.array_equal(sequence[1].image, picture(1, 80, 60))
    truth = sequence.ground_truth
    assert truth is not None and "unrectified" in truth.frame
    assert truth.T_world_cam[2] == pytest.approx(T_WORLD_BODY @ T_BODY_LEFT, abs=1e-9)


def test_a_ground_truth_table_is_carried_by_the_sensor_file_next_to_it_or_given(
    folder: Callable, tmp_path: Path
) -> None:
    mav = folder() / "mav0"
    table = mav / "state_groundtruth_estimate0" / "data.csv"
    body = read_euroc(table)
    for sensor, T_body_camera in (
        (None, T_BODY_LEFT),
        (mav / "cam1" / "sensor.yaml", T_BODY_RIGHT),
    ):
        carried = left_camera_ground_truth(body, table, sensor)
        assert carried is not None and "carried from the body by T_BS" in carried.frame
        np.testing.assert_allclose(carried.T_world_cam[0], T_WORLD_BODY @ T_body_camera, atol=1e-9)
    alone = tmp_path / "alone.csv"
    alone.write_bytes(table.read_bytes())
    assert left_camera_ground_truth(body, alone) is None
    with pytest.raises(CalibrationError, match="cannot be read"):
        left_camera_ground_truth(body, alone, tmp_path / "gone.yaml")


def test_a_single_camera_without_ground_truth(folder: Callable) -> None:
    path = folder()
    for image in (path / "mav0/cam1/data").iterdir():
        image.unlink()
    (path / "mav0/state_groundtruth_estimate0/data.csv").unlink()
    sequence = open_sequence(path)
    assert sequence.sensor == "mono" and sequence.ground_truth is None
    with pytest.raises(DatasetError, match=r"stereo needs images in .*cam1/data, found none"):
        open_sequence(path, sensor="stereo")


def test_images_with_another_extension_than_in_the_table(folder: Callable) -> None:
    assert len(list(open_sequence(folder(suffix=".jpg")))) == 3


def test_without_tables_names_are_times(folder: Callable) -> None:
    path = folder()
    for camera in (0, 1):
        (path / f"mav0/cam{camera}/data.csv").unlink()
    assert [frame.timestamp for frame in open_sequence(path)] == pytest.approx(
        [s / 1e9 for s in STAMPS], abs=1e-6
    )


def test_missing_images_are_left_out_and_counted(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    (path / f"mav0/cam0/data/{STAMPS[0]}.png").unlink()
    (path / f"mav0/cam1/data/{STAMPS[2]}.png").unlink()
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert (
        "1 of the 3 images in" in caplog.text
        and "1 of 2 images has no right image within" in caplog.text
    )
    assert [(entry.stamp_s, entry.reason) for entry in sequence.left_out] == [
        (STAMPS[2] / 1e9, "no right image")
    ]
    assert [frame.timestamp for frame in sequence] == pytest.approx([STAMPS[1] / 1e9])


def test_a_table_out_of_order_is_sorted(folder: Callable, caplog: pytest.LogCaptureFixture) -> None:
    path = folder()
    for camera in (0, 1):
        table = path / f"mav0/cam{camera}/data.csv"
        table.write_text("\n".join(table.read_text().split("\n")[::-1]))
    with caplog.at_level(logging.WARNING):
        times = [frame.timestamp for frame in open_sequence(path)]
    assert times == sorted(times) and "out of order" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "resolution: [80, 60]",
            "resolution: [81, 60]",
            "images in .* are 80x60, but .*sensor.yaml is for 81x60",
        ),
        ("resolution: [80, 60]", "", "expected 2 numbers under resolution, found None"),
        ("intrinsics: [60.0,", "intrinsics: [nan,", "expected 4 numbers under intrinsics"),
        (
            "resolution: [80, 60]",
            "resolution: '80'",
            "expected 2 numbers under resolution, found '80'",
        ),
        (
            "resolution: [80, 60]",
            "resolution: [80.5, 60]",
            "resolution must be whole pixels, found 80.5x60",
        ),
        ("radial-tangential", "omni", "'omni' takes 1 or 5 coefficients, found 4"),
        ("radial-tangential", "none", "4 coefficients, but its model is 'none'"),
        ("data: [", "data: [2,", r"expected 16 numbers under T_BS\.data"),
        ("data: [", "data: [1]\n  more: [", r"expected 16 numbers under T_BS\.data"),
        ("T_BS:", "T_XY:", r"expected 16 numbers under T_BS\.data"),
        (
            "[-0.1, 0.01, 0.0, 0.0]",
            "[-0.1]",
            r"sensor.yaml: .* takes 4, 5, 8, 12 or 14 coefficients",
        ),
        ("sensor_type: camera", "sensor_type: [", "is not valid YAML"),
    ],
)
def test_wrong_sensor_files_are_refused(folder: Callable, old: str, new: str, message: str) -> None:
    path = folder()
    file = path / "mav0/cam0/sensor.yaml"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(DatasetError, match=message) as error:
        open_sequence(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("%YAML:1.0\n---\nCamera.fx: 500\n", "an ORB-SLAM settings file"),
        ("cam0:\n  intrinsics: [1, 2, 3, 4]\n", "a Kalibr camchain"),
    ],
)
def test_errors_name_other_calibrations_in_place_of_the_sensor_file(
    folder: Callable, text: str, kind: str
) -> None:
    path = folder()
    (path / "mav0/cam0/sensor.yaml").write_text(text)
    with pytest.raises(
        CalibrationError, match=f"sensor.yaml: expected EuRoC's sensor.yaml, but this is {kind}"
    ):
        open_sequence(path)


def test_lens_models_with_other_names_and_trailing_zeros(folder: Callable) -> None:
    path = folder()
    expected = open_sequence(path).camera
    for camera in ("cam0", "cam1"):
        file = path / f"mav0/{camera}/sensor.yaml"
        text = file.read_text().replace("radial-tangential", "plumb_bob")
        file.write_text(
            "%YAML:1.0\n" + text.replace("0.0, 0.0]", "0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0]")
        )
    assert open_sequence(path).camera == expected


def test_swapped_cameras_are_refused(folder: Callable) -> None:
    path = folder()
    (path / "mav0/cam0").rename(path / "mav0/old")
    (path / "mav0/cam1").rename(path / "mav0/cam0")
    (path / "mav0/old").rename(path / "mav0/cam1")
    with pytest.raises(
        CalibrationError, match=r"mav0: cam0 \(left\) and cam1 .* stands 0\.110 m left"
    ):
        open_sequence(path)


def test_missing_files_are_refused(folder: Callable) -> None:
    path = folder()
    (path / "mav0/cam1/sensor.yaml").unlink()
    with pytest.raises(
        CalibrationError, match=r"expected EuRoC's calibration at .*cam1/sensor\.yaml"
    ):
        open_sequence(path)
    table = path / "mav0/cam0/data.csv"
    table.write_text("12,\n")
    with pytest.raises(
        DatasetError, match=r"data\.csv:1: expected 'nanoseconds,filename', found '12,'"
    ):
        open_sequence(path)
    table.write_text("12,12.png\n")
    with pytest.raises(DatasetError, match=r"none of the 1 image in .* lies in"):
        open_sequence(path)
    for image in (path / "mav0/cam0/data").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match=r"expected images .* found none"):
        open_sequence(path)
    with pytest.raises(DatasetError, match="no depth images"):
        open_sequence(path, sensor="rgbd")


def test_real_still_and_keyframe_recordings(test_data: Path) -> None:
    still = open_sequence(test_data / "euroc" / "V1_01_easy_still")
    assert (len(still), still.sensor) == (15, "stereo")
    assert still.ground_truth is not None and still.ground_truth.path_length_m < 0.05
    keyframes = open_sequence(test_data / "euroc", sequence="keyframes")
    assert len(keyframes) == 50 and keyframes[0].image.shape == (480, 752)


def test_real_ground_truth_agrees_with_the_images(test_data: Path) -> None:
    """The motion between two frames by stereo points agrees with the ground truth."""
    sequence = open_sequence(test_data / "euroc" / "V1_01_easy_keyframes")
    camera, truth = sequence.camera, sequence.ground_truth
    assert truth is not None
    first, second = sequence[1], sequence[2]
    assert second.timestamp - first.timestamp < 0.1 and first.image_right is not None
    sift, matcher = cv2.SIFT.create(1500), cv2.BFMatcher()
    found = [
        sift.detectAndCompute(image, None)
        for image in (first.image, first.image_right, second.image)
    ]

    def pairs(k: int) -> dict[int, np.ndarray]:
        near = matcher.knnMatch(found[0][1], found[k][1], k=2)
        return {
            a.queryIdx: np.array(found[k][0][a.trainIdx].pt)
            for a, b in near
            if a.distance < 0.7 * b.distance
        }

    right, later = pairs(1), pairs(2)
    left = {i: np.array(found[0][0][i].pt) for i in right.keys() & later.keys()}
    kept = [
        i
        for i in sorted(left)
        if left[i][0] - right[i][0] > 2 and abs(left[i][1] - right[i][1]) < 1
    ]
    depth = np.array([camera.bf / (left[i][0] - right[i][0]) for i in kept])
    points = camera.unproject(np.array([left[i] for i in kept]), depth)
    pixels = np.array([later[i] for i in kept])
    _, rotation, translation, _ = cv2.solvePnPRansac(
        points, pixels, camera.K, None, reprojectionError=1.5
    )
    T_second_first = np.eye(4)
    T_second_first[:3, :3], T_second_first[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
    poses = [
        truth.T_world_cam[np.abs(truth.timestamps - f.timestamp).argmin()] for f in (first, second)
    ]
    error = inverse(inverse(poses[1]) @ poses[0]) @ T_second_first
    assert np.linalg.norm(error[:3, 3]) < 0.003
    assert np.degrees(rotation_angle(error[:3, :3])) < 0.15


@pytest.mark.parametrize(
    ("unit", "per_second", "digits"), [("us", 1e6, 0), ("ms", 1e3, 3), ("s", 1.0, 6)]
)
def test_tables_in_other_units(folder: Callable, unit: str, per_second: float, digits: int) -> None:
    path = folder()
    for camera in (0, 1):
        lines = [f"{stamp / 1e9 * per_second:.{digits}f},{stamp}.png" for stamp in STAMPS]
        (path / f"mav0/cam{camera}/data.csv").write_text("#timestamp,filename\n" + "\n".join(lines))
    sequence = open_sequence(path)
    assert sequence.time_unit == unit
    assert [frame.timestamp for frame in sequence] == pytest.approx(
        [s / 1e9 for s in STAMPS], abs=2e-6
    )


def test_time_offsets_of_right_images_are_reported_and_limited_by_an_option(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    lines = [f"{stamp + 12_000_000},{stamp}.png" for stamp in STAMPS]
    (path / "mav0/cam1/data.csv").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert len(open_sequence(path)) == 3
    assert "right images come 12.0 ms after the left ones" in caplog.text
    message = (
        r"none of the 3 images has a right image within 0\.005 s: "
        r"the nearest is 0\.012 s away, .*--pair-within S"
    )
    with pytest.raises(DatasetError, match=message):
        open_sequence(path, pair_within_s=0.005)


def test_body_positions_are_kept_where_they_cannot_be_carried(folder: Callable) -> None:
    path = folder()
    table = path / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    table.write_text(
        "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m]\n"
        + "".join(f"{s},1,2,3\n" for s in STAMPS)
    )
    with shown_notices(lambda found: None) as notices:
        truth = open_sequence(path).ground_truth
    assert truth is not None
    assert (truth.frame, truth.has_rotations, truth.positions.tolist()) == (
        "body",
        False,
        [[1, 2, 3]] * 3,
    )
    assert truth.timestamps == pytest.approx([s / 1e9 for s in STAMPS], abs=1e-6)
    assert sorted(found.topic for found in notices.notices) == [
        "positions_only",
        "truth_not_carried",
    ]


def test_the_header_of_a_table_gives_the_order_of_columns(folder: Callable) -> None:
    path = folder()
    expected = open_sequence(path).ground_truth
    table = path / "mav0" / "state_groundtruth_estimate0" / "data.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    header = (
        "#timestamp [ns],q_RS_x [],q_RS_y [],q_RS_z [],q_RS_w [],"
        "p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m]\n"
    )
    table.write_text(
        header + "".join(",".join([row[0], *row[5:8], row[4], *row[1:4]]) + "\n" for row in rows)
    )
    truth = open_sequence(path).ground_truth
    assert truth is not None and expected is not None
    np.testing.assert_array_equal(truth.T_world_cam, expected.T_world_cam)
    np.testing.assert_array_equal(truth.timestamps, expected.timestamps)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resolution: [80, 60]", "resolution: [1e9, 60]", "image size must be 1 to 32767 pixels"),
        ("resolution: [80, 60]", "resolution: [.nan, 60]", "expected 2 numbers under resolution"),
        ("intrinsics: [60.0", "intrinsics: [1e300", "are no focal lengths"),
        ("intrinsics: [60.0", "intrinsics: [-60.0", "must be positive"),
        ("rate_hz: 20", "rate_hz: 0", "fps must be positive"),
        ("rate_hz: 20", "rate_hz: 1e300", "fps must be positive"),
        ("[-0.1, 0.01", "[1e300, 0.01", "distortion coefficients must be finite"),
        ("data: [", "data: [1e200, ", "expected 16 numbers under T_BS.data"),
        ("data: [0", "data: [1e2000", "expected 16 numbers under T_BS.data"),
        ("%YAML:1.0", "%YAML:1.0\na: &a [*a]", "holds itself"),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    folder: Callable, old: str, new: str, message: str
) -> None:
    path = folder()
    sensor = path / "mav0" / "cam0" / "sensor.yaml"
    assert old in sensor.read_text()
    sensor.write_text(sensor.read_text().replace(old, new, 1))
    with pytest.raises(CalibrationError, match=message) as error:
        open_sequence(path)
    assert "\n" not in str(error.value)


def test_baselines_are_refused_or_give_a_warning(folder: Callable) -> None:
    path = folder()
    right = path / "mav0" / "cam1" / "sensor.yaml"
    right.write_text(sensor_yaml(T_BODY_LEFT, RADTAN))
    with pytest.raises(CalibrationError, match="the two cameras stand in the same place"):
        open_sequence(path)
    assert open_sequence(path, sensor="mono").sensor == "mono"
    T = np.eye(4)
    T[0, 3] = 110.0
    right.write_text(sensor_yaml(T_BODY_LEFT @ T, RADTAN))
    with shown_notices(lambda _: None) as handler:
        open_sequence(path)
    assert any(
        "stand 110 m apart: is it in metres, not in millimetres?" in notice.text
        for notice in handler.notices
    )
