"""Bags as sequences: topics, cameras, pairs, depth, and ground truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from recordings.bags import LATE_NS, START_NS, BagMaker

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse, se3_exp
from spslam.interfaces import Sequence

STEP_NS = 50_000_000
WIDTH, HEIGHT = 64, 48
CAMERA = Camera(WIDTH, HEIGHT, 50.0, 51.0, 31.0, 24.0)
BASELINE = 0.12
COUNT = 3


def image(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    small = np.random.default_rng(index).integers(0, 256, (6, 8), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def stamp(index: int) -> int:
    return START_NS + index * STEP_NS


def filled(maker: BagMaker, *topics: str, frame: str = "camera", delay_ns: int = 0) -> BagMaker:
    """Add grey images of several topics."""
    for number, topic in enumerate(topics):
        for index in range(COUNT):
            maker.image(
                topic,
                image(10 * number + index),
                "mono8",
                stamp(index) + number * delay_ns,
                frame=frame if number == 0 else f"{frame}{number}",
            )
    return maker


def opened(maker: BagMaker, folder: Path, **choices: object) -> Sequence:
    path = folder / ("walk.bag" if maker.ros == 1 else "walk.mcap")
    if not path.exists():
        maker.write(path)
    return open_sequence(path, **choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("ros", [1, 2])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("/stereo/left/image_rect", "/stereo/right/image_rect"),
        ("/camera/infra1/image_rect_raw", "/camera/infra2/image_rect_raw"),
        ("/camera/fisheye1/image_raw", "/camera/fisheye2/image_raw"),
        ("/cam0/image_raw", "/cam1/image_raw"),
        ("/kitti/image_0/raw", "/kitti/image_1/raw"),
        ("/zed/left/left_image", "/zed/right/right_image"),
    ],
)
def test_pairs_are_found_by_name(left: str, right: str, ros: int, tmp_path: Path) -> None:
    maker = filled(BagMaker(ros), left, right)
    for topic, baseline in ((left, 0.0), (right, BASELINE)):
        info = f"{topic.rpartition('/')[0]}/camera_info"
        maker.camera_info(info, CAMERA, baseline=baseline)
    sequence = opened(maker, tmp_path)
    assert sequence.sensor == "stereo"
    assert sequence.camera.baseline_m == pytest.approx(BASELINE, rel=1e-12)
    frame = sequence[2]
    np.testing.assert_array_equal(frame.image, image(2))
    np.testing.assert_array_equal(frame.image_right, image(12))
    assert opened(maker, tmp_path, sensor="mono").sensor == "mono"


def test_ambiguous_topics_are_listed_and_chosen(tmp_path: Path) -> None:
    maker = filled(BagMaker(1), "/front/image_raw", "/back/image_raw", "/arm/image_raw")
    for name in ("front", "back", "arm"):
        maker.camera_info(f"/{name}/camera_info", CAMERA, baseline=0.2 if name == "back" else 0)
    with pytest.raises(DatasetError, match=r"/arm/image_raw \(64x48 mono8\).*choose with --topic"):
        opened(maker, tmp_path)
    chosen = opened(maker, tmp_path, topic="/back/image_raw")
    np.testing.assert_array_equal(chosen[1].image, image(11))
    pair = opened(maker, tmp_path, topic="/front/image_raw", right_topic="/back/image_raw")
    assert pair.sensor == "stereo" and pair.camera.baseline_m == pytest.approx(0.2)
    with pytest.raises(DatasetError, match="--topic /nose is no topic of images: /arm/image_raw"):
        opened(maker, tmp_path, topic="/nose")
    with pytest.raises(DatasetError, match="not both"):
        opened(maker, tmp_path, right_topic="/back/image_raw", depth_topic="/arm/image_raw")
    with pytest.raises(DatasetError, match="--sensor mono does not use"):
        opened(maker, tmp_path, right_topic="/back/image_raw", sensor="mono")


def test_of_raw_and_compressed_images_the_raw_ones_are_read(tmp_path: Path) -> None:
    maker = filled(BagMaker(2), "/cam/image_raw")
    for index in range(COUNT):
        data = cv2.imencode(".jpg", image(index))[1].tobytes()
        maker.compressed("/cam/image_raw/compressed", data, "mono8; jpeg compressed", stamp(index))
    maker.camera_info("/cam/camera_info", CAMERA)
    np.testing.assert_array_equal(opened(maker, tmp_path)[0].image, image(0))
    lossy = opened(maker, tmp_path, topic="/cam/image_raw/compressed")[0].image
    assert not np.array_equal(lossy, image(0))


def test_the_rectified_pair_is_preferred(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("left/image_raw", "right/image_raw", "left/image_rect", "right/image_rect")
    maker = filled(BagMaker(1), *(f"/cam/{name}" for name in names))
    maker.camera_info("/cam/left/camera_info", CAMERA)
    maker.camera_info("/cam/right/camera_info", CAMERA, baseline=BASELINE)
    np.testing.assert_array_equal(opened(maker, tmp_path)[0].image, image(20))
    assert "the rectified one is used" in caplog.text


def depth_bag(encoding: str, *, frame: str = "camera", height: int = HEIGHT) -> BagMaker:
    maker = BagMaker(1)
    metres = np.linspace(0.5, 4.0, WIDTH * height).reshape(height, WIDTH)
    metres[0, 0] = 0.0 if encoding == "16UC1" else np.nan
    for index in range(COUNT):
        colors = np.repeat(image(index)[:, :, None], 3, axis=2)
        maker.image("/camera/color/image_raw", colors, "rgb8", stamp(index))
        raw = (metres * 1000).astype(np.uint16) if encoding == "16UC1" else metres.astype("f4")
        topic = "/camera/aligned_depth_to_color/image_raw"
        maker.image(topic, raw, encoding, stamp(index) + 4_000_000, frame=frame)
    maker.camera_info("/camera/color/camera_info", CAMERA)
    return maker


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_colour_and_aligned_depth(
    encoding: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sequence = opened(depth_bag(encoding), tmp_path)
    assert sequence.sensor == "rgbd" and len(sequence) == COUNT
    depth = sequence[1].depth
    assert depth is not None and depth[0, 0] == 0.0
    assert depth[-1, -1] == pytest.approx(4.0, abs=1e-3)
    unit = "millimetres" if encoding == "16UC1" else "metres"
    assert f"is read as {unit} ({encoding}" in caplog.text


@pytest.mark.parametrize("change", [{"frame": "depth_camera"}, {"height": 40}])
def test_depth_that_is_not_registered(
    change: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = depth_bag("16UC1", **change)
    assert opened(maker, tmp_path).sensor == "mono"
    assert "aligned_depth_to_color" in caplog.text
    with pytest.raises(DatasetError, match="not registered"):
        opened(maker, tmp_path, sensor="rgbd")
    topic = {"depth_topic": "/camera/aligned_depth_to_color/image_raw"}
    if "frame" in change:
        assert opened(maker, tmp_path, **topic).sensor == "rgbd"
    else:
        with pytest.raises(DatasetError, match="not registered"):
            opened(maker, tmp_path, **topic)


def test_pairs_by_time(tmp_path: Path) -> None:
    """Right images 3 ms late are partners, images without a partner are left out."""
    maker = filled(BagMaker(1), "/left/image_rect", "/right/image_rect", delay_ns=3_000_000)
    maker.image("/left/image_rect", image(3), "mono8", stamp(3))
    maker.camera_info("/left/camera_info", CAMERA)
    maker.camera_info("/right/camera_info", CAMERA, baseline=BASELINE)
    sequence = opened(maker, tmp_path)
    assert len(sequence) == COUNT
    assert [entry.reason for entry in sequence.left_out] == ["no right image"]
    with pytest.raises(DatasetError, match="--pair-within"):
        opened(maker, tmp_path, pair_within_s=0.001)


LENSES = [
    ("plumb_bob", (-0.2, 0.05, 0.001, -0.002, 0.01), "radtan"),
    ("rational_polynomial", (0.1, 0.01, 0.0, 0.0, 0.0, 0.12, 0.0, 0.001), "radtan"),
    ("equidistant", (0.01, -0.002, 0.001, 0.0002), "equidistant"),
    ("fisheye", (0.01, -0.002, 0.001, 0.0002), "equidistant"),
    ("plumb_bob", (0.0,) * 5, "none"),
    ("", (), "none"),
]


@pytest.mark.parametrize("ros", [1, 2])
@pytest.mark.parametrize(("model", "coefficients", "ours"), LENSES)
def test_lens_of_camera_info(
    model: str, coefficients: tuple[float, ...], ours: str, ros: int, tmp_path: Path
) -> None:
    maker = filled(BagMaker(ros), "/cam/image_raw")
    fake = (
        replace(CAMERA, distortion_model="radtan", distortion=coefficients or (0.0,) * 5)
        if (len(coefficients) != 4)
        else replace(CAMERA, distortion_model="equidistant", distortion=coefficients)
    )
    maker.camera_info("/cam/camera_info", fake, model=model)
    camera = opened(maker, tmp_path).camera
    assert camera.distortion_model == ours
    assert camera.distortion == (coefficients if ours != "none" else ())
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50.0, 51.0, 31.0, 24.0)
    assert camera.fps == pytest.approx(20.0, rel=1e-5)


def test_unknown_lens_is_refused(tmp_path: Path) -> None:
    maker = filled(BagMaker(1), "/cam/image_raw")
    lens = replace(CAMERA, distortion_model="radtan", distortion=(0.1, 0.0, 0.0, 0.0, 0.0))
    maker.camera_info("/cam/camera_info", lens, model="spherical_cow")
    with pytest.raises(CalibrationError, match="spherical_cow"):
        opened(maker, tmp_path)


def test_region_and_binning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A point of the sensor is at the same place of the image by both calibrations."""
    sensor = Camera(160, 120, 100.0, 102.0, 79.0, 61.0)
    maker = filled(BagMaker(1), "/cam/image_raw")
    maker.camera_info("/cam/camera_info", sensor, binning=2, roi=(16, 10, 128, 96))
    camera = opened(maker, tmp_path).camera
    points = np.array([[0.1, -0.2, 1.0], [0.0, 0.0, 2.0], [-0.3, 0.1, 1.5]])
    # Bins of 2 x 2 pixels: their centre is half a pixel from the first one.
    expected = (sensor.project(points) - (16, 10) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(camera.project(points), expected)
    assert "128x96+16+10" in caplog.text


def test_rectified_images_have_no_distortion_and_use_P(tmp_path: Path) -> None:
    maker = filled(BagMaker(1), "/left/image_rect_color", "/right/image_rect_color")
    raw = replace(CAMERA, distortion_model="radtan", distortion=(-0.3, 0.1, 0.0, 0.0, 0.0))
    for side, tx in (("left", 0.0), ("right", -45.0 * BASELINE)):
        P = np.array([[45.0, 0, 32.0, tx], [0, 45.0, 23.0, 0], [0, 0, 1, 0]])
        maker.camera_info(f"/{side}/camera_info", raw, P=P, R=se3_exp(np.full(6, 0.02))[:3, :3])
    camera = opened(maker, tmp_path).camera
    assert camera == Camera(
        WIDTH, HEIGHT, 45.0, 45.0, 32.0, 23.0, baseline_m=camera.baseline_m, fps=camera.fps
    )
    assert camera.baseline_m == pytest.approx(BASELINE)


T_LEFT_RIGHT = se3_exp(np.array([BASELINE, 0.002, -0.001, 0.01, -0.02, 0.005]))


def raw_pair(by: str) -> BagMaker:
    """A pair that is not rectified, whose pose is in /tf_static or in P and R."""
    maker = filled(BagMaker(2), "/left/image_raw", "/right/image_raw", frame="eye")
    if by == "tree":
        T_body_left = se3_exp(np.array([0.3, -0.1, 0.2, 0.5, -0.4, 0.3]))
        maker.tf_static(maker.transform("body", "eye", T_body_left))
        maker.tf_static(maker.transform("body", "eye1", T_body_left @ T_LEFT_RIGHT))
        maker.camera_info("/left/camera_info", CAMERA)
        maker.camera_info("/right/camera_info", CAMERA)
        return maker
    K = CAMERA.K
    R_left, R_right, _, P_right, *_ = cv2.stereoRectify(
        K,
        np.zeros(4),
        K,
        np.zeros(4),
        (WIDTH, HEIGHT),
        inverse(T_LEFT_RIGHT)[:3, :3].copy(),
        inverse(T_LEFT_RIGHT)[:3, 3:].copy(),
    )
    maker.camera_info("/left/camera_info", CAMERA, R=np.array(R_left))
    maker.camera_info("/right/camera_info", CAMERA, R=np.array(R_right), P=np.array(P_right))
    return maker


@pytest.mark.parametrize("by", ["tree", "matrices"])
def test_raw_pairs_are_rectified_as_by_a_calibration_file(by: str, tmp_path: Path) -> None:
    maker = raw_pair(by)
    given = {key: getattr(CAMERA, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    file = tmp_path / "camera.yaml"
    file.write_text(yaml.safe_dump(given | {"right": given, "T_left_right": T_LEFT_RIGHT.tolist()}))
    own = opened(maker, tmp_path)
    by_file = opened(maker, tmp_path, calibration=file)
    assert own.camera.baseline_m == pytest.approx(np.linalg.norm(T_LEFT_RIGHT[:3, 3]), rel=1e-9)
    assert own.camera.fx == pytest.approx(by_file.camera.fx, rel=1e-9)
    difference = own[0].image.astype(int) - by_file[0].image
    assert np.abs(difference).max() <= 1


def test_pair_without_a_pose_is_refused(tmp_path: Path) -> None:
    maker = filled(BagMaker(1), "/left/image_raw", "/right/image_raw")
    maker.camera_info("/left/camera_info", CAMERA)
    maker.camera_info("/right/camera_info", CAMERA)
    with pytest.raises(CalibrationError, match=r"P\[3\] of /right/camera_info is 0.*/tf_static"):
        opened(maker, tmp_path)


def test_both_images_may_name_one_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rectified right images are often published in the frame of the left camera."""
    maker = BagMaker(1)
    for side, number in (("left", 0), ("right", 10)):
        for index in range(COUNT):
            maker.image(f"/{side}/image_raw", image(number + index), "mono8", stamp(index))
        baseline = BASELINE if side == "right" else 0.0
        maker.camera_info(f"/{side}/camera_info", CAMERA, baseline=baseline)
    assert opened(maker, tmp_path).camera.baseline_m == pytest.approx(BASELINE)
    assert "/tf_static" not in caplog.text


def test_two_poses_of_a_pair_that_differ_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R that is not filled in: the frames of the driver come first."""
    maker = raw_pair("tree")
    message = next(m for name, _, m, _ in maker.messages if name == "/right/camera_info")
    message.p[3] = -CAMERA.fx * 0.2
    camera = opened(maker, tmp_path).camera
    assert camera.baseline_m == pytest.approx(np.linalg.norm(T_LEFT_RIGHT[:3, 3]), rel=1e-9)
    assert "is that of /tf_static" in caplog.text and "gives 0.2 m" in caplog.text


def uncalibrated(maker: BagMaker) -> None:
    zeros = replace(CAMERA, fx=1e-1, fy=1e-1)
    maker.camera_info("/cam/camera_info", zeros)
    message = maker.messages[-1][2]
    message.K[:] = 0.0


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda maker: None, "has no camera_info: .*--calibration FILE"),
        (uncalibrated, "uncalibrated camera"),
        (
            lambda maker: maker.camera_info("/cam/camera_info", CAMERA, size=(128, 96)),
            "64x48, but /cam/camera_info is for 128x96: if they were resized by 0.5",
        ),
    ],
)
def test_calibration_that_cannot_be_used(
    prepare: Callable[[BagMaker], None], words: str, tmp_path: Path
) -> None:
    maker = filled(BagMaker(1), "/cam/image_raw")
    prepare(maker)
    with pytest.raises(CalibrationError, match=words):
        opened(maker, tmp_path)


def test_images_of_12_bits_are_scaled_by_their_range(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = BagMaker(1)
    maker.camera_info("/cam/camera_info", CAMERA)
    for index in range(COUNT):
        maker.image("/cam/image_raw", image(index).astype(np.uint16) * 16, "mono16", stamp(index))
    found = opened(maker, tmp_path)[0].image
    assert np.abs(found.astype(int) - image(0)).max() <= 1
    assert "scaled to 8 bits" in caplog.text


def truth_bag(kind: str, *, tree: bool = True) -> tuple[BagMaker, np.ndarray]:
    maker = filled(BagMaker(2), "/cam/image_raw")
    maker.camera_info("/cam/camera_info", CAMERA)
    T_body_camera = se3_exp(np.array([0.1, 0.2, 0.3, 0.4, 0.5, -0.6]))
    poses = se3_exp(np.random.default_rng(3).normal(size=(5, 6)))
    for index, T in enumerate(poses):
        if kind == "odometry":
            maker.odometry("/odom", T, stamp(index), child="body")
        else:
            maker.pose("/vicon/pose", T, stamp(index))
    if tree:
        T = se3_exp(np.array([0.0, 0.0, 1.0, 0.1, 0.0, 0.0]))
        maker.tf_static(
            maker.transform("body", "plate", T),
            maker.transform("plate", "/camera", inverse(T) @ T_body_camera),
        )
    return maker, poses @ T_body_camera if kind == "odometry" and tree else poses


def test_odometry_is_carried_to_the_camera(tmp_path: Path) -> None:
    maker, expected = truth_bag("odometry")
    truth = opened(maker, tmp_path, truth_topic="/odom").ground_truth
    assert truth is not None and "carried from body" in truth.frame
    np.testing.assert_allclose(truth.T_world_cam, expected, atol=1e-12)
    assert truth.timestamps[2] == stamp(2) / 10**9


@pytest.mark.parametrize(
    ("kind", "words"), [("odometry", "does not connect"), ("pose", "not name")]
)
def test_truth_that_cannot_be_carried_is_told(
    kind: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker, expected = truth_bag(kind, tree=kind == "pose")
    topic = "/odom" if kind == "odometry" else "/vicon/pose"
    truth = opened(maker, tmp_path, truth_topic=topic).ground_truth
    assert truth is not None and words in caplog.text
    np.testing.assert_allclose(truth.T_world_cam, expected, atol=1e-12)


def test_only_topics_with_names_of_ground_truth_are_used_unasked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker, _ = truth_bag("odometry")
    assert opened(maker, tmp_path).ground_truth is None
    assert "--truth-topic chooses one of /odom" in caplog.text
    named, _ = truth_bag("pose")
    (tmp_path / "named").mkdir()
    truth = opened(named, tmp_path / "named").ground_truth
    assert truth is not None and len(truth) == 5
    with pytest.raises(DatasetError, match="--truth-topic /cam/image_raw is no topic of poses"):
        opened(maker, tmp_path, truth_topic="/cam/image_raw")


def test_truth_without_stamps_has_the_times_of_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker, _ = truth_bag("odometry")
    for name, _, message, _ in maker.messages:
        if name == "/odom":
            message.header.stamp.sec = message.header.stamp.nanosec = 0
    truth = opened(maker, tmp_path, truth_topic="odom").ground_truth
    assert truth is not None and truth.timestamps[1] == (stamp(1) + LATE_NS) / 10**9
    assert "headers of /odom are all 0" in caplog.text


def test_wrong_poses_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maker, _ = truth_bag("odometry")
    broken = [m for name, _, m, _ in maker.messages if name == "/odom"][1].pose.pose.orientation
    broken.x = broken.y = broken.z = broken.w = 0.0
    truth = opened(maker, tmp_path, truth_topic="/odom").ground_truth
    assert truth is not None and len(truth) == 4
    assert "1 message of /odom without a pose is left out" in caplog.text


def test_other_readers_refuse_topics_and_bags_refuse_units(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="--topic is for bags; demo has no topics"):
        open_sequence("demo-small", topic="/cam/image_raw")
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "000000.png"), image(0))
    with pytest.raises(DatasetError, match="--truth-topic is for bags; images has no topics"):
        open_sequence(folder, truth_topic="/odom")
    maker = filled(BagMaker(1), "/cam/image_raw")
    with pytest.raises(DatasetError, match="brings its own times, found --time-unit ms"):
        opened(maker, tmp_path, time_unit="ms")


@pytest.mark.slow
def test_recording_of_a_t265(test_data: Path, tmp_path: Path) -> None:
    """A fisheye pair of 848 x 800 without camera_info: 3 images each, IMU and odometry."""
    bag = test_data / "bags" / "t265_office.bag"
    with pytest.raises(CalibrationError, match=r"fisheye1/image_raw .* has no camera_info"):
        open_sequence(bag)
    lens = {"model": "equidistant", "coefficients": [-0.0088, 0.0469, -0.0443, 0.0082]}
    camera = {"width": 848, "height": 800, "fx": 285.7, "fy": 286.2, "cx": 420.0, "cy": 401.0} | {
        "distortion": lens
    }
    T_left_right = np.eye(4)
    T_left_right[0, 3] = 0.064
    file = tmp_path / "t265.yaml"
    file.write_text(
        yaml.safe_dump(camera | {"right": camera, "T_left_right": T_left_right.tolist()})
    )
    sequence = open_sequence(bag, calibration=file, truth_topic="/camera/odom/sample")
    assert sequence.sensor == "stereo"
    frames = list(sequence)
    assert [frame.timestamp for frame in frames] == pytest.approx(
        [1553180224.360915899 + step for step in (0.0, 0.0333333, 0.0666667)], abs=1e-5
    )
    # A wide lens in an office: neither image is black, and both show the same room.
    assert all(60 < frame.image.mean() < 120 for frame in frames)
    right = frames[0].image_right
    assert right is not None and np.corrcoef(frames[0].image.ravel(), right.ravel())[0, 1] > 0.7
    assert sequence.ground_truth is not None and len(sequence.ground_truth) == 19
