import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spslam.datasets.timestamps import (
    Timing,
    associate,
    nominal_fps,
    order_frames,
    pair_by_time,
    read_stamps,
)
from spslam.errors import DatasetError
from spslam.timestamps import summarize_times


def test_order_sorts_drops_duplicates_and_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    times = np.array([0.0, 2.0, 1.0, 2.0, 3.0])
    with caplog.at_level(logging.WARNING):
        rows, _ = order_frames(times, "the list")
    assert rows.tolist() == [0, 2, 1, 4]
    assert (
        "out of order" in caplog.text
        and "1 of 5 entries repeats an earlier time stamp" in caplog.text
    )


def test_order_is_silent_when_there_is_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert order_frames(np.array([0.0, 1.0]), "the list")[0].tolist() == [0, 1]
    assert not caplog.records


def test_associate_takes_the_closest_pair_first() -> None:
    # 0.015 is near 0.010 and 0.016; 0.016 has no other partner as close.
    pairs = associate(np.array([0.010, 0.016, 1.0]), np.array([0.015, 1.5]), 0.02)
    assert pairs.tolist() == [[1, 0]]


def test_associate_includes_nothing_beyond_the_tolerance() -> None:
    assert associate(np.array([0.0]), np.array([0.021]), 0.02).shape == (0, 2)
    assert associate(np.zeros(0), np.array([0.0]), 0.02).shape == (0, 2)


_STAMPS = st.lists(st.integers(0, 300), max_size=25, unique=True).map(
    lambda x: np.array(sorted(x), dtype=float) / 100
)


@settings(deadline=None, max_examples=100)
@given(_STAMPS, _STAMPS)
def test_associate_is_one_to_one_within_tolerance_and_maximal(
    times0: np.ndarray, times1: np.ndarray
) -> None:
    pairs = associate(times0, times1, 0.025)
    assert len(set(pairs[:, 0])) == len(pairs) == len(set(pairs[:, 1]))
    assert (np.diff(pairs[:, 0]) > 0).all()
    assert (np.abs(times0[pairs[:, 0]] - times1[pairs[:, 1]]) <= 0.025).all()
    free0, free1 = np.delete(times0, pairs[:, 0]), np.delete(times1, pairs[:, 1])
    assert not (np.abs(free0[:, None] - free1[None]) <= 0.025).any()


def test_nominal_fps_is_the_median_rate() -> None:
    assert nominal_fps(np.array([0.0, 0.1, 0.2, 5.0]), 30.0) == pytest.approx(10.0)
    assert nominal_fps(np.array([0.0]), 30.0) == 30.0


def test_after_a_clock_step_back_repeated_times_are_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    times = 100 + np.arange(60, dtype=np.float64) * 0.05
    times[48:] -= 0.58
    with caplog.at_level(logging.WARNING):
        rows, left_out = order_frames(times, "the list")
    assert rows.tolist() == [*range(48), *range(59, 60)]
    assert Counter(entry.reason for entry in left_out) == {"clock stepped back": 11}
    assert (
        "steps back by 0.53 s at entry 49; 11 entries until it has caught up are left out"
        in caplog.text
    )


@pytest.mark.parametrize(
    "order",
    [
        [3, 4, 5, 0, 1, 2],
        [0, 2, 1, 3, 4],
        [0, 1, 2, 6, 7, 8, 3, 4, 5, 9],
        [4, 3, 2, 1, 0],
        [2, 0, 3, 1, 4],
    ],
)
def test_lists_that_are_only_out_of_order_are_sorted(order: list[int]) -> None:
    rows, left_out = order_frames(np.array(order, dtype=np.float64), "the list")
    assert np.array(order)[rows].tolist() == list(range(len(order))) and not left_out


def test_errors_of_pairing_name_the_distance_to_the_nearest_partner() -> None:
    left = np.arange(10, dtype=np.float64) * 0.05
    right = 0.035 + np.arange(5, dtype=np.float64) * 0.1
    with pytest.raises(
        DatasetError,
        match=r"none of the 10 images has a depth image within 0\.005 s: the nearest is 0\.015",
    ):
        pair_by_time(left, right, 0.005, "walk", "depth image")
    pairs, alone = pair_by_time(left, right, 0.02, "walk", "depth image")
    assert pairs.tolist() == [[i, (i - 1) // 2] for i in range(1, 10, 2)]
    assert [entry.stamp_s for entry in alone] == pytest.approx(left[::2])
    assert {entry.reason for entry in alone} == {"no depth image"}
    with pytest.raises(DatasetError, match="--pair-within must be 0 or more seconds, found -1"):
        Timing(pair_within_s=-1)


def test_two_clock_steps_back_are_handled(caplog: pytest.LogCaptureFixture) -> None:
    times = np.arange(40) / 20
    times[15:] -= 0.33
    times[30:] -= 0.41
    order, left_out = order_frames(times, "the list")
    assert order.tolist() == [*range(15), *range(21, 30), 38, 39]
    assert {entry.reason for entry in left_out} == {"clock stepped back"} and len(left_out) == 14
    assert "the clock steps back by" in caplog.text


def test_stamps_that_number_the_images_give_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    read_stamps(np.arange(9.0), "s", "times.txt", Timing(), 10.0)
    assert "if they number the images, count these with --time-unit frames" in caplog.text


def test_late_depth_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    times = np.arange(20) / 20
    pair_by_time(times, times + 0.016, 0.02, "walk", "depth image")
    assert caplog.text == ""
    pair_by_time(times, times + 0.03, 0.0201, "walk", "depth image")
    assert "walk: depth images come 20.0 ms before the images (median)" in caplog.text


@pytest.mark.parametrize(
    ("step", "fps"), [(0.1, 10.0), (5e-324, 1e6), (1e-9, 1e6), (3e7, 1e-6), (1e19, 1e-6)]
)
def test_rates_are_limited_to_those_of_cameras(step: float, fps: float) -> None:
    with np.errstate(all="raise"):
        assert nominal_fps(step * np.arange(3.0), 30.0) == pytest.approx(fps)
        assert summarize_times(step * np.arange(3.0), "s").rate_hz != np.inf
