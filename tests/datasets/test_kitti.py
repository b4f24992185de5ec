import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import DatasetError, FrameError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.notices import shown_notices

FOCAL, OFFSET = 30.0, 3.0
TIMES = [0.0, 0.1, 0.2, 0.3]


def projection(offset_x: float, offset_y: float = 0.0) -> str:
    """P of a camera offset from camera 0, in metres."""
    return f"{FOCAL} 0 19.5 {FOCAL * offset_x} 0 {FOCAL} 14.5 {FOCAL * offset_y} 0 0 1 0"


@pytest.fixture
def root(tmp_path: Path, write: Callable, picture: Callable) -> Callable[..., Path]:
    """Write a KITTI root with sequence 03 of four frames."""

    def make(cameras: Iterable[int] = (0, 1), times: list[float] = TIMES) -> Path:
        folder = tmp_path / "kitti" / "sequences" / "03"
        for camera in cameras:
            channels = 1 if camera < 2 else 3
            for i in range(4):
                write(
                    folder / f"image_{camera}" / f"{i:06d}.png",
                    picture(10 * camera + i, channels=channels),
                )
        (folder / "times.txt").write_text("".join(f"{time:e}\n" for time in times))
        (folder / "calib.txt").write_text(
            f"P0: {projection(0.0)}\n P1 :  {projection(-0.5)}  \nP2: {projection(0.06, 0.01)}\n"
            f"P3: {projection(-0.44, 0.01)}\nTr: 1 2 3\n"
        )
        poses = folder.parent.parent / "poses" / "03.txt"
        poses.parent.mkdir()
        # The car turns left by 90 degrees in frame 1 and then stands still.
        turned = "0 0 -1 5 0 1 0 0 1 0 0 7\n"
        poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" + 3 * turned)
        return tmp_path / "kitti"

    return make


def test_root_sequence_folder_and_name(root: Callable, picture: Callable) -> None:
    path = root()
    for place, wanted in (
        (path, None),
        (path, "03"),
        (path, "3"),
        (path / "sequences", "03"),
        (path / "sequences" / "03", None),
    ):
        sequence = open_sequence(place, sequence=wanted)
        assert isinstance(sequence, Sequence)
        assert (sequence.name, sequence.sensor, len(sequence)) == ("kitti 03", "stereo", 4)
    frame = sequence[2]
    assert isinstance(frame, Frame) and frame.timestamp == pytest.approx(0.2)
    assert frame.image_right is not None
    assert np.array_equal(frame.image, picture(2)) and np.array_equal(
        frame.image_right, picture(12)
    )
    assert frame.camera is sequence.camera
    assert sequence.camera.baseline_m == pytest.approx(
        0.5
    ) and sequence.camera.fps == pytest.approx(10.0)
    assert (sequence.camera.fx, sequence.camera.cx, sequence.camera.cy) == (FOCAL, 19.5, 14.5)
    assert sequence.ground_truth is not None and sequence.ground_truth.frame == "left camera"
    assert sequence.ground_truth.timestamps.tolist() == TIMES
    assert sequence.ground_truth.positions[1].tolist() == [5.0, 0.0, 7.0]


def test_the_colour_pair_has_its_own_baseline_and_ground_truth(root: Callable) -> None:
    sequence = open_sequence(root((2, 3)))
    assert sequence.sensor == "stereo"
    assert sequence.camera.baseline_m == pytest.approx(0.5)
    assert (
        sequence.ground_truth is not None
        and "carried from camera 0 by P2" in sequence.ground_truth.frame
    )
    # Camera 2 is at (-0.06, -0.01, 0) of camera 0, which looks along -x after the turn.
    positions = sequence.ground_truth.positions
    assert positions[0] == pytest.approx([-0.06, -0.01, 0.0])
    assert positions[1] == pytest.approx([5.0, -0.01, 7.0 - 0.06])


def test_grey_is_preferred_and_one_camera_is_mono(root: Callable) -> None:
    path = root((0, 1, 2, 3))
    sequence = open_sequence(path)
    assert sequence.ground_truth is not None and sequence.ground_truth.frame == "left camera"
    assert open_sequence(path, sensor="mono").camera.baseline_m is None


@pytest.mark.parametrize("camera", [0, 2])
def test_a_single_camera_is_mono(root: Callable, camera: int) -> None:
    path = root((camera,))
    sequence = open_sequence(path)
    assert sequence.sensor == "mono" and sequence[0].image_right is None
    with pytest.raises(DatasetError, match="stereo needs images in image_0 and image_1"):
        open_sequence(path, sensor="stereo")


def test_missing_right_images_are_left_out_and_counted(
    root: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = root()
    (path / "sequences/03/image_1/000001.png").unlink()
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert "1 of 4 images has no right image" in caplog.text
    assert [frame.timestamp for frame in sequence] == pytest.approx([0.0, 0.2, 0.3])
    for image in (path / "sequences/03/image_1").iterdir():
        image.rename(image.with_stem("1" + image.stem))
    with pytest.raises(DatasetError, match="none of the 4 images has a right image in image_1"):
        open_sequence(path)


def test_truncated_and_wrong_size_frames_are_skipped(
    root: Callable, write: Callable, picture: Callable, cut_short: Callable
) -> None:
    path = root()
    cut_short(path / "sequences/03/image_1/000001.png")
    write(path / "sequences/03/image_0/000003.png", picture(width=41))
    sequence = open_sequence(path)
    assert [frame.index for frame in sequence] == [0, 2]
    assert [index for index, _ in sequence.skipped] == [1, 3]
    assert "cut short" in sequence.skipped[0][1]
    assert "expected 40x30 pixels, found 41x30" in sequence.skipped[1][1]
    with pytest.raises(FrameError, match="41x30"):
        sequence[3]


def test_times_out_of_order_are_sorted_with_their_images_and_poses(
    root: Callable, picture: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(root(times=[0.3, 0.1, 0.2, 0.2]))
    assert (
        "out of order" in caplog.text
        and "1 of 4 entries repeats an earlier time stamp" in caplog.text
    )
    assert [frame.timestamp for frame in sequence] == pytest.approx([0.1, 0.2, 0.3])
    assert np.array_equal(sequence[2].image, picture(0))
    assert sequence.ground_truth is not None
    assert sequence.ground_truth.positions[2].tolist() == [0.0, 0.0, 0.0]


def test_one_frame(root: Callable) -> None:
    path = root()
    for camera in (0, 1):
        for i in (1, 2, 3):
            (path / f"sequences/03/image_{camera}/{i:06d}.png").unlink()
    sequence = open_sequence(path)
    assert len(list(sequence)) == 1 and sequence.camera.fps == 10.0


def test_missing_ground_truth_and_shorter_ground_truth(
    root: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = root()
    poses = path / "poses/03.txt"
    poses.write_text("\n".join(poses.read_text().splitlines()[:2]))
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert sequence.ground_truth is not None and len(sequence.ground_truth) == 2
    assert "2 poses for 4 time stamps" in caplog.text
    poses.unlink()
    assert open_sequence(path).ground_truth is None


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "calib.txt",
            None,
            (
                r"expected KITTI's calibration at .*calib.txt: "
                r"cannot be read \(No such file or directory\)"
            ),
        ),
        ("calib.txt", "hello", "expected a line 'P0: …' for image_0, found no P line at all"),
        ("calib.txt", "P0: 1 2 x", "expected 12 numbers after P0:, found '1 2 x'"),
        ("calib.txt", f"P0: {projection(0)}", "expected a line 'P1: …'"),
        (
            "calib.txt",
            f"P0: {projection(0)}\nP1: {projection(0.5)}",
            r"calib\.txt: stereo baseline must be positive",
        ),
        ("calib.txt", "P0: " + "0 " * 12 + "\nP1: " + "0 " * 12, "P0 is no projection"),
        (
            "calib.txt",
            f"P0: {projection(0)}\nP1: 1{projection(-0.5)}",
            "left and right camera differ",
        ),
        ("times.txt", None, "expected KITTI's time stamps at .*times.txt"),
        ("times.txt", "0.0\n0.1\n", "has an image 000003, but times.txt only has 2 lines"),
        ("times.txt", "0.0\nnan\n", "times.txt:2: expected one time stamp, found 'nan'"),
        ("times.txt", "a\nb\n", "times.txt:2: expected one time stamp, found 'b'"),
        ("times.txt", "0.O\n0.1\n", "times.txt:1: expected one time stamp, found '0.O'"),
    ],
)
def test_missing_and_wrong_files(root: Callable, file: str, text: str | None, message: str) -> None:
    path = root()
    target = path / "sequences/03" / file
    target.unlink() if text is None else target.write_text(text)
    with pytest.raises(DatasetError, match=message) as error:
        open_sequence(path)
    assert "\n" not in str(error.value)


def test_a_crop_has_its_principal_point_outside(root: Callable) -> None:
    path = root()
    file = path / "sequences/03/calib.txt"
    file.write_text(file.read_text().replace("14.5", "-8.6"))
    with shown_notices(lambda _: None) as handler:
        camera = open_sequence(path).camera
    assert camera.cy == -8.6
    (notice,) = handler.notices
    assert "calib.txt: principal point" in notice.text and "cut out of larger ones" in notice.text


def test_errors_list_the_available_sequences(
    root: Callable, picture: Callable, write: Callable
) -> None:
    path = root()
    write(path / "sequences/04/image_0/000000.png", picture())
    with pytest.raises(
        DatasetError, match=r"holds 2 sequences \(03, 04\): choose one with --sequence"
    ):
        open_sequence(path)
    with pytest.raises(DatasetError, match=r"no single sequence '05' .*: there is 03, 04"):
        open_sequence(path, sequence="5")
    with pytest.raises(DatasetError, match="is one sequence, but sequence '04' was requested"):
        open_sequence(path / "sequences/03", sequence="04")


def test_empty_image_folders_and_foreign_sensor(root: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty" / "image_0").mkdir(parents=True)
    with pytest.raises(DatasetError, match="expected images"):
        open_sequence(tmp_path / "empty")
    path = root()
    with pytest.raises(DatasetError, match="has no depth images"):
        open_sequence(path, sensor="rgbd")
    with pytest.raises(DatasetError, match="kitti brings its own calibration"):
        open_sequence(path, calibration="x.yaml")
    with pytest.raises(DatasetError, match="expected KITTI odometry in"):
        open_sequence(path / "poses", dataset="kitti")


def test_all_images_broken(root: Callable) -> None:
    path = root()
    for image in (path / "sequences/03/image_0").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none of the 4 images in .*image_0 can be decoded"):
        open_sequence(path)


def test_an_error_reports_that_all_right_images_are_broken(root: Callable) -> None:
    path = root()
    for image in (path / "sequences/03/image_1").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of its 4 frames can be decoded"):
        list(open_sequence(path))


def test_real_kitti(test_data: Path) -> None:
    sequence = open_sequence(test_data / "kitti", sequence="00")
    assert (len(sequence), sequence.sensor, sequence.name) == (100, "stereo", "kitti 00")
    assert sequence.camera.baseline_m == pytest.approx(0.5372, abs=1e-4)
    frame = sequence[99]
    assert frame.image.shape == (376, 1241) and frame.timestamp == pytest.approx(10.26466)
    assert sequence.ground_truth is not None
    assert sequence.ground_truth.path_length_m == pytest.approx(84.1, abs=0.1)


@pytest.mark.parametrize(
    ("line", "unit"),
    [
        ("{ns}", "ns"),
        ("{i} {s:.6f} 0.012", "s"),
        ("{s:.6f} 0.012", "s"),
        ("{i},{ns},0.012", "ns"),
    ],
)
def test_times_of_other_units_and_with_more_columns(
    root: Callable, picture: Callable, line: str, unit: str
) -> None:
    path = root()
    lines = [line.format(i=i, s=time, ns=round(time * 1e9)) for i, time in enumerate(TIMES)]
    (path / "sequences/03/times.txt").write_text("\n".join(lines))
    sequence = open_sequence(path)
    assert sequence.time_unit == unit and [frame.timestamp for frame in sequence] == pytest.approx(
        TIMES
    )
    assert all(np.array_equal(frame.image, picture(i)) for i, frame in enumerate(sequence))
    assert sequence.ground_truth is not None and sequence.ground_truth.timestamps == pytest.approx(
        TIMES
    )


def test_times_of_two_columns_that_may_both_be_times_are_refused(root: Callable) -> None:
    path = root()
    (path / "sequences/03/times.txt").write_text(
        "".join(f"{time} {time + 0.01}\n" for time in TIMES)
    )
    with pytest.raises(
        DatasetError, match="2 numbers a line and no single column of increasing times"
    ):
        open_sequence(path)


def test_images_with_other_names_are_reported(
    root: Callable, write: Callable, picture: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = root()
    write(path / "sequences/03/image_0/preview.png", picture())
    with caplog.at_level(logging.WARNING):
        assert len(open_sequence(path)) == 4
    assert "1 image is left out: their names are no frame numbers" in caplog.text


@pytest.mark.parametrize("form", ["16", "13", "17", "positions", "lost frame", "one based"])
def test_ground_truths_in_other_columns(root: Callable, form: str) -> None:
    path = root()
    file = path / "poses" / "03.txt"
    rows = [line.split() for line in file.read_text().splitlines()]
    last = ["0", "0", "0", "1"]
    shapes = {
        "16": [row + last for row in rows],
        "13": [[str(number), *row] for number, row in enumerate(rows)],
        "17": [[str(number), *row, *last] for number, row in enumerate(rows)],
        "one based": [[str(number + 1), *row] for number, row in enumerate(rows)],
        "positions": [[row[3], row[7], row[11]] for row in rows],
        "lost frame": [rows[0], ["nan"] * 12, *rows[2:]],
    }
    file.write_text("".join(" ".join(row) + "\n" for row in shapes[form]))
    truth = open_sequence(path).ground_truth
    assert truth is not None
    kept = [0, 2, 3] if form == "lost frame" else [0, 1, 2, 3]
    assert truth.timestamps.tolist() == [TIMES[row] for row in kept]
    assert truth.positions.tolist() == [
        [[0, 0, 0], [5, 0, 7], [5, 0, 7], [5, 0, 7]][row] for row in kept
    ]
    assert truth.has_rotations == (form != "positions")
    if truth.has_rotations:
        assert truth.T_world_cam[-1, :3, :3].tolist() == [[0, 0, -1], [0, 1, 0], [1, 0, 0]]


def test_positions_without_rotations_are_kept_for_another_camera(root: Callable) -> None:
    path = root(cameras=(2, 3))
    file = path / "poses" / "03.txt"
    rows = [line.split() for line in file.read_text().splitlines()]
    file.write_text("".join(f"{row[3]} {row[7]} {row[11]}\n" for row in rows))
    with shown_notices(lambda found: None) as notices:
        truth = open_sequence(path).ground_truth
    assert truth is not None and truth.frame == "left camera"
    reported = [found.text for found in notices.notices if found.topic == "truth_not_carried"]
    assert len(reported) == 1 and "0.0608 m away, without rotations" in reported[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"P1: {projection(0.0)}", "stereo baseline must be positive"),
        (f"P1: {projection(0.5)}", "stereo baseline must be positive"),
        (f"P1: {projection(float('nan'))}", "expected 12 numbers after P1"),
        (f"P1: {projection(1e300)}", "expected 12 numbers after P1"),
        ("P1: 30 0 19.5 -15 0 30 14.5 0 0 0 2 0", "P1 is no projection of a camera"),
        ("P1: 30 5 19.5 -15 0 30 14.5 0 0 0 1 0", "P1 is no projection of a camera"),
    ],
)
def test_projections_with_values_out_of_bounds_are_refused(
    root: Callable, line: str, message: str
) -> None:
    path = root()
    calibration = path / "sequences" / "03" / "calib.txt"
    calibration.write_text(f"P0: {projection(0.0)}\n{line}\n")
    with pytest.raises(DatasetError, match=message) as error:
        open_sequence(path)
    assert "\n" not in str(error.value)


def test_a_baseline_in_millimetres_gives_a_warning(root: Callable) -> None:
    path = root()
    (path / "sequences" / "03" / "calib.txt").write_text(
        f"P0: {projection(0.0)}\nP1: {projection(-540.0)}\n"
    )
    with shown_notices(lambda _: None) as handler:
        open_sequence(path)
    assert any(
        "stand 540 m apart: is it in metres, not in millimetres?" in notice.text
        for notice in handler.notices
    )


@pytest.mark.parametrize("stamp", ["1e308", "nan", "inf", "-1e300"])
def test_implausibly_large_times_are_refused(root: Callable, stamp: str) -> None:
    path = root()
    (path / "sequences" / "03" / "times.txt").write_text(f"0.0\n0.1\n{stamp}\n0.3\n")
    with pytest.raises(DatasetError, match=r"times\.txt:3: expected one time stamp"):
        open_sequence(path)


@pytest.mark.parametrize("name", ["9" * 200, "²", "٣"])
def test_names_that_are_not_frame_numbers_are_left_out(
    root: Callable, write: Callable, picture: Callable, name: str
) -> None:
    path = root()
    write(path / "sequences" / "03" / "image_0" / f"{name}.png", picture(1))
    with shown_notices(lambda _: None) as handler:
        assert len(open_sequence(path)) == 4
    assert any(
        "1 image is left out: their names are no frame numbers" in notice.text
        for notice in handler.notices
    )
