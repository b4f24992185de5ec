import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spslam.datasets.timing import associate, nominal_fps, order_by_time


def test_order_sorts_drops_duplicates_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    times = np.array([0.0, 2.0, 1.0, 2.0, 3.0])
    with caplog.at_level(logging.WARNING):
        rows = order_by_time(times, "the list")
    assert rows.tolist() == [0, 2, 1, 4]
    assert "out of order" in caplog.text and "1 of 5 entries have a time stamp" in caplog.text


def test_order_is_silent_when_there_is_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert order_by_time(np.array([0.0, 1.0]), "the list").tolist() == [0, 1]
    assert not caplog.records


def test_associate_takes_the_closest_pair_first() -> None:
    # 0.015 is near 0.010 and 0.016, but 0.016 has no other partner as close.
    pairs = associate(np.array([0.010, 0.016, 1.0]), np.array([0.015, 1.5]), 0.02)
    assert pairs.tolist() == [[1, 0]]


def test_associate_includes_nothing_beyond_the_tolerance() -> None:
    assert associate(np.array([0.0]), np.array([0.021]), 0.02).shape == (0, 2)
    assert associate(np.zeros(0), np.array([0.0]), 0.02).shape == (0, 2)


_STAMPS = st.lists(st.integers(0, 300), max_size=25, unique=True).map(lambda x: np.array(sorted(x), dtype=float) / 100)


@settings(deadline=None, max_examples=100)
@given(_STAMPS, _STAMPS)
def test_associate_is_one_to_one_within_tolerance_and_maximal(times0: np.ndarray, times1: np.ndarray) -> None:
    pairs = associate(times0, times1, 0.025)
    assert len(set(pairs[:, 0])) == len(pairs) == len(set(pairs[:, 1]))
    assert (np.diff(pairs[:, 0]) > 0).all()
    assert (np.abs(times0[pairs[:, 0]] - times1[pairs[:, 1]]) <= 0.025).all()
    free0, free1 = np.delete(times0, pairs[:, 0]), np.delete(times1, pairs[:, 1])
    assert not (np.abs(free0[:, None] - free1[None]) <= 0.025).any()


def test_nominal_fps_is_the_median_rate() -> None:
    assert nominal_fps(np.array([0.0, 0.1, 0.2, 5.0]), 30.0) == pytest.approx(10.0)
    assert nominal_fps(np.array([0.0]), 30.0) == 30.0
