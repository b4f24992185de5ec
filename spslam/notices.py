"""Notices: what was dropped, guessed, ignored, scaled or doubted.

A notice is a warning of the log with a topic and a count. The command line prints it, a run keeps it in
`metrics.json`. Programs that use spslam as a library get it through `logging`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_TOPIC, _COUNT = "notice_topic", "notice_count"


@dataclass(frozen=True)
class Notice:
    """Something that the user did not ask for.

    Attributes:
        topic: what kind, for programs: `duplicate_stamps`, `time_unit`, ….
        count: how many things it speaks of (images, rows, frames); 1 for a single decision.
        text: one line for people.
    """

    topic: str
    count: int
    text: str


def notice(logger: logging.Logger, topic: str, message: str, *args: object, count: int = 1) -> None:
    """Log a warning that the command line prints and that `metrics.json` keeps.

    Args:
        logger: of the module that noticed it.
        topic: what kind, snake_case.
        message, args: as for `logging`; one line that names the cause and what to do.
        count: how many things it speaks of.
    """
    logger.warning(message, *args, extra={_TOPIC: topic, _COUNT: count}, stacklevel=2)


class NoticeHandler(logging.Handler):
    """Collects the notices of a logger, each once, in their order.

    Args:
        show: called with each new notice.

    Attributes:
        notices: what was collected.
    """

    def __init__(self, show: Callable[[Notice], None] | None = None) -> None:
        super().__init__(logging.WARNING)
        self.notices: list[Notice] = []
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
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
    """Let `show` see every notice of spslam inside."""
    handler = NoticeHandler(show)
    logger = logging.getLogger("spslam")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
