"""Processes of this machine that share a job; results come in the order of the tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Protocol, TypeVar

from spslam.errors import SpslamError, WorkerError
from spslam.process.signals import children_spared, end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
_TaskIn = TypeVar("_TaskIn", contravariant=True)
_ResultOut = TypeVar("_ResultOut", covariant=True)

# Tasks that one process holds: the next one waits in its pipe while it works.
_HELD = 2
# Tasks per process that may be started before the oldest one is finished; limits the memory.
_WINDOW = 8
# Processes that a task may kill before it is given up.
_ATTEMPTS = 2


class Job(Protocol[_TaskIn, _ResultOut]):
    """Work for several processes; the object is pickled."""

    def start(self) -> AbstractContextManager[Callable[[_TaskIn], _ResultOut]]:
        """Prepare this process; the block gets the function that performs a task."""
        ...


@dataclass(frozen=True)
class Crashed:
    """The result of a task that killed each process that tried it.

    Attributes:
        reason: how the last process ended, in a few words.
    """

    reason: str


def cores() -> list[int]:
    """Return the indices of the cores that this process may use; empty if they are unknown."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def core_count() -> int:
    """Return the number of cores that this process may use."""
    return len(cores()) or os.cpu_count() or 1


def in_order(
    job: Job[Task, Result], tasks: Iterable[Task], workers: int
) -> Generator[Result | Crashed]:
    """Perform tasks and yield their results in the order of the tasks.

    One worker is this process itself. Several workers are processes; the system chooses their
    cores, because several commands may run at a time. Closing the iterator ends them. A process
    that dies is replaced.

    Args:
        job: the job.
        tasks: tasks, read as they are needed.
        workers: number of processes, at least 1.

    Raises:
        WorkerError: a process cannot start.
        SpslamError: raised by the job.
    """
    if workers == 1:
        with job.start() as work:
            for task in tasks:
                yield work(task)
        return
    team = _Team(job, workers)
    try:
        yield from team.run(iter(tasks))
    finally:
        team.end()


class _Worker(Generic[Task]):
    """A process, and the tasks that it holds, by index."""

    def __init__(self, job: Job[Task, Any]) -> None:
        # Not fork: it does not work with the threads of inference engines.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(job, other), daemon=True)
        with children_spared():
            self.process.start()
        # Keep only the worker's end open, so that each process notices the end of the other.
        other.close()
        self.ready = False
        self.held: deque[tuple[int, Task]] = deque()

    def send(self, index: int, task: Task) -> None:
        self.held.append((index, task))
        # A dead process is noticed where its results are read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send((index, task))

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


class _Team(Generic[Task, Result]):
    def __init__(self, job: Job[Task, Result], workers: int) -> None:
        self._job = job
        self._workers = [_Worker[Task](job) for _ in range(workers)]
        self._results: dict[int, Result | Crashed] = {}
        self._deaths: dict[int, int] = {}

    def run(self, tasks: Iterator[Task]) -> Iterator[Result | Crashed]:
        started = finished = 0
        left = True
        window = _WINDOW * len(self._workers)
        while True:
            while left and started - finished < window and (free := self._free()) is not None:
                try:
                    task = next(tasks)
                except StopIteration:
                    left = False
                    break
                free.send(started, task)
                started += 1
            if finished in self._results:
                yield self._results.pop(finished)
                finished += 1
            elif not left and finished == started:
                return
            else:
                self._receive()

    def end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.end()

    def _free(self) -> _Worker[Task] | None:
        """Return the worker with the fewest tasks; None if all have enough."""
        least = min(self._workers, key=lambda worker: len(worker.held))
        return least if len(least.held) < _HELD else None

    def _receive(self) -> None:
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection)):
            assert isinstance(connection, Connection)
            worker = by_connection[connection]
            try:
                kind, value = connection.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker)
                continue
            if kind == "error":
                raise value
            if kind == "ready":
                worker.ready = True
                continue
            index, _ = worker.held.popleft()
            self._results[index] = value

    def _replace(self, worker: _Worker[Task]) -> None:
        """Give the tasks of a dead process to a new one; give up a task that killed several."""
        worker.end()
        reason = _ending(worker.process.exitcode)
        if not worker.ready:
            raise WorkerError(
                f"a worker process {reason} before it could begin: if memory ran out, use fewer "
                "workers. What was finished is kept"
            )
        held = list(worker.held)
        if held:
            first = held[0][0]
            self._deaths[first] = self._deaths.get(first, 0) + 1
            if self._deaths[first] >= _ATTEMPTS:
                self._results[first] = Crashed(f"its process {reason} {_ATTEMPTS} times")
                del held[0]
        replacement = _Worker[Task](self._job)
        self._workers[self._workers.index(worker)] = replacement
        for index, task in held:
            replacement.send(index, task)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _serve(job: Job[Any, Any], connection: Connection) -> None:
    """Perform the tasks of a connection until it is closed."""
    end_with_parent()
    try:
        with job.start() as work:
            connection.send(("ready", None))
            while True:
                _, task = connection.recv()
                connection.send(("result", work(task)))
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        # The parent process ended or is stopping.
        pass
    except SpslamError as error:
        _report(connection, error)
    except Exception:
        # The parent shows the traceback of this process: not every exception can be pickled.
        _report(connection, RuntimeError(traceback.format_exc()))


def _report(connection: Connection, error: Exception) -> None:
    with suppress(OSError):
        connection.send(("error", error))
