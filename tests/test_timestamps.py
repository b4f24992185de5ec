import logging

import numpy as np
import pytest

from spslam.errors import DatasetError, TimestampError, TrajectoryError
from spslam.timestamps import TimeUnit, find_unit, stamp_column, summarize_times, to_seconds

FRAMES = np.arange(40, dtype=np.float64)


@pytest.mark.parametrize("declared", ["s", "ns", None])
@pytest.mark.parametrize(
    ("unit", "first", "step"),
    [
        ("ns", 14378659749280, 50_000_000),
        ("us", 1234567890, 50_000),
        ("ms", 14378659, 50),
        ("s", 14378.659, 0.05),
        ("ns", 1403715273262142976, 50_000_000),
        ("us", 1403715273262142, 33_333),
        ("ms", 1403715273262, 33),
        ("s", 1403715273.262142, 0.0333),
        ("ns", 0, 33_333_333),
        ("us", 0, 100_000),
        ("ms", 0, 33),
    ],
)
def test_the_unit_gives_a_plausible_frame_rate(
    unit: TimeUnit, first: float, step: float, declared: TimeUnit | None
) -> None:
    stamps = first + step * FRAMES
    seconds, found = to_seconds(stamps, declared, "the list")
    assert found == unit
    per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    assert np.diff(seconds) == pytest.approx(step / per_second, rel=1e-4)
    # Order, repeated stamps and gaps in a list make no difference.
    shuffled = np.concatenate([stamps[::-1], stamps[:5], stamps[-1:] + 100 * step])
    assert find_unit(shuffled, declared, "the list") == unit


def test_a_unit_other_than_that_of_the_format_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_unit(5e7 * FRAMES, "ns", "the list") == "ns"
        assert not caplog.records
        assert find_unit(5e7 * FRAMES, "s", "the list") == "ns"
    assert (
        "the list: time stamps are read as nanoseconds (20 a second), not as seconds" in caplog.text
    )


def test_two_plausible_units_are_refused_unless_format_or_date_decide() -> None:
    slow = 14378659 + 1500 * FRAMES
    with pytest.raises(
        TimestampError,
        match=r"1500 apart, .* milliseconds \(0\.6667 a second\) or microseconds .*ms\|us",
    ):
        find_unit(slow, None, "the list")
    assert find_unit(slow, "us", "the list") == "us"
    assert find_unit(1403715273262 + 1500 * FRAMES, None, "the list") == "ms"
    assert to_seconds(slow, None, "the list", given="ms")[1] == "ms"


def test_slow_recordings_stay_in_the_unit_of_the_format(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_unit(5.0 * FRAMES, "s", "a time lapse") == "s"
    assert "5 s apart, which is no plausible camera" in caplog.text
    with pytest.raises(TimestampError, match="no plausible camera in any unit"):
        find_unit(1e11 * FRAMES, None, "the list")
    assert issubclass(TimestampError, DatasetError) and issubclass(TimestampError, TrajectoryError)


@pytest.mark.parametrize(
    ("stamp", "unit"), [(1403715273.5, "s"), (1403715273500, "ms"), (1403715273262142976, "ns")]
)
def test_a_single_stamp_is_a_date_or_in_the_unit_of_the_format(stamp: float, unit: str) -> None:
    assert find_unit(np.array([float(stamp)]), None, "the list") == unit
    assert find_unit(np.array([5.0]), "ns", "the list") == "ns"


@pytest.mark.parametrize(
    "line", ["{s:.6f}", "{i} {s:.6f} 0.012", "{s:.6f}\t0.0{j}", "{i},{s:.6f},0.0{j},", "{i};{s:e}"]
)
def test_the_column_of_times_is_found(line: str) -> None:
    lines = ["# times", *(line.format(i=i, j=i % 3, s=5 + i / 20) for i in range(30)), ""]
    assert stamp_column(lines, "times.txt") == pytest.approx(5 + np.arange(30) / 20, abs=1e-6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.0 0.1", "0.1 0.2", "0.2 0.3"], "no single column of increasing times"),
        (["0.0", "0.1 0.2"], "times.txt:2: expected one time stamp, found '0.1 0.2'"),
        (["0.0 1 2", "0.1"], "times.txt:2: expected 3 numbers as in the lines before"),
        (["", "# nothing"], "found no line of numbers"),
        (["0.0", "inf"], "times.txt:2"),
    ],
)
def test_lists_without_one_column_of_times_are_refused(lines: list[str], message: str) -> None:
    with pytest.raises(TimestampError, match=message):
        stamp_column(lines, "times.txt")


def test_summary_counts_gaps_jitter_and_what_was_left_out() -> None:
    stamps = np.array([10.0, 10.1, 10.2, 10.4, 10.5, 11.5])
    summary = summarize_times(stamps, "ms", duplicates=2, left_out=3)
    assert summary.rate_hz == pytest.approx(10.0) and summary.gaps == 2
    assert summary.longest_gap_s == pytest.approx(1.0) and summary.jitter_s == pytest.approx(
        0.0, abs=1e-12
    )
    text = "milliseconds, 10.000000 to 11.500000 s, 10 a second, 2 gaps (longest 1 s), jitter "
    assert str(summary).startswith(text) and str(summary).endswith("2 duplicates, 3 left out")
    jittered = np.arange(1000) * 0.05 + np.random.default_rng(0).normal(0, 0.003, 1000)
    assert summarize_times(jittered, "s").jitter_s == pytest.approx(0.003 * np.sqrt(2), rel=0.1)
    assert summarize_times(stamps[:1], "frames").rate_hz is None


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("time\n0.0\n0.1\n0.2\n", [0.0, 0.1, 0.2]),
        ("frame,received,timestamp\n0,7.0,5.0\n1,7.1,5.1\n2,7.2,5.2\n", [5.0, 5.1, 5.2]),
        ("# frame timestamp received\n0 5.0 7.0\n1 5.1 7.1\n2 5.2 7.2\n", [5.0, 5.1, 5.2]),
        ("2011-09-26 13:02:59.9\n2011-09-26 13:03:00.0\n", [1317042179.9, 1317042180.0]),
        ("2011-09-26T15:02:59.5+02:00\n2011-09-26T13:03:00Z\n", [1317042179.5, 1317042180.0]),
    ],
)
def test_headings_and_dates_in_lists_of_times_are_read(text: str, times: list[float]) -> None:
    assert stamp_column(text.splitlines(), "times.txt") == pytest.approx(times, abs=1e-6)


def test_one_outlier_does_not_change_the_unit() -> None:
    stamps = 1403715273262142 + 50_000.0 * FRAMES
    stamps[7] = 1e300
    assert find_unit(stamps, "s", "the list") == "us"
