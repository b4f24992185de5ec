import logging
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.errors import FrameError
from spslam.frame import Frame, Observations
from spslam.run.prefetch import prepared

CAMERA = Camera(8, 6, 5.0, 5.0, 4.0, 3.0)
NAMES = {"read ahead", "observe ahead", "observe_0"}


class Frames:
    """Frames 0, 1, 2 … at intervals of `period_s`; reading fails at `fails_at`."""

    def __init__(self, count: int, fails_at: int | None = None, period_s: float = 0.01) -> None:
        self.count, self.fails_at, self.period_s = count, fails_at, period_s
        self.read: list[int] = []

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.read.append(index)
            if index == self.fails_at:
                raise FrameError("the disk is gone")
            yield Frame(
                index, self.period_s * index, CAMERA, np.full((6, 8), index % 256, np.uint8)
            )


class Clock:
    """A real-time clock that only `advance` moves: the load of the machine has no effect."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.asleep = False
        self._changed = threading.Condition()
        monkeypatch.setattr("spslam.run.prefetch.monotonic", lambda: self.now)
        monkeypatch.setattr("spslam.run.prefetch.sleep", self._sleep)

    def advance(self, seconds: float) -> None:
        """Move the clock once the camera waits for its next stamp."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.asleep, 30), "no thread waits for a stamp"
            self.asleep = False
            self.now += seconds
            self._changed.notify_all()

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            until = self.now + seconds - 1e-9
            while self.now < until:
                self.asleep = True
                self._changed.notify_all()
                assert self._changed.wait(30), "the clock does not move"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def wait_for(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true within half a minute."""
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(1e-3)
    return condition()


def numbered(number: int) -> Observations:
    """Observations of no keypoints, recognized by their number."""
    none = np.zeros(0)
    return Observations(
        index=number,
        timestamp=0.0,
        pixels=np.zeros((0, 2)),
        descriptors=np.zeros((0, 32), np.float32),
        scores=np.zeros(0, np.float32),
        relative_sigma=np.ones(0, np.float32),
        u_right=none,
        depth=none,
        delays=none,
    )


def observe_index(frame: Frame) -> Observations:
    return numbered(frame.index)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & NAMES


def test_frames_are_processed_in_order_in_their_thread() -> None:
    where: set[str] = set()

    def observe(frame: Frame) -> Observations:
        where.add(threading.current_thread().name)
        return numbered(10 * frame.index)

    with prepared(Frames(20), observe) as items:
        seen = [(item.frame.index, item.observations.index) for item in items]
    assert seen == [(i, 10 * i) for i in range(20)]
    assert where == {"observe_0"}
    assert threads() == set()


def test_reading_and_feature_times_are_measured_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = threading.local()

    def spend(seconds: float) -> None:
        spent.seconds = getattr(spent, "seconds", 0.0) + seconds

    def read() -> Iterator[Frame]:
        for frame in Frames(3):
            spend(0.007)
            yield frame

    def observe(frame: Frame) -> Observations:
        spend(0.03)
        return numbered(0)

    # Each thread has its own clock, which only counts its own work.
    monkeypatch.setattr("spslam.run.prefetch.perf_counter", lambda: getattr(spent, "seconds", 0.0))
    with prepared(read(), observe) as items:
        times = [(item.read_ms, item.features_ms) for item in items]
    assert times == [pytest.approx((7, 30))] * 3


@pytest.mark.parametrize("max_concurrency", [1, 3])
@pytest.mark.parametrize("live", [False, True])
def test_errors_of_reading_are_raised_at_their_frame(live: bool, max_concurrency: int) -> None:
    seen: list[int] = []
    frames = Frames(9, fails_at=4, period_s=0.03)
    dropped = (lambda frame: None) if live else None
    with (
        pytest.raises(FrameError, match="disk"),
        prepared(frames, observe_index, dropped, max_concurrency) as items,
    ):
        seen.extend(item.frame.index for item in items)
    assert seen == [0, 1, 2, 3] or live
    assert threads() == set()


@pytest.mark.parametrize("max_concurrency", [1, 2, 5])
def test_errors_of_features_are_raised_at_their_frame(max_concurrency: int) -> None:
    def observe(frame: Frame) -> Observations:
        if frame.index == 3:
            raise ZeroDivisionError("a bug")
        return numbered(0)

    seen = []
    with (
        pytest.raises(ZeroDivisionError),
        prepared(Frames(9), observe, max_concurrency=max_concurrency) as items,
    ):
        for item in items:
            seen.append(item.frame.index)
    assert seen == [0, 1, 2]
    assert threads() == set()


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_several_frames_are_processed_in_parallel_and_returned_in_order(count: int) -> None:
    """Three threads meet at a barrier, where fewer would wait forever; the third is the fastest."""
    together = threading.Barrier(3)

    def observe(frame: Frame) -> Observations:
        if frame.index < count - count % 3:
            together.wait(timeout=30)
        time.sleep(0.01 * (2 - frame.index % 3))
        return numbered(frame.index)

    with prepared(Frames(count), observe, max_concurrency=3) as items:
        seen = [(item.frame.index, item.observations.index) for item in items]
    assert seen == [(i, i) for i in range(count)]
    assert threads() == set()


def test_real_time_processes_one_frame_at_a_time() -> None:
    """A second frame in work would delay the next one."""
    busy = threading.Lock()

    def observe(frame: Frame) -> Observations:
        assert busy.acquire(blocking=False)
        time.sleep(0.002)
        busy.release()
        return numbered(0)

    with prepared(Frames(5), observe, lambda frame: None, max_concurrency=3) as items:
        assert len(list(items)) > 0


def test_threads_read_few_frames_ahead_and_end_with_the_block() -> None:
    frames = Frames(1000)
    with prepared(frames, observe_index) as items:
        next(items)
        time.sleep(0.2)
        assert threads() == NAMES
    assert threads() == set()
    assert len(frames.read) <= 10


def test_real_time_frames_arrive_at_their_stamps(clock: Clock) -> None:
    dropped: list[int] = []
    seen = []
    with prepared(
        Frames(8, period_s=0.05), observe_index, lambda frame: dropped.append(frame.index)
    ) as items:
        for item in items:
            seen.append((item.frame.index, clock.now))
            if len(seen) < 8:
                clock.advance(0.05)
    assert [index for index, _ in seen] == list(range(8))
    assert dropped == []
    # No frame arrives before its stamp.
    assert [when for _, when in seen] == pytest.approx([0.05 * index for index, _ in seen])


def test_late_frames_are_dropped_and_counted(clock: Clock) -> None:
    """Tracking a frame takes five frame intervals; the newest frame is tracked each time."""
    dropped: list[int] = []
    seen = []
    with prepared(
        Frames(40, period_s=0.02), observe_index, lambda frame: dropped.append(frame.index)
    ) as items:
        for item in items:
            seen.append(item.frame.index)
            if seen[-1] == 39:
                continue
            clock.advance(0.1)
            came = min(seen[-1] + 5, 39)
            assert wait_for(
                lambda: len(dropped) == came - len(seen)  # noqa: B023
            ), "all but the newest are dropped"
    assert seen == [0, 5, 10, 15, 20, 25, 30, 35, 39]
    assert sorted(seen + dropped) == list(range(40)), (
        "every frame is either tracked or dropped, once"
    )


def test_frames_with_slow_features_are_dropped_too() -> None:
    dropped: list[int] = []

    def slow(frame: Frame) -> Observations:
        time.sleep(0.05)
        return numbered(0)

    with prepared(
        Frames(20, period_s=0.01), slow, lambda frame: dropped.append(frame.index)
    ) as items:
        seen = [item.frame.index for item in items]
    assert sorted(seen + dropped) == list(range(20))
    assert len(dropped) >= 10


def test_a_frame_far_in_the_future_is_reported_and_the_wait_can_be_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = threading.Event()
    late = Frames(2, period_s=50_000.0)
    with (
        caplog.at_level(logging.WARNING),
        prepared(late, observe_index, lambda frame: None, stop=stop.is_set) as items,
    ):
        assert next(items).frame.index == 0
        while "frame 1 comes in" not in caplog.text:
            time.sleep(0.01)
        stop.set()
        assert next(items, None) is None
    assert "by its time stamp, and --realtime waits for it: drop --realtime" in caplog.text
    # Leaving the block ends the wait.
    with prepared(late, observe_index, lambda frame: None) as items:
        next(items)
    assert not threads()
