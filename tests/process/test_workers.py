"""Processes that share a job: order, deaths and errors."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psutil
import pytest
from square_job import SquareJob

from spslam.process.workers import Crashed, in_order


def test_results_come_in_the_order_of_the_tasks_and_deaths_are_survived(tmp_path: Path) -> None:
    tasks = list(range(30))
    found = list(in_order(SquareJob(tmp_path), tasks, 2))
    assert found[13] == Crashed("its process was killed by SIGKILL 2 times")
    assert [one for index, one in enumerate(found) if index != 13] == [
        number * number for number in tasks if number != 13
    ]
    # One death is forgiven.
    assert (tmp_path / "7").read_text() == "xx"


def test_few_tasks_are_read_ahead_and_closing_ends_the_processes(tmp_path: Path) -> None:
    taken: list[int] = []

    def tasks() -> object:
        for number in range(20, 1000):
            taken.append(number)
            yield number

    before = len(psutil.Process().children())
    with closing(in_order(SquareJob(tmp_path), tasks(), 2)) as results:  # type: ignore[arg-type]
        assert next(results) == 400
    assert len(taken) < 40
    # The resource tracker of multiprocessing stays.
    assert len(psutil.Process().children()) <= before + 1


def test_an_error_of_a_process_is_raised_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"in square(.|\n)*ValueError: negative"):
        list(in_order(SquareJob(tmp_path), [1, 2, -1], 2))
    with pytest.raises(ValueError, match="negative"):
        list(in_order(SquareJob(tmp_path), [-1], 1))
