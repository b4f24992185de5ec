"""Workers of a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any
from uuid import uuid4

from spslam.errors import MissingDependencyError, SchedulerError
from spslam.notices import counted

# Time to wait for the Dask scheduler, seconds.
CONNECT_S = 10.0
# Ask the Dask scheduler only on every n-th check for a stop: it costs more than a local flag.
_ASK_EVERY = 5

# Performs a request on a worker. Its second argument returns whether the result is still needed.
Function = Callable[[Any, Callable[[], bool]], Any]


class Cluster:
    """Connection to a Dask cluster.

    If a worker dies, another repeats its tasks; Dask gives up on a task after four dead workers.

    Args:
        address: address of the scheduler, for example `tcp://10.0.0.1:8786`.
        connect_s: maximum time to wait for its answer, seconds; None: `CONNECT_S`.

    Raises:
        MissingDependencyError: Dask is not installed.
        SchedulerError: no scheduler answers.
    """

    def __init__(self, address: str, connect_s: float | None = None) -> None:
        connect_s = CONNECT_S if connect_s is None else connect_s
        try:
            from distributed import Client
        except ImportError:
            raise MissingDependencyError(
                "--scheduler needs Dask: pip install 'spslam[bench]'"
            ) from None
        try:
            self._client = Client(address, timeout=connect_s, set_as_default=False)
        except (OSError, ValueError) as error:
            raise SchedulerError(
                f"no Dask scheduler answers at {address} within {connect_s:g} s "
                f"({type(error).__name__}): expected the address that `dask scheduler` prints, "
                "for example tcp://10.0.0.1:8786"
            ) from None

    @property
    def description(self) -> str:
        """Number of workers, as text."""
        return f"Dask, {counted(self.workers, 'worker')}"

    @property
    def workers(self) -> int:
        """Number of workers that the scheduler has now."""
        return len(self._client.scheduler_info()["workers"])

    def run(
        self,
        function: Function,
        requests: Iterable[Any],
        name_of: Callable[[Any], str],
        most: int | None = None,
    ) -> Generator[tuple[Any, Any]]:
        """Perform requests in any order; closing the iterator cancels the others.

        Args:
            function: a function of an importable module.
            requests: arguments of the function; they are pickled.
            name_of: returns the name of a request in Dask's displays.
            most: maximum number of requests that are submitted at a time; None: all.

        Yields:
            A request, and its result or the exception that it ended with.
        """
        from distributed import Event as SharedEvent
        from distributed import as_completed

        name = f"spslam-{uuid4()}"
        stop = SharedEvent(name, client=self._client)
        waiting = iter(requests)
        running: dict[Any, Any] = {}

        def submit(request: Any) -> Any:
            key = f"{name_of(request)}-{name}"
            future = self._client.submit(_on_worker, function, request, name, key=key, pure=False)
            running[future] = request
            return future

        try:
            futures = as_completed(
                [submit(request) for request in islice(waiting, most)], loop=self._client.loop
            )
            for future in futures:
                error = future.exception()
                yield running[future], future.result() if error is None else error
                del running[future]
                for request in islice(waiting, 1):
                    futures.add(submit(request))
        finally:
            stop.set()
            self._client.cancel(list(running), force=True)
            self._client.close()


def _on_worker(function: Function, request: Any, stop: str) -> Any:
    from distributed import Event as SharedEvent

    event, requested = SharedEvent(stop), 0

    def stopped() -> bool:
        nonlocal requested
        requested += 1
        return requested % _ASK_EVERY == 0 and bool(event.is_set())

    return function(request, stopped)
