"""Files of bags: containers, compression, folders, damage, and fuzzing."""

from __future__ import annotations

import bz2
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from recordings.bags import LATE_NS, START_NS, BagMaker
from rosbags.typesys import Stores, get_typestore

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.datasets.ros import compression
from spslam.datasets.ros.bag import is_bag, open_bag
from spslam.errors import DatasetError, MissingDependencyError, SpslamError

STEP_NS = 50_000_000
SIZE = (32, 24)
CAMERA = Camera(*SIZE, 25.0, 25.0, 15.5, 11.5)
FORMS = [
    (1, "walk.bag", ""),
    (1, "walk.bag", "bz2"),
    (1, "walk.bag", "lz4"),
    (2, "walk.mcap", ""),
    (2, "walk.mcap", "chunk"),
    (2, "walk.mcap", "message"),
    (2, "walk.mcap", "file"),
    (2, "walk.db3", ""),
    (2, "walk.db3", "message"),
    (2, "walk.db3", "file"),
]


def image(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (SIZE[1], SIZE[0]), dtype=np.uint8)


def walk(ros: int, first: int = 0, count: int = 6) -> BagMaker:
    maker = BagMaker(ros)
    for index in range(first, first + count):
        maker.image("/cam/image_raw", image(index), "mono8", START_NS + index * STEP_NS)
    maker.camera_info("/cam/camera_info", CAMERA)
    maker.text("/chatter", "a message of another type")
    return maker


@pytest.mark.parametrize(("ros", "name", "packing"), FORMS)
def test_every_container_is_read(ros: int, name: str, packing: str, tmp_path: Path) -> None:
    path = walk(ros).write(tmp_path / name, packing)
    if packing == "file":
        # A folder whose files are compressed; rosbags leaves the uncompressed name in none of them.
        assert [file.suffix for file in path.iterdir() if file.suffix == ".zstd"]
    sequence = open_sequence(path)
    assert (sequence.dataset, sequence.sensor, len(sequence)) == ("ros", "mono", 6)
    for index in (4, 0, 5, 2):  # in any order
        np.testing.assert_array_equal(sequence[index].image, image(index))
    stamps = [frame.timestamp for frame in sequence]
    assert stamps == [(START_NS + index * STEP_NS) / 10**9 for index in range(6)]


@pytest.mark.parametrize("packing", ["", "message"])
@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_folder_without_metadata_and_single_file(suffix: str, packing: str, tmp_path: Path) -> None:
    folder = walk(2).write(tmp_path / f"walk{suffix}", packing)
    (folder / "metadata.yaml").unlink()
    assert len(open_sequence(folder)) == 6
    file = shutil.move(next(folder.iterdir()), tmp_path / f"one{suffix}")
    assert len(open_sequence(file)) == 6


def test_mcap_without_summary(tmp_path: Path) -> None:
    file = walk(2).write_file(tmp_path / "walk.mcap")
    data = bytearray(file.read_bytes())
    # Footer: start of the summary, start of its offsets, checksum; then the magic.
    data[-28:-8] = bytes(20)
    file.write_bytes(data)
    assert len(open_sequence(file)) == 6


def test_parts_of_a_recording_are_joined_and_other_numbers_are_names(tmp_path: Path) -> None:
    for number in range(2):
        walk(1, 6 * number).write(tmp_path / "parts" / f"walk_{number}.bag")
        walk(1, 6 * number).write(tmp_path / "rooms" / f"room_{number + 1}.bag")
    sequence = open_sequence(tmp_path / "parts")
    assert len(sequence) == 12
    np.testing.assert_array_equal(sequence[9].image, image(9))
    with pytest.raises(DatasetError, match=r"2 sequences \(room_1, room_2\)"):
        open_sequence(tmp_path / "rooms")
    assert len(open_sequence(tmp_path / "rooms", sequence="room_2")) == 6


def test_a_folder_of_images_stays_one(tmp_path: Path) -> None:
    walk(1).write(tmp_path / "walk.bag")
    assert is_bag(tmp_path)
    (tmp_path / "000000.png").write_bytes(b"")
    assert not is_bag(tmp_path) and is_bag(tmp_path / "walk.bag")
    assert len(open_sequence(tmp_path, dataset="ros")) == 6


def test_missing_part_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = walk(2).write(tmp_path / "walk.mcap")
    metadata = folder / "metadata.yaml"
    text = metadata.read_text().replace("- walk.mcap.mcap", "- walk.mcap.mcap\n    - later.mcap")
    if "later.mcap" not in text:
        text = text.replace("walk.mcap.mcap", "later.mcap", 1)
    metadata.write_text(text)
    open_bag(folder)
    assert "later.mcap" in caplog.text


def test_message_definitions_are_not_needed(tmp_path: Path) -> None:
    file = walk(2).write_file(tmp_path / "walk.db3")
    with sqlite3.connect(file) as database:
        database.executescript("DROP TABLE message_definitions; DROP TABLE schema;")
    assert len(open_sequence(file)) == 6


def test_the_types_that_are_read_are_the_same_in_all_versions_of_ros_2() -> None:
    kinds = (
        *("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"),
        *("nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "tf2_msgs/msg/TFMessage"),
        *("geometry_msgs/msg/TransformStamped", "std_msgs/msg/Header"),
    )
    latest = get_typestore(Stores.LATEST)
    for store in (Stores.ROS2_FOXY, Stores.ROS2_HUMBLE, Stores.ROS2_JAZZY):
        fields = get_typestore(store).fielddefs
        assert [fields[kind][1] for kind in kinds] == [latest.fielddefs[kind][1] for kind in kinds]


@pytest.mark.parametrize(("ros", "name"), [(1, "walk.bag"), (2, "walk.mcap"), (2, "walk.db3")])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 0.98])
def test_files_that_end_early_are_refused(
    ros: int, name: str, share: float, tmp_path: Path
) -> None:
    maker = walk(ros)
    file = maker.write(tmp_path / name) if ros == 1 else maker.write_file(tmp_path / name)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    assert is_bag(file)
    with pytest.raises(DatasetError, match=r"empty|cut short|damaged|no bag"):
        open_sequence(file)


def test_bag_that_was_not_ended_says_how_to_repair_it(tmp_path: Path) -> None:
    file = walk(1).write(tmp_path / "walk.bag")
    data = file.read_bytes()
    at = data.index(b"index_pos=") + len(b"index_pos=")
    file.write_bytes(data[:at] + bytes(8) + data[at + 8 :])
    with pytest.raises(DatasetError, match=r"not indexed.*rosbag reindex"):
        open_bag(file)


def test_bags_without_messages_or_images(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no messages"):
        open_bag(BagMaker(1).write(tmp_path / "empty.bag"))
    maker = BagMaker(2)
    maker.text("/chatter", "only words")
    with pytest.raises(DatasetError, match=r"has no images .*only String"):
        open_sequence(maker.write(tmp_path / "words.mcap"))


def test_other_files_are_named(tmp_path: Path) -> None:
    for name, content in (("x.bag", b"#ROSBAG V1.2\n" + bytes(9)), ("y.mcap", b"words " * 9)):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=r"version V1\.2, expected V2\.0"):
        open_bag(tmp_path / "x.bag")
    with pytest.raises(DatasetError, match="damaged or no bag"):
        open_bag(tmp_path / "y.mcap")
    with sqlite3.connect(tmp_path / "z.db3") as database:
        database.execute("CREATE TABLE numbers (x INTEGER)")
    with pytest.raises(DatasetError, match="tables topics and messages"):
        open_bag(tmp_path / "z.db3")


@pytest.mark.parametrize("method", ["zstd", "lz4", "bz2"])
def test_decompression_has_a_limit(method: str) -> None:
    modules = {"bz2": bz2, "lz4": compression._lz4(), "zstd": compression._zstd()}
    pack = {name: module.compress for name, module in modules.items()}
    data = pack[method](bytes(1 << 20))
    assert compression.decompress(data, method, "x") == bytes(1 << 20)
    with pytest.raises(DatasetError, match="more than 1000 bytes"):
        compression.decompress(data, method, "x", 1000)
    with pytest.raises(DatasetError, match="damaged"):
        compression.decompress(b"nonsense" * 9, method, "x")


def test_without_rosbags_one_line_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = walk(1).write(tmp_path / "walk.bag")
    monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spslam\[ros\]'"):
        open_bag(file)


@pytest.mark.parametrize(
    ("ros", "name", "packing"),
    [
        (1, "x.bag", ""),
        (1, "x.bag", "lz4"),
        (2, "x.mcap", ""),
        (2, "x.mcap", "chunk"),
        (2, "x.db3", ""),
    ],
)
def test_flipped_bytes_give_only_our_errors(
    ros: int, name: str, packing: str, tmp_path: Path
) -> None:
    """Every byte that is read comes from a file that anybody may have made."""
    maker = walk(ros, count=2)
    maker.pose("/ground_truth", np.eye(4), START_NS)
    maker.tf_static(maker.transform("body", "camera", np.eye(4)))
    path = tmp_path / name
    file = maker.write(path) if ros == 1 else maker.write_file(path, packing)
    whole = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    random = np.random.default_rng(7)
    refused = 0
    for _ in range(60):
        data = whole.copy()
        places = random.integers(0, len(data), random.integers(1, 12))
        data[places] = random.integers(0, 256, len(places))
        file.write_bytes(data.tobytes())
        try:
            for frame in open_sequence(file):
                assert frame.image.dtype == np.uint8
        except SpslamError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 0 < refused < 60


def test_stamps_are_those_of_the_headers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maker = BagMaker(2)
    maker.camera_info("/cam/camera_info", CAMERA)
    for index in range(4):
        maker.image(
            "/cam/image_raw", image(index), "mono8", 0, recorded_ns=START_NS + index * STEP_NS
        )
    sequence = open_sequence(maker.write(tmp_path / "walk.db3"))
    assert [frame.timestamp for frame in sequence] == [
        (START_NS + index * STEP_NS) / 10**9 for index in range(4)
    ]
    assert "times of recording are used" in caplog.text
    assert LATE_NS > 0


def test_images_out_of_order_and_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maker = BagMaker(1)
    maker.camera_info("/cam/camera_info", CAMERA)
    for place, index in enumerate((0, 2, 1, 3, 3, 4, 5, 6, 7, 8, 9)):
        stamp = START_NS + index * STEP_NS
        recorded = START_NS + place * STEP_NS
        maker.image("/cam/image_raw", image(place), "mono8", stamp, recorded_ns=recorded)
    sequence = open_sequence(maker.write(tmp_path / "walk.bag"))
    assert len(sequence) == 10 and len(sequence.left_out) == 1
    np.testing.assert_array_equal(sequence[1].image, image(2))
    np.testing.assert_array_equal(sequence[3].image, image(3))
    assert "out of order" in caplog.text and "repeats" in caplog.text


def test_a_damaged_image_is_skipped(tmp_path: Path) -> None:
    maker = walk(1)
    maker.compressed("/eye/image/compressed", b"nonsense", "png", START_NS)
    maker.messages[2][2].encoding = "yuv999"
    sequence = open_sequence(maker.write(tmp_path / "walk.bag"), topic="/cam/image_raw")
    assert [frame.index for frame in sequence] == [0, 1, 3, 4, 5]
    assert "yuv999" in sequence.skipped[0][1]
