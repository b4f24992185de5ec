"""Checks of the first frames: on a small rendered world with known errors, and on real pairs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import WITHOUT_PICTURES, call
from world_folder import band, bits, error_of, millimetres, world_depth, world_frame, write_world

from spslam.config import Config, DepthConfig
from spslam.datasets import open_sequence
from spslam.errors import InputError
from spslam.frame import Frame
from spslam.run.input_checks import InputChecks, depth_out_of_range, pair_offsets

Change = Callable[[int], Frame]


def right_of(index: int) -> np.ndarray:
    image = world_frame(index).image_right
    assert image is not None
    return image


def with_right(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda i: replace(world_frame(i), image_right=change(right_of(i)))


def shifted(rows: int) -> Change:
    return with_right(lambda image: np.roll(image, rows, axis=0))


def turned(degrees: float) -> Change:
    matrix = cv2.getRotationMatrix2D((159.5, 119.5), degrees, 1.0)
    return with_right(lambda image: np.asarray(cv2.warpAffine(image, matrix, (320, 240))))


def late(frames: int) -> Change:
    return lambda i: replace(world_frame(i + 2), image_right=right_of(i + 2 + frames))


def swapped(index: int) -> Frame:
    return replace(world_frame(index), image=right_of(index), image_right=world_frame(index).image)


def causes(change: Change, frames: int = 41) -> list[str]:
    checks = InputChecks(Config())
    for index in range(frames):
        checks.see(change(index))
    checks.finish()
    return checks.causes


def test_pair_offsets_are_disparity_and_row_offset() -> None:
    depth, frame = world_depth(0), world_frame(0)
    pair = pair_offsets(frame.image, np.roll(right_of(0), 3, axis=0))
    assert len(pair) >= 40 and pair.negative == 0 and not pair.same
    assert pair.rows == pytest.approx(-3.0, abs=0.3)
    assert frame.camera.baseline_m is not None
    nearest, farthest = frame.camera.bf / depth.min(), frame.camera.bf / depth.max()
    assert farthest - 0.5 < pair.disparity.min() < pair.disparity.max() < nearest + 0.5


@pytest.mark.parametrize("scale", [2, 3])
def test_pair_offsets_are_in_pixels_of_the_full_image(scale: int) -> None:
    def larger(image: np.ndarray) -> np.ndarray:
        return np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        )

    small = pair_offsets(world_frame(0).image, right_of(0))
    large = pair_offsets(larger(world_frame(0).image), np.roll(larger(right_of(0)), 4, axis=0))
    assert np.median(large.rows) == pytest.approx(-4.0, abs=0.2)
    assert np.median(large.disparity) == pytest.approx(scale * np.median(small.disparity), rel=0.1)


@pytest.mark.parametrize("size", [(8, 8), (40, 30)])
def test_images_without_texture_give_no_offsets(size: tuple[int, int]) -> None:
    flat = np.full(size, 7, np.uint8)
    assert len(pair_offsets(flat, flat)) == 0
    assert len(pair_offsets(world_frame(0).image, flat)) == 0


@pytest.mark.parametrize(
    "change",
    [
        world_frame,
        with_right(lambda image: np.clip(image * 0.5 + 20, 0, 255).astype(np.uint8)),
        with_right(lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5))),
        lambda i: replace(
            world_frame(i), image=world_frame(i).image // 85, image_right=right_of(i) // 85
        ),
        lambda i: replace(world_frame(i), image=np.full((240, 320), 128, np.uint8)),
        lambda i: world_frame(0),
        lambda i: swapped(i) if i == 3 else world_frame(i),
        lambda i: replace(world_frame(i), image_right=None),
    ],
    ids=[
        "valid",
        "darker",
        "blurred",
        "nearly flat",
        "flat left",
        "still",
        "one swapped pair",
        "mono",
    ],
)
def test_correct_or_undecidable_pairs_cause_no_message(change: Change) -> None:
    assert causes(change) == []


@pytest.mark.parametrize(
    ("change", "grey"),
    [(np.zeros_like, 0), (np.fliplr, 124), (np.flipud, 124), (lambda image: 255 - image, 131)],
    ids=["black", "mirrored", "turned", "negative"],
)
def test_right_images_of_another_scene_are_reported(
    change: Callable[[np.ndarray], np.ndarray], grey: int
) -> None:
    (cause,) = causes(with_right(lambda image: np.ascontiguousarray(change(image))))
    expected = (
        "points of the first 5 left images are found in the right ones "
        f"(mean grey level {grey} of 255)"
    )
    assert expected in cause


@pytest.mark.parametrize("path", ["kitti", "euroc/V1_01_easy_still", "euroc/V1_01_easy_keyframes"])
def test_real_pairs_cause_no_message(test_data: Path, path: str) -> None:
    sequence = open_sequence(test_data / path, sensor="stereo", max_frames=41)
    checks = InputChecks(Config())
    for frame in sequence:
        checks.see(frame)
    checks.finish()
    assert checks.causes == []


@pytest.mark.parametrize("frames", [3, 4, 41])
def test_swapped_images_end_the_run(frames: int) -> None:
    with pytest.raises(
        InputError,
        match=r"images are swapped: (\d+) of \1 matches of .* negative disparity \(median -",
    ):
        causes(swapped, frames)


def test_two_swapped_pairs_are_too_few_for_an_error() -> None:
    assert causes(swapped, 2) == []


@pytest.mark.parametrize("rows", [1, 2, 4, -3])
def test_a_row_offset_is_reported_in_pixels(rows: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (cause,) = causes(shifted(rows))
    assert (
        f"lie {abs(rows):.1f} px apart in rows" in cause
        and "not rectified with this calibration" in cause
    )
    assert [record.getMessage() for record in caplog.records] == [cause]


def test_a_row_offset_larger_than_a_patch_ends_the_run() -> None:
    with pytest.raises(InputError, match=r"lie 9\.0 px apart in rows"):
        causes(shifted(9))


def test_a_turned_right_camera_is_not_rectified() -> None:
    assert "apart in rows" in causes(turned(2.0))[0]


@pytest.mark.parametrize(
    ("frames", "when"), [(1, "1 frame later"), (-1, "1 frame earlier"), (2, "2 frames later")]
)
def test_right_images_of_another_frame_are_reported(frames: int, when: str) -> None:
    (cause,) = causes(late(frames))
    assert f"right images fit the left ones of {when} (rows 0.0 px apart instead of" in cause


def test_right_images_of_another_time_are_reported() -> None:
    def half_a_frame_late(index: int) -> Frame:
        # Only the right images of every second frame are kept.
        return replace(world_frame(index), image_right=right_of(index + 1 + index % 2))

    (cause,) = causes(half_a_frame_late)
    assert "is the right image of another moment?" in cause or "paired wrongly" in cause


def test_identical_left_and_right_images_are_reported() -> None:
    cause = causes(lambda i: replace(world_frame(i), image_right=world_frame(i).image))[0]
    assert "left and right images of all 5 compared pairs are the same" in cause


LIMITS = DepthConfig(min_m=0.3, max_m=8.0)


@pytest.mark.parametrize(
    ("known", "median", "in_range", "scale", "expected"),
    [
        (0.8, 2.5, 0.9, 1000.0, ""),
        (0.8, 9.0, 0.4, 1000.0, ""),
        (0.1, 2.5, 1.0, None, ""),
        (
            0.8,
            2500.0,
            0.0,
            1.0,
            "median depth 2,500 m, depth.max_m is 8: is depth_scale 1000 instead of 1?",
        ),
        (
            0.8,
            10.0,
            0.0,
            1000.0,
            "median depth 10 m, depth.max_m is 8: is depth_scale 5000 or 10000 instead of 1000?",
        ),
        (
            0.8,
            0.0025,
            0.0,
            1e6,
            "median depth 0.0025 m, depth.min_m is 0.3: is depth_scale 1000 instead of 1e+06?",
        ),
        (
            0.8,
            0.0025,
            0.0,
            1000.0,
            "median depth 0.0025 m, depth.min_m is 0.3: is depth_scale 1 instead of 1000?",
        ),
        (
            0.8,
            2500.0,
            0.0,
            None,
            "median depth 2,500 m, depth.max_m is 8: depths are about 1,250 times too large",
        ),
        (
            0.0,
            0.0,
            0.0,
            1000.0,
            "the first depth images are empty: 0.0 % of their pixels have a depth",
        ),
    ],
)
def test_wrong_depth_scales_are_reported_with_a_better_one(
    known: float, median: float, in_range: float, scale: float | None, expected: str
) -> None:
    assert depth_out_of_range(known, median, in_range, LIMITS, scale) == expected


def test_depth_that_is_partly_in_range_is_reported() -> None:
    """With a scale 10 × too large half of a room is in range, with 10 × too small all of it."""
    found = depth_out_of_range(0.9, 0.31, 0.6, LIMITS, 50000.0, too_near=0.39)
    assert found == (
        "39 % of the first depths are below depth.min_m, 0.3, and not used (median 0.31 m): "
        "is depth_scale 5000 or 10000 instead of 50000?"
    )
    assert depth_out_of_range(0.9, 0.8, 0.9, LIMITS, 5000.0, too_near=0.1) == ""


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1.0, None), (1000.0, "median depth 3,1"), (1e-3, "median depth 0.0031"), (0.0, "empty")],
)
def test_depth_of_the_first_frames_is_checked(factor: float, expected: str | None) -> None:
    def frame(index: int) -> Frame:
        depth = (world_depth(index) * factor).astype(np.float32)
        return replace(world_frame(index), image_right=None, depth=depth)

    found = causes(frame, 6)
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


# -- complete runs ---------------------------------------------------------------------------------


def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the exit code and the messages other than the progress line."""
    code = call("run", str(folder), *WITHOUT_PICTURES, "--out", str(folder / "out"))
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert not any("Traceback" in line for line in lines)
    return code, [line for line in lines if line.startswith(("note: ", "error: "))]


def test_a_run_of_swapped_pairs_ends_with_one_line_and_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "w", "stereo", 8, right_of, lambda i: world_frame(i).image)
    code, messages = run(folder, capsys)
    assert code == 2 and len(messages) == 1
    assert messages[0].startswith("error: images w: left and right images are swapped: ")
    assert not (folder / "out").exists()


def test_a_run_without_depth_in_range_names_the_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "w", "rgbd", 6, depth_scale=1.0)
    code, messages = run(folder, capsys)
    assert code == 2
    assert messages[0].startswith("note: median depth 3,1")
    assert (
        "error: " in messages[-1]
        and "depth.max_m is 8: is depth_scale 1000 instead of 1?" in messages[-1]
    )


def test_depth_of_another_size_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "w", "rgbd", 3, depth=lambda i: millimetres(i)[::2, ::2])
    code, messages = run(folder, capsys)
    assert code == 2
    assert "depth image depth/000000.png: expected 320x240 pixels, found 160x120" in messages[-1]


def test_right_images_of_another_size_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_world(tmp_path / "w", "stereo", 3, right=lambda i: right_of(i)[::2, ::2])
    assert (
        "right image right/000000.png: expected 320x240 pixels, found 160x120"
        in run(folder, capsys)[1][-1]
    )


NORMAL_ERROR_M = 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sensor", "shape"),
    [
        ("mono", bits(10)),
        ("stereo", bits(12)),
        ("rgbd", band(20000, 23000)),
        ("mono", band(7000, 8500)),
    ],
    ids=["10 bits", "12 bits", "thermal", "thermal mono"],
)
def test_runs_on_16_bit_images_are_as_accurate_as_on_8_bit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sensor: str,
    shape: Callable[[np.ndarray], np.ndarray],
) -> None:
    folder = write_world(
        tmp_path / "w",
        sensor,
        60,
        lambda i: shape(world_frame(i).image),
        lambda i: shape(right_of(i)),
    )
    code, messages = run(folder, capsys)
    assert code == 0 and len(messages) == 1 and "16-bit images hold values" in messages[0]
    assert error_of(folder / "out", sensor) < 1.5 * NORMAL_ERROR_M


@pytest.mark.slow
def test_a_run_leaves_saturated_depth_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def saturated(index: int) -> np.ndarray:
        depth = np.rint(world_depth(index) * 10000.0).astype(np.uint16)
        depth[60:130, 100:220] = depth[::7, ::5] = 65535
        return depth

    folder = write_world(tmp_path / "w", "rgbd", 60, depth=saturated, depth_scale=10000.0)
    code, messages = run(folder, capsys)
    assert code == 0 and len(messages) == 1 and "hold 65535" in messages[0]
    assert error_of(folder / "out", "rgbd") < 1.5 * NORMAL_ERROR_M
