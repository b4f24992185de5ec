"""What happens beside tracking: reading frames and finding their features, in threads of their own.

Neither depends on a pose, so that it makes no difference to the bytes of a result how far ahead they are. In real time
frames come when their stamps say, and those that nobody has time for are dropped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Condition, Event, Thread
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Generic, TypeVar

from spslam.callbacks import never
from spslam.frame import Frame, Observations
from spslam.notices import notice
from spslam.process.signals import leave_thread_behind

if TYPE_CHECKING:
    from spslam.slam.system import Slam
    from spslam.slam.tracking import TrackResult

_LOG = logging.getLogger(__name__)
Item = TypeVar("Item")

# Frames that are read, and frames that have their features, before anybody asks for them.
_DEPTH = 2
# Waiting longer than this for a frame that comes in real time is told.
_TOLD_WAIT_S = 5.0
# Without a time-out, Windows lets no ^C through while a slow disk keeps us waiting.
_LONGEST_WAIT_S = 0.2
# A thread that is not done so long after it was time to stop is left behind: what it reads may never come.
_PATIENCE_S = 0.5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame that can be tracked.

    Attributes:
        frame: as it was read.
        observations: its features.
        read_ms, features_ms: how long reading it and finding them took.
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
    at_once: int = 1,
    stop: Callable[[], bool] = never,
) -> Iterator[Iterator[Prepared]]:
    """The frames with their features, in their order. Errors come out where their frame would have.

    Args:
        observe: finds the features of a frame; called in other threads.
        on_drop: None: every frame comes, as fast as it can be had. Else they come in real time, by their stamps from
            when the first one was observed; of those that wait to be observed, and to be tracked, only the newest is
            kept, and this is called with each of the others, by either thread.
        at_once: frames that are observed at the same time; in real time one is, for the next would make it wait.
        stop: asked while a frame is waited for; True ends the frames. Reading that does not return then is left behind.
    """
    ended = Event()

    def done_with() -> bool:
        return ended.is_set() or stop()

    source: Iterable[tuple[Frame, float]] = _timed(frames)
    drop_read: Callable[[tuple[Frame, float]], None] | None = None
    drop_observed: Callable[[Prepared], None] | None = None
    if on_drop is not None:
        source = _played(source, observe, done_with)

        def drop_read(item: tuple[Frame, float]) -> None:
            on_drop(item[0])

        def drop_observed(item: Prepared) -> None:
            on_drop(item.frame)

    with (
        _closing(_ahead(source, "read ahead", drop_read, stop)) as read,
        _closing(_observed(read, observe, at_once if on_drop is None else 1, stop)) as observed,
        # It waits for those before it.
        _closing(_ahead(observed, "observe ahead", drop_observed, stop, 3 * _PATIENCE_S)) as done,
    ):
        try:
            yield done
        finally:
            # Before the threads are joined: one of them may wait for a frame that comes much later.
            ended.set()


def track_prepared(slam: Slam, item: Prepared) -> tuple[TrackResult, float]:
    """Track a frame whose features are found; the result, and milliseconds from its image to its pose."""
    start = perf_counter()
    slam.statistics.add("features", item.features_ms)
    result = slam.track(item.frame, item.observations)
    return result, item.features_ms + (perf_counter() - start) * 1e3


def _timed(frames: Iterable[Frame]) -> Iterator[tuple[Frame, float]]:
    start = perf_counter()
    for frame in frames:
        yield frame, (perf_counter() - start) * 1e3
        start = perf_counter()


def _played(
    frames: Iterable[tuple[Frame, float]],
    observe: Callable[[Frame], object],
    stop: Callable[[], bool],
) -> Iterator[tuple[Frame, float]]:
    """Frames when their stamps say: the camera of a recorded sequence."""
    begin: float | None = None
    for frame, read_ms in frames:
        if begin is None:
            # Models are compiled and memory is taken before the clock runs.
            observe(frame)
            begin = monotonic() - frame.timestamp
        _wait_until(begin + frame.timestamp, frame, stop)
        if stop():
            return
        yield frame, read_ms


def _wait_until(moment: float, frame: Frame, stop: Callable[[], bool]) -> None:
    """Sleep until the clock shows `moment` or it is time to stop; a long wait is told, for it looks like a hang."""
    seconds = moment - monotonic()
    if seconds > _TOLD_WAIT_S:
        text = (
            "frame %d comes in %.5g s by its time stamp, and --realtime waits for it: drop --realtime, or give the "
            "right --time-unit"
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
        # One that is being worked on belongs to a thread that was left behind.
        with suppress(ValueError):
            generator.close()


def _observed(
    frames: Iterator[tuple[Frame, float]],
    observe: Callable[[Frame], Observations],
    at_once: int,
    stop: Callable[[], bool],
) -> Generator[Prepared]:
    def prepare(frame: Frame, read_ms: float) -> Prepared:
        start = perf_counter()
        observations = observe(frame)
        return Prepared(frame, observations, read_ms, (perf_counter() - start) * 1e3)

    under_way: deque[Future[Prepared]] = deque()
    pool = ThreadPoolExecutor(at_once, "observe")
    try:
        while True:
            try:
                item = next(frames, None)
            except Exception as error:
                # After the frames before it.
                under_way.append(Future())
                under_way[-1].set_exception(error)
                item = None
            if item is None:
                break
            under_way.append(pool.submit(prepare, *item))
            if len(under_way) == at_once:
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


def _is_done(future: Future[Prepared]) -> bool:
    """Whether a future is done, which is waited for for a moment."""
    # One that was cancelled is done, but nobody tells those that wait.
    return future.done() or bool(wait([future], _LONGEST_WAIT_S).done)


def _waited(is_done: Callable[[], bool], stop: Callable[[], bool], patience_s: float = 0.0) -> bool:
    """Ask until it is done, which is said, or, so much later, `stop` says that nobody waits any more."""
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
    """The items in their order, taken by a thread of this name before they are asked for; none that is not there yet
    once `stop` says so.
    """
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
    """Hands items from one thread to another.

    Args:
        depth: how many wait at most.
        on_drop: None: whoever puts one more waits. Else the oldest is dropped, which is told.
        stop: says that items which are not there yet are not wanted any more.
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
        """Add an item; False: nobody wants one any more."""
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
        """There is no further item, because of an error or not."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self) -> Item | None:
        """The oldest item, waiting for it if it must be; None: there is no further one, or it was time to stop.

        Raises:
            Exception: what ended the items, after the last of them.
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
        """Want nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
