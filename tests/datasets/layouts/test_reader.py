import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from recordings.layout_folders import tum_line

from spslam.config import config_for
from spslam.datasets import dataset_names, open_sequence
from spslam.datasets.layouts.schema import Layout, load_layout
from spslam.datasets.layouts.tables import find_layout
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import make_transform
from spslam.notices import shown_notices

ROOT = Path(__file__).resolve().parents[3]
TABLE = {
    "name": "toy",
    "title": "toy recordings",
    "recognise": {"has": "pictures/*.png"},
    "images": {"files": "pictures/*.png"},
    "depth": {"files": "far/*.png"},
    "stamps": {"unit": "frames", "fps": 10},
    "camera": {"width": 40, "height": 30, "fx": 30, "fy": 30, "cx": 19.5, "cy": 14.5},
    "poses": {"file": "truth.txt", "columns": "tx ty tz qx qy qz qw"},
}


@pytest.fixture(autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's layouts."""
    folder = tmp_path_factory.mktemp("layouts")
    monkeypatch.setenv("SPSLAM_LAYOUTS", str(folder))
    return folder


@pytest.fixture
def toy(tmp_path: Path, write: Callable, picture: Callable) -> Path:
    """A recording of the toy table: pictures 7 to 11, depth without that of 9."""
    folder = tmp_path / "toys" / "run_1"
    for number in range(7, 12):
        write(folder / "pictures" / f"{number}.png", picture(number, channels=3))
        if number != 9:
            write(folder / "far" / f"{number}.png", np.full((30, 40), number * 100, np.uint16))
    (folder / "truth.txt").write_text("1 2 3 0 0 0 1\n" * 20)
    return folder


def table(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**TABLE, **changes}))
    return path


def test_a_table_of_ones_own_by_path_or_in_the_folder(toy: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not recognised"):
        open_sequence(toy)
    given = open_sequence(toy, dataset=str(table(tmp_path / "toy.yaml")))
    table(own / "toy.yaml")
    for sequence in (given, open_sequence(toy), open_sequence(toy, dataset="toy")):
        assert (sequence.dataset, sequence.name, sequence.sensor) == ("toy", "toy run_1", "rgbd")
        assert sequence.time_unit == "frames" and sequence.camera.fps == pytest.approx(10)
        # In the order of numbers, with the time of the number, by equal numbers of depth.
        assert [frame.timestamp for frame in sequence] == pytest.approx([0.7, 0.8, 1.0, 1.1])
        depths = [frame.depth[0, 0] for frame in sequence if frame.depth is not None]
        assert depths == pytest.approx([0.7, 0.8, 1.0, 1.1])
        assert [entry.reason for entry in sequence.left_out] == ["no depth image"]
        truth = sequence.ground_truth
        assert truth is not None and len(truth) == 20
        assert truth.timestamps[7] == pytest.approx(0.7)
    assert "toy" in dataset_names() and "icl-nuim" in dataset_names()
    assert config_for("toy", "rgbd") == "default"


def test_what_was_chosen_and_assumed_is_told(toy: Path, own: Path) -> None:
    table(own / "toy.yaml", notes=["depth is by a friend"])
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        open_sequence(toy)
    printed = next(line for line in lines if "is read by the layout toy (toy recordings)" in line)
    assert (
        printed.startswith(str(toy)) and "the camera 40x30 fx 30 fy 30 cx 19.5 cy 14.5" in printed
    )
    assert "integer depth in 1/1000 m" in printed and "10 images a second" in printed
    assert "toy run_1: depth is by a friend" in lines


def test_a_calibration_takes_the_place_of_the_camera(
    toy: Path, own: Path, tmp_path: Path, write_calibration: Callable
) -> None:
    table(own / "toy.yaml")
    doubted = {**TABLE["camera"], "doubt": "fx is a guess"}  # type: ignore[dict-item]
    table(own / "toy.yaml", camera=doubted)
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        assert open_sequence(toy).camera.fx == 30.0
    assert "toy run_1: fx is a guess" in lines
    lines.clear()
    calibration = write_calibration(tmp_path / "mine.yaml", fx=33.0, depth_scale=100.0)
    with shown_notices(lambda found: lines.append(found.text)):
        sequence = open_sequence(toy, calibration=calibration)
    assert not any("guess" in line or "the camera" in line for line in lines)
    frame = sequence[0]
    assert frame.camera.fx == 33.0 and frame.depth is not None
    assert frame.depth[0, 0] == pytest.approx(7.0)
    write_calibration(toy / "calibration.yaml", fx=34.0)
    assert open_sequence(toy).camera.fx == 34.0


def test_a_camera_of_another_size_is_refused(toy: Path, own: Path) -> None:
    table(own / "toy.yaml", camera={**TABLE["camera"], "width": 80})  # type: ignore[dict-item]
    with pytest.raises(DatasetError, match=r"are 40x30, but the camera of layout toy is for 80x30"):
        open_sequence(toy)


def test_roots_hold_sequences(toy: Path, own: Path) -> None:
    table(own / "toy.yaml")
    assert open_sequence(toy.parent).name == "toy run_1"
    assert open_sequence(toy.parent.parent, sequence="run_1").name == "toy run_1"
    (toy.parent / "run_2").symlink_to(toy)
    with pytest.raises(DatasetError, match=r"holds 2 sequences \(run_1, run_2\): choose one"):
        open_sequence(toy.parent)
    with pytest.raises(DatasetError, match="is one sequence, but sequence '3' was requested"):
        open_sequence(toy, sequence="3")


def test_sensors_that_are_not_there_are_refused(toy: Path, own: Path) -> None:
    table(own / "toy.yaml")
    assert open_sequence(toy, sensor="mono")[0].depth is None
    with pytest.raises(DatasetError, match="layout toy has no right images: use --sensor rgbd or"):
        open_sequence(toy, sensor="stereo")
    for path in (toy / "far").iterdir():
        path.unlink()
    assert open_sequence(toy).sensor == "mono"
    with pytest.raises(DatasetError, match=r"rgbd needs depth images in .*run_1 \(far/\*\.png\)"):
        open_sequence(toy, sensor="rgbd")


def test_of_two_tables_that_fit_the_one_with_the_sensor_is_read(toy: Path, own: Path) -> None:
    right = {"files": "far/*.png", "baseline_m": 0.1}
    stereo = {key: value for key, value in TABLE.items() if key != "depth"}
    stereo |= {"name": "a-stereo", "right": right}
    (own / "a-stereo.yaml").write_text(yaml.safe_dump(stereo))
    table(own / "b.yaml", right=right, name="toy")
    assert open_sequence(toy).dataset == "a-stereo"
    assert open_sequence(toy, sensor="rgbd").dataset == "toy"
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        assert open_sequence(toy, dataset="toy").sensor == "stereo"
    assert any("depth images are not used, and the run is stereo" in line for line in lines)


def test_tables_that_cannot_be_read_do_not_stop_others(toy: Path, own: Path) -> None:
    (own / "bad.yaml").write_text("name: bad\n")
    table(own / "toy.yaml")
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        assert open_sequence(toy).dataset == "toy"
    assert any("left out: layout" in line and "missing key title" in line for line in lines)
    with pytest.raises(DatasetError, match=r"nothing.yaml cannot be read"):
        open_sequence(toy, dataset="nothing.yaml")
    with pytest.raises(DatasetError, match="no layout is called 'bad'; there are toy, 7-sc"):
        find_layout("bad")


def test_a_table_with_the_name_of_a_built_in_one_takes_its_place(toy: Path, own: Path) -> None:
    table(own / "replica.yaml", name="replica")
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        assert open_sequence(toy, dataset="replica").camera.fx == 30
    assert any("takes the place of the built-in one" in line for line in lines)


def test_a_missing_calibration_is_named(toy: Path, own: Path) -> None:
    table(own / "toy.yaml", camera={"file": "camera.txt", "numbers": "fx fy cx cy"})
    with pytest.raises(CalibrationError, match=r"expected the calibration of toy at .*camera.txt"):
        open_sequence(toy)
    (toy / "camera.txt").write_text("30 31\n")
    with pytest.raises(CalibrationError, match=r"expected 4 numbers \(fx fy cx cy\), found 2"):
        open_sequence(toy)
    (toy / "camera.txt").write_text("# px\n30 31 19.5 14.5\n")
    camera = open_sequence(toy).camera
    assert (camera.width, camera.height, camera.fy) == (40, 30, 31.0)


def tum_form(folder: Path, write: Callable, picture: Callable) -> None:
    for at in range(3):
        write(folder / "rgb" / f"{at + 10}.0.png", picture(at, 640, 480, 3))
    lines = [f"{at + 10}.0 rgb/{at + 10}.0.png\n" for at in range(3)]
    (folder / "rgb.txt").write_text("".join(lines))
    (folder / "groundtruth.txt").write_text("10 0 0 0 0 0 0 1\n")


def test_data_sets_in_the_form_of_tum_are_told_apart(
    tmp_path: Path, write: Callable, picture: Callable
) -> None:
    names = {
        "rgbd_dataset_freiburg1_x": "tum",
        "rgbd_bonn_crowd": "bonn",
        "plant_1": "eth3d-slam",
        "my_fr3_run": "tum",
    }
    for name, dataset in names.items():
        folder = tmp_path / name
        tum_form(folder, write, picture)
        if name in ("plant_1", "my_fr3_run"):
            (folder / "calibration.txt").write_text("500 501 319 239\n")
        assert open_sequence(folder).dataset == dataset
    # A root of both kinds is left to TUM RGB-D, as before.
    with pytest.raises(DatasetError, match="holds 4 sequences"):
        open_sequence(tmp_path)
    assert open_sequence(tmp_path, sequence="freiburg1").dataset == "tum"


def test_other_formats_stay_what_they_were(test_data: Path) -> None:
    places = {"kitti": "kitti", "tum": "tum", "euroc/V1_01_easy_still": "euroc"}
    for place, dataset in places.items():
        assert open_sequence(test_data / place).dataset == dataset


def example() -> str:
    """The table in the documentation."""
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- layout example.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_of_the_documentation_reads_its_recording(
    own: Path, tmp_path: Path, write: Callable, picture: Callable
) -> None:
    (own / "my-robot.yaml").write_text(example())
    folder = tmp_path / "run_07"
    lines = ["id,stamp,file"]
    poses = []
    # The frame of the poses has x forward, y left, z up; the camera is 0.1 m to its right.
    T_body_camera = np.array([[0.0, 0, 1, 0], [-1, 0, 0, -0.1], [0, -1, 0, 0], [0, 0, 0, 1]])
    for at in range(3):
        stamp = 60_000 + 50 * at
        write(folder / "camera" / f"{at}.png", picture(at, 320, 240))
        depth = np.full((240, 320), 8000, np.uint16)
        depth[0] = 65000
        write(folder / "depth" / f"{stamp + 3}.png", depth)
        lines.append(f"{at},{stamp},{at}.png")
        T = make_transform(np.eye(3), np.array([0.2 * at, 0.0, 0.0]))
        x, y, z = T[:3, 3]
        poses.append(f"{stamp} 1 0 0 0 {x} {y} {z}")
    (folder / "camera" / "times.csv").write_text("\n".join(lines))
    (folder / "camera" / "intrinsics.json").write_text(
        '{"K": [[231.0, 0, 160.5], [0, 230.0, 118.0], [0, 0, 1]]}'
    )
    (folder / "poses.txt").write_text("\n".join(poses))
    sequence = open_sequence(folder)
    assert (sequence.dataset, sequence.sensor, len(sequence)) == ("my-robot", "rgbd", 3)
    camera = sequence.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (231.0, 230.0, 160.5, 118.0)
    frame, truth = sequence[2], sequence.ground_truth
    assert frame.timestamp == pytest.approx(60.1) and frame.depth is not None
    assert frame.depth[5, 5] == 2.0 and frame.depth[0, 0] == 0
    assert truth is not None and truth.timestamps == pytest.approx([60.0, 60.05, 60.1])
    # The robot drives forward, along the camera's z, and the camera keeps to the right of it.
    inverse_first = np.linalg.inv(truth.T_world_cam[0])
    moved = (inverse_first @ truth.T_world_cam[2])[:3, 3]
    assert moved == pytest.approx([0.0, 0.0, 0.4])
    assert truth.T_world_cam[0][:3, 3] == pytest.approx([-T_body_camera[1, 3], 0.0, 0.0])


def test_the_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    whole = Layout.model_json_schema()
    keys = {key for schema in (whole, *whole["$defs"].values()) for key in schema["properties"]}
    assert {key for key in keys if not re.search(rf"`(?:\w+\.)?{key}`", text)} == set()


def test_lists_with_columns(toy: Path, own: Path) -> None:
    images = {"listed_in": "list.txt", "stamp_column": 3, "path_column": 2}
    table(own / "toy.yaml", images=images, recognise={"has": "list.txt"})
    (toy / "list.txt").write_text("# a list\nx pictures/8.png 8\nx pictures\\7.png 7\n")
    assert [frame.timestamp for frame in open_sequence(toy)] == pytest.approx([0.7, 0.8])
    (toy / "list.txt").write_text("x pictures/8.png 8\nx pictures/7.png\n")
    with pytest.raises(DatasetError, match=r"list.txt:2: expected a stamp in column 3 and a path"):
        open_sequence(toy)
    (toy / "list.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match="lists no images with a stamp"):
        open_sequence(toy)


def test_stamps_of_poses_have_the_unit_of_images(toy: Path, own: Path) -> None:
    table(
        own / "toy.yaml",
        stamps={"unit": "ns", "fps": 10},
        images={"files": "pictures/*.png"},
        poses={"file": "truth.txt", "columns": "stamp tx ty tz qx qy qz qw"},
    )
    start = 1_700_000_000_000_000_000
    for folder in ("pictures", "far"):
        for path in sorted((toy / folder).iterdir()):
            path.rename(path.with_name(f"{start + int(path.stem) * 100_000_000}.png"))
    T = np.eye(4)
    lines = [tum_line(start + number * 100_000_000, T) for number in (7, 8)]
    (toy / "truth.txt").write_text("\n".join(lines))
    sequence = open_sequence(toy)
    assert sequence.time_unit == "ns" and len(sequence) == 4
    truth = sequence.ground_truth
    assert truth is not None
    assert truth.timestamps == pytest.approx([frame.timestamp for frame in sequence][:2])


def test_damaged_files_are_skipped_as_elsewhere(toy: Path, own: Path, cut_short: Callable) -> None:
    table(own / "toy.yaml")
    cut_short(toy / "far" / "8.png")
    small = np.zeros((7, 9), np.uint16)
    assert cv2.imwrite(str(toy / "far" / "10.png"), small)
    sequence = open_sequence(toy)
    assert [frame.index for frame in sequence] == [0, 3]
    assert "expected 40x30 pixels or this shape, found 9x7" in sequence.skipped[1][1]


def test_the_built_in_tables_can_be_given_by_path(tmp_path: Path) -> None:
    path = ROOT / "datasets" / "layouts" / "bonn.yaml"
    layout = load_layout(path)
    assert find_layout(str(path))[0] == layout
