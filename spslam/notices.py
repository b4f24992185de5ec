"""Notices: warnings about data that were dropped, guessed, ignored, scaled or doubted.

A notice is a warning of the log with a topic and a count. The command line prints it, and a run
stores it in `metrics.json`. Programs that use spslam as a library receive it through `logging`.
`counted` writes numbers in messages of all kinds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Attributes of a log record that make it a notice.
_TOPIC, _COUNT = "notice_topic", "notice_count"


@dataclass(frozen=True)
class Notice:
    """A decision or change that the user did not request.

    Attributes:
        topic: kind of the notice, for programs: `duplicate_stamps`, `time_unit`, ….
        count: number of affected images, rows or frames; 1 for a single decision.
        text: one line for people.
    """

    topic: str
    count: int
    text: str


def notice(logger: logging.Logger, topic: str, message: str, *args: object, count: int = 1) -> None:
    """Log a warning that the command line prints and that `metrics.json` stores.

    Args:
        logger: logger of the calling module.
        topic: kind of the notice, snake_case.
        message: format string as for `logging`; one line that says the cause and what to do.
        *args: arguments of the format string.
        count: number of affected images, rows or frames.
    """
    logger.warning(message, *args, extra={_TOPIC: topic, _COUNT: count}, stacklevel=2)


def counted(count: object, one: str, many: str = "") -> str:
    """Write a number with what it counts, for a message: `1 image`, `3 images`.

    Args:
        count: the number.
        one: the words that follow the number 1: "image", "entry", "image is".
        many: the words that follow other numbers: "entries", "images are"; default: `one` with s.
    """
    return f"{count} {plural(count, one, many)}"


def plural(count: object, one: str, many: str = "") -> str:
    """Return the words of `counted` without the number."""
    return one if count == 1 else many or f"{one}s"


def notice_renamed(
    logger: logging.Logger, where: object, old: str, new: str, count: int = 1
) -> None:
    """Log that something was given under its old name, which is accepted for one release.

    Args:
        logger: logger of the calling module.
        where: the file, option or object that uses the old name.
        old: the name that was given.
        new: the name of today.
        count: number of old names; one of them is printed.
    """
    text = "%s: %s is called %s now; the old name ends with the next release"
    notice(logger, "renamed_key", text, where, old, new, count=count)


class NoticeHandler(logging.Handler):
    """Log handler that collects notices in order, each of them once.

    Args:
        show: called with each new notice.

    Attributes:
        notices: the collected notices.
    """

    def __init__(self, show: Callable[[Notice], None] | None = None) -> None:
        super().__init__(logging.WARNING)
        self.notices: list[Notice] = []
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Collect the notice of a log record, if it is one."""
        topic = getattr(record, _TOPIC, None)
        if topic is None:
            return
        found = Notice(
            topic, int(getattr(record, _COUNT, 1)), " ".join(record.getMessage().split())
        )
        if found in self.notices:
            return
        self.notices.append(found)
        if self._show is not None:
            self._show(found)


@contextmanager
def shown_notices(show: Callable[[Notice], None]) -> Iterator[NoticeHandler]:
    """Call `show` with every notice of spslam inside of the block."""
    handler = NoticeHandler(show)
    logger = logging.getLogger("spslam")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@contextmanager
def captured_notices() -> Iterator[NoticeHandler]:
    """Collect the notices of spslam inside of the block, and show them to no other handler."""
    handler = NoticeHandler()
    logger = logging.getLogger("spslam")
    others = [other for other in logger.handlers if isinstance(other, NoticeHandler)]
    for other in others:
        logger.removeHandler(other)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        for other in others:
            logger.addHandler(other)
