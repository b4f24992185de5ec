"""Keep the newest item of a source that does not wait, for example a camera."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import Generic, TypeVar

from spslam.callbacks import never
from spslam.process.signals import leave_thread_behind

from .device import CameraLostError

Item = TypeVar("Item")

# Largest time without an image, seconds.
PATIENCE_S = 10.0
# Maximum length of a single wait, seconds: a stop is noticed after it.
_LONGEST_WAIT_S = 0.2
# Leave the thread behind if it has not ended this long after `close`, seconds: its read may block.
_CLOSING_S = 0.5


class Newest(Generic[Item]):
    """Reads items in a thread and keeps only the newest; the items are numbered from 0.

    Args:
        read: waits for the next item; None: none came for a while.
        release: called in the thread when it ends.
        what: name of the source, for messages.
        limit: number of items after which reading ends; None: no limit.

    Attributes:
        dropped: numbers of the items that a newer one replaced.
    """

    def __init__(
        self,
        read: Callable[[], Item | None],
        release: Callable[[], None],
        what: str,
        limit: int | None = None,
    ) -> None:
        self._read, self._release, self._what, self._limit = read, release, what, limit
        self.dropped: list[int] = []
        self._newest: tuple[int, Item] | None = None
        self._count = 0
        self._numbering = False
        self._closed = self._ended = False
        self._error: Exception | None = None
        self._changed = Condition()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread, once; items replace each other uncounted until `begin`."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="camera", daemon=True)
            self._thread.start()

    def begin(self) -> None:
        """Forget the items until now; the next one has the number 0."""
        with self._changed:
            if not self._numbering:
                self._newest, self._numbering = None, True
        self.start()

    def take(self, stop: Callable[[], bool] = never) -> tuple[int, Item] | None:
        """Return the newest item with its number, after a wait if necessary; None at the end.

        Args:
            stop: called during the wait; True ends it.

        Raises:
            CameraLostError: no item came for `PATIENCE_S`.
            Exception: the error that ended the reading.
        """
        until = monotonic() + PATIENCE_S
        with self._changed:
            while self._newest is None:
                if self._error is not None:
                    raise self._error
                if self._ended or self._closed or stop():
                    return None
                if monotonic() > until:
                    raise CameraLostError(
                        f"{self._what} gave no image for {PATIENCE_S:.0f} s"
                        f"{f' after image {self._count - 1}' if self._count else ''}: "
                        "is it connected, free and switched on?"
                    )
                self._changed.wait(_LONGEST_WAIT_S)
            item, self._newest = self._newest, None
            return item

    def close(self) -> None:
        """End the reading. A read that does not return is left behind."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is None:
            self._release()
            return
        self._thread.join(_CLOSING_S)
        if self._thread.is_alive():
            leave_thread_behind()

    def _work(self) -> None:
        error: Exception | None = None
        try:
            while not self._closed and self._put(self._read()):
                pass
        except Exception as found:
            error = found
        finally:
            with self._changed:
                self._ended, self._error = True, error
                self._changed.notify_all()
            self._release()

    def _put(self, item: Item | None) -> bool:
        """Keep an item; return whether to read on."""
        if item is None:
            return True
        with self._changed:
            if self._numbering:
                if self._newest is not None:
                    self.dropped.append(self._newest[0])
                self._newest = self._count, item
                self._count += 1
            else:
                self._newest = 0, item
            self._changed.notify_all()
            return self._limit is None or self._count < self._limit
