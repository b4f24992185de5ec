"""`spslam data info` of recordings, and `spslam run` on bags."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import call, refused
from recordings.bags import BagMaker
from world_folder import CAMERA, millimetres, world_frame, write_world

from spslam.datasets import open_sequence
from spslam.run.output import read_metrics, recording_of

FRAMES = 8


def stamp(index: int) -> int:
    return round(world_frame(index).timestamp * 1e9)


def world_bag(ros: int, how: str, sensor: str) -> BagMaker:
    """Frames of demo-small as messages."""
    maker = BagMaker(ros)
    base = "/cam/left/image_rect" if sensor == "stereo" else "/cam/color/image_raw"
    for index in range(FRAMES):
        frame = world_frame(index)
        images = {base: frame.image}
        if sensor == "stereo":
            assert frame.image_right is not None
            images["/cam/right/image_rect"] = frame.image_right
        for topic, pixels in images.items():
            if how == "png":
                data = cv2.imencode(".png", pixels)[1].tobytes()
                maker.compressed(
                    f"{topic}/compressed", data, "mono8; png compressed ", stamp(index)
                )
            elif how == "rgb8":
                colors = np.repeat(pixels[:, :, None], 3, axis=2)
                maker.image(topic, colors, "rgb8", stamp(index), padding=5)
            else:
                maker.image(topic, pixels, "mono8", stamp(index))
        if sensor == "rgbd":
            depth = millimetres(index)
            floats = (depth / np.float32(1000)).astype(np.float32)
            raw, encoding = (depth, "16UC1") if how == "mono8" else (floats, "32FC1")
            maker.image("/cam/aligned_depth_to_color/image_raw", raw, encoding, stamp(index))
    maker.camera_info(f"{base.rpartition('/')[0]}/camera_info", CAMERA)
    if sensor == "stereo":
        assert CAMERA.baseline_m is not None
        maker.camera_info("/cam/right/camera_info", CAMERA, baseline=CAMERA.baseline_m)
    return maker


def trajectory(source: Path, out: Path, *options: str) -> bytes:
    names = ("--outputs", "trajectory", "--extractor", "orb")
    assert call("run", str(source), "--out", str(out), *names, *options) == 0
    return (out / "trajectory.tum").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "how", "ros"),
    [
        ("mono", "png", 2),
        ("stereo", "mono8", 1),
        ("stereo", "rgb8", 2),
        ("rgbd", "mono8", 2),
        ("rgbd", "rgb8", 1),
    ],
)
def test_a_run_on_a_bag_is_that_on_the_images_to_the_byte(
    sensor: str, how: str, ros: int, tmp_path: Path
) -> None:
    folder = write_world(tmp_path / "world", sensor, FRAMES)
    bag = world_bag(ros, how, sensor).write(tmp_path / ("walk.bag" if ros == 1 else "walk.mcap"))
    expected = trajectory(folder, tmp_path / "folder-run", "--sensor", sensor)
    assert len(expected.splitlines()) >= (2 if sensor == "mono" else FRAMES)
    assert trajectory(bag, tmp_path / "bag-run", "--sensor", sensor) == expected


@pytest.mark.slow
def test_a_finished_run_opens_its_topics_again(tmp_path: Path) -> None:
    maker = world_bag(1, "mono8", "stereo")
    maker.odometry("/odom", np.eye(4), stamp(0), child="camera")
    bag = maker.write(tmp_path / "walk.bag")
    out = tmp_path / "run"
    topics = {
        "topic": "/cam/left/image_rect",
        "right_topic": "/cam/right/image_rect",
        "truth_topic": "/odom",
    }
    options = [f"--{name.replace('_', '-')}={topic}" for name, topic in topics.items()]
    trajectory(bag, out, *options)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {name: metrics[f"input_{name}"] for name in topics} == topics
    assert "input_depth_topic" not in metrics
    again = open_sequence(**recording_of(read_metrics(out)))
    assert again.sensor == "stereo" and again.ground_truth is not None


def test_info_of_a_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = world_bag(1, "mono8", "rgbd")
    maker.text("/chatter", "words", stamp(0))
    maker.text("/chatter", "more words", stamp(4))
    bag = maker.write(tmp_path / "walk.bag")
    assert call("data", "info", str(bag)) == 0
    lines = capsys.readouterr().out.splitlines()
    count = 2 * FRAMES + 3
    assert lines[0].startswith(f"bag walk: 4 topics, {count} messages")
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["/cam/color/image_raw"][1:] == [
        *("sensor_msgs/msg/Image", str(FRAMES), "20", "Hz", "320x240", "mono8", "camera")
    ]
    assert "16UC1" in rows["/cam/aligned_depth_to_color/image_raw"]
    assert rows["/chatter"][1:] == ["std_msgs/msg/String", "2", "5", "Hz*"]
    assert "run: bag walk (ros), rgbd" in lines
    assert f"frames: {FRAMES}, 20 a second" in lines
    assert "ground truth: none" in lines


def test_info_of_a_bag_that_cannot_be_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The topics are shown, because the user needs them to choose."""
    maker = world_bag(2, "mono8", "mono")
    maker.messages = [entry for entry in maker.messages if "camera_info" not in entry[0]]
    assert call("data", "info", str(maker.write(tmp_path / "walk.db3"))) == 0
    printed = capsys.readouterr().out
    assert "/cam/color/image_raw" in printed and "run: refused: " in printed


def test_info_of_other_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_world(tmp_path / "world", "stereo", 2)
    assert call("data", "info", str(folder)) == 0
    printed = capsys.readouterr().out
    assert "images world (images), stereo" in printed and "baseline 0.11 m" in printed
    assert call("data", "info", "demo-small") == 0
    assert "72 poses of the left camera" in capsys.readouterr().out
    assert "no public sequence" in refused(capsys, "data", "info", "no-such-thing")


def test_damaged_bag_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = world_bag(1, "mono8", "mono").write(tmp_path / "walk.bag")
    bag.write_bytes(bag.read_bytes()[:9000])
    assert "rosbag reindex" in refused(capsys, "run", str(bag), "--out", str(tmp_path / "out"))
    assert "rosbag reindex" in refused(capsys, "data", "info", str(bag))
