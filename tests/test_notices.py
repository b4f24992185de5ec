import logging

from spslam.notices import Notice, NoticeHandler, notice, shown_notices

LOGGER = logging.getLogger("spslam.somewhere")


def test_notices_are_shown_and_kept_once_each_with_their_counts() -> None:
    shown: list[Notice] = []
    with shown_notices(shown.append) as handler:
        for _ in range(2):
            notice(LOGGER, "duplicate_stamps", "%d of %d images\nare left out", 3, 60, count=3)
        LOGGER.warning("a plain warning of the log")
        notice(LOGGER, "time_unit", "read as %s", "ns")
    notice(LOGGER, "later", "nobody listens any more")
    expected = [
        Notice("duplicate_stamps", 3, "3 of 60 images are left out"),
        Notice("time_unit", 1, "read as ns"),
    ]
    assert shown == handler.notices == expected


def test_a_notice_is_a_warning_of_the_calling_module(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        notice(LOGGER, "topic", "text")
    assert [(record.name, record.levelname, record.funcName) for record in caplog.records] == [
        ("spslam.somewhere", "WARNING", "test_a_notice_is_a_warning_of_the_calling_module")
    ]
    assert NoticeHandler().notices == []
