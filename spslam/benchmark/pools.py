"""Execute runs in parallel: processes on this machine, or workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from queue import SimpleQueue
from threading import Event
from typing import Protocol

from spslam.benchmark.perform import Finished, Request, StoppedError, perform
from spslam.process.cluster import Cluster
from spslam.process.workers import core_count, cores


class Pool(Protocol):
    """Executes several runs at a time."""

    @property
    def description(self) -> str:
        """Description for the log."""
        ...

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """Yield each run as it finishes, in any order; closing the iterator ends the others."""
        ...


class LocalPool:
    """Processes on this machine, each on its own core if there are enough cores.

    Args:
        workers: number of runs at a time; None: one per core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._cores = cores()
        self._workers = workers or core_count()

    @property
    def description(self) -> str:
        """Number of runs at a time, as text."""
        return f"{self._workers} at a time"

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """See `Pool`."""
        stop = Event()
        free: SimpleQueue[int | None] = SimpleQueue()
        for index in range(self._workers):
            # With more processes than cores, the operating system assigns them.
            free.put(self._cores[index] if self._workers <= len(self._cores) else None)

        def one(request: Request) -> Finished:
            core = free.get()
            try:
                return perform(request, core, stop.is_set)
            finally:
                free.put(core)

        # The threads only wait for processes.
        with ThreadPoolExecutor(self._workers, thread_name_prefix="suite") as executor:
            futures = [executor.submit(one, request) for request in requests]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                stop.set()
                executor.shutdown(wait=True, cancel_futures=True)


class DaskPool:
    """Workers of a Dask cluster.

    If a worker dies, another repeats its runs; Dask gives up on a run after four dead workers.

    Args:
        address: address of the scheduler, for example `tcp://10.0.0.1:8786`.
        connect_s: maximum time to wait for its answer, seconds; None: as `Cluster`.

    Raises:
        MissingDependencyError: Dask is not installed.
        SchedulerError: no scheduler answers.
    """

    def __init__(self, address: str, connect_s: float | None = None) -> None:
        self._cluster = Cluster(address, connect_s)

    @property
    def description(self) -> str:
        """Number of workers, as text."""
        return self._cluster.description

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """See `Pool`."""
        runs = self._cluster.run(_on_worker, requests, lambda request: request.id)
        with closing(runs):
            for request, found in runs:
                yield (
                    Finished(request.id, f"{type(found).__name__}: {found}")
                    if isinstance(found, BaseException)
                    else found
                )


def _on_worker(request: Request, stopped: Callable[[], bool]) -> Finished:
    try:
        return perform(request, stopped=stopped)
    except StoppedError:
        return Finished(request.id, "stopped")
