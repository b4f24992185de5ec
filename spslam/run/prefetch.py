"""Prefetching: threads read frames and extract features ahead of tracking.

Neither depends on a pose, so the results are the same bytes however far ahead the threads are. In
real time, frames come at their time stamps, and those that come while tracking is busy are dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from threading import Condition, Event, Thread
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Generic, TypeVar

from spslam.callbacks import never
from spslam.frame import Frame, Observations
from spslam.interfaces import LiveSource
from spslam.notices import notice
from spslam.process.signals import leave_thread_behind

if TYPE_CHECKING:
    from spslam.slam.system import Slam
    from spslam.slam.track_results import TrackResult

_LOG = logging.getLogger(__name__)
Item = TypeVar("Item")

# Maximum number of frames read ahead, and of frames extracted ahead.
_DEPTH = 2
# In real time, report a wait for a frame that is longer than this, seconds.
_REPORT_WAIT_S = 5.0
# Maximum length of a single wait, seconds: without a limit, Windows blocks ^C during a wait.
_LONGEST_WAIT_S = 0.2
# Leave a thread behind if it has not ended this long after the stop, seconds: its read may block.
_PATIENCE_S = 0.5


@dataclass(frozen=True, eq=False)
class PrefetchedFrame:
    """A prefetched frame.

    Attributes:
        frame: as it was read.
        observations: its features.
        read_ms: time of reading it, milliseconds.
        features_ms: time of extracting its features, milliseconds.
    """

    frame: Frame
    observations: Observations
    read_ms: float
    features_ms: float


@contextmanager
def prepared(
    frames: Iterable[Frame],
    observe: Callable[[Frame], Observations],
    on_drop: Callable[[Frame], None] | None = None,
    max_concurrency: int = 1,
    stop: Callable[[], bool] = never,
) -> Iterator[Iterator[PrefetchedFrame]]:
    """Prefetch frames with their features, in order; an error is raised in place of its frame.

    Args:
        frames: the frames to read.
        observe: extracts the features of a frame; called in other threads.
        on_drop: None: return every frame, as fast as possible. Else return frames in real time:
            those of a live camera (always) as they come, those of a recording at their time stamps.
            The clock starts when the first frame has its features. Of the frames that wait for
            extraction, and of those that wait for tracking, only the newest is kept; `on_drop` is
            called with each dropped frame, in either thread.
        max_concurrency: number of frames whose features are extracted at the same time; 1 in real
            time, where a second frame would delay the first.
        stop: called during each wait; True ends the frames. A read that does not return then is
            left behind.

    Yields:
        The iterator over the prefetched frames.
    """
    ended = Event()

    def done_with() -> bool:
        return ended.is_set() or stop()

    source: Iterable[tuple[Frame, float]] = _timed(frames)
    drop_read: Callable[[tuple[Frame, float]], None] | None = None
    drop_observed: Callable[[PrefetchedFrame], None] | None = None
    if isinstance(frames, LiveSource):
        source = _seen(frames, observe, done_with)
    elif on_drop is not None:
        source = _played(source, observe, done_with)
    if on_drop is not None:

        def drop_read(item: tuple[Frame, float]) -> None:
            on_drop(item[0])

        def drop_observed(item: PrefetchedFrame) -> None:
            on_drop(item.frame)

    with (
        _closing(_ahead(source, "read ahead", drop_read, stop)) as read,
        _closing(
            _observed(read, observe, max_concurrency if on_drop is None else 1, stop)
        ) as observed,
        # This thread waits for the two stages before it, so it needs more patience.
        _closing(_ahead(observed, "observe ahead", drop_observed, stop, 3 * _PATIENCE_S)) as done,
    ):
        try:
            yield done
        finally:
            # Before the threads are joined: one of them may be waiting for a later frame.
            ended.set()


def track_prefetched(slam: Slam, item: PrefetchedFrame) -> tuple[TrackResult, float]:
    """Track a prefetched frame; return the result and the time from image to pose, milliseconds."""
    start = perf_counter()
    slam.statistics.add("features", item.features_ms)
    result = slam.track(item.frame, item.observations)
    return result, item.features_ms + (perf_counter() - start) * 1e3


def _timed(frames: Iterable[Frame]) -> Iterator[tuple[Frame, float]]:
    start = perf_counter()
    for frame in frames:
        yield frame, (perf_counter() - start) * 1e3
        start = perf_counter()


def _seen(
    frames: LiveSource, observe: Callable[[Frame], object], stop: Callable[[], bool]
) -> Iterator[tuple[Frame, float]]:
    """Yield the frames of a live camera, with the time since each was taken, milliseconds."""
    try:
        first = frames.begin(stop)
        if first is None:
            return
        # Compile models and allocate memory before the frames count.
        observe(first)
        for frame in frames:
            taken = monotonic() if frame.captured_s is None else frame.captured_s
            yield frame, (monotonic() - taken) * 1e3
    finally:
        frames.close()


def _played(
    frames: Iterable[tuple[Frame, float]],
    observe: Callable[[Frame], object],
    stop: Callable[[], bool],
) -> Iterator[tuple[Frame, float]]:
    """Yield frames at their time stamps, like a live camera."""
    begin: float | None = None
    for frame, read_ms in frames:
        if begin is None:
            # Compile models and allocate memory before the clock starts.
            observe(frame)
            begin = monotonic() - frame.timestamp
        _wait_until(begin + frame.timestamp, frame, stop)
        if stop():
            return
        yield replace(frame, captured_s=begin + frame.timestamp), read_ms


def _wait_until(moment: float, frame: Frame, stop: Callable[[], bool]) -> None:
    """Sleep until `moment` (monotonic clock, seconds) or a stop; report a long wait."""
    seconds = moment - monotonic()
    if seconds > _REPORT_WAIT_S:
        text = (
            "frame %d comes in %.5g s by its time stamp, and --realtime waits for it: "
            "drop --realtime, or give the right --time-unit"
        )
        notice(_LOG, "long_wait", text, frame.index, seconds)
    while (seconds := moment - monotonic()) > _LONGEST_WAIT_S and not stop():
        sleep(_LONGEST_WAIT_S)
    if not stop():
        sleep(max(seconds, 0.0))


@contextmanager
def _closing(generator: Generator[Item]) -> Iterator[Generator[Item]]:
    try:
        yield generator
    finally:
        # A thread that was left behind still executes its generator: ValueError.
        with suppress(ValueError):
            generator.close()


def _observed(
    frames: Iterator[tuple[Frame, float]],
    observe: Callable[[Frame], Observations],
    max_concurrency: int,
    stop: Callable[[], bool],
) -> Generator[PrefetchedFrame]:
    def prepare(frame: Frame, read_ms: float) -> PrefetchedFrame:
        start = perf_counter()
        observations = observe(frame)
        return PrefetchedFrame(frame, observations, read_ms, (perf_counter() - start) * 1e3)

    under_way: deque[Future[PrefetchedFrame]] = deque()
    pool = ThreadPoolExecutor(max_concurrency, "observe")
    try:
        while True:
            try:
                item = next(frames, None)
            except Exception as error:
                # Raise the error after the frames before it.
                under_way.append(Future())
                under_way[-1].set_exception(error)
                item = None
            if item is None:
                break
            under_way.append(pool.submit(prepare, *item))
            if len(under_way) == max_concurrency:
                if not _waited(lambda: _is_done(under_way[0]), stop):
                    return
                yield under_way.popleft().result()
        while under_way and _waited(lambda: _is_done(under_way[0]), stop):
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if _waited(lambda: all(_is_done(future) for future in under_way), stop, _PATIENCE_S):
            pool.shutdown()
        else:
            leave_thread_behind()


def _is_done(future: Future[PrefetchedFrame]) -> bool:
    """Wait briefly for a future and return whether it is done."""
    # `wait` does not return early for a cancelled future, so check `done` first.
    return future.done() or bool(wait([future], _LONGEST_WAIT_S).done)


def _waited(is_done: Callable[[], bool], stop: Callable[[], bool], patience_s: float = 0.0) -> bool:
    """Poll `is_done` until it is true, or until `patience_s` after `stop`; return whether done."""
    until: float | None = None
    while not is_done():
        if stop():
            until = until or monotonic() + patience_s
            if monotonic() >= until:
                return False
    return True


def _ahead(
    items: Iterable[Item],
    name: str,
    on_drop: Callable[[Item], None] | None,
    stop: Callable[[], bool],
    patience_s: float = _PATIENCE_S,
) -> Generator[Item]:
    """Prefetch items in a thread of this name and yield them in order; end at `stop`."""
    slots: _Slots[Item] = _Slots(_DEPTH if on_drop is None else 1, on_drop, stop)

    def work() -> None:
        try:
            for item in items:
                if not slots.put(item):
                    return
            slots.end(None)
        except Exception as error:
            slots.end(error)

    def is_done() -> bool:
        thread.join(_LONGEST_WAIT_S)
        return not thread.is_alive()

    thread = Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (item := slots.take()) is not None:
            yield item
    finally:
        slots.close()
        if not _waited(is_done, stop, patience_s):
            leave_thread_behind()


class _Slots(Generic[Item]):
    """A queue of items between two threads.

    Args:
        depth: maximum number of items in the queue.
        on_drop: None: `put` waits while the queue is full. Else `put` drops the oldest item and
            calls `on_drop` with it.
        stop: True ends `take` if the queue is empty.
    """

    def __init__(
        self, depth: int, on_drop: Callable[[Item], None] | None, stop: Callable[[], bool]
    ) -> None:
        self._items: deque[Item] = deque()
        self._depth = depth
        self._on_drop = on_drop
        self._stop = stop
        self._changed = Condition()
        self._ended = self._closed = False
        self._error: Exception | None = None

    def put(self, item: Item) -> bool:
        """Add an item; return False if the queue is closed."""
        with self._changed:
            while len(self._items) >= self._depth and not self._closed:
                if self._on_drop is not None:
                    self._on_drop(self._items.popleft())
                else:
                    self._changed.wait(_LONGEST_WAIT_S)
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed

    def end(self, error: Exception | None) -> None:
        """Mark the end of the items, with an error or None."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> Item | None:
        """Return the oldest item, after a wait if necessary; None at the end or at `stop`.

        Raises:
            Exception: the error that ended the items, after the last of them.
        """
        with self._changed:
            while not self._items:
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
                if self._stop():
                    return None
                self._changed.wait(_LONGEST_WAIT_S)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Close the queue: `put` returns False from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
