"""Execute runs in parallel: processes on this machine, or workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from threading import Event
from typing import Protocol
from uuid import uuid4

from spslam.benchmark.perform import Finished, Request, StoppedError, perform
from spslam.errors import BenchmarkError, MissingDependencyError
from spslam.notices import counted

# Time to wait for the Dask scheduler, seconds.
_CONNECT_S = 10.0
# Ask the Dask scheduler only on every n-th check for a stop: it costs more than a local flag.
_ASK_EVERY = 5


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
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._workers = workers or len(self._cores) or os.cpu_count() or 1

    @property
    def description(self) -> str:
        """Number of runs at a time, as text."""
        return f"{self._workers} at a time"

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """See `Pool`."""
        stop = Event()
        cores: SimpleQueue[int | None] = SimpleQueue()
        for index in range(self._workers):
            # With more processes than cores, the operating system assigns them.
            cores.put(self._cores[index] if self._workers <= len(self._cores) else None)

        def one(request: Request) -> Finished:
            core = cores.get()
            try:
                return perform(request, core, stop.is_set)
            finally:
                cores.put(core)

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
        connect_s: maximum time to wait for its answer, seconds.

    Raises:
        MissingDependencyError: Dask is not installed.
        BenchmarkError: no scheduler answers.
    """

    def __init__(self, address: str, connect_s: float = _CONNECT_S) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise MissingDependencyError(
                "--scheduler needs Dask: pip install 'spslam[bench]'"
            ) from None
        self._address = address
        try:
            self._client = Client(address, timeout=connect_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise BenchmarkError(
                f"no Dask scheduler answers at {address} within {connect_s:g} s "
                f"({type(error).__name__}): expected the address that `dask scheduler` prints, "
                "for example tcp://10.0.0.1:8786"
            ) from None

    @property
    def description(self) -> str:
        """Number of workers, as text."""
        return f"Dask, {counted(len(self._client.scheduler_info()['workers']), 'worker')}"

    def run(self, requests: Sequence[Request]) -> Generator[Finished]:
        """See `Pool`."""
        from distributed import Event as SharedEvent
        from distributed import as_completed as dask_as_completed

        name = f"spslam-{uuid4()}"
        stop = SharedEvent(name, client=self._client)
        tasks = {
            self._client.submit(
                _on_worker, request, name, key=f"{request.id}-{name}", pure=False
            ): request
            for request in requests
        }
        try:
            for future in dask_as_completed(list(tasks), loop=self._client.loop):
                error = future.exception()
                request = tasks[future]
                yield (
                    future.result()
                    if error is None
                    else Finished(request.id, f"{type(error).__name__}: {error}")
                )
        finally:
            stop.set()
            self._client.cancel(list(tasks), force=True)
            self._client.close()


def _on_worker(request: Request, stop: str) -> Finished:
    from distributed import Event as SharedEvent

    event, requested = SharedEvent(stop), 0

    def stopped() -> bool:
        nonlocal requested
        requested += 1
        return requested % _ASK_EVERY == 0 and bool(event.is_set())

    try:
        return perform(request, stopped=stopped)
    except StoppedError:
        return Finished(request.id, "stopped")
