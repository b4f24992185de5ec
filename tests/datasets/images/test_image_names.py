import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spslam.datasets import open_sequence
from spslam.errors import DatasetError, TimestampError

COUNT = 12


@pytest.fixture
def folder(
    tmp_path: Path, write: Callable, picture: Callable, write_calibration: Callable
) -> Callable[..., Path]:
    """Write images with these names and a calibration of 20 frames a second."""

    def make(*patterns: Callable[[int], str], fps: float | None = 20.0) -> Path:
        path = tmp_path / "walk"
        for seed, pattern in enumerate(patterns):
            for i in range(COUNT):
                write(path / pattern(i), picture(seed * COUNT + i))
        write_calibration(path / "calibration.yaml", fps=fps)
        return path

    return make


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        (lambda i: f"{14378659749280 + 50_000_000 * i}.png", "ns"),
        (lambda i: f"{1234567890 + 50_000 * i}.png", "us"),
        (lambda i: f"{14378659 + 50 * i}.png", "ms"),
        (lambda i: f"{50 * i}.png", "ms"),
        (lambda i: f"img_{273250.5 + 50 * i:.3f}.png", "ms"),
        (lambda i: f"{273.25 + 0.05 * i:.3f}.png", "s"),
        (lambda i: f"cam0_{i:04d}.png", "frames"),
    ],
)
def test_numbers_in_names_are_times_in_the_unit_with_a_plausible_rate(
    folder: Callable, name: Callable[[int], str], unit: str
) -> None:
    sequence = open_sequence(folder(name))
    assert (sequence.time_unit, len(sequence)) == (unit, COUNT)
    assert np.diff([frame.timestamp for frame in sequence]) == pytest.approx(0.05, rel=1e-6)
    assert sequence.camera.fps == pytest.approx(20.0)


def test_numbers_that_may_be_counters_or_times_need_an_option(folder: Callable) -> None:
    path = folder(lambda i: f"{round(33.333 * i)}.png")
    with pytest.raises(
        TimestampError, match=r"\(0, 33, …\) may be milliseconds \(30\.3 a second\) or count frames"
    ):
        open_sequence(path)
    assert open_sequence(path, time_unit="ms").camera.fps == pytest.approx(30.3, abs=0.1)
    counted = open_sequence(path, time_unit="frames")
    assert [counted[i].timestamp for i in (0, 1, -1)] == pytest.approx([0.0, 33 / 20, 367 / 20])


def test_names_in_milliseconds_need_no_frame_rate(folder: Callable) -> None:
    sequence = open_sequence(folder(lambda i: f"{round(33.333 * i)}.png", fps=None))
    assert sequence.time_unit == "ms" and sequence.camera.fps == pytest.approx(30.3, abs=0.1)


def test_counters_in_steps_of_ten_are_counters(folder: Callable) -> None:
    sequence = open_sequence(folder(lambda i: f"{10 * i:06d}.png"))
    assert sequence.time_unit == "frames" and sequence.camera.fps == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (lambda i: f"frame{i:06d}.jpg", lambda i: f"depth{i:06d}.png", r"12 depth\* .*12 frame\*"),
        (
            lambda i: f"{i:06d}.color.png",
            lambda i: f"{i:06d}.depth.png",
            r"12 \*\.color .*12 \*\.depth",
        ),
        (
            lambda i: f"{i:06d}_left.png",
            lambda i: f"{i:06d}_right.png",
            r"12 \*_left .*12 \*_right",
        ),
        (lambda i: f"{i:06d}.png", lambda i: f"{i:06d}_mask.png", r"12 \* .*12 \*_mask"),
        (lambda i: f"cam0_{i:06d}.png", lambda i: f"cam1_{i:06d}.png", r"12 cam0_\* .*12 cam1_\*"),
        (lambda i: f"{i:06d}_cam0.png", lambda i: f"{i:06d}_cam1.png", r"12 \*_cam0 .*12 \*_cam1"),
        (lambda i: f"{i:06d}.png", lambda i: f"{i:06d}.jpg", r"12 \*\.jpg .*12 \*\.png"),
    ],
)
def test_two_streams_in_a_folder_are_refused_with_both_patterns(
    folder: Callable, first: Callable[[int], str], second: Callable[[int], str], named: str
) -> None:
    with pytest.raises(
        DatasetError, match=f"holds 2 kinds of images: {named}.*a folder of its own"
    ):
        open_sequence(folder(first, second))


def test_images_with_other_names_are_left_out_and_counted(
    folder: Callable, write: Callable, picture: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder(lambda i: f"img{i:04d}.png")
    write(path / "cover.png", picture(99))
    (path / "._img0000.png").write_bytes(b"attributes")
    (path / "img0003.heic").write_bytes(b"another format")
    with caplog.at_level(logging.WARNING):
        sequence = open_sequence(path)
    assert len(sequence) == COUNT and [entry.reason for entry in sequence.left_out] == [
        "stray name"
    ]
    assert "1 image is left out: their names (cover.png) follow another pattern" in caplog.text
    assert "1 file is left out: .heic is not read" in caplog.text


def test_dates_before_the_number_belong_to_one_recording(
    folder: Callable, picture: Callable
) -> None:
    sequence = open_sequence(folder(lambda i: f"2023-05-01_12-{30 + i // 6}-{10 + i % 6}.png"))
    assert (len(sequence), sequence.time_unit) == (COUNT, "s")
    assert all(np.array_equal(frame.image, picture(i)) for i, frame in enumerate(sequence))
    assert np.diff([frame.timestamp for frame in sequence]) == pytest.approx(
        [1, 1, 1, 1, 1, 55, 1, 1, 1, 1, 1]
    )


@pytest.mark.parametrize(
    ("name", "first_s"),
    [
        (lambda i: f"frame_{i:06d}_{1403715273.262 + 0.05 * i:.3f}.png", 1403715273.262),
        (lambda i: f"{i:06d}-{1403715273262142976 + 50_000_000 * i}.png", 1403715273.262143),
        (
            lambda i: (
                f"{1403715273 + (650 + 50 * i) // 1000}_{(650 + 50 * i) % 1000 * 10**6:09d}.png"
            ),
            1403715273.65,
        ),
        (
            lambda i: f"{1403715273 + (650 + 50 * i) // 1000}_{(650 + 50 * i) % 1000 * 10**6}.png",
            1403715273.65,
        ),
        (
            lambda i: (
                f"{1403715273 + (650 + 50 * i) // 1000}-{(650 + 50 * i) % 1000 * 10**3:06d}.png"
            ),
            1403715273.65,
        ),
        (
            lambda i: (
                f"2023-05-01T12:{30 + (59_650 + 50 * i) // 60000}"
                f":{(59_650 + 50 * i) % 60000 / 1000:09.6f}.png"
            ),
            1682944259.65,
        ),
        (
            lambda i: (
                f"IMG_20230501_12{30 + i // 6}{(59 + i // 6) % 60:02d}"
                f"{(700 + 50 * i) % 1000:03d}.png"
            ),
            1682944259.7,
        ),
        # ROS seconds and nanoseconds without leading zeros in the nanoseconds.
        (
            lambda i: (
                f"{1403715273 + (650 + 50 * i) // 1000}.{(650 + 50 * i) % 1000 * 10**6 + 17}.png"
            ),
            1403715273.65,
        ),
        (lambda i: f"{(950 + 50 * i) // 1000},{(950 + 50 * i) % 1000:03d}.png", 0.95),
        (lambda i: f"{-0.25 + 0.05 * i:.3f}.png", -0.25),
    ],
)
def test_names_with_several_numbers_give_the_time(
    folder: Callable, name: Callable[[int], str], first_s: float
) -> None:
    sequence = open_sequence(folder(name))
    stamps = [frame.timestamp for frame in sequence]
    assert stamps[0] == pytest.approx(first_s, abs=1e-6)
    assert np.diff(stamps) == pytest.approx(0.05, abs=2e-6)
    assert sequence.time_unit in ("s", "ns")


def test_the_counter_is_used_where_the_other_number_is_not_a_time(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    sequence = open_sequence(folder(lambda i: f"f{i:04d}_exp{(7 * i) % 5}.png"))
    assert [frame.timestamp for frame in sequence] == pytest.approx(np.arange(COUNT) / 20)
    assert "number 1 (0000 in f0000_exp0.png) is taken" in caplog.text


def test_names_without_a_pattern_are_one_stream(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    sequence = open_sequence(folder(lambda i: f"{i * 17 + 160:04x}.png"))
    assert [frame.timestamp for frame in sequence] == pytest.approx(np.arange(COUNT) / 20)
    assert "are hexadecimal: they are counted in the order of their names" in caplog.text


def test_a_folder_named_like_an_image_is_not_an_image(folder: Callable) -> None:
    path = folder(lambda i: f"{i:04d}.png")
    (path / "old.png").mkdir()
    assert open_sequence(path).left_out == []


@pytest.mark.parametrize(
    "name", [lambda i: f"20230501_123010_{i:03d}.png", lambda i: f"f{i:04d}.png"]
)
def test_counters_that_look_like_dates_are_counters(
    folder: Callable, name: Callable[[int], str]
) -> None:
    sequence = open_sequence(folder(name))
    assert sequence.time_unit == "frames"
    assert [frame.timestamp for frame in sequence] == pytest.approx(np.arange(COUNT) / 20)


def test_a_counter_next_to_times_reveals_a_clock_step_back(
    folder: Callable, picture: Callable
) -> None:
    sequence = open_sequence(
        folder(lambda i: f"{i:04d}_{100 + 0.05 * i - (0.12 if i >= 6 else 0):.6f}.png")
    )
    assert [entry.reason for entry in sequence.left_out] == ["clock stepped back"] * 2
    for row, frame in zip([*range(6), *range(8, COUNT)], sequence, strict=True):
        np.testing.assert_array_equal(frame.image, picture(row))


def test_counters_that_give_an_implausible_rate_are_reported(
    folder: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    open_sequence(folder(lambda i: f"f{3000 * i}.png"))
    assert (
        "which makes one image in 150 s at 20 a second; if they are times, give --time-unit"
        in caplog.text
    )


@pytest.mark.parametrize(
    "name",
    [
        lambda i: f"{1403715273262142976 + 70_000_000 * i}.png",
        lambda i: f"2023-05-01T12:30:{10 + 0.07 * i:05.2f}.png",
    ],
)
def test_a_given_unit_is_used_for_times_in_names(
    folder: Callable, name: Callable[[int], str]
) -> None:
    path = folder(name)
    counted = open_sequence(path, time_unit="frames")
    assert [frame.timestamp for frame in counted] == pytest.approx(np.arange(COUNT) / 20)
    times = [frame.timestamp for frame in open_sequence(path, time_unit="ns")]
    assert np.diff(times) == pytest.approx(0.07, abs=1e-6)
