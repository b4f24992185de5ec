"""Disturbances added to recordings."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from world_folder import write_world

from spslam.datasets import open_sequence
from spslam.datasets.world.disturbances import Blur, Dark, Jump, Mover, Still, parse_disturbance
from spslam.datasets.world.disturbed import DisturbedSequence, disturb
from spslam.datasets.world.world import RenderedWorld, open_world
from spslam.errors import DatasetError
from spslam.frame import Frame

BOX = Mover(fraction=0.25, speed=3.25, path="appear", heading=0.0, start=3, noise=0.0)


@cache
def opened(sensor: str, *disturbances: Still | Mover | Dark | Blur | Jump) -> DisturbedSequence:
    return disturb(open_world("demo-small", sensor), list(disturbances))


def quiet(sensor: str) -> DisturbedSequence:
    """A camera and a box without noise, so that pixels can be compared."""
    return opened(sensor, Still(frames=20, noise=0.0), BOX)


def columns(sequence: DisturbedSequence, index: int) -> tuple[int, int]:
    """First and last column covered by the box."""
    seen = np.flatnonzero(sequence.box_mask(index).any(axis=0))
    return int(seen[0]), int(seen[-1])


def right_image(frame: Frame) -> np.ndarray:
    assert frame.image_right is not None
    return frame.image_right


def test_a_box_covers_its_fraction_from_its_first_frame_on() -> None:
    sequence = quiet("mono")
    assert [sequence.box_fraction(index) for index in (0, 2)] == [0.0, 0.0]
    assert sequence.box_fraction(3) == pytest.approx(0.25, abs=0.005)
    assert sequence.disturbed_from == 3
    before, after = sequence[2].image, sequence[3].image
    box = sequence.box_mask(3)
    assert (before == after)[~box].mean() > 0.99 and (before == after)[box].mean() < 0.1


def test_a_box_moves_by_fractions_of_a_pixel() -> None:
    """After four frames it has moved by 13 pixels, with the same picture."""
    sequence = quiet("mono")
    first, last = columns(sequence, 3)
    assert columns(sequence, 7) == (first + 13, last + 13)
    rows = np.flatnonzero(sequence.box_mask(3).any(axis=1))
    inner = np.s_[rows[2] : rows[-2], first + 3 : last - 3]
    there, moved = (sequence[index].image.astype(float) for index in (3, 7))
    np.testing.assert_allclose(np.roll(moved, -13, axis=1)[inner], there[inner], atol=1.0)
    # At a subpixel position it is near the mean of its neighbours, equal to neither.
    quarter = np.roll(sequence[4].image.astype(float), -3, axis=1)[inner]
    assert 0.3 < np.abs(quarter - there[inner]).mean() < 20


def test_the_right_camera_sees_the_box_shifted_by_its_disparity() -> None:
    sequence = quiet("stereo")
    camera = sequence.camera
    assert camera.baseline_m is not None
    disparity = camera.fx * camera.baseline_m / BOX.depth
    frame, box = sequence[7], sequence.box_mask(7)
    rows, cols = np.nonzero(box)
    inside = (
        (cols > cols.min() + 3)
        & (cols < cols.max() - 3)
        & (rows > rows.min() + 3)
        & (rows < rows.max() - 3)
    )
    rows, cols = rows[inside], cols[inside]
    left, right = frame.image.astype(float), right_image(frame).astype(float)

    def difference(shift: float) -> float:
        low = np.floor(cols - shift).astype(int)
        part = cols - shift - low
        return float(
            np.abs(
                (1 - part) * right[rows, low] + part * right[rows, low + 1] - left[rows, cols]
            ).mean()
        )

    shifts = np.arange(disparity - 3, disparity + 3.1, 0.5)
    assert abs(shifts[np.argmin([difference(shift) for shift in shifts])] - disparity) <= 0.5


def test_the_depth_image_shows_the_box_and_nearer_objects_hide_it() -> None:
    near = quiet("rgbd")
    depth, plain = near[3].depth, open_world("demo-small", "rgbd")[0].depth
    assert depth is not None and plain is not None
    box = near.box_mask(3)
    np.testing.assert_allclose(depth[box], 1.2, rtol=1e-6)
    np.testing.assert_array_equal(depth[~box], plain[~box])
    # A box behind all walls is invisible; between furniture and walls it is partly visible.
    assert (
        not opened("mono", Still(frames=9), Mover(depth=50.0, start=0, path="appear"))
        .box_mask(5)
        .any()
    )
    middle = float(np.median(plain))
    some = opened(
        "mono", Still(frames=9), Mover(depth=middle, start=0, path="appear", fraction=0.5)
    ).box_mask(5)
    assert 0.05 < some.mean() < 0.45


def test_a_box_enters_from_outside_and_passes_or_stays() -> None:
    world = open_world("demo-small", "mono")
    for heading in (0.0, 180.0, 90.0, 25.0):
        mover = Mover(fraction=0.25, speed=20.0, start=5, heading=heading)
        passing = disturb(world, [replace(mover, path="pass")])
        staying = disturb(world, [replace(mover, path="stay")])
        fractions = [passing.box_fraction(index) for index in range(0, 60, 3)]
        assert fractions[0] == fractions[1] == fractions[-1] == 0.0 and max(fractions) > 0.2
        late = [staying.box_fraction(index) for index in range(40, 70, 6)]
        assert min(late) > 0.24


def test_a_box_in_the_world_crosses_a_moving_view() -> None:
    world = open_world("demo-small", "mono")
    crossing = disturb(world, [Mover(fraction=0.4, speed=8.0, world=True, start=10, heading=0.0)])
    fractions = [crossing.box_fraction(index) for index in range(10, 72, 4)]
    assert fractions[0] < 0.1 and max(fractions) > 0.3


def test_boxes_differ_between_seeds_and_are_reproducible() -> None:
    def image(seed: int) -> np.ndarray:
        return disturb(
            open_world("demo-small", "mono"), [Mover(path="appear", speed=-1.0, seed=seed)]
        )[20].image

    np.testing.assert_array_equal(image(1), image(1))
    assert (image(1) != image(2)).mean() > 0.05


def test_a_still_camera_has_one_pose_and_new_noise() -> None:
    sequence = opened("stereo", Still(frame=30, frames=4, lead=2, noise=2.0))
    assert len(sequence) == 6 and [sequence[i].timestamp for i in range(3)] == pytest.approx(
        [0.0, 0.05, 0.1]
    )
    truth = sequence.ground_truth
    assert truth is not None
    world = open_world("demo-small", "stereo")
    assert world.ground_truth is not None
    np.testing.assert_array_equal(truth.T_world_cam[:3], world.ground_truth.T_world_cam[28:31])
    np.testing.assert_array_equal(truth.T_world_cam[2:], truth.T_world_cam[[2] * 4])
    difference = sequence[3].image.astype(float) - sequence[4].image.astype(float)
    assert difference.std() == pytest.approx(2.0 * np.sqrt(2), rel=0.1)


def test_dark_frames_are_black_in_all_images() -> None:
    for sensor in ("stereo", "rgbd"):
        sequence = opened(sensor, Dark(at=5, frames=2))
        assert [bool(sequence[index].image.any()) for index in (4, 5, 6, 7)] == [
            True,
            False,
            False,
            True,
        ]
        frame = sequence[6]
        other = frame.image_right if sensor == "stereo" else frame.depth
        assert other is not None and not other.any()
        assert sequence.disturbed_from == 5 and sequence.seen_again_from == 7
        assert sequence[7].index == 7 and sequence[7].timestamp == pytest.approx(0.35)


def test_dark_and_blurred_frames_come_again() -> None:
    sequence = opened("mono", Dark(at=1, frames=2, every=5), Blur(at=3, every=5, length=9))
    world = open_world("demo-small", "mono")
    black = [not sequence[index].image.any() for index in range(10)]
    assert np.flatnonzero(black).tolist() == [1, 2, 6, 7]
    same = [np.array_equal(sequence[index].image, world[index].image) for index in range(10)]
    assert np.flatnonzero(same).tolist() == [0, 4, 5, 9]
    # The shake is sideways: it removes steps along the rows only.
    sharp, shaken = (s[3].image.astype(float)[5:-5, 10:-10] for s in (world, sequence))
    across, along = (
        np.abs(np.diff(shaken, axis=axis)).mean() / np.abs(np.diff(sharp, axis=axis)).mean()
        for axis in (1, 0)
    )
    assert across < 0.5 and along > 1.5 * across
    assert sequence.disturbed_from == 1


def test_a_jump_continues_elsewhere_with_its_true_poses() -> None:
    sequence, world = (
        opened("mono", Jump(at=40, to=5, frames=10, back=True)),
        open_world("demo-small", "mono"),
    )
    assert len(sequence) == 82
    for shown, source in ((39, 39), (40, 5), (49, 14), (50, 40), (81, 71)):
        np.testing.assert_array_equal(sequence[shown].image, world[source].image)
        assert sequence.ground_truth is not None and world.ground_truth is not None
        np.testing.assert_array_equal(
            sequence.ground_truth.T_world_cam[shown], world.ground_truth.T_world_cam[source]
        )
    assert np.allclose(np.diff([sequence[index].timestamp for index in range(38, 52)]), 0.05)


def test_a_slice_of_a_recording_is_disturbed_without_reading_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = open_sequence("demo-small", sensor="mono", start=10, stride=3)
    monkeypatch.setattr(
        RenderedWorld, "__getitem__", lambda self, index: pytest.fail("a frame was read")
    )
    sequence, world = disturb(part, ["jump:at=8,to=2,frames=5"]), open_world("demo-small", "mono")
    assert sequence.ground_truth is not None and world.ground_truth is not None
    np.testing.assert_array_equal(
        sequence.ground_truth.T_world_cam[8], world.ground_truth.T_world_cam[16]
    )
    behind = disturb(part, [Mover(depth=50.0, start=0, path="appear")])
    monkeypatch.undo()
    assert not behind.box_mask(5).any()


def test_the_seed_shifts_the_dark_frames() -> None:
    firsts = {Dark(at=10, within=6, seed=seed).first for seed in range(20)}
    assert min(firsts) >= 10 and max(firsts) <= 16 and len(firsts) > 3
    assert Dark(at=10).first == Jump(at=10).first == 10


def test_recordings_from_files_can_be_disturbed(tmp_path) -> None:
    folder = write_world(tmp_path / "world", "rgbd", 6)
    sequence = disturb(
        open_sequence(folder),
        ["still:frame=2,frames=4", "mover:start=1,path=appear", "dark:at=3,frames=1"],
    )
    assert [frame.timestamp for frame in sequence] == pytest.approx([0.0, 0.05, 0.1, 0.15])
    depth = sequence[2].depth
    assert depth is not None and (depth == np.float32(1.2)).mean() == pytest.approx(0.25, abs=0.01)
    assert not sequence[3].image.any()


def test_disturbances_are_parsed_from_text() -> None:
    assert parse_disturbance("mover:fraction=0.4,world=1,seed=3") == Mover(
        fraction=0.4, world=True, seed=3
    )
    assert parse_disturbance("dark") == Dark()
    assert parse_disturbance("jump:at=9,to=1,back=true") == Jump(at=9, to=1, back=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog", "a disturbance is one of still, mover, dark, jump, body, blur, found 'fog'"),
        ("dark:frame=3", "dark takes at=…, frames=…"),
        ("dark:at", "found 'at'"),
        ("dark:at=x", "dark: at must be like 100, found 'x'"),
        ("dark:at=-4", "must be finite and not negative"),
        ("mover:fraction=nan", "must be finite"),
        ("mover:fraction=1.5", "a fraction between 0 and 1"),
        ("mover:speed=-3", "a speed of at least 0 or -1"),
        ("mover:path=round", "stay, pass or appear, found 'round'"),
        ("blur:length=0", "at least one pixel, found length=0"),
        ("blur:at=72", "it cannot be blurred from frame 72"),
        ("dark:at=72", "it cannot be dark from frame 72"),
        ("jump:at=72", "there are 72 frames, found at=72"),
        ("jump:at=9,to=99", "found at=9 to=99"),
        ("still:frame=99", "found frame=99"),
        ("still:frame=3,lead=4", "lead=4"),
    ],
)
def test_invalid_disturbances_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(DatasetError) as error:
        disturb(open_world("demo-small", "mono"), [text])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("sensor", ["stereo", "rgbd"])
def test_a_body_keeps_its_place_in_all_images(sensor: str) -> None:
    whole = open_sequence("demo-small", sensor=sensor)
    frames = disturb(whole, ["body:fraction=0.25,depth=2,noise=0"])
    first, last = frames[0], frames[20]
    np.testing.assert_array_equal(first.image[180:], last.image[180:])
    np.testing.assert_array_equal(first.image[:180], whole[0].image[:180])
    assert first.image[180:].std() > 20
    if sensor == "stereo":
        shift = round(whole.camera.bf / 2)
        assert first.image_right is not None
        np.testing.assert_array_equal(first.image_right[180:, :-shift], first.image[180:, shift:])
    else:
        assert first.depth is not None and (first.depth[180:] == 2).all()
    black = disturb(whole, ["body:fraction=0.25,black=true"])[0]
    assert (black.image[180:] == 0).all()


def test_a_body_that_covers_nothing_or_everything_is_refused() -> None:
    with pytest.raises(DatasetError, match="a body has a fraction between 0 and 1"):
        parse_disturbance("body:fraction=1")
