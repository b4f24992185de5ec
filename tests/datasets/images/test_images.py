import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import CalibrationError, DatasetError
from spslam.interfaces import Sequence


@pytest.fixture
def folder(
    tmp_path: Path, write: Callable, picture: Callable, write_calibration: Callable
) -> Callable[..., Path]:
    """Write an image folder with files `names` and a calibration (10 frames/s)."""

    def make(*names: str, **calibration: object) -> Path:
        path = tmp_path / "walk"
        for seed, name in enumerate(names):
            write(path / name, picture(seed))
        write_calibration(path / "calibration.yaml", **calibration)
        return path

    return make


@pytest.mark.parametrize(
    ("names", "times"),
    [
        (
            ["1403715273262142976.png", "1403715273312143104.png"],
            [1403715273.262143, 1403715273.312143],
        ),
        (
            ["1305031229.528748.png", "1305031229.564425.png"],
            [1305031229.528748, 1305031229.564425],
        ),
        (["0.5.png", "10.25.png", "2.0.png"], [0.5, 2.0, 10.25]),
        (["1403715273262142.png", "1403715273312143.png"], [1403715273.262142, 1403715273.312143]),
        (["1403715273262.jpg", "1403715273312.jpg"], [1403715273.262, 1403715273.312]),
        (["000000.png", "000001.png", "000002.png"], [0.0, 0.1, 0.2]),
        (["000004.png", "000006.png", "000010.png"], [0.4, 0.6, 1.0]),
        (["frame9.png", "frame10.png"], [0.9, 1.0]),
        (["cam0_008_raw.png", "cam0_009_raw.png"], [0.8, 0.9]),
        (["b.png", "a1.png", "a10.png", "a9.png"], [0.0, 0.1, 0.2, 0.3]),
    ],
    ids=[
        "ns",
        "s",
        "seconds-from-0",
        "us",
        "ms",
        "counter",
        "gaps",
        "unpadded",
        "affixes",
        "no-pattern",
    ],
)
def test_names_are_read_as_times(folder: Callable, names: list[str], times: list[float]) -> None:
    sequence = open_sequence(folder(*names))
    assert isinstance(sequence, Sequence)
    assert [frame.timestamp for frame in sequence] == pytest.approx(times, abs=1e-6)
    assert (sequence.name, sequence.sensor) == ("images walk", "mono")
    if len(names) == 2:
        assert sequence.camera.fps == pytest.approx(1 / (times[1] - times[0]))


def test_frames_follow_the_numbers_not_the_text(folder: Callable, picture: Callable) -> None:
    sequence = open_sequence(folder("10.png", "9.png"))
    assert np.array_equal(sequence[0].image, picture(1)) and np.array_equal(
        sequence[1].image, picture(0)
    )


def test_equal_times_are_dropped_and_counted(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(folder("1.png", "01.png", "2.png"))
    assert len(sequence) == 2 and "1 of 3 entries repeats an earlier time stamp" in caplog.text
    assert "out of order" not in caplog.text and [entry.reason for entry in sequence.left_out] == [
        "equal time stamp"
    ]


def test_counters_need_fps_and_times_do_not(folder: Callable) -> None:
    with pytest.raises(CalibrationError, match=r"needs fps, the rate of the file numbers"):
        open_sequence(folder("000000.png", fps=None))
    (folder("1305031229.5.png", fps=None) / "000000.png").unlink()
    assert open_sequence(folder("1305031229.5.png", fps=None)).camera.fps == 30.0


@pytest.mark.parametrize("place", ["", "left/", "images/", "rgb/"])
def test_images_and_calibration_are_found(folder: Callable, tmp_path: Path, place: str) -> None:
    path = folder(f"{place}000000.png", f"{place}000001.png")
    assert len(open_sequence(path)) == len(open_sequence(path / place)) == 2
    assert len(open_sequence(tmp_path, dataset="images", sequence="walk")) == 2


def test_rectified_stereo_is_not_changed(folder: Callable, picture: Callable) -> None:
    path = folder("left/0.png", "left/1.png", "right/0.png", "right/1.png", stereo=True)
    sequence = open_sequence(path)
    frame = sequence[1]
    assert sequence.sensor == "stereo" and sequence.camera.baseline_m == pytest.approx(0.1)
    assert frame.image_right is not None
    assert np.array_equal(frame.image, picture(1)) and np.array_equal(frame.image_right, picture(3))
    assert sequence.camera.fps == pytest.approx(10.0)
    assert open_sequence(path, sensor="mono").camera.baseline_m is None


@pytest.mark.parametrize(
    ("left", "right"),
    [("Left", "Right"), ("cam0", "cam1"), ("Image_Left", "IMAGE_RIGHT")],
)
@pytest.mark.parametrize("given", ["the folder", "the left folder"])
def test_folders_of_a_pair_have_many_names(
    folder: Callable,
    picture: Callable,
    caplog: pytest.LogCaptureFixture,
    left: str,
    right: str,
    given: str,
) -> None:
    path = folder(*(f"{side}/{i}.png" for side in (left, right) for i in range(2)), stereo=True)
    path = path if given == "the folder" else path / left
    frame = open_sequence(path)[1]
    assert frame.image_right is not None
    assert np.array_equal(frame.image, picture(1)) and np.array_equal(frame.image_right, picture(3))
    # Images outside of what was given are never taken in silence.
    assert ("--sensor mono leaves them out" in caplog.text) == (given == "the left folder")
    assert open_sequence(path, sensor="mono")[1].image_right is None


def test_images_in_a_format_that_is_not_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "IMG_0001.HEIC").write_bytes(b"phone")
    with pytest.raises(
        DatasetError, match=r"\.heic is not read: convert the images to PNG or JPEG"
    ):
        open_sequence(tmp_path)


def test_stereo_with_distortion_is_rectified(folder: Callable, picture: Callable) -> None:
    distortion = {"model": "radtan", "coefficients": [-0.1, 0.0, 0.0, 0.0]}
    sequence = open_sequence(
        folder("left/0.png", "right/0.png", stereo=True, distortion=distortion)
    )
    frame = sequence[0]
    assert sequence.camera.distortion_model == "none" and not np.array_equal(
        frame.image, picture(0)
    )
    with pytest.raises(
        CalibrationError, match=r"calibration .*calibration\.yaml: the right camera stands"
    ):
        swapped = np.eye(4)
        swapped[0, 3] = -0.1
        open_sequence(folder("left/0.png", stereo=True, T_left_right=swapped.tolist()))


def test_images_are_paired_by_number_or_else_by_time(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(
            folder("left/l_0.png", "left/l_1.png", "right/r_1.png", stereo=True)
        )
    assert [frame.timestamp for frame in sequence] == pytest.approx(
        [0.1]
    ) and "1 of 2 images has no right" in caplog.text


def test_times_with_small_differences_are_paired(folder: Callable) -> None:
    names = [
        f"{side}/{time}.png"
        for side, time in (("left", "5.000"), ("left", "5.100"), ("right", "5.090"))
    ]
    sequence = open_sequence(folder(*names, stereo=True))
    assert [frame.timestamp for frame in sequence] == [5.1]


def test_missing_right_images_are_skipped_or_refused(
    folder: Callable, write: Callable, picture: Callable
) -> None:
    path = folder("left/0.png", "left/1.png", stereo=True)
    assert open_sequence(path).sensor == "mono"
    with pytest.raises(
        DatasetError, match=r"stereo needs right images in .*right, found calibration\.yaml, left/"
    ):
        open_sequence(path, sensor="stereo")
    write(path / "right/7.png", picture())
    with pytest.raises(DatasetError, match="none of the 2 images has a right image"):
        open_sequence(path)
    folder()  # a calibration without a right camera
    with pytest.raises(CalibrationError, match="has no right camera: add `right:`"):
        open_sequence(path)


def test_depth(folder: Callable, write: Callable) -> None:
    path = folder("0.png", "1.png", depth_scale=500)
    write(path / "depth/0.png", np.full((30, 40), 750, np.uint16))
    np.save(path / "depth/1.npy", np.where(np.arange(40) < 20, np.nan, 1250.0) * np.ones((30, 1)))
    sequence = open_sequence(path)
    assert sequence.sensor == "rgbd" and sequence.camera.baseline_m is None
    depths = [frame.depth for frame in sequence]
    assert depths[0] is not None and depths[1] is not None
    assert depths[0].dtype == depths[1].dtype == np.float32
    assert np.unique(depths[0]).tolist() == [1.5] and np.unique(depths[1]).tolist() == [0.0, 2.5]
    assert open_sequence(path, sensor="mono")[0].depth is None


def test_depth_defaults_to_millimetres_and_must_have_the_image_size(
    folder: Callable, write: Callable
) -> None:
    path = folder("0.png", "1.png")
    write(path / "depth/0.png", np.full((30, 40), 750, np.uint16))
    write(path / "depth/1.png", np.full((15, 20), 750, np.uint16))
    sequence = open_sequence(path)
    frames = list(sequence)
    assert len(frames) == 1 and frames[0].depth is not None and frames[0].depth[0, 0] == 0.75
    assert [index for index, _ in sequence.skipped] == [1]
    assert (
        "depth image depth/1.png: expected 40x30 pixels, found 20x15: depth must be reg"
        in sequence.skipped[0][1]
    )
    with pytest.raises(DatasetError, match="RGB-D needs depth images"):
        open_sequence(
            path / "depth", dataset="images", sensor="rgbd", calibration=path / "calibration.yaml"
        )


def test_calibration_missing_foreign_or_of_another_size(folder: Callable, tmp_path: Path) -> None:
    path = folder("0.png")
    calibration = path / "calibration.yaml"
    calibration.rename(tmp_path / "elsewhere.yaml")
    with pytest.raises(
        CalibrationError, match=r"needs a calibration: give --calibration FILE or put"
    ):
        open_sequence(path)
    assert len(open_sequence(path, calibration=tmp_path / "elsewhere.yaml")) == 1
    folder(width=80, cx=30.0)
    with pytest.raises(DatasetError, match=r"are 40x30, but calibration .* is for 80x30") as error:
        open_sequence(path)
    assert "\n" not in str(error.value)
    folder(shutter=1)
    with pytest.raises(CalibrationError, match="unknown key shutter"):
        open_sequence(path)


def test_bad_frames_are_skipped(
    folder: Callable, write: Callable, picture: Callable, cut_short: Callable
) -> None:
    path = folder(*(f"{i:03d}.png" for i in range(5)))
    cut_short(path / "000.png")
    write(path / "003.png", picture(width=30, height=40))
    sequence = open_sequence(path)
    assert [(frame.index, frame.timestamp) for frame in sequence] == [(1, 0.1), (2, 0.2), (4, 0.4)]
    assert [index for index, _ in sequence.skipped] == [0, 3]


def test_one_image_is_read_and_an_empty_folder_is_refused(folder: Callable, tmp_path: Path) -> None:
    sequence = open_sequence(folder("0.png"))
    assert len(list(sequence)) == 1 and sequence.camera.fps == 10.0
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DatasetError, match=r"expected images \(\*\.png, \*\.jpg, .*\) in .*, found an empty folder"
    ):
        open_sequence(tmp_path / "empty", dataset="images")
    with pytest.raises(DatasetError, match="no such folder"):
        open_sequence(tmp_path, dataset="images", sequence="none")


def test_real_street(test_data: Path, tmp_path: Path, write_calibration: Callable) -> None:
    # Half of 800 × 600; pixel (0, 0) is the centre of the first pixel.
    half = {"fx": 310.59214, "fy": 310.59214, "cx": 404.5076 / 2 - 0.5, "cy": 309.55989 / 2 - 0.5}
    calibration = write_calibration(
        tmp_path / "street.yaml", width=400, height=300, fps=20.0, **half
    )
    sequence = open_sequence(
        test_data / "malaga_07", calibration=calibration, start=10, max_frames=3, stride=5
    )
    assert [(frame.index, frame.timestamp) for frame in sequence] == [
        (10, 1.0),
        (15, 1.5),
        (20, 2.0),
    ]
    assert sequence.camera.fps == pytest.approx(2.0) and sequence[0].image.shape == (300, 400)
    assert len(open_sequence(test_data / "malaga_07" / "images", calibration=calibration)) == 1061


@pytest.mark.parametrize(
    ("left", "right", "pairs", "message"),
    [
        # Counters with another first number, and names with times on one side only.
        (["l0", "l1", "l2"], ["r1", "r2", "r3"], [(0, 0), (1, 1), (2, 2)], "are paired in order"),
        (
            ["100.00", "100.05", "100.10"],
            ["0", "1", "2"],
            [(0, 0), (1, 1), (2, 2)],
            "are paired in order",
        ),
        # Names without a single number for the time are paired by name.
        (["a0b0", "a1b3", "a2b6"], ["a1b3"], [(1, 0)], "2 of 3 images have no right image"),
        # Each side has its own unit.
        (
            ["1400000000.00", "1400000000.05"],
            ["1400000000004000000", "1400000000054000000"],
            [(0, 0), (1, 1)],
            "",
        ),
        (
            ["1400000000000", "1400000000050"],
            ["1400000000.004", "1400000000.054"],
            [(0, 0), (1, 1)],
            "",
        ),
    ],
)
def test_left_and_right_images_are_paired_for_any_names(
    folder: Callable,
    picture: Callable,
    caplog: pytest.LogCaptureFixture,
    left: list[str],
    right: list[str],
    pairs: list[tuple[int, int]],
    message: str,
) -> None:
    path = folder(
        *(f"left/{name}.png" for name in left),
        *(f"right/{name}.png" for name in right),
        stereo=True,
    )
    frames = list(open_sequence(path))
    assert len(frames) == len(pairs)
    for frame, (row, other) in zip(frames, pairs, strict=True):
        np.testing.assert_array_equal(frame.image, picture(row))
        np.testing.assert_array_equal(frame.image_right, picture(len(left) + other))
    assert message in caplog.text


def test_names_without_anything_in_common_are_refused(folder: Callable) -> None:
    with pytest.raises(
        DatasetError, match="3 images and 2 right images have no numbers or names in common"
    ):
        open_sequence(
            folder(
                "left/a0b0.png",
                "left/a1b3.png",
                "left/a2b6.png",
                "right/x.png",
                "right/y.png",
                stereo=True,
            )
        )


def test_unused_folders_are_reported(
    folder: Callable, write: Callable, picture: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder("left/0.png", "left/1.png", stereo=True)
    assert open_sequence(path).sensor == "mono"
    assert "is for right images, too, but there is no folder" in caplog.text
    for i in range(2):
        write(path / "right" / f"{i}.png", picture(i))
        write(path / "depth" / f"{i}.png", np.full((30, 40), 1000, np.uint16))
    assert open_sequence(path).sensor == "stereo"
    assert "depth is not used, and the run is stereo" in caplog.text
    caplog.clear()
    for sensor in ("mono", "stereo", "rgbd"):
        open_sequence(path, sensor=sensor)
    assert caplog.text == ""


def test_a_picture_next_to_the_image_folder_is_not_the_recording(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder(
        "cover.png", "left/0.png", "left/1.png", "right/0.png", "right/1.png", stereo=True
    )
    sequence = open_sequence(path)
    assert (sequence.sensor, len(sequence)) == ("stereo", 2)
    assert "the 2 images in" in caplog.text and "the 1 in" in caplog.text
