import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError
from spslam.notices import shown_notices

RGB_TIMES = (10.0, 10.1, 10.2, 10.3)
DEPTH_TIMES = (10.005, 10.095, 10.25, 10.3)  # the third is too late for any image


@pytest.fixture
def folder(tmp_path: Path, write: Callable, picture: Callable) -> Callable[..., Path]:
    """Write a freiburg3 sequence of 640 × 480 images; the third has no depth."""

    def make(name: str = "rgbd_dataset_freiburg3_toy", width: int = 640, height: int = 480) -> Path:
        path = tmp_path / name
        for time in RGB_TIMES:
            write(path / "rgb" / f"{time:.6f}.png", picture(int(time * 10), width, height, 3))
        for time in DEPTH_TIMES:
            write(
                path / "depth" / f"{time:.6f}.png",
                np.full((height, width), int(time * 1000), np.uint16),
            )
        for kind, times in (("rgb", RGB_TIMES), ("depth", DEPTH_TIMES)):
            lines = "".join(f"{time:.6f} {kind}/{time:.6f}.png\n" for time in times)
            (path / f"{kind}.txt").write_text("# color images\n# timestamp filename\n" + lines)
        (path / "groundtruth.txt").write_text(
            "# timestamp tx ty tz qx qy qz qw\n10.0 1 2 3 0 0 0 1\n"
        )
        return path

    return make


def test_colour_and_depth_are_associated(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(folder())
    assert (sequence.name, sequence.sensor, len(sequence)) == ("tum freiburg3_toy", "rgbd", 3)
    assert "1 of 4 images has no depth image within 0.02 s" in caplog.text
    frames = list(sequence)
    assert [frame.timestamp for frame in frames] == pytest.approx([10.0, 10.1, 10.3])
    assert [frame.index for frame in frames] == [0, 1, 2]
    depths = [frame.depth for frame in frames]
    assert all(depth is not None and depth.dtype == np.float32 for depth in depths)
    assert [depth[0, 0] for depth in depths if depth is not None] == pytest.approx(
        [10005 / 5e3, 10095 / 5e3, 2.06]
    )
    assert sequence.camera.fx == 535.4 and sequence.camera.distortion_model == "none"
    assert sequence.camera.baseline_m is None
    assert sequence.ground_truth is not None and sequence.ground_truth.frame == "colour camera"


def test_mono_uses_every_image_and_no_depth(folder: Callable) -> None:
    path = folder()
    sequence = open_sequence(path, sensor="mono")
    assert sequence.sensor == "mono" and len(sequence) == 4 and sequence[0].depth is None
    (path / "depth.txt").unlink()
    assert open_sequence(path).sensor == "mono"
    with pytest.raises(DatasetError, match="RGB-D needs a list of depth images"):
        open_sequence(path, sensor="rgbd")


@pytest.mark.parametrize(
    ("name", "fx"),
    [("rgbd_dataset_freiburg1_a", 517.3), ("freiburg2_b", 520.9), ("my_fr3_run", 535.4)],
)
def test_the_folder_name_selects_the_camera(folder: Callable, name: str, fx: float) -> None:
    assert open_sequence(folder(name)).camera.fx == fx


def test_unknown_cameras_need_a_calibration(
    folder: Callable, write_calibration: Callable, tmp_path: Path
) -> None:
    path = folder("corridor", 40, 30)
    with pytest.raises(
        CalibrationError,
        match=r"expected freiburg1, freiburg2 or freiburg3 .* or --calibration FILE",
    ):
        open_sequence(path)
    own = write_calibration(tmp_path / "own.yaml")
    frame = open_sequence(path, calibration=own)[0]
    assert frame.depth is not None and frame.depth[0, 0] == pytest.approx(10005 / 5000)
    write_calibration(path / "calibration.yaml", depth_scale=1000)
    frame = open_sequence(path)[0]
    assert frame.depth is not None and frame.depth[0, 0] == pytest.approx(10.005)


def test_a_wrong_image_size_is_refused_at_once(folder: Callable) -> None:
    with pytest.raises(
        DatasetError, match="are 40x30, but the calibration of freiburg3 is for 640x480"
    ):
        open_sequence(folder(width=40, height=30))


def test_a_missing_depth_file_skips_the_frame(folder: Callable) -> None:
    path = folder()
    (path / "depth" / "10.095000.png").unlink()
    sequence = open_sequence(path)
    assert [frame.index for frame in sequence] == [0, 2]
    assert sequence.skipped[0][0] == 1 and "10.095000.png: cannot be read" in sequence.skipped[0][1]


def test_a_list_out_of_order_is_sorted(folder: Callable, caplog: pytest.LogCaptureFixture) -> None:
    path = folder()
    lines = (path / "rgb.txt").read_text().splitlines()
    (path / "rgb.txt").write_text("\n".join([*lines[::-1], lines[-1]]))
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert (
        "out of order" in caplog.text
        and "1 of 5 entries repeats an earlier time stamp" in caplog.text
    )
    assert [frame.timestamp for frame in sequence] == pytest.approx([10.0, 10.1, 10.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", r"rgb\.txt lists no images"),
        ("10.0\n", r"rgb\.txt:1: expected 'timestamp filename', found '10\.0'"),
        ("# a\nx rgb/a.png\n", r"rgb\.txt:2: expected"),
        ("nan rgb/a.png\n", r"rgb\.txt: none of its 1 line has a time stamp"),
        ("99.0 rgb/10.000000.png\n", "none of the 1 image has a depth image"),
    ],
)
def test_wrong_lists_are_refused(folder: Callable, text: str, message: str) -> None:
    path = folder()
    (path / "rgb.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_sequence(path)


def test_unsupported_sensors_and_folders_are_refused(folder: Callable) -> None:
    path = folder()
    with pytest.raises(DatasetError, match="no right images"):
        open_sequence(path, sensor="stereo")
    with pytest.raises(DatasetError, match=r"expected a TUM RGB-D sequence in .*, found "):
        open_sequence(path / "rgb", dataset="tum")


def test_a_missing_list_is_refused(folder: Callable) -> None:
    path = folder()
    (path / "rgb.txt").unlink()
    with pytest.raises(
        DatasetError,
        match=r"expected a TUM RGB-D sequence in .* \(rgb\.txt, .* found depth\.txt, depth/",
    ):
        open_sequence(path)


def test_root_with_several_sequences(folder: Callable) -> None:
    root = folder("rgbd_dataset_freiburg3_a").parent
    folder("rgbd_dataset_freiburg3_b")
    assert open_sequence(root, sequence="freiburg3_b").name == "tum freiburg3_b"
    with pytest.raises(DatasetError, match="2 fit"):
        open_sequence(root, sequence="freiburg3")


def test_real_tum(test_data: Path) -> None:
    sequence = open_sequence(test_data / "tum" / "rgbd_dataset_freiburg1_rpy")
    assert (len(sequence), sequence.sensor) == (60, "rgbd")
    frame = sequence[0]
    assert frame.timestamp == 1305031229.528748 and frame.image.shape == (480, 640)
    assert frame.depth is not None and 0.3 < np.median(frame.depth[frame.depth > 0]) < 3.0
    assert 0.5 < (frame.depth > 0).mean() < 0.95
    assert sequence.camera.distortion == (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)
    assert sequence.ground_truth is not None and len(sequence.ground_truth) > 250


@pytest.mark.parametrize(("unit", "per_second"), [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_lists_in_other_units_are_recognised_and_reported(
    folder: Callable, unit: str, per_second: float, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    for kind in ("rgb", "depth"):
        lines = [
            line.split()
            for line in (path / f"{kind}.txt").read_text().splitlines()
            if not line.startswith("#")
        ]
        text = "".join(f"{float(stamp) * per_second:.0f} {file}\n" for stamp, file in lines)
        (path / f"{kind}.txt").write_text(text)
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert (sequence.time_unit, sequence.sensor) == (unit, "rgbd")
    assert [frame.timestamp for frame in sequence] == pytest.approx([10.0, 10.1, 10.3])
    assert "rgb.txt: time stamps are read as" in caplog.text
    assert len(open_sequence(path, time_unit="s")) == 1  # the only pair of equal stamps


def test_stamps_that_are_all_equal_are_refused(folder: Callable) -> None:
    path = folder()
    (path / "rgb.txt").write_text("".join(f"1.5 rgb/{time:.6f}.png\n" for time in RGB_TIMES))
    with pytest.raises(
        DatasetError, match=r"all 4 time stamps are 1\.5, which is no time: .*--time-unit frames"
    ):
        open_sequence(path, sensor="mono")
    counted = open_sequence(path, sensor="mono", time_unit="frames")
    assert [frame.timestamp for frame in counted] == pytest.approx(np.arange(4) / 30)


def test_a_depth_folder_without_its_list_is_reported(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    (path / "depth.txt").unlink()
    with caplog.at_level(logging.WARNING):
        assert open_sequence(path).sensor == "mono"
    assert "depth/ is not used, because its list depth.txt is missing: mono" in caplog.text


@pytest.mark.parametrize(
    ("text", "rows", "left_out", "rotations"),
    [
        ("10.0 1 2 3 0 0 0 1\n10.1 nan nan nan nan nan nan nan\n10.2 1 2 4 0 0 0 1\n", 3, 1, True),
        (
            "10.0 1 2 3 0 0 0 1\n10.1 1 2 3 0 0 0 0\n10.2 1 2 4 0 0 0 1\n10.2 1 2 4 0 0 0 1\n",
            4,
            2,
            True,
        ),
        ("10.0 1 2 3\n10.1 1 2 3.5\n10.2 1 2 4\n", 3, 0, False),
        ("10.0 1 2 3 0 0 0 0\n10.1 1 2 3.5 0 0 0 0\n10.2 1 2 4 0 0 0 0\n", 3, 0, False),
        (
            "10000000000 1 2 3 0 0 0 1\n10100000000 1 2 3.5 0 0 0 1\n10200000000 1 2 4 0 0 0 1\n",
            3,
            0,
            True,
        ),
    ],
)
def test_ground_truths_of_other_forms_are_read(
    folder: Callable, text: str, rows: int, left_out: int, rotations: bool
) -> None:
    path = folder()
    (path / "groundtruth.txt").write_text(text)
    truth = open_sequence(path).ground_truth
    assert truth is not None and truth.origin is not None
    assert (truth.origin.rows, truth.origin.left_out_rows, truth.has_rotations) == (
        rows,
        left_out,
        rotations,
    )
    assert truth.timestamps[[0, -1]] == pytest.approx([10.0, 10.2])
    assert truth.positions[[0, -1]].tolist() == [[1, 2, 3], [1, 2, 4]]
    assert truth.frame == "colour camera"


def test_an_unreadable_ground_truth_is_ignored_with_a_warning(folder: Callable) -> None:
    path = folder()
    for text in ("", "nonsense\n", "10.0 1\n", "1 2 3\n4 5 6\n"):
        (path / "groundtruth.txt").write_text(text)
        with shown_notices(lambda found: None) as notices:
            sequence = open_sequence(path)
        assert (sequence.ground_truth, len(sequence)) == (None, 3)
        assert [found.topic for found in notices.notices][-1] == "ground_truth_unreadable"


@pytest.mark.parametrize(
    ("line", "head"),
    [
        ("{i} {t} rgb/{n}.png", ""),
        ("{t} rgb/{n}.png 0.012", ""),
        ("{t} rgb/{n}.png {t} depth/{n}.png", ""),
        ("rgb/{n}.png {t}", ""),
        ("{t},rgb/{n}.png", "timestamp,filename\n"),
        ('{t}; "rgb/{n}.png"', ""),
        ("{t} rgb\\{n}.png", "timestamp filename\n"),
        ("1970-01-01 00:00:{t} rgb/{n}.png", ""),
    ],
)
def test_lists_of_other_recorders_are_read(
    folder: Callable, picture: Callable, line: str, head: str
) -> None:
    path = folder()
    (path / "rgb.txt").write_text(
        head
        + "".join(
            line.format(i=i, t=f"{t:.6f}", n=f"{t:.6f}") + "\n" for i, t in enumerate(RGB_TIMES)
        )
    )
    frames = list(open_sequence(path, sensor="mono"))
    assert [frame.timestamp for frame in frames] == pytest.approx(RGB_TIMES)


def test_lines_without_a_stamp_are_left_out_and_counted(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder()
    text = (path / "rgb.txt").read_text().replace("10.200000 rgb", "nan rgb")
    (path / "rgb.txt").write_text(text)
    sequence = open_sequence(path, sensor="mono")
    assert (len(sequence), [entry.reason for entry in sequence.left_out]) == (3, ["no time stamp"])
    assert "1 of 4 lines has no time stamp" in caplog.text


def test_counted_lists_of_other_lengths_are_refused(folder: Callable) -> None:
    path = folder()
    assert len(open_sequence(path, time_unit="frames")) == 4
    (path / "depth.txt").write_text("10.1 depth/10.095000.png\n10.3 depth/10.300000.png\n")
    with pytest.raises(
        DatasetError, match="4 images and 2 depth images cannot be counted together"
    ):
        open_sequence(path, time_unit="frames")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_list_entries_that_are_not_files_are_skipped(
    tmp_path: Path, write: Callable, picture: Callable
) -> None:
    folder = tmp_path / "rgbd_dataset_freiburg1_toy"
    write(folder / "rgb" / "0.png", picture(0, 640, 480))
    os.mkfifo(folder / "rgb" / "pipe.png")
    (folder / "rgb.txt").write_text(
        "0.0 rgb/0.png\n0.1 rgb/pipe.png\n0.2 rgb/a\0b.png\n0.3 /dev/zero\n"
    )
    sequence = open_sequence(folder)
    assert [frame.index for frame in sequence] == [0]
    assert [reason.split("(")[-1].rstrip(")") for _, reason in sequence.skipped] == [
        "it is a pipe that nobody writes to",
        "embedded null byte",
        "it is a device, no file",
    ]
