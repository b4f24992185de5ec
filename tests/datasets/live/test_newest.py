"""The newest item of a source that does not wait."""

import threading
import time
from collections.abc import Callable

import pytest

from spslam.datasets.live import newest
from spslam.datasets.live.device import CameraLostError
from spslam.datasets.live.newest import Newest


def counting(count: int, released: list[bool]) -> tuple[Newest[int], Callable[[int], None]]:
    """A source of the items 0 to `count` - 1, and a function that lets it give that many more."""
    allowed = threading.Semaphore(0)
    items = iter(range(count))

    def read() -> int | None:
        if not allowed.acquire(timeout=0.05):
            return None
        item = next(items, None)
        if item is None:
            raise CameraLostError("the camera is gone")
        return item

    def more(number: int) -> None:
        allowed.release(number)
        until = time.monotonic() + 5.0
        while allowed._value and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(0.05)

    return Newest(read, lambda: released.append(True), "camera:0"), more


def test_only_the_newest_is_kept_and_the_others_are_counted() -> None:
    released: list[bool] = []
    source, more = counting(100, released)
    source.start()
    more(3)
    assert source.take() == (0, 2), "before it begins, nothing counts"
    more(2)
    source.begin()
    more(4)
    assert source.take() == (3, 8)
    more(1)
    assert source.take() == (4, 9)
    assert source.dropped == [0, 1, 2]
    source.close()
    assert released == [True]
    assert source.take() is None


def test_the_last_item_comes_before_the_error() -> None:
    source, more = counting(1, [])
    source.begin()
    more(2)
    assert source.take() == (0, 0)
    with pytest.raises(CameraLostError, match="is gone"):
        source.take()


def test_a_silent_source_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest, "PATIENCE_S", 0.3)
    source, _ = counting(1, [])
    source.begin()
    with pytest.raises(CameraLostError, match=r"camera:0 gave no image for 0 s: is it connected"):
        source.take()
    source.close()


def test_a_stop_ends_the_wait() -> None:
    source, _ = counting(1, [])
    source.begin()
    begun = time.monotonic()
    assert source.take(lambda: time.monotonic() > begun + 0.1) is None
    assert time.monotonic() < begun + 5.0
    source.close()
